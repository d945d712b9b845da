"""Threads: the same bits for any number of them, and nothing that a fork, another caller or a signal upsets."""

import concurrent.futures
import itertools
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from support.compare import assert_equal_bits
from support.machines import RULES
from support.problems import VARIANTS, make_cotangents, make_problem, run

import rnncore as rc
from rnncore import _engine
from rnncore.engine import native

pytestmark = pytest.mark.usefixtures("restore_threads")


def outcome(variant, size, dtype, options):
    rng = np.random.default_rng(0)
    cell, arguments = make_problem(rng, variant, *size, dtype, **options)
    T, N, _, H = size
    return run(rc, cell, arguments, make_cotangents(rng, cell, T, N, H, dtype))


def assert_same_bits(actual, expected, context):
    for name, wanted in expected.items():
        if wanted is not None:
            assert_equal_bits(actual[name], wanted, err_msg=f"{name} {context}")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_same_bits_for_any_number_of_threads(variant, dtype):
    names = ("lengths", "resets", "reverse", "ids", "mask")
    # The last one has more tokens than a chunk of the backward pass, which is one chunk on several threads.
    sizes = [(9, 7, 5, 67), (3, 1, 9, 130), (75, 8, 3, 3)]
    first = list(VARIANTS).index(variant)
    for number, chosen in enumerate(itertools.product([False, True], repeat=5), first):
        size, options = sizes[number % 3], dict(zip(names, chosen, strict=True))
        rc.set_num_threads(1)
        expected = outcome(variant, size, dtype, options)
        for rule, count in itertools.product(RULES, (2, 5)):
            _engine.set_cost_rule(**rule)
            rc.set_num_threads(count)
            assert_same_bits(outcome(variant, size, dtype, options), expected, f"{size} {options} {rule} {count}")
        _engine.set_cost_rule()


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_directions_side_by_side_have_the_same_bits(kind):
    rng = np.random.default_rng(0)
    x, lengths = rng.normal(size=(9, 6, 5)).astype("float32"), [3, 9, 0, 7, 7, 1]
    dy = rng.normal(size=(9, 6, 2 * 20)).astype("float32")

    def everything():
        layer = getattr(rc, kind)(5, 20, num_layers=2, bidirectional=True, seed=0)
        y, state, cache = layer.forward(x, lengths=lengths)
        dx, dstate = layer.backward(dy, cache)
        return [y, *np.atleast_2d(state), dx, *np.atleast_2d(dstate), *layer.grads.values()]

    rc.set_num_threads(1)
    expected = everything()
    for rule, count in itertools.product(RULES, (2, 3, 6)):
        _engine.set_cost_rule(**rule)
        rc.set_num_threads(count)
        for actual, wanted in zip(everything(), expected, strict=True):
            assert_equal_bits(actual, wanted, err_msg=f"{rule} {count}")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dense_layers_and_the_softmax_head_have_the_same_bits(dtype):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(37, 11)).astype(dtype)
    dy = rng.normal(size=(37, 200)).astype(dtype)
    targets, weights = rng.integers(200, size=37), rng.random(37)

    def everything():
        dense = rc.Dense(11, 200, dtype=dtype, seed=0)
        y, cache = dense.forward(x)
        dx = dense.backward(dy, cache)
        head = native.softmax_head(x, *dense.params.values(), targets, weights, *dense.grads.values())
        return [y, dx, *head, *dense.grads.values()]

    rc.set_num_threads(1)
    expected = everything()
    _engine.set_cost_rule(flops=1, cores=64)
    for count in (2, 3, 7):
        rc.set_num_threads(count)
        for actual, wanted in zip(everything(), expected, strict=True):
            assert_equal_bits(actual, wanted)


