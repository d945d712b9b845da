"""How near a result must be, and how an error must read."""

import re

import numpy as np
from support.isas import has_equal_bits

# Relative to the largest value of the array compared, or to 1, the size of the inputs and cotangents, where a sum of
# many such terms happens to cancel. float64: the engine sums in another order and its exp is good to
# a few units in the last place, 1e-15 a step, with room for a hundred steps of growth. float32: the same at 1e-7.
TOLERANCE = {"float64": 1e-10, "float32": 2e-5}


def assert_same(actual, expected, tolerance, context=""):
    """Compare two dicts of arrays: same keys, shapes, and values to a tolerance relative to scale."""
    assert actual.keys() == expected.keys(), (actual.keys(), expected.keys())
    for name, wanted in expected.items():
        got = actual[name]
        if wanted is None or got is None:
            assert got is wanted, f"{name} {context}: {got} is not {wanted}"
            continue
        scale = np.abs(wanted).max(initial=1)
        np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * scale, err_msg=f"{name} {context}")


def assert_near(got, wanted, dtype):
    """Arrays of this dtype and of the shapes wanted, within the tolerance of the dtype relative to their scale."""
    for a, b in zip(got, wanted, strict=True):
        assert a.dtype == dtype
        assert a.shape == b.shape
        assert np.abs(a - b).max(initial=0) <= TOLERANCE[dtype] * max(1, np.abs(b).max(initial=0))


def assert_equal_bits(got, wanted, err_msg=""):
    """The same bits, NaN equal to NaN; where no such promise holds, as near as results must be to the reference."""
    if wanted is None or has_equal_bits():
        np.testing.assert_array_equal(got, wanted, err_msg=err_msg)
        return
    got, wanted = np.asarray(got), np.asarray(wanted)
    assert got.shape == wanted.shape, err_msg
    if wanted.size:
        tolerance = TOLERANCE.get(str(wanted.dtype), 0) * np.nanmax(np.abs(wanted), initial=1)
        np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance, err_msg=err_msg)


def assert_identical(actual, expected):
    """Two dicts of arrays with the same bits; NaN equals NaN."""
    assert actual.keys() == expected.keys()
    for name, wanted in expected.items():
        if wanted is None:
            assert actual[name] is None, name
        else:
            assert actual[name].dtype == wanted.dtype, name
            assert_equal_bits(actual[name], wanted, err_msg=name)


def literally(text):
    """The regular expression that matches this text and no more."""
    return f"^{re.escape(text)}$"
