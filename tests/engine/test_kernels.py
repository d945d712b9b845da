"""The kernels called directly: every function on every instruction set, against NumPy and the reference."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from support.compare import TOLERANCE
from support.isas import OWN
from support.kernels import CELLS, LARGEST_PANEL, TABLE, Guarded, Kernels, WeightGradient, pointer
from support.problems import VARIANTS

from rnncore import reference

SOURCE = Path(__file__).parents[2] / "src" / "kernels"
# Odd sizes around the register tiles (6 or 8 rows, 8 to 64 columns), and a K beyond the 128 or 256 of a cache block.
ROWS, DEPTHS, COLUMNS = (0, 1, 2, 3, 5, 7, 9, 17, 100), (0, 1, 2, 9, 300), (1, 3, 8, 15, 33, 64, 130)


@pytest.fixture(params=[(isa, dtype) for isa in OWN for dtype in TOLERANCE], ids="-".join)
def kernels(request):
    return Kernels(*request.param)


def normal(rng, kernels, *shape):
    return rng.normal(size=shape).astype(kernels.dtype)


def tolerance_of(kernels):
    return TOLERANCE[kernels.dtype.name]


@pytest.mark.parametrize(
    ("header", "struct", "names"), [("kernels.h", "kernel_table", TABLE), ("cells.h", "cell_kernels", CELLS)]
)
def test_mirror_has_the_functions_of_the_header_in_order(header, struct, names):
    body = re.search(rf"typedef struct {struct} \{{(.*?)\n\}} {struct};", (SOURCE / header).read_text(), re.DOTALL)[1]
    body = re.sub(r"/\*.*?\*/", "", body, flags=re.DOTALL)
    assert f"LARGEST_PANEL = {LARGEST_PANEL} " in (SOURCE / "kernels.h").read_text()
    assert re.findall(r"\(\*(\w+)\)\(|\*(cells);", body) == [("", n) if n == "cells" else (n, "") for n in names]


# ---- products -------------------------------------------------------------------------------------------------------


class Product:
    """C = start + A B with A, C and `start` as a call describes them."""

    def __init__(self, kernels, start, begin, A, B):
        self.kernels, self.start, self.begin, self.A = kernels, start, begin, A
        (self.K, self.M), self.wanted = B.shape, begin.astype("f8") + A.astype("f8") @ B.astype("f8")

    def run(self, function, *factor, rows=slice(None)):
        """Those rows of C, compared with NumPy's; nothing else is read of A or written."""
        A, begin = np.pad(self.A[rows], ((0, 0), (0, 2)), constant_values=np.nan), self.begin[rows]
        C = Guarded(begin if self.start == "in place" else np.full_like(begin, np.nan))  # not read
        source, step = {"zeros": (None, 0), "row": (begin, 0), "matrix": (begin, self.M), "in place": (C.array, C.ld)}[
            self.start
        ]
        function(len(A), self.K, self.M, A, self.K + 2, *factor, source, step, C.array, C.ld)
        C.check(self.wanted[rows], tolerance_of(self.kernels))
        return C.array


@pytest.mark.parametrize("start", ["zeros", "row", "matrix", "in place"])
def test_products(rng, kernels, start):
    """Packed, in place and from a transposed matrix: right, and the same bits, also for a row alone."""
    for m, K in itertools.product(ROWS, DEPTHS):
        M = rng.choice(COLUMNS)
        A, B, begin = normal(rng, kernels, m, K), normal(rng, kernels, K, M), normal(rng, kernels, m, M)
        if start == "zeros":
            begin[:] = 0
        elif start == "row":
            begin[:] = begin[:1]
        transposed = np.ascontiguousarray(B.T)
        product = Product(kernels, start, begin, A, B)
        whole = product.run(kernels.multiply_packed, kernels.packed(B))
        same = [
            product.run(kernels.multiply_packed, kernels.packed(transposed.T)),
            product.run(kernels.multiply, B, M, 1),
            product.run(kernels.multiply, transposed, 1, K),
        ]
        for C in same:
            np.testing.assert_array_equal(C, whole)
        for count in range(1, min(m, 5)):
            rows = slice(m - count, m)
            few = [
                product.run(kernels.multiply_packed, kernels.packed(B), rows=rows),
                product.run(kernels.multiply, B, M, 1, rows=rows),
                product.run(kernels.multiply, transposed, 1, K, rows=rows),
            ]
            for C in few:
                np.testing.assert_array_equal(C, whole[rows])


