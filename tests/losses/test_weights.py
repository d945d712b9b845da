"""Weights of the positions of a loss."""

import numpy as np
import pytest
from support.compare import TOLERANCE, literally
from support.gradcheck import check_gradients
from support.losses import FUNCTIONS, N, T, V, every_dtype, every_loss, every_reduction, make_targets, plain_softmax

import rnncore as rc

every_weighted_loss = pytest.mark.parametrize("kind", ["softmax", "sigmoid", "fused"])


def weighted_problem(rng, kind, dtype="float64"):
    """-> call(x, targets, lengths, **options) -> (loss, dx), x, targets, and plain(x, targets) -> losses, dx."""
    x = rng.normal(scale=2, size=(T, N, V)).astype(dtype)
    targets = make_targets(rng, "sigmoid" if kind == "sigmoid" else "softmax", x.shape)
    if kind != "fused":
        return FUNCTIONS[kind][0], x, targets, FUNCTIONS[kind][1]
    dense = rc.Dense(V, V, dtype=dtype, seed=0)
    W, b = (dense.params[name].astype("float64") for name in ("W", "b"))

    def call(*arguments, **options):
        return rc.fused_softmax_cross_entropy(dense, *arguments, **options)

    def plain(x, targets):
        losses, gradients = plain_softmax(np.asarray(x, "float64") @ W + b, targets)
        return losses, gradients @ W.T

    return call, x, targets, plain


def make_weights(rng):
    weights = rng.uniform(0.1, 3, size=(T, N))
    weights[0, 0] = weights[3, 2] = 0
    return weights


@pytest.mark.parametrize("lengths", [None, [2, 0, 4]], ids=str)
@every_reduction
@every_dtype
@every_weighted_loss
def test_weights_equal_the_formula(rng, kind, dtype, reduction, lengths):
    call, x, targets, plain = weighted_problem(rng, kind, dtype)
    w = make_weights(rng)
    valid = np.ones((T, N)) if lengths is None else np.arange(T)[:, None] < np.array(lengths)
    losses, gradients = plain(x, targets)
    c = w * valid
    if reduction == "mean":
        c /= c.sum()
    wanted_loss = losses * c if reduction == "none" else (losses * c).sum()
    loss, dx = call(x, targets, lengths, weights=w, reduction=reduction)
    tolerance = 4 * TOLERANCE[dtype]
    np.testing.assert_allclose(loss, wanted_loss, rtol=0, atol=tolerance * np.abs(wanted_loss).max())
    np.testing.assert_allclose(dx, gradients * c[..., None], rtol=0, atol=tolerance)
    np.testing.assert_array_equal(dx[c == 0], 0)
    assert dx.dtype == dtype
    assert type(loss) is (np.ndarray if reduction == "none" else float)


@pytest.mark.parametrize("lengths", [None, [2, 0, 4]], ids=str)
@every_reduction
@every_weighted_loss
def test_numeric_gradients_with_weights(rng, kind, reduction, lengths):
    call, x, targets, _ = weighted_problem(rng, kind)
    weights = make_weights(rng)
    options = {"weights": weights, "reduction": reduction}
    cotangent = np.ones((T, N)) if reduction == "none" else 1.0
    _, dx = call(x, targets, lengths, **options)
    check_gradients(lambda x: [call(x, targets, lengths, **options)[0]], {"x": x}, [cotangent], {"x": dx})


@every_reduction
def test_numeric_gradients_of_the_output_layer_with_weights(rng, reduction):
    call, x, targets, _ = weighted_problem(rng, "fused")
    weights, lengths = make_weights(rng), [3, 4, 2]
    dense = rc.Dense(V, V, dtype="float64", seed=0)

    def f(W, b):
        dense.params["W"][...], dense.params["b"][...] = W, b
        options = {"weights": weights, "reduction": reduction, "training": False}
        return [rc.fused_softmax_cross_entropy(dense, x, targets, lengths, **options)[0]]

    params = {name: value.copy() for name, value in dense.params.items()}
    rc.fused_softmax_cross_entropy(dense, x, targets, lengths, weights=weights, reduction=reduction)
    cotangent = np.ones((T, N)) if reduction == "none" else 1.0
    check_gradients(f, params, [cotangent], {name: value.copy() for name, value in dense.grads.items()})


@every_reduction
@every_weighted_loss
def test_what_stands_at_weight_zero_changes_nothing(rng, kind, reduction):
    call, x, targets, _ = weighted_problem(rng, kind)
    lengths, weights = np.array([2, 0, 4]), make_weights(rng)
    expected = call(x, targets, lengths, weights=weights, reduction=reduction)
    padding = np.arange(T)[:, None] >= lengths
    x[padding | (weights == 0)] = np.nan
    targets[padding | (weights == 0)] = -1
    weights[padding] = np.nan
    before = weights.copy()
    loss, dx = call(x, targets, lengths, weights=weights, reduction=reduction)
    np.testing.assert_array_equal(loss, expected[0])
    np.testing.assert_array_equal(dx, expected[1])
    np.testing.assert_array_equal(weights, before)


