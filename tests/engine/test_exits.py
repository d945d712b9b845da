"""A process that ends while calls run, or while helpers wait for the next: it does not crash, hang or complain.

RNNCORE_TEST_EXITS=50 repeats each so many times.
"""

import os

import pytest
from support.functions import in_new_python

BUSY = """
import atexit, concurrent.futures, os, sys, threading, time
import numpy as np, rnncore as rc
from rnncore import _engine
_engine.set_cost_rule(flops=1, rows=1, products=1, units=16, cores=64)
layer, frozen, x = rc.LSTM(5, 40, seed=0), rc.GRU(5, 40, seed=0).freeze(), np.ones((400, 6, 5), "f4")

def busy():
    while True:
        y, _, cache = layer.forward(x)
        layer.backward(y, cache)
        frozen(x)

def start_daemons(count=3):
    for _ in range(count):
        threading.Thread(target=busy, daemon=True).start()
    time.sleep(0.05)

"""

EXITS = {
    "after a call": "layer(x)",
    "among daemon threads": "start_daemons()",
    "by sys.exit": "start_daemons(); sys.exit()",
    "by os._exit": "start_daemons(); os._exit(0)",
    "during a long call of a daemon": "x = np.ones((10**6, 1, 5), 'f4'); start_daemons(1)",
    "while a pool works": "pool = concurrent.futures.ThreadPoolExecutor(4); [pool.submit(layer, x) for _ in range(40)]",
    "with a call at exit": "atexit.register(layer, x); start_daemons()",
    "of a child": """
start_daemons()
child = os.fork()
layer(x)
if child == 0:
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
""",
    "of a child of a thread": """
def fork():
    child = os.fork()
    layer(x)
    if child == 0:
        os._exit(0)
    codes.append(os.waitpid(child, 0)[1])

codes = []
start_daemons()
thread = threading.Thread(target=fork)
thread.start()
thread.join()
assert codes == [0]
""",
}


@pytest.mark.parametrize("name", EXITS)
def test_a_process_ends_while_calls_run(tmp_path, name):
    if "os.fork" in EXITS[name] and not hasattr(os, "fork"):
        pytest.skip("no fork here")
    for _ in range(int(os.environ.get("RNNCORE_TEST_EXITS", "2"))):
        result = in_new_python(tmp_path, BUSY + EXITS[name], RNNCORE_NUM_THREADS="4", PYTHONWARNINGS="ignore")
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