@pytest.mark.parametrize("backward", [False, True], ids=["first to last", "last to first"])
@pytest.mark.parametrize("adds", [False, True])
def test_weight_gradients(rng, kernels, adds, backward):
    """Two products with one B, the second with fewer columns; the sums of B as well."""
    for K in (1, 2, 9, 300):
        m, M = rng.choice(ROWS[1:]), rng.choice(COLUMNS)
        fewer = rng.integers(1, M + 1)
        B, As = normal(rng, kernels, K, M), [normal(rng, kernels, K, m), normal(rng, kernels, K, 5)]
        Cs = [Guarded(normal(rng, kernels, m, M)), Guarded(normal(rng, kernels, 5, fewer))]
        sums = Guarded(normal(rng, kernels, 1, M))
        wanted = [
            adds * C.array.astype("f8") + (A.astype("f8").T @ B)[:, : C.array.shape[1]]
            for A, C in zip(As, Cs, strict=True)
        ]
        wanted_sums = sums.array + B.sum(axis=0, dtype="f8")
        if not adds:
            for C in Cs:
                C.array[...] = np.nan  # not read
        ends = (slice(-1, None), -1) if backward else (slice(0, None), 1)
        out = (WeightGradient * 2)(
            *(
                WeightGradient(
                    adds,
                    A.shape[1],
                    C.array.shape[1],
                    pointer(A[ends[0]]),
                    ends[1] * A.shape[1],
                    pointer(C.array),
                    C.ld,
                )
                for A, C in zip(As, Cs, strict=True)
            )
        )
        size = kernels.weight_gradients_work(max(m, 5), K, M)
        work = Guarded(np.zeros((1, size), kernels.dtype))
        kernels.weight_gradients(K, M, B[ends[0]], ends[1] * M, out, 2, sums.array, work.array)
        for C, right in zip(Cs, wanted, strict=True):
            C.check(right, tolerance_of(kernels))
        sums.check(wanted_sums, tolerance_of(kernels))
        work.check(work.array, 0)


def test_weight_gradients_without_sums(rng, kernels):
    A, B, C = normal(rng, kernels, 20, 7), normal(rng, kernels, 20, 11), Guarded(normal(rng, kernels, 7, 11))
    out = WeightGradient(0, 7, 11, pointer(A), 7, pointer(C.array), C.ld)
    work = np.empty(kernels.weight_gradients_work(7, 20, 11), kernels.dtype)
    kernels.weight_gradients(20, 11, B, 11, (WeightGradient * 1)(out), 1, None, work)
    C.check(A.T @ B, tolerance_of(kernels))


def test_transpose(rng, kernels):
    for rows in ROWS:
        columns = rng.choice(COLUMNS)
        source, target = normal(rng, kernels, rows, columns + 4), Guarded(np.zeros((columns, rows), kernels.dtype))
        kernels.transpose(rows, columns, source, columns + 4, target.array, target.ld)
        target.check(source[:, :columns].T, 0)


# ---- rows -----------------------------------------------------------------------------------------------------------


