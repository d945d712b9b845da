"""RNNCORE_TEST_THREADS=n pytest: every call is cut for n threads, however small it is."""

import os

import rnncore as rc
from rnncore import _engine

if count := os.environ.get("RNNCORE_TEST_THREADS"):
    rc.set_num_threads(int(count))
    _engine.set_cost_rule(flops=1, rows=2, products=1, units=4)