@pytest.mark.parametrize("lengths", [None, [3, 4, 2]], ids=str)
def test_what_stands_at_weight_zero_does_not_reach_the_output_layer(rng, lengths):
    x, targets = rng.normal(size=(T, N, V)), rng.integers(V, size=(T, N))
    weights = make_weights(rng)
    counts = (weights != 0) & (np.arange(T)[:, None] < (T if lengths is None else np.array(lengths)))
    grads = []
    for garbage in (0, np.nan):
        dense = rc.Dense(V, V, dtype="float64", seed=0)
        x[~counts] = garbage
        rc.fused_softmax_cross_entropy(dense, x, targets, lengths, weights=weights)
        grads.append(dense.grads)
    for name in ("W", "b"):
        np.testing.assert_array_equal(grads[1][name], grads[0][name])


@every_reduction
@every_dtype
@every_weighted_loss
def test_weights_of_zero_and_one_are_a_mask(rng, kind, dtype, reduction):
    """The same bits as lengths give, and as no weights where all are one."""
    call, x, targets, _ = weighted_problem(rng, kind, dtype)
    valid = np.arange(T)[:, None] < [2, 0, 4]
    for lengths, mask in (([2, 0, 4], valid), (None, np.ones((T, N), bool))):
        expected = call(x, targets, lengths, reduction=reduction)
        for kinds in ("bool", "int8", "uint64", "float16", ">f4", "float64"):
            loss, dx = call(x, targets, weights=mask.astype(kinds), reduction=reduction)
            np.testing.assert_array_equal(loss, expected[0])
            np.testing.assert_array_equal(dx, expected[1])
    loss, _ = call(x, targets, weights=valid.tolist(), reduction=reduction)
    np.testing.assert_array_equal(loss, call(x, targets, [2, 0, 4], reduction=reduction)[0])


@every_weighted_loss
def test_a_mean_does_not_depend_on_the_scale_of_weights(rng, kind):
    call, x, targets, _ = weighted_problem(rng, kind)
    weights = rng.integers(9, size=(T, N)).astype("float64")
    expected = call(x, targets, weights=weights)
    for exponent in (-1070, -30, 30, 1020):
        loss, dx = call(x, targets, weights=np.ldexp(weights, exponent))
        np.testing.assert_array_equal(loss, expected[0])
        np.testing.assert_array_equal(dx, expected[1])


@every_reduction
@every_weighted_loss
def test_weights_that_are_all_zero(rng, kind, reduction):
    call, x, targets, _ = weighted_problem(rng, kind)
    some = np.zeros((T, N))
    some[2:] = 1
    for lengths, weights in ((None, np.zeros((T, N))), ([2, 1, 0], some)):
        loss, dx = call(np.full_like(x, np.nan), targets, lengths, weights=weights, reduction=reduction)
        np.testing.assert_array_equal(loss, np.zeros((T, N)) if reduction == "none" else 0)
        np.testing.assert_array_equal(dx, 0)


@every_loss
def test_weights_of_any_number_of_axes(rng, kind):
    function, _ = FUNCTIONS[kind]
    for shape in [(V,), (6, V), (2, 3, 2, V), (0, 3, V)]:
        logits, targets = rng.normal(size=shape), make_targets(rng, kind, shape)
        losses, gradients = function(logits, targets, reduction="none")
        weights = rng.uniform(1, 2, size=shape[:-1])
        loss, dlogits = function(logits, targets, weights=weights, reduction="none")
        assert dlogits.shape == shape
        np.testing.assert_allclose(loss, losses * weights, rtol=1e-14)
        np.testing.assert_allclose(dlogits, gradients * np.asarray(weights)[..., None], rtol=0, atol=1e-14)


def test_weights_may_share_memory_with_out(rng):
    logits, targets = rng.normal(size=(T, N, V)), rng.integers(V, size=(T, N))
    weights = rng.uniform(size=(T, N))
    expected = rc.softmax_cross_entropy(logits, targets, weights=weights)
    out = np.empty((T, N, V))
    shared = out.reshape(-1)[: T * N].reshape(T, N)
    shared[...] = weights
    loss, dlogits = rc.softmax_cross_entropy(logits, targets, weights=shared, out=out)
    np.testing.assert_array_equal(loss, expected[0])
    np.testing.assert_array_equal(dlogits, expected[1])


@every_weighted_loss
def test_wrong_weights(rng, kind):
    call, x, targets, _ = weighted_problem(rng, kind)
    for dtype in ("complex128", "object", "U1"):
        wrong = np.ones((T, N)).astype(dtype)
        with pytest.raises(TypeError, match=literally(f"weights must be real numbers; got dtype {wrong.dtype}")):
            call(x, targets, weights=wrong)
    for shape in [(), (N,), (T, 1), (N, T), (T, N, 1), (T, N, V)]:
        message = f"weights must have the shape of the steps, {(T, N)}; got {shape}"
        with pytest.raises(ValueError, match=literally(message)):
            call(x, targets, weights=np.ones(shape))
    for wrong in (-1.0, -1e-300, np.nan, np.inf, -np.inf):
        weights = np.ones((T, N))
        weights[2, 1] = wrong
        for lengths in (None, [0, 3, 0]):
            with pytest.raises(ValueError, match=literally(f"weights must be finite and not negative; got {wrong}")):
                call(x, targets, lengths, weights=weights)


@pytest.mark.parametrize("kind", ["softmax", "fused"])
def test_the_target_that_an_error_names_counts(rng, kind):
    call, x, targets, _ = weighted_problem(rng, kind)
    weights = np.ones((T, N))
    weights[0, 1], targets[0, 1], targets[2, 0] = 0, -7, V
    with pytest.raises(ValueError, match=literally(f"targets must lie in [0, V) = [0, {V}); got {V}")):
        call(x, targets, weights=weights)