def test_gather_and_scatter(rng, kernels):
    for rows in ROWS:
        M, V = rng.choice(COLUMNS), 6
        b, ids = normal(rng, kernels, M), rng.integers(V, size=rows)
        table, out = Guarded(normal(rng, kernels, V, M)), Guarded(np.zeros((rows, M), kernels.dtype))
        kernels.gather_rows(rows, M, b, table.array, table.ld, ids, out.array, out.ld)
        out.check(b + table.array[ids], tolerance_of(kernels))
        wanted = table.array.astype("f8")
        np.add.at(wanted, ids, out.array)
        every_other = np.repeat(ids, 2)
        kernels.scatter_add(rows, M, every_other, 2, out.array, out.ld, table.array, table.ld)
        table.check(wanted, tolerance_of(kernels))


def test_sums_and_add(rng, kernels):
    for rows in ROWS:
        M = rng.choice(COLUMNS)
        a, b = Guarded(normal(rng, kernels, rows, M)), Guarded(normal(rng, kernels, rows, M), gap=1)
        for name, terms, arguments in [
            ("column_sums", a.array, (a.array, a.ld)),
            ("product_sums", a.array * b.array, (a.array, a.ld, b.array, b.ld)),
        ]:
            out = Guarded(normal(rng, kernels, 1, M))
            wanted = out.array + terms.sum(axis=0, dtype="f8")
            getattr(kernels, name)(rows, M, *arguments, out.array)
            out.check(wanted, tolerance_of(kernels))
        wanted = a.array + b.array
        kernels.add(rows, M, a.array, a.ld, b.array, b.ld)
        b.check(wanted, tolerance_of(kernels))


def test_sum_and_square_sum(rng, kernels):
    for count in (0, 1, 15, 16, 17, 1000):
        a = normal(rng, kernels, count)
        assert abs(kernels.sum(count, a) - a.sum(dtype="f8")) <= tolerance_of(kernels) * max(1, np.abs(a).sum())
        assert kernels.square_sum(count, a) == pytest.approx((a.astype("f8") ** 2).sum(), rel=1e-12)


