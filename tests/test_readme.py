"""The README is true: its block of Python runs and prints what a reader would expect, and it stays a front page."""

import re
from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_block_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (block,) = BLOCKS
    exec(compile(block, "README", "exec"), {})
    assert re.fullmatch(r"original \S+ \S+, replacement \S+ \S+: \S+ times as fast\n", capsys.readouterr().out)


def test_it_is_a_front_page():
    assert len(README.splitlines()) <= 132
    assert all(len(block.splitlines()) <= 15 for block in BLOCKS)
    assert not re.search(r"[A-Z]{3,}_[A-Z]{3,}", re.sub("RNNCORE_[A-Z_]+", "", README)), "a placeholder"
