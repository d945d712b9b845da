"""Dense, Embedding and Attention, trained and quantized."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.attention import plain, plain_backward
from support.compare import TOLERANCE, assert_equal_bits, assert_identical, assert_same
from support.layouts import LAYOUTS
from support.machines import Machine
from support.strategies import dtypes, layouts, machines, seeds, sizes

import rnncore as rc
from rnncore.engine.quantization import quantize, round_to_bfloat16

precisions = st.sampled_from(["trained", "bfloat16", "int8"])
shapes = st.lists(sizes(most=17), max_size=3).map(tuple)


def placed(array, layout):
    return LAYOUTS[layout](array) if layout and array.ndim else array


def outcome(layer, x, dy):
    """Output and gradients of a call of a layer with one input."""
    layer.zero_grad()
    y, cache = layer.forward(x)
    dx = layer.backward(dy, cache)
    return {"y": y, "dx": dx} | {name: g.copy() for name, g in layer.grads.items()}


# ---- Dense and Embedding --------------------------------------------------------------------------------------------


def make_dense(D, K, dtype, rng):
    dense = rc.Dense(D, K, dtype=dtype, seed=0)
    dense.params["W"][...] = rng.normal(scale=D**-0.5, size=(D, K))
    dense.params["b"][...] = rng.normal(size=K)
    return dense


@given(shapes, sizes(1), sizes(1), dtypes, layouts, machines(rc.available_isas()), seeds)
def test_dense_is_a_product(shape, D, K, dtype, layout, machine, seed):
    rng = np.random.default_rng(seed)
    dense = make_dense(D, K, dtype, rng)
    x, dy = (rng.normal(size=(*shape, size)).astype(dtype) for size in (D, K))
    W, b = (dense.params[name].astype("f8") for name in "Wb")
    rows, dy_rows = x.reshape(-1, D).astype("f8"), dy.reshape(-1, K).astype("f8")
    expected = {"y": x @ W + b, "dx": dy @ W.T, "W": rows.T @ dy_rows, "b": dy_rows.sum(axis=0)}
    with machine:
        actual = outcome(dense, placed(x, layout), placed(dy, layout))
        assert_identical(actual, outcome(dense, x, dy))
    assert_same(actual, expected, TOLERANCE[dtype])
    assert all(a.dtype == dtype for a in actual.values())


@given(sizes(), sizes(1), sizes(1), dtypes, machines(), precisions, seeds)
def test_rows_of_dense_do_not_depend_on_others_or_threads(rows, D, K, dtype, machine, precision, seed):
    rng = np.random.default_rng(seed)
    x, dy = (rng.normal(size=(rows, size)).astype(dtype) for size in (D, K))
    some = rng.permutation(rows)[: rng.integers(rows + 1)]
    dense = make_dense(D, K, dtype, rng)
    with Machine(machine.isa):
        layer = dense if precision == "trained" else dense.quantize(precision)
        y = layer(x)
        gradients = outcome(dense, x, dy)
    with machine:
        assert_equal_bits(layer(x[some]), y[some])
        assert_equal_bits(layer(x), y)
        assert_identical(outcome(dense, x, dy), gradients)
        assert_equal_bits(outcome(dense, x[some], dy[some])["dx"], gradients["dx"][some])


@given(shapes, sizes(1), sizes(1), dtypes, machines(), seeds)
def test_quantized_dense(shape, D, K, dtype, machine, seed):
    rng = np.random.default_rng(seed)
    x, dense = rng.normal(size=(*shape, D)).astype(dtype), make_dense(D, K, dtype, rng)
    W, b = (dense.params[name].astype("f8") for name in "Wb")
    int8 = quantize("W", dense.params["W"], "int8").widen(np.dtype("f8"))
    scale = np.abs(x).max(axis=-1, initial=0)[..., None].astype("f8") / 127
    rounded = np.rint(np.divide(x, scale, out=np.zeros(x.shape), where=scale > 0)) * scale
    with machine:
        actual = dense.quantize("int8")(x)
        np.testing.assert_allclose(actual, rounded @ int8 + b, rtol=0, atol=tolerance_of_int8(x, W, dtype))
        small = dense.quantize("bfloat16")(x)
        dense.params["W"][...] = round_to_bfloat16(W)
        assert_equal_bits(small, dense(x))


def tolerance_of_int8(x, W, dtype):
    """float64: rounding of the sums; float32: also a value of x whose rounding is close to a tie."""
    return 1e-11 if dtype == "float64" else 2e-5 + np.abs(x).max(initial=0) / 127 * np.abs(W).max(initial=0)


@given(shapes, sizes(1), sizes(1), dtypes, layouts, machines(rc.available_isas()), precisions, seeds)
def test_embedding_looks_up_rows(shape, V, E, dtype, layout, machine, precision, seed):
    rng = np.random.default_rng(seed)
    layer = rc.Embedding(V, E, dtype=dtype, seed=0)
    table = layer.params["W"]
    ids, dy = rng.integers(V, size=shape), rng.normal(size=(*shape, E)).astype(dtype)
    if precision != "trained":
        with machine:
            y = layer.quantize(precision)(placed(ids, layout))
        np.testing.assert_array_equal(y, quantize("W", table, precision).widen(np.dtype(dtype))[ids])
        return
    expected = np.zeros((V, E))
    np.add.at(expected, ids, dy)
    with machine:
        y, cache = layer.forward(placed(ids, layout))
        layer.backward(placed(dy, layout), cache)
    np.testing.assert_array_equal(y, table[ids])
    assert_same(layer.grads, {"W": expected}, TOLERANCE[dtype])


# ---- attention ------------------------------------------------------------------------------------------------------


@st.composite
def attention_calls(draw):
    """-> layer, queries, memory, lengths, memory_lengths, dcontext, rng"""
    T, S, N = draw(sizes(most=33)), draw(sizes(most=33)), draw(sizes(most=17))
    H, E, A = (draw(sizes(1)) for _ in range(3))
    score, dtype = draw(st.sampled_from(["multiplicative", "additive"])), draw(dtypes)
    ragged, seed = draw(st.booleans()), draw(seeds)
    return AttentionCall(T, S, N, H, E, A, score, dtype, ragged, seed)


class AttentionCall:
    def __init__(self, T, S, N, H, E, A, score, dtype, ragged, seed):
        self.settings = {"T": T, "S": S, "N": N, "H": H, "E": E, "A": A, "score": score, "dtype": dtype}
        self.settings |= {"ragged": ragged, "seed": seed}
        self.T, self.S, self.N, self.dtype = T, S, N, dtype
        self.rng = rng = np.random.default_rng(seed)
        self.layer = rc.Attention(H, E, score, size=A, dtype=dtype, seed=0)
        for value in self.layer.params.values():
            value[...] = rng.normal(scale=len(value) ** -0.5, size=value.shape)
        shapes = (T, N, H), (S, N, E), (T, N, E)
        self.queries, self.memory, self.dcontext = (rng.normal(size=shape).astype(dtype) for shape in shapes)
        self.lengths = rng.integers(T + 1, size=N) if ragged else None
        self.memory_lengths = rng.integers(S + 1, size=N) if ragged else None

    def __repr__(self):
        return f"AttentionCall(**{self.settings})"

    def outcome(self, queries=None, memory=None, lengths=None, memory_lengths=None, dcontext=None):
        """Results and gradients, for other arguments than the call's where they are given."""
        queries, memory = self.queries if queries is None else queries, self.memory if memory is None else memory
        lengths = self.lengths if lengths is None else lengths
        memory_lengths = self.memory_lengths if memory_lengths is None else memory_lengths
        self.layer.zero_grad()
        context, weights, cache = self.layer.forward(queries, memory, lengths, memory_lengths)
        dqueries, dmemory = self.layer.backward(self.dcontext if dcontext is None else dcontext, cache)
        results = {"context": context, "weights": weights, "queries": dqueries, "memory": dmemory}
        return results | {name: g.copy() for name, g in self.layer.grads.items()}


