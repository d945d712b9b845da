"""README and docs are true: every block of Python in them runs and prints what a reader would expect."""

import doctest
import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
PAGES = sorted((README.parent / "docs").glob("*.md"))
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_of_the_docs(page):
    """Its pycon blocks are one session."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"```pycon\n(.*?)```", text, re.DOTALL)
    assert text.count(">>> ") == sum(block.count(">>> ") for block in blocks) > 0
    session = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, page.name, str(page), 0)
    assert doctest.DocTestRunner().run(session).failed == 0


def test_the_readme_links_to_every_page():
    linked = set(re.findall(r"\]\((docs/[^)#]+)\)", README.read_text(encoding="utf-8")))
    assert linked == {f"docs/{page.name}" for page in PAGES}


def test_no_placeholder_is_left():
    assert not re.search(r"[A-Z]{3,}_[A-Z]{3,}", re.sub("RNNCORE_[A-Z_]+", "", README.read_text(encoding="utf-8")))