def test_many_callers_at_once():
    _engine.set_cost_rule(flops=1, rows=1, cores=64)
    rc.set_num_threads(3)
    options = {"lengths": True}
    expected = outcome("lstm-plain-current-tanh", (20, 6, 5, 33), "float32", options)
    failures = []

    def work():
        for _ in range(50):
            try:
                assert_same_bits(outcome("lstm-plain-current-tanh", (20, 6, 5, 33), "float32", options), expected, "")
            except AssertionError as error:
                failures.append(error)

    callers = [threading.Thread(target=work) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not failures


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_no_more_threads_than_cores():
    """Calls of several Python threads share the cores; the number of threads that a call may use adds none."""
    code = """
import os, threading, time
import numpy as np
import rnncore as rc
from rnncore import _engine
CORES = 3
_engine.set_cost_rule(flops=1, rows=1, cores=CORES)
rc.set_num_threads(8)
lstm, x = rc.LSTM(5, 40, seed=0), np.ones((60, 16, 5), "f4")
before = len(os.listdir("/proc/self/task"))
lstm(x)
assert len(os.listdir("/proc/self/task")) == before + CORES - 1
callers = [threading.Thread(target=lambda: [lstm(x) for _ in range(30)]) for _ in range(6)]
for caller in callers:
    caller.start()
for caller in callers:
    caller.join()
for _ in range(1000):  # the callers' threads end a moment after they are joined
    made = len(os.listdir("/proc/self/task")) - before
    if made == CORES - 1:
        break
    time.sleep(0.01)
assert made == CORES - 1, made
"""
    subprocess.run([sys.executable, "-P", "-c", code], check=True, timeout=120)


def test_many_more_threads_than_cores():
    """Helpers come late, are put aside in the middle of a piece, and rest; the caller takes their pieces."""
    rng = np.random.default_rng(0)
    gru, x = rc.GRU(5, 96, seed=0, bidirectional=True), rng.normal(size=(120, 5, 5)).astype("float32")
    rc.set_num_threads(1)
    expected = gru(x)[0]
    rc.set_num_threads(40)
    for rule in RULES:
        _engine.set_cost_rule(**rule)
        for _ in range(10):
            assert_equal_bits(gru(x)[0], expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_after_fork_has_threads_of_its_own():
    """In a process of its own: pytest's has threads that a fork warns of."""
    code = """
import os, sys, threading
import numpy as np
import rnncore as rc
from rnncore import _engine
_engine.set_cost_rule(flops=1, rows=1, cores=64)
rc.set_num_threads(3)
lstm = rc.LSTM(5, 40, seed=0)
x = np.random.default_rng(0).normal(size=(30, 6, 5)).astype("float32")
expected = lstm(x)[0]
stop = False
def busy():
    while not stop:
        lstm(x)
caller = threading.Thread(target=busy)
caller.start()
children = []
for _ in range(8):  # while another thread's call is under way
    child = os.fork()
    if child == 0:
        same = all((lstm(x)[0] == expected).all() for _ in range(20))
        os._exit(0 if same else 1)
    children.append(child)
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
stop = True
caller.join()
assert (lstm(x)[0] == expected).all()
assert codes == [0] * 8, codes
"""
    subprocess.run([sys.executable, "-P", "-W", "ignore", "-c", code], check=True, timeout=120)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the signal masks of threads from /proc")
def test_signals_are_for_the_callers_threads():
    """Every other thread of the process blocks them."""
    code = """
import os, signal
import numpy as np
import rnncore as rc
from rnncore import _engine
before = set(os.listdir("/proc/self/task"))  # with those of BLAS
_engine.set_cost_rule(flops=1, rows=1, cores=64)
rc.set_num_threads(3)
rc.LSTM(5, 40, seed=0)(np.ones((30, 6, 5), "f4"))
made = set(os.listdir("/proc/self/task")) - before
assert len(made) == 2, made
for thread in made:
    with open(f"/proc/self/task/{thread}/status") as file:
        (blocked,) = (int(line.split()[1], 16) for line in file if line.startswith("SigBlk"))
    for number in (signal.SIGINT, signal.SIGALRM, signal.SIGCHLD):
        assert blocked >> (number - 1) & 1, (thread, number)
"""
    subprocess.run([sys.executable, "-P", "-c", code], check=True, timeout=60)


def test_threads_sleep_between_calls():
    _engine.set_cost_rule(flops=1, rows=1, cores=64)
    rc.set_num_threads(3)
    outcome("lstm-plain-current-tanh", (20, 6, 5, 33), "float32", {})
    busy = sum(os.times()[:2])
    threading.Event().wait(0.5)
    assert sum(os.times()[:2]) - busy < 0.25


def test_number_of_threads_is_checked():
    rc.set_num_threads(np.int64(2))
    assert rc.get_num_threads() == 2
    rc.set_num_threads(10**6)
    assert rc.get_num_threads() == 64
    with pytest.raises(ValueError, match="n must be at least 1; got 0"):
        rc.set_num_threads(0)
    for wrong in (1.5, "2", None):
        with pytest.raises(TypeError, match="n must be an integer"):
            rc.set_num_threads(wrong)


def environment(value):
    code = "import rnncore; print(rnncore.get_num_threads())"
    return subprocess.run(
        [sys.executable, "-P", "-c", code],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "RNNCORE_NUM_THREADS": value},
    )


def test_environment_variable():
    assert environment("3").stdout.strip() == "3"
    for wrong in ("0", "many", ""):
        assert "environment variable RNNCORE_NUM_THREADS" in environment(wrong).stderr


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="asks Linux for the usable cores")
def test_default_is_the_cores_that_the_process_may_use():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    code += "import rnncore; print(rnncore.get_num_threads())"
    clean = {name: value for name, value in os.environ.items() if name != "RNNCORE_NUM_THREADS"}
    command = [sys.executable, "-P", "-c", code]
    result = subprocess.run(command, check=False, capture_output=True, text=True, env=clean)
    assert result.stdout.strip() == "1", result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space to stop the making of threads")
