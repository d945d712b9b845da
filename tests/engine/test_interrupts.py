"""Ctrl-C and other signals during native calls: heard in the middle of each, and nothing is left behind."""

import sys

import pytest
from support.functions import in_new_python
from support.long_calls import LONG_CALLS

IN_THE_MIDDLE = """
import signal, time
import numpy as np, rnncore as rc
from rnncore import _engine
from support.long_calls import LONG_CALLS

if {threads} > 1:
    _engine.set_cost_rule(flops=1, rows=1, products=1, units=64, cores=64)
rc.set_num_threads({threads})
call = LONG_CALLS["{name}"]()
heard = []

def handler(*_):
    heard.append(time.monotonic())
    if len(heard) == 3:
        raise KeyboardInterrupt

signal.signal(signal.SIGALRM, handler)
begin = time.monotonic()
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
try:
    call()
    print("the call went on to its end")
except KeyboardInterrupt:
    signal.setitimer(signal.ITIMER_REAL, 0)
    longest = np.diff([begin, *heard, time.monotonic()]).max()
    rng = np.random.default_rng(0)
    layer, x = rc.LSTM(4, 32, seed=0), rng.normal(size=(9, 8, 4)).astype("float32")
    (together, _), alone = layer(x), [layer(x[:, n:n + 1])[0] for n in range(8)]
    print("heard", (together == np.concatenate(alone, 1)).all(), longest < 5 or longest)
"""


ON_THREADS = ["forward", "wide_step", "wide_step_backward", "dense_backward", "ctc", "additive_attention"]


@pytest.mark.parametrize(
    ("name", "threads"), [*((name, 1) for name in LONG_CALLS), *((name, 3) for name in ON_THREADS)]
)
def test_signals_are_heard_in_the_middle_of_a_call(tmp_path, name, threads):
    """Python hands a pending signal over once a look: a call that looked only at its end would hear one.

    The promise is a second on an idle machine; a busy one gets five.
    """
    result = in_new_python(tmp_path, IN_THE_MIDDLE.format(name=name, threads=threads))
    assert result.stdout == "heard True True\n", result.stdout + result.stderr


IN_A_HANDLER = """
import signal
import numpy as np, rnncore as rc

layer, x = rc.LSTM(4, 32, seed=0), np.ones((9, 8, 4), "float32")
expected, found, smallest = layer(x)[0], [], [5e-324]

def handler(*_):
    found.append((smallest[0] * 1.0 > 0, (layer(x)[0] == expected).all()))

signal.signal(signal.SIGALRM, handler)
rc.set_num_threads({threads})
long, steps = rc.LSTM(4, 128, seed=0, bidirectional=True), np.random.default_rng(0).random((100_000, 1, 4), "float32")
h = long(steps)[0]
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
again = long(steps)[0]
signal.setitimer(signal.ITIMER_REAL, 0)
print(len(found) > 1, np.array(found).all(), (again == h).all())
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_a_handler_may_call_and_sees_ordinary_arithmetic(tmp_path, threads):
    """It runs in the middle of a call, which counts subnormal numbers as zero; the call goes on."""
    result = in_new_python(tmp_path, IN_A_HANDLER.format(threads=threads))
    assert result.stdout == "True True True\n", result.stdout + result.stderr


AGAIN_AND_AGAIN = """
import resource, signal
import numpy as np, rnncore as rc
from rnncore import _engine

_engine.set_cost_rule(flops=1, rows=1, products=1, units=64, cores=64)
rc.set_num_threads(3)
rng = np.random.default_rng(0)
dense, rows = rc.Dense(64, 30_000, seed=0), rng.random((800, 64), "float32")
lstm, x = rc.LSTM(8, 128, seed=0), rng.random((40_000, 4, 8), "float32")
attention, memory = rc.Attention(32, 32, "additive", seed=0), rng.random((5000, 2, 32), "float32")
logits, labels = rng.random((20_000, 2, 30), "float32"), [rng.integers(1, 30, size=50)] * 2
calls = [lambda: dense(rows), lambda: lstm.forward(x), lambda: attention(memory[:400], memory),
         lambda: rc.ctc_loss(logits, labels)]

def handler(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, handler)
interrupted, sizes = 0, []
for k in range(60):
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05 + 0.1 * rng.random())
        while True:
            calls[k % len(calls)]()
    except KeyboardInterrupt:
        interrupted += 1
    with open("/proc/self/statm") as file:
        sizes.append(int(file.read().split()[1]) * resource.getpagesize() >> 20)
print(interrupted, max(sizes[40:]) - max(sizes[20:40]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of the process from /proc")
def test_interrupted_calls_lose_no_memory(tmp_path):
    """A lost block of each of the last twenty would be hundreds of megabytes."""
    result = in_new_python(tmp_path, AGAIN_AND_AGAIN)
    interrupted, growth = map(int, result.stdout.split())
    assert interrupted == 60
    assert growth < 100, result.stdout


BETWEEN_PARAMETERS = """
import signal
import numpy as np, rnncore as rc

before = {f"W{k}": np.full(100_000, k + 1, "float32") for k in range(30)}
grads = {name: np.full(100_000, 0.5, "float32") for name in before}

def stepped():
    params = {name: array.copy() for name, array in before.items()}
    return params, rc.Adam(params)

after, optimizer = stepped()
optimizer.step(grads)

def handler(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, handler)
rng, interrupted, whole = np.random.default_rng(0), 0, True
for _ in range(20):
    params, optimizer = stepped()
    try:
        signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.0005, 0.005))
        optimizer.step(grads)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        interrupted += 1
    for name, param in params.items():
        whole &= bool((param == before[name]).all() or (param == after[name]).all())
print(interrupted > 0, whole)
"""


def test_an_interrupted_optimizer_leaves_each_parameter_whole(tmp_path):
    result = in_new_python(tmp_path, BETWEEN_PARAMETERS)
    assert result.stdout == "True True\n", result.stdout + result.stderr
