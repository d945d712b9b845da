"""The kernels themselves, called from Python: a mirror of kernels.h and cells.h."""

import ctypes
from ctypes import c_double, c_int, c_ssize_t, c_void_p

import numpy as np

from rnncore import _engine

#: kernel_table in order: the name of each function, what it returns and what it takes. P is an array, S a size.
P, S, INT, DOUBLE = c_void_p, c_ssize_t, c_int, c_double
TABLE = {
    "pack": (None, S, S, P, S, S, P),
    "transpose": (None, S, S, P, S, P, S),
    "multiply_packed": (None, S, S, S, P, S, P, P, S, P, S),
    "pack_bfloat16": (None, S, S, P, S, P),
    "multiply_bfloat16": (None, S, S, S, P, S, P, P, S, P, S),
    "gather_bfloat16": (None, S, S, S, P, P, P, P, S),
    "pack_int8": (None, S, S, P, S, P, P),
    "quantize_rows": (None, S, S, P, S, DOUBLE, P, P),
    "multiply_int8": (None, S, S, S, P, P, P, P, S, P, S),
    "gather_int8": (None, S, S, S, P, P, P, P, S),
    "multiply": (None, S, S, S, P, S, P, S, S, P, S, P, S),
    "weight_gradients": (None, S, S, P, S, P, INT, P, P),
    "weight_gradients_work": (S, S, S, S),
    "gather_rows": (None, S, S, P, P, S, P, P, S),
    "scatter_add": (None, S, S, P, S, P, S, P, S),
    "column_sums": (None, S, S, P, S, P),
    "product_sums": (None, S, S, P, S, P, S, P),
    "add": (None, S, S, P, S, P, S),
    "cells": None,
    "exp_row": (DOUBLE, S, DOUBLE, P),
    "softmax_cross_entropy": (None, S, S, P, P, P, P),
    "additive_scores": (None, S, S, S, P, S, P, S, P, P, S),
    "additive_backward": (None, S, S, S, P, S, P, S, P, P, S, P, S, P, S, P),
    "softmax_rows": (None, S, S, P, S),
    "softmax_rows_backward": (None, S, S, P, S, P, S),
    "ctc": (DOUBLE, S, S, P, S, S, P, S, DOUBLE, P, P),
    "crf": (DOUBLE, S, S, P, S, P, P, S, DOUBLE, P, P, P),
    "viterbi": (None, S, S, P, S, P, P, S, P),
    "optimizer_step": (None, INT, S, P, P, P, P, P),
    "square_sum": (DOUBLE, S, P),
    "sum": (DOUBLE, S, P),
}

#: cell_kernels in order; after n, units, H come the options as integers, then the arrays.
CELLS = {
    "rnn_forward": (INT, P),
    "rnn_backward": (INT, P, P, P),
    "lstm_forward": (INT, INT, P, P, P, P, P, P),
    "lstm_backward": (INT, INT, P, P, P, P, P, P, P, P),
    "gru_gates": (INT, P, P, P, P),
    "gru_update": (INT, INT, P, P, P, P, P),
    "gru_update_backward": (INT, INT, P, P, P, P, P, P, P),
    "gru_reset_backward": (P, P, P, P, P, P, P),
    "mingru_forward": (INT, P, P, P, P),
    "mingru_backward": (INT, P, P, P, P, P),
}

LARGEST_PANEL = 64


class WeightGradient(ctypes.Structure):
    """weight_gradient"""

    _fields_ = (("adds", INT), ("m", S), ("M", S), ("A", P), ("lda", S), ("C", P), ("ldc", S))


def pointer(argument):
    """The address of an array's first element; anything else as it is."""
    return argument.ctypes.data if isinstance(argument, np.ndarray) else argument


class Kernels:
    """The functions of one instruction set for one dtype, as attributes that take arrays, sizes and None."""

    def __init__(self, isa, dtype):
        self.dtype = np.dtype(dtype)
        get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
        get_pointer.restype, get_pointer.argtypes = P, (ctypes.py_object, ctypes.c_char_p)
        table = get_pointer(_engine.kernels_of(isa, self.dtype == np.float64), b"rnncore.kernel_table")
        for name, address in zip(TABLE, (P * len(TABLE)).from_address(table), strict=True):
            if name == "cells":
                for cell, function in zip(CELLS, (P * len(CELLS)).from_address(address), strict=True):
                    setattr(self, cell, self._function(function, None, S, S, S, *CELLS[cell]))
            else:
                setattr(self, name, self._function(address, *TABLE[name]))

    @staticmethod
    def _function(address, result, *arguments):
        function = ctypes.CFUNCTYPE(result, *arguments)(address)
        return lambda *given: function(*map(pointer, given))

    def packed(self, B):
        """B (K, M) as `pack` packs it."""
        K, M = B.shape
        size = K * (-(-M // LARGEST_PANEL) * LARGEST_PANEL)
        room = np.full(size + LARGEST_PANEL, np.nan, self.dtype)
        row, column = (stride // B.itemsize for stride in B.strides)
        self.pack(K, M, B, row, column, room)
        assert np.isnan(room[size:]).all(), "written outside"
        return room


class Guarded:
    """An array (rows, columns) whose rows lie further apart, all around it a value that must stay."""

    GUARD = -77.0

    def __init__(self, values, gap=3):
        rows, columns = values.shape
        self.ld = columns + gap
        self._whole = np.full((rows + 2, self.ld), self.GUARD, values.dtype)
        self.array = self._whole[1:-1, :columns]
        self.array[...] = values

    def check(self, wanted, tolerance):
        """Compare with what is wanted, relative to its scale; nothing else was written."""
        scale = np.nanmax(np.abs(wanted), initial=1)
        np.testing.assert_allclose(self.array, wanted, rtol=0, atol=tolerance * scale)
        self.check_outside()

    def check_outside(self):
        outside = self._whole.copy()
        outside[1:-1, : self.array.shape[1]] = self.GUARD
        assert (outside == self.GUARD).all(), "written outside"
