"""Products in bfloat16 and int8, called directly: every instruction set against the same products in full."""

import itertools

import numpy as np
import pytest
from support.compare import TOLERANCE
from support.isas import OWN
from support.kernels import Guarded, Kernels

from rnncore.reference.int8 import quantize_rows

# Around the tiles of 3 or 6 rows and 4 to 64 columns, the groups of 4 rows of B, and a K beyond a block of the cache.
ROWS, DEPTHS, COLUMNS = (0, 1, 2, 3, 5, 7, 13, 100), (0, 1, 3, 4, 9, 300), (1, 3, 8, 15, 33, 64, 130, 200)


@pytest.fixture(params=[(isa, dtype) for isa in OWN for dtype in TOLERANCE], ids="-".join)
def kernels(request):
    return Kernels(*request.param)


def started(rng, kernels, start, m, M):
    """The start as an array, or None; where it begins in memory, and how far its rows are apart; C, guarded."""
    begin = rng.normal(size=(m, M)).astype(kernels.dtype)
    if start == "zeros":
        begin[:] = 0
    elif start == "row":
        begin[:] = begin[:1]
    C = Guarded(begin if start == "in place" else np.full_like(begin, np.nan))
    source, step = {"zeros": (None, 0), "row": (begin, 0), "matrix": (begin, M), "in place": (C.array, C.ld)}[start]
    return begin, source, step, C


# ---- bfloat16 -------------------------------------------------------------------------------------------------------


