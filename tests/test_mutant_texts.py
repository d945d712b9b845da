"""The mutants of tests/mutants fit the code as it is: whoever changes a line that one breaks is told at once."""

from pathlib import Path

import pytest
from mutants import native, python

ROOT = Path(__file__).parents[1]
MUTANTS = [*native.MUTANTS.items(), *python.MUTANTS.items()]


@pytest.mark.parametrize(("name", "mutant"), MUTANTS, ids=[name for name, _ in MUTANTS])
def test_mutant_fits_the_code(name, mutant):
    file, correct, broken, *tests = mutant
    text = (ROOT / file).read_text(encoding="utf-8")
    assert text.count(correct) == 1, f"{file} must hold exactly one {correct!r}"
    broken_text = text.replace(correct, broken)
    assert broken_text != text
    if file.endswith(".py"):
        compile(broken_text, file, "exec")
    for test in tests:
        path, _, node = test.partition("::")
        assert f"def {node.partition('[')[0]}" in (ROOT / "tests" / path).read_text(encoding="utf-8"), test


def test_names_are_distinct():
    assert len(native.MUTANTS.keys() | python.MUTANTS.keys()) == len(MUTANTS)
