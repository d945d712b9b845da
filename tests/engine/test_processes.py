"""Threads of Python, forked processes, and the choice of instruction set."""

import concurrent.futures
import multiprocessing
import os
import warnings

import numpy as np
import pytest
from support.compare import assert_identical, literally
from support.functions import DTYPES, PATHS, backward, every_dtype, forward, in_new_python, problem, results_of
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


@pytest.mark.parametrize("name", rc.available_isas())
def test_environment_chooses_the_instruction_set(name, tmp_path):
    code = "import rnncore; print(rnncore._engine.get_isa())"
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
    before = _engine.get_isa()
    try:
        for name in names:
            rc.use_isa(name)
            assert _engine.get_isa() == name
        for wrong in ("avx1024", "", None, 1):
            with pytest.raises(ValueError, match=literally(f"name must be one of {names}; got {wrong!r}")):
                rc.use_isa(wrong)
            assert _engine.get_isa() == names[-1]
    finally:
        rc.use_isa(before)


@pytest.mark.parametrize("isa", rc.available_isas())
@every_dtype
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 5), (16, 3, 32), (33, 2, 17), (7, 1, 70), (0, 2, 3), (4, 0, 2)])
def test_time_first(rng, shape, dtype, isa):
    before = _engine.get_isa()
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


# ---- signals --------------------------------------------------------------------------------------------------------

INTERRUPTED = """
import signal
import numpy as np, rnncore as rc
from rnncore import _engine

_engine.set_cost_rule(cores=64, **{rule})
rc.set_num_threads({threads})
T, N, H = 60_000, {N}, 256
layer = rc.GRU(8, H, bidirectional={bidirectional}, seed=0)
weights = [layer.params[name] for name in ("Wx_0", "Wh_0", "b_0")]
x = np.zeros((T, N, 8), "float32")
if {backward}:
    *_, cache = rc.gru_forward(x[:40_000], *weights)
heard = 0

def handler(*_):
    global heard
    heard += 1
    if heard == 2:
        raise KeyboardInterrupt

signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
try:
    if {backward}:
        rc.gru_backward(np.ones((40_000, N, H), "float32"), cache)
    elif {bidirectional}:
        layer(x)
    else:
        rc.gru_forward(x, *weights, training=False)
    print("the call went on to its end")
except KeyboardInterrupt:
    signal.setitimer(signal.ITIMER_REAL, 0)
    h = rc.gru_forward(x[:9], *weights, training=False)[0]  # the engine works as before
    print("heard", h.shape == (9, N, H))
"""


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(
    ("threads", "N", "rule"),
    [(1, 1, {}), (3, 1, {"flops": 1, "products": 1, "units": 1}), (3, 3, {"flops": 1, "rows": 1})],
)
def test_signals_are_heard_during_a_call(tmp_path, threads, N, rule, backward, bidirectional):
    """Python hands a pending signal over once a look: a call that looked only at its end would hear one."""
    if backward and bidirectional:
        pytest.skip("one of the two is enough")
    code = INTERRUPTED.format(threads=threads, N=N, rule=rule, backward=backward, bidirectional=bidirectional)
    result = in_new_python(tmp_path, code)
    assert result.stdout == "heard True\n", result.stderr


# ---- pools ----------------------------------------------------------------------------------------------------------

_POOLS = ["spawn", *(["fork", "forkserver"] if hasattr(os, "fork") else [])]


def _from_threads(method, seeds):
    """The results of a pool of processes in each of two threads, which compute meanwhile."""

    def results(part):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: forking while threads exist
            with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
                jobs = [pool.submit(results_of, seed) for seed in part]
                own = [results_of(seed) for seed in part]
                return own, [job.result(60) for job in jobs]

    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        return list(threads.map(results, (seeds[::2], seeds[1::2])))


@pytest.mark.parametrize("method", _POOLS)
def test_pools_of_processes_inside_threads(method):
    seeds = list(range(8))
    expected = [results_of(seed) for seed in seeds]
    for part, (own, others) in zip((expected[::2], expected[1::2]), _from_threads(method, seeds), strict=True):
        for wanted, here, there in zip(part, own, others, strict=True):
            assert_identical(here, wanted)
            assert_identical(there, wanted)


def test_a_pool_of_loky():
    joblib = pytest.importorskip("joblib")
    seeds = list(range(8))
    with joblib.parallel_config("loky", n_jobs=2):
        found = joblib.Parallel()(joblib.delayed(results_of)(seed) for seed in seeds)
    for seed, results in zip(seeds, found, strict=True):
        assert_identical(results, results_of(seed))