def test_fewer_threads_than_wanted():
    """A plan for the team that there is, which may need fewer threads than it has; the others touch nothing."""
    code = """
import os, resource
import numpy as np
import rnncore as rc
from rnncore import _engine
from rnncore.engine import calls, cells
rng = np.random.default_rng(0)
names, shapes = ("x", "Wx", "Wh", "b"), [(9, 8, 5), (5, 256), (64, 256), (256,)]
arguments = {name: (0.3 * rng.normal(size=s)).astype("f4") for name, s in zip(names, shapes)}
both = [arguments | {"training": False, "reverse": reverse} for reverse in (False, True)]
rc.set_num_threads(1)
expected = [h for h, _, _ in calls.forward_side_by_side(cells.LSTM.variant(), both)]
_engine.set_cost_rule(flops=1, rows=4, products=1, units=32, cores=64)
before = len(os.listdir("/proc/self/task"))
with open("/proc/self/statm") as file:
    size = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (EXTRA << 20),) * 2)
for count in (4, 9, 32):
    rc.set_num_threads(count)
    for _ in range(20):
        first, second = (h for h, _, _ in calls.forward_side_by_side(cells.LSTM.variant(), both))
        assert (first == expected[0]).all() and (second == expected[1]).all()
        second[...] = 0
        assert (rc.lstm_forward(**both[0])[0] == expected[0]).all()
        assert not second.any()  # the call of before is over
print(len(os.listdir("/proc/self/task")) - before)
"""
    made = set()
    for extra in (4, 12, 20, 30):  # a thread takes 8 MB
        command = [sys.executable, "-P", "-c", code.replace("EXTRA", str(extra))]
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        result = subprocess.run(command, check=True, timeout=120, env=environment, capture_output=True, text=True)
        made.add(int(result.stdout))
    assert len(made) > 1, made  # or else no team was cut short


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="counts the threads of the process in /proc")
@pytest.mark.parametrize(
    "call",
    [
        "rc.ctc_loss(np.zeros((4, 8, 3)), [[1]] * 8)",
        "rc.Attention(4, 3, seed=0)(np.zeros((4, 8, 4)), np.zeros((5, 8, 3)))",
        "rc.Dense(4, 3, seed=0)(np.zeros((99, 4)))",
        "rc.rnn_forward(np.zeros((4, 8, 4)), np.zeros((4, 3)), np.zeros((3, 3)), np.zeros(3), training=False)",
    ],
)
def test_calls_that_find_no_core_free_give_theirs_back(call):
    code = f"""
import os
import numpy as np
import rnncore as rc
from rnncore import _engine
rc.set_num_threads(4)
_engine.set_cost_rule(flops=1, rows=1, cores=1)
for _ in range(20):
    {call}
_engine.set_cost_rule(flops=1, rows=1, cores=4)
before = len(os.listdir("/proc/self/task"))
{call}
print(len(os.listdir("/proc/self/task")) - before)
"""
    result = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert result.stdout == "3\n", result.stderr