BY_ROW = ("context", "weights", "queries", "memory")


@given(attention_calls(), machines(rc.available_isas()), layouts)
def test_attention_equals_the_equations(call, machine, layout):
    queries, memory, dcontext = (a.astype("f8") for a in (call.queries, call.memory, call.dcontext))
    expected = {name: np.zeros(p.shape) for name, p in call.layer.params.items()}
    expected |= {"context": np.zeros_like(dcontext), "weights": np.zeros((call.T, call.N, call.S))}
    expected |= {"queries": np.zeros_like(queries), "memory": np.zeros_like(memory)}
    for n in range(call.N):
        t = call.T if call.lengths is None else call.lengths[n]
        s = call.S if call.memory_lengths is None else call.memory_lengths[n]
        if not t * s:
            continue
        h, m, d = queries[:t, n], memory[:s, n], dcontext[:t, n]
        expected["context"][:t, n], expected["weights"][:t, n, :s] = plain(call.layer, h, m)
        gradients = plain_backward(call.layer, h, m, d)
        expected["queries"][:t, n], expected["memory"][:s, n] = gradients.pop("queries"), gradients.pop("memory")
        for name, gradient in gradients.items():
            expected[name] += gradient
    with machine:
        actual = call.outcome(placed(call.queries, layout), placed(call.memory, layout))
    # Scores are sums of this size, and their errors are those of the weights.
    scale = 10 * np.sqrt(max(call.layer.query_size, call.layer.memory_size))
    assert_same(actual, expected, TOLERANCE[call.dtype] * scale)
    assert all(a.dtype == call.dtype for a in actual.values())