def packed_bfloat16(kernels, bits):
    K, M = bits.shape
    size = K * (-(-M // 64) * 64)
    room = np.full(size + 8, 0xABCD, np.uint16)
    kernels.pack_bfloat16(K, M, bits, M, room)
    assert (room[size:] == 0xABCD).all()
    return room


def widened(kernels, bits):
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(kernels.dtype)


@pytest.mark.parametrize("start", ["zeros", "row", "matrix", "in place"])
def test_bfloat16_has_the_bits_of_the_widened_product(rng, kernels, start):
    for m, K in itertools.product(ROWS, DEPTHS):
        M = rng.choice(COLUMNS)
        bits = (rng.normal(size=(K, M)).astype("f4").view(np.uint32) >> 16).astype(np.uint16)
        A = np.pad(rng.normal(size=(m, K)).astype(kernels.dtype), ((0, 0), (0, 2)), constant_values=np.nan)
        begin, source, step, C = started(rng, kernels, start, m, M)
        wanted = np.empty((m, M), kernels.dtype)
        kernels.multiply_packed(m, K, M, A, K + 2, kernels.packed(widened(kernels, bits)), begin, M, wanted, M)
        kernels.multiply_bfloat16(m, K, M, A, K + 2, packed_bfloat16(kernels, bits), source, step, C.array, C.ld)
        C.check(wanted, 0)


def test_bfloat16_rows(rng, kernels):
    """Also negative zero, infinities and NaN."""
    for K, M in itertools.product((1, 4, 30), COLUMNS):
        bits = rng.integers(0, 1 << 16, size=(K, M)).astype(np.uint16)
        bits[bits & 0x7F80 == 0] &= 0x8000  # subnormal numbers are no weights
        bits[bits & 0x7F80 == 0x7F80] &= 0xFFC0  # infinities and quiet NaN
        ids, b = rng.integers(K, size=6), rng.normal(size=M).astype(kernels.dtype)
        for bias in (None, b):
            out = Guarded(np.full((6, M), np.nan, kernels.dtype))
            kernels.gather_bfloat16(6, M, K, bias, packed_bfloat16(kernels, bits), ids, out.array, out.ld)
            rows = widened(kernels, bits)[ids]
            np.testing.assert_array_equal(out.array, rows if bias is None else b + rows)
            out.check_outside()
            if bias is None:
                np.testing.assert_array_equal(np.signbit(out.array), np.signbit(rows))


# ---- int8 -----------------------------------------------------------------------------------------------------------


def packed_int8(kernels, values, scales):
    K, M = values.shape
    size = -(-M // 64) * 64 * (8 + -(-K // 4) * 4)
    room = np.full(size + 8, 77, np.int8)
    kernels.pack_int8(K, M, values, M, np.asarray(scales, np.float32), room)
    assert (room[size:] == 77).all()
    return room


def quantized(kernels, A, fixed=0.0):
    """Rows as the kernels round them: with what they keep behind, and alone; and their scales."""
    m, K = A.shape
    row = -(-K // 4) * 4 + 4
    q, scales = np.full((m + 1, row), 77, np.int8), np.full(m + 1, 77, kernels.dtype)
    kernels.quantize_rows(m, K, np.pad(A, ((0, 0), (0, 2)), constant_values=np.nan), K + 2, fixed, q, scales)
    assert (q[m] == 77).all()
    assert scales[m] == 77
    return q[:m], q[:m, :K], scales[:m]


@pytest.mark.parametrize("fixed", [0.0, 0.01])
def test_rows_are_rounded_as_the_reference_says(rng, kernels, fixed):
    for m, K in itertools.product(ROWS, (0, 1, 3, 4, 31, 300)):
        A = (rng.normal(size=(m, K)) * 10.0 ** rng.integers(-3, 4, size=(m, 1))).astype(kernels.dtype)
        wanted, wanted_scales = quantize_rows(A, fixed)
        _, q, scales = quantized(kernels, A, fixed)
        np.testing.assert_array_equal(q, wanted)
        if K:
            np.testing.assert_array_equal(scales, wanted_scales)


def test_rows_at_the_edges(kernels):
    tiny = np.finfo(kernels.dtype).tiny
    ties = np.array([[127, 0.5, 1.5, -2.5, 126.5, -126.5, 0, -127]], kernels.dtype)
    _, q, scales = quantized(kernels, ties)
    assert q.tolist() == [[127, 0, 2, -2, 126, -126, 0, -127]]
    assert scales.tolist() == [1]
    for A in ([[np.nan, 1]], [[1, np.inf]], [[-np.inf, 1]], [[0, -0.0]], [[tiny, -tiny]], [[1, -np.nan]]):
        A = np.array(A, kernels.dtype)
        wanted, wanted_scales = quantize_rows(A)
        _, q, scales = quantized(kernels, A)
        np.testing.assert_array_equal(q, wanted)
        np.testing.assert_array_equal(scales, wanted_scales)


def test_sums_are_exact(rng, kernels):
    """Those of every row and column, also at the largest values and of as many as 131,072."""
    for m, K in [*itertools.product((1, 2, 3, 4, 7, 100), (1, 4, 7, 300)), (2, 1 << 17)]:
        M = rng.choice(COLUMNS)
        values = rng.integers(-127, 128, size=(K, M)).astype(np.int8)
        values[:, 0] = 127
        A = rng.integers(-127, 128, size=(m, K)).astype(kernels.dtype)
        A[0], A[-1] = -127, 127
        rows, q, _ = quantized(kernels, A, 1.0)
        np.testing.assert_array_equal(q, A)
        C = Guarded(np.full((m, M), np.nan, kernels.dtype))
        ones = np.ones(m, kernels.dtype)
        kernels.multiply_int8(m, K, M, rows, ones, packed_int8(kernels, values, np.ones(M)), None, 0, C.array, C.ld)
        C.check((A.astype("i8") @ values.astype("i8")).astype(kernels.dtype), 0)


@pytest.mark.parametrize("start", ["zeros", "row", "matrix", "in place"])
def test_sums_are_scaled(rng, kernels, start):
    for m, K in itertools.product(ROWS, DEPTHS):
        M = rng.choice(COLUMNS)
        values, scales = rng.integers(-127, 128, size=(K, M)).astype(np.int8), rng.random(M).astype("f4") / 100
        A = rng.normal(size=(m, K)).astype(kernels.dtype)
        rows, q, row_scales = quantized(kernels, A)
        if m > 1:
            row_scales[1] = np.nan
        begin, source, step, C = started(rng, kernels, start, m, M)
        packed = packed_int8(kernels, values, scales)
        kernels.multiply_int8(m, K, M, rows, row_scales, packed, source, step, C.array, C.ld)
        product = (q.astype("f8") @ values) * row_scales[:, None].astype("f8") * scales
        C.check(begin + product, TOLERANCE[kernels.dtype.name])


def test_int8_rows(rng, kernels):
    for K, M in itertools.product((1, 4, 31), COLUMNS):
        values, scales = rng.integers(-127, 128, size=(K, M)).astype(np.int8), rng.random(M).astype("f4")
        ids, b = rng.integers(K, size=6), rng.normal(size=M).astype(kernels.dtype)
        rows = values[ids] * scales.astype(kernels.dtype)
        for bias in (None, b):
            out = Guarded(np.full((6, M), np.nan, kernels.dtype))
            kernels.gather_int8(6, M, K, bias, packed_int8(kernels, values, scales), ids, out.array, out.ld)
            out.check(rows if bias is None else b + rows, 0 if bias is None else TOLERANCE[kernels.dtype.name])
