"""The README is true: every Python block in it runs and prints what a reader would expect."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
PRINTED = [
    "(100, 16, 32) (100, 16, 64) (32, 128)",
    "True",
    "or not to be",
    "['+' '-'] 1.0\n['O' 'O' 'P']\n['un deux', 'deux un']",
]


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block_runs(number, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[number], f"README block {number}", "exec"), {})
    assert PRINTED[number] in capsys.readouterr().out


def test_every_block_has_its_output():
    assert len(BLOCKS) == len(PRINTED)


def test_no_placeholder_is_left():
    assert not re.search(r"[A-Z]{3,}_[A-Z]{3,}", re.sub("RNNCORE_[A-Z_]+", "", README.read_text(encoding="utf-8")))