@given(attention_calls(), machines())
def test_rows_of_attention_do_not_depend_on_others_or_threads(call, machine):
    with Machine(machine.isa):
        expected = call.outcome()
    rows = call.rng.permutation(call.N)[: call.rng.integers(call.N + 1)]
    with machine:
        assert_identical(call.outcome(), expected)
        lengths, memory_lengths = (None if a is None else a[rows] for a in (call.lengths, call.memory_lengths))
        actual = call.outcome(
            call.queries[:, rows], call.memory[:, rows], lengths, memory_lengths, call.dcontext[:, rows]
        )
    for name in BY_ROW:
        assert_equal_bits(actual[name], expected[name][:, rows], err_msg=name)


@given(attention_calls(), machines(), st.sampled_from([np.nan, np.inf, 1e30]))
def test_padding_of_attention_changes_nothing(call, machine, garbage):
    """What stands in the padding of the memory must be finite."""
    if call.lengths is None:
        return
    with machine:
        expected = call.outcome()
        queries, memory, dcontext = call.queries.copy(), call.memory.copy(), call.dcontext.copy()
        padding = np.arange(call.T)[:, None] >= call.lengths
        queries[padding] = dcontext[padding] = garbage
        memory[np.arange(call.S)[:, None] >= call.memory_lengths] = -7.5
        assert_identical(call.outcome(queries, memory, dcontext=dcontext), expected)


@given(attention_calls(), machines(), st.integers(-9, 9))
def test_gradients_of_attention_are_linear(call, machine, power):
    u, v = call.dcontext, call.rng.normal(size=call.dcontext.shape).astype(call.dtype)
    a, b = call.rng.uniform(-2, 2, size=2).astype(call.dtype)
    factor = np.dtype(call.dtype).type(2.0**power)
    with machine:
        of_u, of_v, of_sum, scaled = (call.outcome(dcontext=d) for d in (u, v, a * u + b * v, factor * u))
    for name in ("queries", "memory", *call.layer.params):
        wanted = a * of_u[name] + b * of_v[name]
        limit = TOLERANCE[call.dtype] * np.abs(wanted).max(initial=1)
        np.testing.assert_allclose(of_sum[name], wanted, rtol=0, atol=limit, err_msg=name)
        np.testing.assert_allclose(scaled[name], factor * of_u[name], rtol=0, atol=1e-30, err_msg=name)


@given(attention_calls(), machines(), st.sampled_from(["bfloat16", "int8"]))
def test_quantized_attention_is_that_of_rounded_matrices(call, machine, precision):
    with machine:
        small = call.layer.quantize(precision)
        for name, value in call.layer.params.items():
            value[...] = small.params[name]
            if name.startswith("W"):
                rounded = quantize(name, value, precision).widen(np.dtype(call.dtype))
                np.testing.assert_allclose(value, rounded, rtol=1e-6)
        arguments = call.queries, call.memory, call.lengths, call.memory_lengths
        for actual, wanted in zip(small(*arguments), call.layer(*arguments), strict=True):
            assert_equal_bits(actual, wanted)
    with pytest.raises(TypeError, match="quantized layers cannot be trained"):
        small.forward(*arguments)
