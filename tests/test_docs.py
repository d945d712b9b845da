"""The documentation is true: its snippets and commands run, its links resolve, and every public name has an entry."""

import ast
import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rnncore as rc

CHECKOUT = Path(__file__).parent.parent
DOCS = CHECKOUT / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.parts)
FRONT = [CHECKOUT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md")]
#: Libraries that a page needs beyond those of the extra "test".
NEEDS = {"inference/onnx.md": ["onnx"], "inference/pytorch.md": ["torch"]}


def name_of(page):
    return page.relative_to(CHECKOUT).as_posix()


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_session_of_a_page(page, tmp_path, monkeypatch):
    """Its pycon blocks are one session."""
    for library in NEEDS.get(page.relative_to(DOCS).as_posix(), []):
        pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    found = blocks(text, "pycon")
    assert text.count(">>> ") == sum(block.count(">>> ") for block in found)
    session = doctest.DocTestParser().get_doctest("\n".join(found), {}, page.name, str(page), 0)
    assert doctest.DocTestRunner().run(session).failed == 0


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_of_a_page(page, tmp_path):
    """Those that install something run in .ci/run."""
    lines = "".join(blocks(page.read_text(encoding="utf-8"), "sh")).splitlines()
    installing = ("pip ", "sphinx-build ", "pytest bench/", "python bench/")
    script = "\n".join(line for line in lines if not line.startswith(installing))
    if not script.strip():
        return
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = ["bash", "-euc", script]
    options = {"cwd": tmp_path, "env": environment, "timeout": 300}
    result = subprocess.run(command, check=False, capture_output=True, text=True, **options)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("page", [*FRONT, *PAGES], ids=name_of)
def test_links_resolve(page):
    """Those to files: the page or picture is there, or a script in docs/figures draws it."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    drawn = "".join(script.read_text(encoding="utf-8") for script in (DOCS / "figures").glob("*.py"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://|#", target):
            continue
        file = (page.parent / target.partition("#")[0]).resolve()
        assert file.exists() or (file.parent.name == "_figures" and file.name in drawn), target


def test_every_page_is_in_a_table_of_contents():
    listed = set()
    for page in PAGES:
        for tree in blocks(page.read_text(encoding="utf-8"), r"\{toctree\}"):
            listed |= {page.parent / f"{line.strip()}.md" for line in tree.splitlines() if line[:1] not in (":", "")}
    notebooks = {entry for entry in listed if entry.with_suffix(".ipynb").exists()}
    assert listed - notebooks == set(PAGES) - {DOCS / "index.md"}


#: Modules beside rnncore itself whose names are public.
MODULES = [
    *("distributed", "metrics", "plots", "reference", "testing"),
    *(f"compat.{name}" for name in ("coursera", "cs231n", "dinosaurus", "dlfs2", "min_char_rnn")),
    *(f"interop.{name}" for name in ("keras", "onnx", "safetensors", "state_dict", "torch")),
]


def public_names(module):
    """Its __all__, without an import: some modules need a library that is an extra."""
    path = Path(rc.__file__).parent / module.replace(".", "/")
    source = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__":
            return ast.literal_eval(node.value)
    raise AssertionError(f"{module} has no __all__")


def test_every_public_name_is_in_the_reference():
    text = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "api").glob("*.md"))
    listed = {line.strip() for block in blocks(text, r"\{eval-rst\}") for line in block.splitlines()}
    wanted = {f"rnncore.{name}" for name in rc.__all__ if name not in MODULES}
    wanted |= {f"rnncore.{module}.{name}" for module in MODULES for name in public_names(module)}
    assert wanted - {"rnncore.compat.dlfs2.np"} - listed == set()


def test_pages_that_messages_name_are_there():
    titles = {page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ") for page in PAGES}
    source = "".join(file.read_text(encoding="utf-8") for file in (CHECKOUT / "rnncore").rglob("*.py"))
    named = set(re.findall(r"see '([^']+)' in the documentation", source))
    assert len(named) >= 3
    assert named <= titles


def test_tests_that_the_guarantees_name_are_there():
    for path, names in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (DOCS / "guarantees.md").read_text("utf-8")):
        text = (CHECKOUT / path).read_text("utf-8")
        assert not names or f"def {names}(" in text, (path, names)
