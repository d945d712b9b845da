"""Threads of Python, forked processes, and the choice of instruction set."""

import concurrent.futures
import multiprocessing
import os
import warnings

import numpy as np
import pytest
from support.compare import assert_identical, literally
from support.functions import DTYPES, PATHS, backward, every_dtype, forward, in_new_python, problem
from support.problems import run

import rnncore as rc
from rnncore import _engine
from rnncore.engine import native


def mixed_problems(rng):
    problems = []
    for variant in PATHS:
        for dtype in DTYPES:
            options = {"lengths": len(problems) % 2 == 0, "reverse": len(problems) % 3 == 0}
            problems.append(problem(rng, variant, dtype, T=12, N=9, D=20, H=40, **options))
    return problems


def test_python_threads_may_call_at_once(rng):
    problems = mixed_problems(rng)
    expected = [run(rc, *p) for p in problems]
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        actual = list(pool.map(lambda p: run(rc, *p), problems * 6))
    for k, results in enumerate(actual):
        assert_identical(results, expected[k % len(problems)])


def test_one_cache_serves_many_threads(rng):
    cell, arguments, cotangents = problem(rng, "lstm-peephole-current-tanh", T=12, N=9, D=20, H=40, lengths=True)
    _, _, cache = forward(cell, arguments)
    expected = backward(cell, cache, cotangents)._asdict()
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        for results in pool.map(lambda _: backward(cell, cache, cotangents)._asdict(), range(60)):
            assert_identical(results, expected)


def _send_results(connection, problems):
    connection.send([run(rc, *p) for p in problems])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
def test_a_forked_child_computes_the_same(rng):
    problems = mixed_problems(rng)
    expected = [run(rc, *p) for p in problems]
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_send_results, args=(sender, problems))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: forking while threads exist
        child.start()
    try:
        sender.close()
        assert receiver.poll(60), "the child hangs"
        results = receiver.recv()
    finally:
        child.kill()
        child.join()
    for got, wanted in zip(results, expected, strict=True):
        assert_identical(got, wanted)
    for p, wanted in zip(problems, expected, strict=True):  # and so does the parent, still
        assert_identical(run(rc, *p), wanted)


@pytest.mark.parametrize("name", _engine.available_isas())
def test_environment_chooses_the_instruction_set(name, tmp_path):
    code = "import rnncore; print(rnncore._engine.current_isa())"
    result = in_new_python(tmp_path, code, RNNCORE_ISA=name)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == name


@pytest.mark.parametrize("name", ["avx1024", "", "AVX2", "plain "])
def test_environment_with_an_unknown_instruction_set_fails_loudly(name, tmp_path):
    result = in_new_python(tmp_path, "import rnncore", RNNCORE_ISA=name)
    assert result.returncode != 0
    message = f"environment variable RNNCORE_ISA: name must be one of {rc.available_isas()}; got {name!r}"
    assert message in result.stderr


def test_use_isa():
    names = rc.available_isas()
    assert names[0] == "plain"
    before = _engine.current_isa()
    try:
        for name in names:
            rc.use_isa(name)
            assert _engine.current_isa() == name
        for wrong in ("avx1024", "", None, 1):
            with pytest.raises(ValueError, match=literally(f"name must be one of {names}; got {wrong!r}")):
                rc.use_isa(wrong)
            assert _engine.current_isa() == names[-1]
    finally:
        rc.use_isa(before)


@pytest.mark.parametrize("isa", rc.available_isas())
@every_dtype
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 5), (16, 3, 32), (33, 2, 17), (7, 1, 70), (0, 2, 3), (4, 0, 2)])
def test_time_first(rng, shape, dtype, isa):
    before = _engine.current_isa()
    rc.use_isa(isa)
    try:
        array = rng.normal(size=shape).astype(dtype)
        for given in (array, array[:, ::-1], np.asfortranarray(array), array.astype(array.dtype.newbyteorder("S"))):
            found = native.time_first(given)
            np.testing.assert_array_equal(found, given.transpose(2, 1, 0))
            assert found.dtype == dtype
            assert found.flags.c_contiguous
            assert not np.may_share_memory(found, given)
    finally:
        rc.use_isa(before)
