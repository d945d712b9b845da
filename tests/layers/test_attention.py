"""Attention against its equations, numeric gradients, and PyTorch; bits, lengths, arguments."""

import numpy as np
import pytest
from support.attention import plain
from support.compare import TOLERANCE
from support.gradcheck import check_gradients
from support.isas import has_equal_bits

import rnncore as rc

T, N, S, H, E, A = 4, 3, 5, 3, 6, 2
LENGTHS, MEMORY_LENGTHS = [4, 0, 2], [5, 3, 1]
every_score = pytest.mark.parametrize("score", ["multiplicative", "additive"])
every_isa = pytest.mark.parametrize("isa", rc.available_isas())


def make(score, dtype="float64", size=A, queries=H, memory=E):
    attention = rc.Attention(queries, memory, score, size=size, dtype=dtype, seed=0)
    rng = np.random.default_rng(1)
    for p in attention.params.values():
        p[...] = rng.normal(size=p.shape)
    return attention


@every_isa
@every_score
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_equals_the_equations(rng, restore_isa, isa, score, dtype):
    rc.use_isa(isa)
    for sizes in [(H, E, A), (20, 37, 33)]:
        attention = make(score, dtype, sizes[2], *sizes[:2])
        queries, memory = (rng.normal(size=(n, N, size)).astype(dtype) for n, size in ((T, sizes[0]), (S, sizes[1])))
        context, weights = attention(queries, memory, LENGTHS, MEMORY_LENGTHS)
        assert context.dtype == weights.dtype == dtype
        for n in range(N):
            t, s = LENGTHS[n], MEMORY_LENGTHS[n]
            wanted, wanted_weights = plain(attention, queries[:t, n].astype("f8"), memory[:s, n].astype("f8"))
            scale = 10 * np.sqrt(sizes[1])  # of scores
            np.testing.assert_allclose(context[:t, n], wanted, rtol=0, atol=TOLERANCE[dtype] * scale)
            np.testing.assert_allclose(weights[:t, n, :s], wanted_weights, rtol=0, atol=TOLERANCE[dtype] * scale)
            np.testing.assert_array_equal(context[t:, n], 0)
            np.testing.assert_array_equal(weights[t:, n], 0)
            np.testing.assert_array_equal(weights[:, n, s:], 0)


@every_isa
@every_score
@pytest.mark.parametrize("lengths", [(None, None), (LENGTHS, MEMORY_LENGTHS)], ids=["", "lengths"])
def test_numeric_gradients(rng, restore_isa, isa, score, lengths):
    rc.use_isa(isa)
    attention = make(score)
    given = {"queries": rng.normal(size=(T, N, H)), "memory": rng.normal(size=(S, N, E))}
    cotangent = rng.normal(size=(T, N, E))

    def f(queries, memory, **params):
        for name, value in params.items():
            attention.params[name][...] = value
        return [attention(queries, memory, *lengths)[0]]

    params = {name: p.copy() for name, p in attention.params.items()}
    _, _, cache = attention.forward(*given.values(), *lengths)
    dqueries, dmemory = attention.backward(cotangent, cache)
    gradients = {"queries": dqueries, "memory": dmemory} | {name: g.copy() for name, g in attention.grads.items()}
    if score == "additive":
        assert np.abs(gradients["b"]).max() > 1e-6  # a key that is the same for all changes the tanh, not only the sum
    check_gradients(f, given | params, [cotangent], gradients)
    for name, value in params.items():
        attention.params[name][...] = value
    attention.backward(cotangent, cache)
    for name, g in attention.grads.items():
        np.testing.assert_allclose(g, 2 * gradients[name], rtol=1e-12, atol=1e-12, err_msg=f"{name} is added to")


