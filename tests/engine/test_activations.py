"""tanh, sigmoid and exp of the kernels: errors in units in the last place, and the ends of the range of numbers.

RNNCORE_TEST_ALL_FLOATS=1 pytest tests/engine/test_activations.py tries all float32 and a thousand million float64.
"""

import os
import runpy
from pathlib import Path

import numpy as np
import pytest
from support.isas import OWN
from support.kernels import Kernels
from support.ulp import FUNCTIONS, Errors, has_wider

BENCH = Path(__file__).parents[2] / "bench" / "ulp.py"
ALL = bool(os.environ.get("RNNCORE_TEST_ALL_FLOATS"))
EVERY, SAMPLES = (1, 10**9) if ALL else (4999, 10**6)

#: In units in the last place. exp rounds its last addition, and before it a term of at most 0.42 times its size.
#: sigmoid and tanh round an addition and a division more; tanh near 1 has twice the error of its exp.
BOUNDS = {"tanh": 3, "sigmoid": 3, "exp": 1.25}

DTYPES = ["float32", "float64"]


def numbers(dtype):
    bench = runpy.run_path(str(BENCH))
    return bench["all_float32"](EVERY) if dtype == "float32" else bench["random_float64"](SAMPLES)


def neighbours(points):
    """The 601 numbers from the 300th below to the 300th above each point >= 0; zero and NaN end them."""
    bits = points.view(f"i{points.itemsize}")[:, None]
    return (bits + np.arange(-300, 301, dtype=bits.dtype)).clip(0).view(points.dtype)


def errors_of(function, dtype, arrays):
    if not has_wider(dtype):
        pytest.skip("long double is no wider than double here")
    errors = Errors(function, dtype)
    for x in arrays:
        errors.add(-np.abs(x) if function == "exp" else x)
    return errors


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_errors_in_units_in_the_last_place(function, dtype):
    errors = errors_of(function, dtype, numbers(dtype))
    assert errors.inputs >= min(2**32 // EVERY, SAMPLES)
    for isa, worst in errors.worst.items():
        assert 0.5 < worst.error < BOUNDS[function], (isa, worst)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_neighbours_of_special_numbers(function, dtype):
    """Zeros, subnormal numbers, the largest ones, infinities and NaN, and where functions become constant."""
    info = np.finfo(dtype)
    points = np.array([0, info.tiny, -np.log(info.tiny), 20, 40, info.max, np.inf, np.nan], dtype)
    x = neighbours(points).ravel()
    errors = errors_of(function, dtype, [x, -x])
    for isa, worst in errors.worst.items():
        assert worst.error < BOUNDS[function], (isa, worst)


@pytest.mark.parametrize("isa", OWN)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_rises_where_it_becomes_constant(function, dtype, isa):
    for point in (-np.log(np.finfo(dtype).tiny), 20, 40):
        x = neighbours(np.array([point], dtype)).ravel()
        x = np.concatenate([-x[::-1], [] if function == "exp" else x]).astype(dtype)
        y = x.copy()
        FUNCTIONS[function][0](Kernels(isa, dtype), y)
        assert (np.diff(y) >= 0).all(), point


@pytest.mark.parametrize("isa", OWN)
@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_values(dtype, isa):
    """Signs of zeros count. Subnormal numbers pass through tanh; sigmoid and exp give 0 in place of them."""
    inf, small = np.inf, np.finfo(dtype).smallest_subnormal
    below = np.log(np.finfo(dtype).tiny) - 0.01
    for function, x, wanted in (
        ("tanh", [0, -0.0, small, -3 * small, inf, -inf, 1e4], [0, -0.0, small, -3 * small, 1, -1, 1]),
        ("sigmoid", [0, -0.0, small, inf, -inf, 1e4, below], [0.5, 0.5, 0.5, 1, 0, 1, 0]),
        ("exp", [0, -0.0, -small, -inf, -1e4, below], [1, 1, 1, 0, 0, 0]),
    ):
        got = np.array(x, dtype)
        FUNCTIONS[function][0](Kernels(isa, dtype), got)
        assert got.tobytes() == np.array(wanted, dtype).tobytes(), (function, got)
