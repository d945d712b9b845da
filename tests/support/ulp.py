"""Errors of the activations in units in the last place, on all instruction sets at once."""

from typing import NamedTuple

import numpy as np
from support.isas import OWN
from support.kernels import Kernels

#: Where values are exact to far below a unit in the last place of the dtype.
WIDER = {"float32": np.float64, "float64": np.longdouble}


def has_wider(dtype):
    """Whether this machine computes with enough digits to judge this dtype."""
    return np.finfo(WIDER[dtype]).nmant >= np.finfo(dtype).nmant + 11


def tanh(kernels, x):
    kernels.rnn_forward(1, x.size, x.size, 0, x)


def sigmoid(kernels, x):
    kernels.gru_gates(1, x.size, x.size, 2, np.arange(2, dtype=np.int32), x, None, None)


def exp(kernels, x):
    kernels.exp_row(x.size, 0.0, x)


#: How a kernel replaces an array of x by its values, and the exact values. exp is that of x <= 0, as in a softmax.
FUNCTIONS = {"tanh": (tanh, np.tanh), "sigmoid": (sigmoid, lambda x: 1 / (1 + np.exp(-x))), "exp": (exp, np.exp)}


class Worst(NamedTuple):
    """The largest error, in units in the last place, and where it is."""

    error: float
    x: float
    got: float


class Errors:
    """The worst errors of a function over all arrays that it was given, for each instruction set."""

    def __init__(self, function, dtype):
        self.evaluate, self.exactly = FUNCTIONS[function]
        self.flushes = function != "tanh"
        self.dtype = np.dtype(dtype)
        self.kernels = {isa: Kernels(isa, dtype) for isa in OWN}
        self.worst = dict.fromkeys(OWN, Worst(0.0, 0.0, 0.0))
        self.inputs = 0

    def add(self, x):
        """Compare the values at an array of x.

        NaN must come of NaN only, no value may lie outside [-1, 1], signs must be right, those of zeros too, and what
        would be subnormal must be 0, but in tanh.
        """
        high, low = self._exact(x)
        unit = self._units(high, low)
        is_nan, is_negative = np.isnan(x), np.signbit(high)
        self.inputs += x.size
        for isa, kernels in self.kernels.items():
            got = x.copy()
            self.evaluate(kernels, got)
            assert np.array_equal(np.isnan(got), is_nan), isa
            assert not ((np.signbit(got) != is_negative) & ~is_nan).any(), isa
            assert np.nanmax(np.abs(got), initial=0) <= 1, isa
            error = np.abs((got - high) - low) / unit
            error[is_nan] = 0
            at = error.argmax()
            if error[at] > self.worst[isa].error:
                self.worst[isa] = Worst(float(error[at]), x[at], got[at])

    def _exact(self, x):
        """The exact values as sums of two float64, to the digits of the wider dtype."""
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            exact = self.exactly(x.astype(WIDER[self.dtype.name]))
            if self.flushes:
                exact[exact < np.finfo(self.dtype).tiny] = 0
            high = exact.astype(np.float64)
            return high, (exact - high).astype(np.float64)

    def _units(self, high, low):
        """The distances between numbers of the dtype around ``high + low``, which may be just below a power of two."""
        info = np.finfo(self.dtype)
        bits = np.abs(high).view(np.int64) - (np.signbit(low) ^ np.signbit(high))
        powers = (bits & (0x7FF << 52)).view(np.float64)
        return np.maximum(powers, float(info.tiny)) * float(info.eps)