def test_threads_may_share_a_layer():
    """Calls, and forward and backward passes through caches of their own."""
    _engine.set_cost_rule(flops=1, rows=1, cores=64)
    rc.set_num_threads(3)
    layer = rc.GRU(5, 33, num_layers=2, bidirectional=True, seed=0)
    frozen = layer.freeze()

    def work(seed):
        x = np.random.default_rng(seed).normal(size=(9 + seed % 4, 6, 5)).astype("float32")
        h, state, cache = layer.forward(x)
        return h, state, layer(x)[0], frozen(x)[0], frozen(x, lengths=[len(x), 3, 0, 1, 5, 2])[0], cache

    expected = [work(seed) for seed in range(30)]
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        actual = list(pool.map(work, range(30)))
    for found, wanted in zip(actual, expected, strict=True):
        for here, there in zip(found[:-1], wanted[:-1], strict=True):
            assert_equal_bits(here, there)

    def gradients(caches):
        """Of one layer all add to the same arrays: each thread takes its turn."""
        layer.zero_grad()
        for h, *_, cache in caches:
            layer.backward(h, cache)
        return {name: grad.copy() for name, grad in layer.grads.items()}

    assert_same_bits(gradients(actual), gradients(expected), "")


OWN_SETS = [name for name in rc.available_isas() if name != "blas"]


def test_settings_change_while_calls_run(restore_isa):
    """A call takes one instruction set from its start to its end, and what was packed stays with its own."""
    rng = np.random.default_rng(0)
    _engine.set_cost_rule(flops=1, rows=2, products=1, units=16, cores=64)
    x, rows = rng.normal(size=(24, 6, 5)).astype("float32"), rng.normal(size=(200, 64)).astype("float32")
    weights = [(rng.normal(size=size) / 8).astype("float32") for size in ((5, 256), (64, 256), (256,))]
    dense, lstm = rc.Dense(64, 300, seed=0), rc.LSTM(5, 64, num_layers=2, bidirectional=True, seed=0)
    live = [lambda: rc.lstm_forward(x, *weights)[0], lambda: rc.lstm_forward(x[:2], *weights)[0], lambda: dense(rows)]
    stable = []
    expected = [[] for _ in live]
    for name in OWN_SETS:
        rc.use_isa(name)
        for call, results in zip(live, expected, strict=True):
            results.append(call())
        for precision in (None, "bfloat16", "int8"):
            frozen = lstm.freeze() if precision is None else lstm.freeze().quantize(precision)
            stable.append((frozen, frozen(x)[0]))
    layer = rc.GRU(5, 64, seed=0).freeze()
    rc.use_isa(OWN_SETS[0])
    stream, h = layer.stream(6), layer(x)[0]
    failures, stop = [], threading.Event()

    def work(seed):
        draws = np.random.default_rng(seed)
        while not stop.is_set():
            k, m = draws.integers(len(live)), draws.integers(len(stable))
            found = live[k]()
            if not any((found == wanted).all() for wanted in expected[k]):
                failures.append(k)
            frozen, wanted = stable[m]
            if not (frozen(x)[0] == wanted).all():
                failures.append(frozen)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(work, seed) for seed in range(4)]
        for _ in range(300):
            rc.use_isa(OWN_SETS[rng.integers(len(OWN_SETS))])
            rc.set_num_threads(int(rng.integers(1, 6)))
            stream.reset()
            if not all((stream.step(x[t]) == h[t]).all() for t in range(len(x))):
                failures.append(stream)
        stop.set()
        for job in jobs:
            job.result()
    assert not failures


@pytest.mark.skipif("blas" not in rc.available_isas(), reason="needs SciPy")
def test_blas_comes_and_goes_while_calls_run(restore_isa):
    """It packs nothing, and reads nothing that another set has packed: only its order of summation differs."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(24, 6, 5)).astype("float32")
    layer = rc.LSTM(5, 64, num_layers=2, seed=0)
    expected, failures, stop = layer(x)[0], [], threading.Event()
    frozen = []
    for name in rc.available_isas():
        rc.use_isa(name)
        frozen.append(layer.freeze())

    def work():
        while not stop.is_set():
            for found in (layer(x)[0], *(other(x)[0] for other in frozen)):
                if not np.allclose(found, expected, rtol=0, atol=2e-5):
                    failures.append(found)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(work) for _ in range(4)]
        for _ in range(300):
            rc.use_isa(rc.available_isas()[rng.integers(len(rc.available_isas()))])
            layer(x)
        stop.set()
        for job in jobs:
            job.result()
    assert not failures