def test_softmax_cross_entropy(rng, kernels):
    """A row of weight 0 is not read: NaN there gives 0."""
    for V in (1, 2, 16, 33):
        y, weights, targets = normal(rng, kernels, 5, V), np.array([1, 0, 0.3, 2, 1]), rng.integers(V, size=5)
        y[2] *= 300
        p = np.exp(y.astype("f8") - y.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        at_target = y[range(5), targets].astype("f8")
        largest = y.max(axis=1).astype("f8")
        loss = np.log(np.exp(y - largest[:, None], dtype="f8").sum(axis=1)) + largest - at_target
        gradient = weights[:, None] * (p - np.eye(V)[targets])
        y[1] = np.nan
        logits, losses = Guarded(y, gap=0), np.full(5, np.nan)
        kernels.softmax_cross_entropy(5, V, logits.array, targets, weights, losses)
        logits.check(gradient, tolerance_of(kernels))
        wanted = np.where(weights == 0, 0, loss)
        np.testing.assert_allclose(losses, wanted, rtol=0, atol=tolerance_of(kernels) * max(1, wanted.max()))


@pytest.mark.parametrize(("rule", "has_m", "has_v"), [(0, 0, 0), (1, 1, 0), (2, 0, 1), (3, 1, 1)])
def test_optimizer_step(rng, kernels, rule, has_m, has_v):
    """SGD, momentum, squares, Adam: the rules in their order in kernels.h."""
    rate, scale, keep_m, take_m, keep_v, take_v, epsilon = constants = np.array([0.1, 0.5, 0.9, 0.2, 0.8, 0.3, 1e-3])
    for count in (0, 1, 19):
        gradient, p = normal(rng, kernels, count), Guarded(normal(rng, kernels, 1, count))
        m, v = Guarded(normal(rng, kernels, 1, count)), Guarded(normal(rng, kernels, 1, count) ** 2)
        g = scale * gradient.astype("f8")
        new_m, new_v = keep_m * m.array + take_m * g, keep_v * v.array + take_v * g**2
        direction = (new_m if has_m else g) / (np.sqrt(new_v) + epsilon if has_v else 1)
        wanted = p.array - rate * direction
        given = m.array if has_m else None, v.array if has_v else None
        kernels.optimizer_step(rule, count, constants, gradient, p.array, *given)
        p.check(wanted, tolerance_of(kernels))
        m.check(new_m if has_m else m.array, tolerance_of(kernels))
        v.check(new_v if has_v else v.array, tolerance_of(kernels))


# ---- cells ----------------------------------------------------------------------------------------------------------

ROWS_OF_STEP, HIDDEN, FIRST, UNITS = 3, 23, 2, 19


class Step:
    """One step of the reference from given pre-activations: Wx is the identity, Wh is zero.

    Then x are the pre-activations, dx their gradients, and dh0 has only the direct part of dL/dh'.
    """

    def __init__(self, rng, kernels, variant):
        cell, n, H, dtype = variant.cell, ROWS_OF_STEP, HIDDEN, kernels.dtype
        GH = len(variant.gates) * H
        shapes = variant.shapes(GH, H)
        weights = {name: np.zeros(shape, dtype) for name, shape in shapes.items()}
        weights |= {name: normal(rng, kernels, *shapes[name]) for name in ("bhn", "peephole") if name in shapes}
        weights["Wx"] = np.eye(GH, dtype=dtype)
        self.a = normal(rng, kernels, n, GH)
        self.states = {f"{state}0": normal(rng, kernels, n, H) for state in cell.states}
        words = {name: word for name, word in variant.options.items() if not isinstance(word, bool)}
        if variant.gate_order != variant.gates:
            words["gate_order"] = variant.gate_order
        exact = {name: array.astype("f8") for name, array in {**weights, **self.states}.items()}
        forward, backward = (getattr(reference, f"{cell.name}_{way}") for way in ("forward", "backward"))
        self.h, final, cache = forward(self.a[None].astype("f8"), **exact, **words)
        self.h, self.gates = self.h[0], cache.gates[0]
        self.c = final[1] if len(cell.states) > 1 else None
        self.dh = normal(rng, kernels, n, H)
        self.dc = normal(rng, kernels, n, H)
        extra = {"dc_n": self.dc.astype("f8")} if "c" in cell.states else {}
        self.gradients = backward(self.dh[None].astype("f8"), cache, **extra)
        self.weights, self.variant, self.dtype = weights, variant, dtype
        self.places = np.array([variant.gate_order.index(gate) for gate in variant.gates], np.intc)
        self.sizes = n, UNITS, H

    def new(self, values=0.0, blocks=1):
        """An array of the step, (n, blocks H)."""
        return Guarded(np.zeros((ROWS_OF_STEP, blocks * HIDDEN), self.dtype) + np.asarray(values, self.dtype), gap=0)

    def check(self, array, before, after):
        """`before` everywhere but in the units of the call, in each block."""
        blocks = array.array.shape[1] // HIDDEN
        inside = np.tile((np.arange(HIDDEN) >= FIRST) & (np.arange(HIDDEN) < FIRST + UNITS), blocks)
        array.check(np.where(inside, after, before), TOLERANCE[self.dtype.name])


def at_first(array):
    """The first of the units of a call."""
    return None if array is None else getattr(array, "array", array)[:, FIRST:]


def word_number(variant, name):
    return list(variant.cell.options[name]).index(variant.options[name])


def check_rnn(kernels, step):
    activation = word_number(step.variant, "activation")
    h, da = step.new(step.a), step.new()
    kernels.rnn_forward(*step.sizes, activation, at_first(h))
    step.check(h, step.a, step.h)
    h = step.new(step.h)
    kernels.rnn_backward(*step.sizes, activation, at_first(h), at_first(step.dh), at_first(da))
    step.check(da, 0, step.gradients.dx[0])


def check_lstm(kernels, step):
    variant = step.variant
    output = 1 + word_number(variant, "peephole_output") if variant.options["peephole"] else 0
    options = output, word_number(variant, "output_activation"), step.places
    peephole, c_prev = step.weights.get("peephole"), step.states["c0"]
    gates, c, h = step.new(step.a, 4), step.new(), step.new()
    kernels.lstm_forward(
        *step.sizes, *options, at_first(gates), at_first(c_prev), at_first(peephole), at_first(c), at_first(h)
    )
    step.check(gates, step.a, step.gates)
    step.check(c, 0, step.c)
    step.check(h, 0, step.h)
    gates, c, dc, dgates = step.new(step.gates, 4), step.new(step.c), step.new(step.dc), step.new(0, 4)
    arrays = map(at_first, (gates, c_prev, c, peephole, step.dh, dc, dgates))
    kernels.lstm_backward(*step.sizes, *options, *arrays)
    step.check(dc, step.dc, step.gradients.dc0)
    step.check(dgates, 0, step.gradients.dx[0])


def check_gru(kernels, step):
    variant, h_prev = step.variant, step.states["h0"]
    G, update, form = len(variant.gates), word_number(variant, "update"), variant.options["form"]
    blocks = np.split(step.gates, G, axis=1)
    r = blocks[step.places[0]]
    rh = step.new() if form == "reset_before" else None
    # Wh is zero: m = bhn
    m = step.new(step.weights["bhn"]) if form == "reset_after" else None
    gates, h = step.new(step.a, G), step.new()
    kernels.gru_gates(*step.sizes, G, step.places, at_first(gates), at_first(h_prev), at_first(rh))
    kernels.gru_update(*step.sizes, G, update, step.places, *map(at_first, (gates, m, h_prev, h)))
    step.check(gates, step.a, step.gates)
    step.check(h, 0, step.h)
    if rh:
        step.check(rh, 0, r * h_prev)
    gates, dh, dgates = step.new(step.gates, G), step.new(step.dh), step.new(0, G)
    dm = step.new() if form == "reset_after" else None
    arrays = map(at_first, (gates, m, h_prev, dh, dgates, dm))
    kernels.gru_update_backward(*step.sizes, G, update, step.places, *arrays)
    step.check(dh, step.dh, step.gradients.dh0)
    da = np.split(step.gradients.dx[0], G, axis=1)
    if dm:
        step.check(dm, 0, da[step.places[-1]] * r)
    if form != "reset_before":
        step.check(dgates, 0, step.gradients.dx[0])
        return
    # The reset gate, from a random d(r h'); the reference has zero there.
    drh, rh, dh = np.cos(step.dh), step.new(), step.new(step.dh)
    arrays = map(at_first, (gates, h_prev, drh, dh, dgates, rh))
    kernels.gru_reset_backward(*step.sizes, step.places, *arrays)
    da[step.places[0]] = drh * h_prev * r * (1 - r)
    step.check(dgates, 0, np.hstack(da))
    step.check(dh, step.dh, step.dh + drh * r)
    step.check(rh, 0, r * h_prev)


def check_mingru(kernels, step):
    options, h_prev = (word_number(step.variant, "candidate"), step.places), step.states["h0"]
    gates, h = step.new(step.a, 2), step.new()
    kernels.mingru_forward(*step.sizes, *options, at_first(gates), at_first(h_prev), at_first(h))
    step.check(gates, step.a, step.gates)
    step.check(h, 0, step.h)
    gates, dh, dgates = step.new(step.gates, 2), step.new(step.dh), step.new(0, 2)
    kernels.mingru_backward(*step.sizes, *options, *map(at_first, (gates, h_prev, dh, dgates)))
    step.check(dh, step.dh, step.gradients.dh0)
    step.check(dgates, 0, step.gradients.dx[0])


CHECKS = {"rnn": check_rnn, "lstm": check_lstm, "gru": check_gru, "mingru": check_mingru}


@pytest.mark.parametrize("name", VARIANTS)
def test_step_of_a_cell(rng, kernels, name):
    """A step of some hidden units: what it computes, and that it leaves the others alone."""
    variant = VARIANTS[name]
    CHECKS[variant.cell.name](kernels, Step(rng, kernels, variant))
