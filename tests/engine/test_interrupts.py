"""Ctrl-C and other signals during native calls: heard in the middle of each, and nothing is left behind."""

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
