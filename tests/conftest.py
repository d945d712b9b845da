"""What all tests share. RNNCORE_TEST_THREADS=n pytest: every call is cut for n threads, however small it is."""

import os

import numpy as np
import pytest
from support.isas import DEFAULT

import rnncore as rc
from rnncore import _engine

if count := os.environ.get("RNNCORE_TEST_THREADS"):
    rc.set_num_threads(int(count))
    _engine.set_cost_rule(flops=1, rows=2, products=1, units=4, cores=64)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def restore_threads():
    before = rc.get_num_threads()
    yield
    rc.set_num_threads(before)
    _engine.set_cost_rule()


@pytest.fixture
def restore_isa():
    yield
    rc.use_isa(DEFAULT)
