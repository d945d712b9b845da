"""Checks of plain values: what passes, in a plain type, and errors that name the argument."""

import decimal
import fractions
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from support.compare import literally

from rnncore import checks


class Index:
    def __index__(self):
        return 7


@pytest.mark.parametrize("value", [7, np.int8(7), Index(), np.array(7)])
def test_integers(value):
    assert type(checks.integer("n", value, least=7)) is int
    with pytest.raises(ValueError, match=literally("n must be at least 8; got 7")):
        checks.integer("n", value, least=8)
    with pytest.raises(ValueError, match=literally("n must be at most 6; got 7")):
        checks.integer("n", value, least=0, most=6)


@pytest.mark.parametrize("value", [7.0, "7", None, 7j, [7], np.array([7, 8])], ids=str)
def test_what_is_no_integer(value):
    with pytest.raises(TypeError, match="^n must be an integer; got "):
        checks.integer("n", value, least=0)


def test_integers_that_no_size_can_be():
    with pytest.raises(ValueError, match=f"^n must be at most {sys.maxsize}; got "):
        checks.integer("n", 2**63, least=0)
    assert checks.integer("n", 2**63, least=0, most=None) == 2**63
    checks.addressable(["size"], [(2**60 - 1,)])
    wanted = f"size must ask for less than 2**63 bytes; got arrays ({2**60},): {2**63} bytes"
    with pytest.raises(ValueError, match=literally(wanted)):
        checks.addressable(["size"], [(2**60,)])


@pytest.mark.parametrize("rule", [checks.positive, checks.not_negative, checks.finite, checks.share])
@pytest.mark.parametrize("value", [10**400, fractions.Fraction(10**400, 3), decimal.Decimal(1), "1", None, math.nan])
def test_what_is_no_finite_number(rule, value):
    with pytest.raises(ValueError, match="^rate must be "):
        rule("rate", value)


def test_real_numbers():
    assert checks.real("r", 10**400) == math.inf
    assert checks.real("r", -(10**400)) == -math.inf
    assert math.isnan(checks.real("r", np.float32("nan")))
    for value in ("1", None, b"1", decimal.Decimal(1)):
        with pytest.raises(TypeError, match="^r must be a real number; got "):
            checks.real("r", value)


@pytest.mark.parametrize("value", [True, 1, np.True_, 1.0])
def test_flags(value):
    assert checks.flag("on", value) is True


@pytest.mark.parametrize("value", [None, "yes", 2, math.nan, np.array([1, 0]), [1], decimal.Decimal("sNaN")], ids=str)
def test_what_is_no_flag(value):
    with pytest.raises(TypeError, match="^on must be True or False; got "):
        checks.flag("on", value)


def test_seeds():
    rng = np.random.default_rng(0)
    assert checks.generator("seed", rng) is rng
    assert checks.generator("seed", 10**30).random() == np.random.default_rng(10**30).random()
    for value, error in (("a", TypeError), (-1, ValueError), (1.5, TypeError)):
        with pytest.raises(error, match="^seed must be an int >= 0"):
            checks.generator("seed", value)


def test_dtypes():
    assert checks.floating_dtype("dtype", np.float64) == "float64"
    for value in (None, "int8", "nothing", 3, object(), "a\0b"):
        with pytest.raises(ValueError, match="^dtype must be float32 or float64; got "):
            checks.floating_dtype("dtype", value)
    with pytest.raises(TypeError, match=literally("dtype must be a NumPy dtype; got 1.5")):
        checks.dtype("dtype", 1.5)


def test_paths():
    assert checks.path("path", Path("a", "b")) == str(Path("a", "b"))
    for value in (3, None, b"name", True):
        with pytest.raises(TypeError, match="^path must be str or path-like; got "):
            checks.path("path", value)
    for value in ("a\0b", "\ud800"):
        with pytest.raises(ValueError, match="^path must be a name that a file can have; got "):
            checks.path("path", value)


def test_sequences():
    for value in ([1], (1,), "ab"):
        assert checks.sequence("tags", value) is value
    assert checks.sequence("tags", iter([1, 2])) == [1, 2]
    for value in (3, {1, 2}, {"a": 1}, None, np.array(1)):
        with pytest.raises(TypeError, match="^tags must be a sequence"):
            checks.sequence("tags", value)


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ("x must be (T, N); got ()", "calibration must be (T, N); got ()"),
        ("ids in x must lie in [0, D); got 9", "ids in calibration must lie in [0, D); got 9"),
        ("x[3] must be str; x is not", "calibration[3] must be str; x is not"),
        ("Wx must be (D, H); got ()", "Wx must be (D, H); got ()"),
        ("x is wrong", "x is wrong"),
    ],
)
def test_other_names_in_errors(message, wanted):
    with pytest.raises(ValueError, match=literally(wanted)), checks.named(x="calibration"):
        raise ValueError(message)
