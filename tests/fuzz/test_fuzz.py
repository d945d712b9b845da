"""Everything public is called with hostile arguments: no crash, no hang, and errors that name the argument."""

import contextlib
import random

import pytest

from fuzz import run, surface
from fuzz.calls import Fuzzer

CALLS = 2000


def test_a_few_thousand_calls(tmp_path):
    counts, found = run.run(seed=3, calls=CALLS, directory=tmp_path)
    assert counts["calls"] == CALLS
    assert counts["returned"] > CALLS / 4
    assert not found, "\n".join(f"--seed 3 --only {note['index']}: {note['name']} {note['found']}" for note in found)


def test_every_public_callable_has_a_valid_call(tmp_path, request):
    """A new function needs a recipe, or a place in the list of what is not called."""
    pytest.importorskip("matplotlib")
    fuzzer = Fuzzer(0, tmp_path)
    request.addfinalizer(fuzzer.out.close)
    for name in fuzzer.names:
        with contextlib.redirect_stdout(fuzzer.out), contextlib.redirect_stderr(fuzzer.out):
            outcome = fuzzer.made(name, random.Random(0), is_hostile=False).run()
        assert not outcome.findings, (name, outcome)


def test_what_is_not_called_is_public():
    names = {target.name.removeprefix("rnncore.") for target in surface.targets().values()}
    names |= {target.attribute for target in surface.targets().values()}
    assert set(surface.NOT_CALLED) - names - set(surface.RESULTS) == set()