@every_score
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_row_has_the_same_bits_alone_step_by_step_and_on_any_threads(rng, restore_threads, score, dtype):
    if not has_equal_bits():
        pytest.skip("BLAS")
    attention = make(score, dtype, 40, 33, 70)
    queries, memory = rng.normal(size=(30, 8, 33)).astype(dtype), rng.normal(size=(50, 8, 70)).astype(dtype)
    lengths, memory_lengths = rng.integers(31, size=8), rng.integers(51, size=8)
    rc.set_num_threads(1)
    context, weights, cache = attention.forward(queries, memory, lengths, memory_lengths)
    cotangent = rng.normal(size=context.shape).astype(dtype)
    gradients = attention.backward(cotangent, cache)
    rc.set_num_threads(3)
    again = attention.forward(queries, memory, lengths, memory_lengths)
    for a, b in zip(attention.backward(cotangent, again[2]), gradients, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(again[0], context)
    keys = attention.keys(memory)
    for n in range(8):
        t, s = lengths[n], memory_lengths[n]
        alone, _ = attention(queries[:t, n : n + 1], memory[:s, n : n + 1])
        np.testing.assert_array_equal(alone[:, 0], context[:t, n])
        for step in range(t):
            one, _ = attention(queries[[step]], memory, None, memory_lengths, keys=keys)
            np.testing.assert_array_equal(one[0, n], context[step, n])


@every_score
@pytest.mark.parametrize("garbage", [np.nan, np.inf])
def test_what_stands_in_padded_queries_changes_nothing(rng, score, garbage):
    attention = make(score)
    queries, memory, dcontext = (rng.normal(size=(n, N, size)) for n, size in ((T, H), (S, E), (T, E)))

    def everything():
        attention.zero_grad()
        context, weights, cache = attention.forward(queries, memory, LENGTHS, MEMORY_LENGTHS)
        gradients = attention.backward(dcontext, cache)
        return [context, weights, *gradients, *(g.copy() for g in attention.grads.values())]

    expected = everything()
    queries[np.arange(T)[:, None] >= LENGTHS] = garbage
    for actual, wanted in zip(everything(), expected, strict=True):
        np.testing.assert_array_equal(actual, wanted)


@every_score
def test_nothing(score):
    attention = make(score)
    for t, n, s in [(0, 2, 3), (3, 0, 2), (3, 2, 0)]:
        context, weights, cache = attention.forward(np.zeros((t, n, H)), np.zeros((s, n, E)))
        assert context.shape == (t, n, E)
        assert weights.shape == (t, n, s)
        dqueries, dmemory = attention.backward(np.ones_like(context), cache)
        assert not dqueries.any()
        assert not dmemory.any()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"queries": np.zeros((4, 3))},
            ValueError,
            r"queries must be \(T, N, query_size\) = \(T, N, 3\); got \(4, 3\)",
        ),
        ({"memory": np.zeros((5, 2, 6))}, ValueError, r"memory must be \(S, N, memory_size\) = \(S, 3, 6\)"),
        ({"memory": np.zeros((5, 3, 6), int)}, TypeError, "memory must be an array of float32 or float64"),
        ({"lengths": [5, 0, 0]}, ValueError, r"lengths must lie in \[0, T\] = \[0, 4\]; got 5"),
        ({"memory_lengths": [6, 0, 0]}, ValueError, r"lengths must lie in \[0, T\] = \[0, 5\]; got 6"),
        ({"keys": np.zeros((5, 3, 1))}, ValueError, r"keys must be \(5, 3, 2\); got \(5, 3, 1\)"),
    ],
)
def test_wrong_arguments(change, error, message):
    arguments = {"queries": np.zeros((T, N, H)), "memory": np.zeros((S, N, E))} | change
    with pytest.raises(error, match=message):
        make("additive")(**arguments)


def test_wrong_settings():
    with pytest.raises(ValueError, match="keys belong to the additive score; got ndarray"):
        make("multiplicative")(np.zeros((T, N, H)), np.zeros((S, N, E)), keys=np.zeros((S, N, A)))
    with pytest.raises(ValueError, match="score must be one of 'additive', 'multiplicative'; got 'dot'"):
        rc.Attention(3, 3, "dot")
    with pytest.raises(ValueError, match="memory_size must be at least 1; got 0"):
        rc.Attention(3, 0)
