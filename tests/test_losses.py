"""Losses against formulas written down plainly, and their gradients against central differences."""

import re

import numpy as np
import pytest
from gradcheck import check_gradients
from layouts import assert_near
from problems import TOLERANCE

import rnncore as rc
from rnncore.engine import native

T, N, V = 4, 3, 5

every_dtype = pytest.mark.parametrize("dtype", TOLERANCE)
every_reduction = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
every_loss = pytest.mark.parametrize("kind", ["softmax", "sigmoid"])


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def literally(text):
    return f"^{re.escape(text)}$"


def plain_softmax(logits, targets):
    """-> losses (...) and gradients (..., V), one position after the other."""
    losses, gradients = np.zeros(targets.shape), np.zeros(logits.shape)
    for index in np.ndindex(targets.shape):
        y = np.array(logits[index], "float64")
        p = np.exp(y - y.max())
        p /= p.sum()
        losses[index] = -np.log(p[targets[index]])
        p[targets[index]] -= 1
        gradients[index] = p
    return losses, gradients


def plain_sigmoid(logits, targets):
    y, t = np.asarray(logits, "float64"), np.asarray(targets, "float64")
    p = 1 / (1 + np.exp(-y))
    return -(t * np.log(p) + (1 - t) * np.log(1 - p)).sum(axis=-1), p - t


FUNCTIONS = {
    "softmax": (rc.softmax_cross_entropy, plain_softmax),
    "sigmoid": (rc.sigmoid_cross_entropy, plain_sigmoid),
}


def make_targets(rng, kind, shape, dtype="float64"):
    """Targets for logits of a shape: ids, or probabilities with plenty of 0 and 1."""
    if kind == "softmax":
        return rng.integers(shape[-1], size=shape[:-1])
    return np.clip(rng.uniform(-0.5, 1.5, size=shape), 0, 1).astype(dtype)


def reduce(losses, gradients, valid, reduction):
    """The documented meaning of a reduction, over the valid positions."""
    losses, gradients = np.where(valid, losses, 0), np.where(valid[..., None], gradients, 0)
    if reduction == "none":
        return losses, gradients
    scale = 1 / max(valid.sum(), 1) if reduction == "mean" else 1
    return losses.sum() * scale, gradients * scale


# ---- values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [None, [2, 0, 4], [0, 0, 0], [4, 4, 4]], ids=str)
@every_reduction
@every_dtype
@every_loss
def test_equals_the_formula(rng, kind, dtype, reduction, lengths):
    function, plain = FUNCTIONS[kind]
    logits = rng.normal(scale=3, size=(T, N, V)).astype(dtype)
    targets = make_targets(rng, kind, logits.shape)
    valid = np.ones((T, N), bool) if lengths is None else np.arange(T)[:, None] < np.array(lengths)
    loss, dlogits = function(logits, targets, lengths, reduction=reduction)
    wanted_loss, wanted_gradient = reduce(*plain(logits, targets), valid, reduction)
    scale = np.abs(wanted_loss).max(initial=1)
    np.testing.assert_allclose(loss, wanted_loss, rtol=0, atol=TOLERANCE[dtype] * scale)
    np.testing.assert_allclose(dlogits, wanted_gradient, rtol=0, atol=TOLERANCE[dtype])
    np.testing.assert_array_equal(dlogits[~valid], 0)
    assert dlogits.dtype == dtype
    if reduction == "none":
        assert loss.dtype == np.float64
        assert loss.shape == (T, N)
        np.testing.assert_array_equal(loss[~valid], 0)
    else:
        assert type(loss) is float


@pytest.mark.parametrize("lengths", [None, [2, 0, 4]], ids=str)
@every_reduction
@every_loss
def test_numeric_gradients(rng, kind, reduction, lengths):
    function, _ = FUNCTIONS[kind]
    logits = rng.normal(scale=2, size=(T, N, V))
    targets = make_targets(rng, kind, logits.shape)

    def f(logits):
        return [function(logits, targets, lengths, reduction=reduction)[0]]

    # of the sum of the losses for "none"
    cotangent = np.ones((T, N)) if reduction == "none" else 1.0
    _, dlogits = function(logits, targets, lengths, reduction=reduction)
    check_gradients(f, {"logits": logits}, [cotangent], {"logits": dlogits})


def test_numbers_worked_out_by_hand():
    loss, dlogits = rc.softmax_cross_entropy(np.log([[1.0, 2.0, 5.0], [3.0, 3.0, 2.0]]), [2, 0])
    np.testing.assert_allclose(loss, (np.log(8 / 5) + np.log(8 / 3)) / 2, rtol=1e-14)
    expected = np.array([[1, 2, -3], [-5, 3, 2]]) / 16
    np.testing.assert_allclose(dlogits, expected, rtol=1e-13)
    logits = np.log([[3.0, 1 / 3], [4.0, 1.0]])  # sigmoid: 3/4 1/4 4/5 1/2
    loss, dlogits = rc.sigmoid_cross_entropy(logits, [[1, 0], [0, 0.5]])
    np.testing.assert_allclose(loss, (2 * np.log(4 / 3) + np.log(5) + np.log(2)) / 2, rtol=1e-14)
    np.testing.assert_allclose(dlogits, np.array([[-0.25, 0.25], [0.8, 0]]) / 2, rtol=1e-13, atol=1e-16)


@every_reduction
@pytest.mark.parametrize(
    "shape",
    [(V,), (6, V), (2, 3, V), (2, 3, 2, V), (3, 2, 1), (0, 3, V), (3, 0, V), (0, V)],
    ids=str,
)
@every_loss
def test_any_number_of_axes(rng, kind, shape, reduction):
    function, plain = FUNCTIONS[kind]
    logits = rng.normal(size=shape)
    targets = make_targets(rng, kind, shape)
    loss, dlogits = function(logits, targets, reduction=reduction)
    wanted_loss, wanted_gradient = reduce(*plain(logits, targets), np.ones(shape[:-1], bool), reduction)
    assert np.shape(loss) == np.shape(wanted_loss)
    assert dlogits.shape == shape
    np.testing.assert_allclose(loss, wanted_loss, rtol=0, atol=TOLERANCE["float64"])
    np.testing.assert_allclose(dlogits, wanted_gradient, rtol=0, atol=TOLERANCE["float64"])


@pytest.mark.parametrize("V", [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 1000])
@every_dtype
@every_loss
def test_every_row_length(rng, kind, dtype, V):
    """Vector loops have tails."""
    function, plain = FUNCTIONS[kind]
    logits = rng.normal(scale=3, size=(3, 2, V)).astype(dtype)
    targets = make_targets(rng, kind, logits.shape)
    targets[0, 0] = V - 1 if kind == "softmax" else 1
    loss, dlogits = function(logits, targets, reduction="none")
    wanted_loss, wanted_gradient = plain(logits, targets)
    scale = np.abs(wanted_loss).max(initial=1)
    np.testing.assert_allclose(loss, wanted_loss, rtol=0, atol=TOLERANCE[dtype] * scale)
    np.testing.assert_allclose(dlogits, wanted_gradient, rtol=0, atol=TOLERANCE[dtype])
    if V == 1 and kind == "softmax":  # there is nothing to choose
        np.testing.assert_array_equal(loss, 0)
        np.testing.assert_array_equal(dlogits, 0)


@pytest.mark.parametrize("isa", rc.available_isas())
@every_dtype
@every_loss
def test_every_instruction_set(rng, kind, dtype, isa):
    function, plain = FUNCTIONS[kind]
    logits = rng.normal(scale=3, size=(T, N, 37)).astype(dtype)
    targets = make_targets(rng, kind, logits.shape)
    try:
        rc.use_isa(isa)
        loss, dlogits = function(logits, targets, [4, 1, 2])
    finally:
        rc.use_isa(rc.available_isas()[-1])
    valid = np.arange(T)[:, None] < np.array([4, 1, 2])
    wanted_loss, wanted_gradient = reduce(*plain(logits, targets), valid, "mean")
    np.testing.assert_allclose(loss, wanted_loss, rtol=0, atol=TOLERANCE[dtype] * wanted_loss)
    np.testing.assert_allclose(dlogits, wanted_gradient, rtol=0, atol=TOLERANCE[dtype])


# ---- padding -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf, 1e30])
@every_reduction
@every_dtype
@every_loss
def test_what_stands_in_the_padding_changes_nothing(rng, kind, dtype, reduction, garbage):
    function, _ = FUNCTIONS[kind]
    lengths = np.array([2, 0, 4])
    logits = rng.normal(size=(T, N, V)).astype(dtype)
    targets = make_targets(rng, kind, logits.shape)
    expected = function(logits, targets, lengths, reduction=reduction)
    padding = np.arange(T)[:, None] >= lengths
    logits[padding] = garbage
    for wrong in (-1, V, -(2**62), 2**62) if kind == "softmax" else (-1, 2, np.nan, np.inf):
        targets[padding] = wrong
        loss, dlogits = function(logits, targets, lengths, reduction=reduction)
        np.testing.assert_array_equal(loss, expected[0])
        np.testing.assert_array_equal(dlogits, expected[1])
    if kind == "softmax":
        loss, dlogits = function(logits, targets, lengths, reduction=reduction, out=logits)
        np.testing.assert_array_equal(loss, expected[0])
        np.testing.assert_array_equal(dlogits, expected[1])


@every_loss
def test_nan_stays_in_its_position(rng, kind):
    function, _ = FUNCTIONS[kind]
    logits = rng.normal(size=(T, N, V))
    targets = make_targets(rng, kind, logits.shape)
    expected, wanted_gradient = function(logits, targets, reduction="none")
    logits[1, 2, 3] = np.nan
    loss, dlogits = function(logits, targets, reduction="none")
    assert np.isnan(loss[1, 2])
    assert np.isnan(dlogits[1, 2, 3])
    assert np.isnan(function(logits, targets)[0])
    others = np.ones((T, N), bool)
    others[1, 2] = False
    np.testing.assert_array_equal(loss[others], expected[others])
    np.testing.assert_array_equal(dlogits[others], wanted_gradient[others])


# ---- weights -----------------------------------------------------------------------------------------------


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


# ---- numbers -----------------------------------------------------------------------------------------------


@every_dtype
def test_huge_logits_of_softmax(dtype):
    big = 1e4 if dtype == "float32" else 1e300
    logits = np.array([[big, 0, -big], [big, 0, -big], [big, big, -big], [-big, -big, -big]], dtype)
    loss, dlogits = rc.softmax_cross_entropy(logits, [0, 1, 1, 2], reduction="none")
    np.testing.assert_allclose(loss, [0, big, np.log(2), np.log(3)], rtol=TOLERANCE[dtype])
    third = 1 / 3
    expected = [[0, 0, 0], [1, -1, 0], [0.5, -0.5, 0], [third, third, third - 1]]
    np.testing.assert_allclose(dlogits, expected, rtol=0, atol=TOLERANCE[dtype])


@every_dtype
def test_huge_logits_of_sigmoid(dtype):
    big = 1e4 if dtype == "float32" else 1e300
    logits = np.array([[big], [big], [-big], [-big], [big]], dtype)
    loss, dlogits = rc.sigmoid_cross_entropy(logits, [[1], [0], [0], [1], [0.5]], reduction="none")
    np.testing.assert_allclose(loss, [0, big, 0, big, big / 2], rtol=TOLERANCE[dtype])
    np.testing.assert_allclose(dlogits, [[0], [1], [0], [-1], [0.5]], rtol=0, atol=TOLERANCE[dtype])


def test_small_losses_keep_their_digits():
    """log1p(exp(-30)), not log(1 + exp(-30)), which rounds."""
    loss, _ = rc.sigmoid_cross_entropy(np.array([[30.0]]), np.array([[1.0]]))
    np.testing.assert_allclose(loss, np.log1p(np.exp(-30.0)), rtol=1e-12)


@every_dtype
def test_a_logit_of_minus_infinity_has_no_probability(dtype):
    logits = np.array([[0, -np.inf, np.log(3)]], dtype)
    loss, dlogits = rc.softmax_cross_entropy(logits, [2])
    np.testing.assert_allclose(loss, np.log(4 / 3), rtol=TOLERANCE[dtype])
    np.testing.assert_allclose(dlogits, [[0.25, 0, -0.25]], rtol=0, atol=TOLERANCE[dtype])


def test_many_steps_add_up_in_float64(rng):
    """A mean over 200000 equal losses in float32: a float32 sum would be off by 1e-3 or so."""
    logits = np.tile(rng.normal(size=3).astype("float32"), (200_000, 1))
    targets = np.ones(len(logits), int)
    one, _ = rc.softmax_cross_entropy(logits[:1], targets[:1])
    loss, _ = rc.softmax_cross_entropy(logits, targets)
    np.testing.assert_allclose(loss, one, rtol=1e-10)


# ---- dtypes and layouts ------------------------------------------------------------------------------------


@every_loss
def test_float16_is_computed_in_float32(rng, kind):
    function, _ = FUNCTIONS[kind]
    logits = rng.normal(size=(T, N, V)).astype("float16")
    targets = make_targets(rng, kind, logits.shape)
    loss, dlogits = function(logits, targets)
    expected, wanted_gradient = function(logits.astype("float32"), targets)
    assert dlogits.dtype == np.float32
    np.testing.assert_array_equal(loss, expected)
    np.testing.assert_array_equal(dlogits, wanted_gradient)


@pytest.mark.parametrize("dtype", ["bool", "int64", "uint8", "float16", "float32", "float64"])
def test_dtypes_of_sigmoid_targets(rng, dtype):
    logits = rng.normal(size=(T, N, V)).astype("float32")
    targets = rng.integers(2, size=(T, N, V)).astype(dtype)
    loss, dlogits = rc.sigmoid_cross_entropy(logits, targets)
    expected, wanted_gradient = rc.sigmoid_cross_entropy(logits, targets.astype("float32"))
    np.testing.assert_array_equal(loss, expected)
    np.testing.assert_array_equal(dlogits, wanted_gradient)
    assert dlogits.dtype == np.float32


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", ">i8", "uint64"])
def test_dtypes_of_softmax_targets(rng, dtype):
    logits, targets = rng.normal(size=(T, N, V)), rng.integers(V, size=(T, N))
    loss, dlogits = rc.softmax_cross_entropy(logits, targets.astype(dtype))
    expected, wanted_gradient = rc.softmax_cross_entropy(logits, targets)
    np.testing.assert_array_equal(loss, expected)
    np.testing.assert_array_equal(dlogits, wanted_gradient)


LAYOUTS = {
    "Fortran order": np.asfortranarray,
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "negative strides": lambda a: np.flip(np.flip(a).copy()),
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder("S")),
    "misaligned": lambda a: np.frombuffer(b"!" + a.tobytes(), a.dtype, offset=1).reshape(a.shape),
    "batch first": lambda a: a.swapaxes(0, 1).copy().swapaxes(0, 1),
    "list": lambda a: a.tolist(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@every_loss
def test_layouts_give_the_same_and_are_not_written(rng, kind, layout):
    function, _ = FUNCTIONS[kind]
    logits = rng.normal(size=(T, N, V))
    targets = make_targets(rng, kind, logits.shape)
    expected, wanted_gradient = function(logits, targets, [3, 1, 4])
    laid_out = [LAYOUTS[layout](a) for a in (logits, targets)]
    for a in laid_out:
        if isinstance(a, np.ndarray):
            a.flags.writeable = False
    loss, dlogits = function(*laid_out, [3, 1, 4])
    np.testing.assert_array_equal(loss, expected)
    np.testing.assert_array_equal(dlogits, wanted_gradient)
    np.testing.assert_array_equal(laid_out[0], logits)
    assert dlogits.dtype == np.float64
    assert dlogits.dtype.isnative


@every_loss
def test_arguments_are_not_written(rng, kind):
    function, _ = FUNCTIONS[kind]
    logits = rng.normal(size=(T, N, V))
    targets = make_targets(rng, kind, logits.shape)
    copies = logits.copy(), targets.copy()
    _, dlogits = function(logits, targets, [3, 1, 4])
    np.testing.assert_array_equal(logits, copies[0])
    np.testing.assert_array_equal(targets, copies[1])
    assert not np.shares_memory(dlogits, logits)
    assert not np.shares_memory(dlogits, targets)


# ---- out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [None, [2, 0, 4]], ids=str)
@every_reduction
@every_dtype
def test_out(rng, dtype, reduction, lengths):
    logits, targets = rng.normal(size=(T, N, V)).astype(dtype), rng.integers(V, size=(T, N))
    expected, wanted_gradient = rc.softmax_cross_entropy(logits, targets, lengths, reduction=reduction)
    before = logits.copy()
    out = np.full_like(logits, np.nan)
    loss, dlogits = rc.softmax_cross_entropy(logits, targets, lengths, reduction=reduction, out=out)
    assert dlogits is out
    np.testing.assert_array_equal(loss, expected)
    np.testing.assert_array_equal(out, wanted_gradient)
    np.testing.assert_array_equal(logits, before)

    loss, dlogits = rc.softmax_cross_entropy(logits, targets, lengths, reduction=reduction, out=logits)
    assert dlogits is logits
    np.testing.assert_array_equal(loss, expected)
    np.testing.assert_array_equal(logits, wanted_gradient)


def test_out_of_another_dtype(rng):
    logits, targets = rng.normal(size=(T, N, V)), rng.integers(V, size=(T, N))
    for given, wanted in (("float32", "float64"), ("float64", "float32"), ("float16", "float32")):
        out = np.empty((T, N, V), wanted)
        loss, dlogits = rc.softmax_cross_entropy(logits.astype(given), targets, out=out)
        expected, wanted_gradient = plain_softmax(logits.astype(given), targets)
        assert dlogits is out
        np.testing.assert_allclose(loss, expected.mean(), rtol=TOLERANCE[wanted])
        atol = TOLERANCE[wanted]
        np.testing.assert_allclose(dlogits, wanted_gradient / (T * N), rtol=0, atol=atol)


def test_wrong_out(rng):
    logits, targets = rng.normal(size=(T, N, V)), rng.integers(V, size=(T, N))
    for out in (
        np.empty((T, N, V + 1)),
        np.empty((T * N, V)),
        np.empty((1, T, N, V)),
        np.empty((T, N, V), "int64"),
        np.empty((T, N, V), "float16"),
        np.empty((T, N, V), ">f8"),
        np.empty((T, N, V), order="F"),
        np.empty((T, N, 2 * V))[..., ::2],
    ):
        before = logits.copy()
        message = f"out must be a C-contiguous float array of shape {(T, N, V)}; got {out.shape} {out.dtype}"
        with pytest.raises(ValueError, match=literally(message)):
            rc.softmax_cross_entropy(logits, targets, out=out)
        np.testing.assert_array_equal(logits, before)
    read_only = np.zeros((T, N, V))
    read_only.flags.writeable = False
    for given in (logits, read_only):
        with pytest.raises(ValueError, match="read-only"):
            rc.softmax_cross_entropy(given, targets, out=read_only)
    np.testing.assert_array_equal(read_only, 0)


def test_out_of_another_type(rng):
    logits, targets = rng.normal(size=(T, N, V)), rng.integers(V, size=(T, N))
    with pytest.raises((TypeError, ValueError), match="^out must be a C-contiguous float array of shape "):
        rc.softmax_cross_entropy(logits, targets, out=logits.tolist())


# ---- errors ------------------------------------------------------------------------------------------------


@every_loss
def test_wrong_logits(rng, kind):
    function, _ = FUNCTIONS[kind]
    for dtype in ("int64", "bool", "complex128", "object", "longdouble"):
        if np.dtype(dtype) == np.float64:
            continue
        message = "logits must be an array of float32 or float64; got dtype "
        with pytest.raises(TypeError, match=f"^{message}"):
            function(np.zeros((T, N, V), dtype), make_targets(rng, kind, (T, N, V)))
    with pytest.raises(ValueError, match="^targets must have the shape of logits"):
        function(np.float64(3), np.int64(0))


def test_wrong_targets_of_softmax(rng):
    logits, targets = rng.normal(size=(T, N, V)), rng.integers(V, size=(T, N))
    for wrong in [(), (T,), (N, T), (T, 1), (T, N, 1), (T, N, V)]:
        message = f"targets must have the shape of logits without its last axis, {(T, N)}; got {wrong}"
        with pytest.raises(ValueError, match=literally(message)):
            rc.softmax_cross_entropy(logits, np.zeros(wrong, int))
    for dtype in ("float64", "bool", "object"):
        message = f"targets must be integer ids; got dtype {dtype}"
        with pytest.raises(TypeError, match=literally(message)):
            rc.softmax_cross_entropy(logits, targets.astype(dtype))
    for wrong in (-1, V, 2**62, -(2**63)):
        targets[2, 1] = wrong
        before = logits.copy()
        message = f"targets must lie in [0, V) = [0, {V}); got {wrong}"
        for lengths, out in ((None, None), ([0, 3, 0], None), (None, logits)):
            with pytest.raises(ValueError, match=literally(message)):
                rc.softmax_cross_entropy(logits, targets, lengths, out=out)
        np.testing.assert_array_equal(logits, before)
    message = f"targets must lie in [0, V) = [0, {V}); got {2**63 + 1}"
    with pytest.raises(ValueError, match=literally(message)):
        rc.softmax_cross_entropy(logits[0], np.array([0, 1, 2**63 + 1], np.uint64))
    with pytest.raises(ValueError, match=literally("targets must lie in [0, V) = [0, 0); got 0")):
        rc.softmax_cross_entropy(np.zeros((T, N, 0)), np.zeros((T, N), int))


def test_wrong_targets_of_sigmoid(rng):
    logits = rng.normal(size=(T, N, V))
    for wrong in [(), (T, N), (V,), (N, T, V), (T, N, 1), (1, T, N, V)]:
        message = f"targets must have the shape of logits, {(T, N, V)}; got {wrong}"
        with pytest.raises(ValueError, match=literally(message)):
            rc.sigmoid_cross_entropy(logits, np.zeros(wrong))
    for dtype in ("complex128", "object", "U1"):
        message = f"targets must be numbers in [0, 1]; got dtype {np.zeros(1, dtype).dtype}"
        with pytest.raises(TypeError, match=literally(message)):
            rc.sigmoid_cross_entropy(logits, np.zeros((T, N, V), dtype))
    for wrong in (-0.25, 1.5, np.nan, np.inf):
        targets = rng.uniform(size=(T, N, V))
        targets[2, 1, 3] = wrong
        for lengths in (None, [0, 3, 0]):
            with pytest.raises(ValueError, match=r"^targets must lie in \[0, 1\]"):
                rc.sigmoid_cross_entropy(logits, targets, lengths)


def test_sigmoid_tells_the_target_that_came(rng):
    targets = np.zeros((T, N, V))
    targets[2, 1, 3] = 1.5
    with pytest.raises(ValueError, match=literally("targets must lie in [0, 1]; got 1.5")):
        rc.sigmoid_cross_entropy(np.zeros((T, N, V)), targets)


@every_loss
def test_wrong_lengths_and_reductions(rng, kind):
    function, _ = FUNCTIONS[kind]
    logits = rng.normal(size=(T, N, V))
    targets = make_targets(rng, kind, logits.shape)
    for wrong in (-1, T + 1):
        message = f"lengths must lie in [0, T] = [0, {T}]; got {wrong}"
        with pytest.raises(ValueError, match=literally(message)):
            function(logits, targets, [1, wrong, 2])
    for shape in [(), (N + 1,), (T, N), (1,)]:
        with pytest.raises(ValueError, match=literally(f"lengths must be (N,) = {(N,)}; got {shape}")):
            function(logits, targets, np.ones(shape, int))
    with pytest.raises(TypeError, match=literally("lengths must be integers; got dtype float64")):
        function(logits, targets, [1.0, np.nan, 2.0])
    for shape in [(V,), (N, V), (2, T, N, V)]:
        message = f"lengths need logits of shape (T, N, V); got {len(shape)} axes"
        with pytest.raises(ValueError, match=literally(message)):
            function(np.zeros(shape), make_targets(rng, kind, shape), [1, 1, 1])
    for wrong in ("average", "", None, "Mean"):
        message = f"reduction must be one of 'mean', 'sum', 'none'; got {wrong!r}"
        with pytest.raises(ValueError, match=literally(message)):
            function(logits, targets, reduction=wrong)


# The output layer and its loss in one


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(9, 4, 5, 7), (1, 1, 3, 2), (0, 3, 4, 5), (30, 5, 6, 30_000)])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("ragged", [False, True])
def test_fused_loss_has_the_bits_of_its_parts(rng, dtype, shape, reduction, ragged):
    """Also where the logits come in several chunks, and where gradients of an earlier batch stand in the layer."""
    steps, rows, H, classes = shape
    x = rng.normal(size=(steps, rows, H)).astype(dtype)
    targets = rng.integers(classes, size=(steps, rows))
    lengths = rng.integers(steps + 1, size=rows) if ragged else None
    one, other = (rc.Dense(H, classes, dtype=dtype, seed=0) for _ in range(2))
    for layer in (one, other):
        layer.grads["b"][...] = 0.5
    y, cache = one.forward(x)
    loss, dy = rc.softmax_cross_entropy(y, targets, lengths, reduction=reduction)
    dx = one.backward(dy, cache)
    if ragged:
        x[np.arange(steps)[:, None] >= lengths] = np.nan
    fused_loss, fused_dx = rc.fused_softmax_cross_entropy(other, x, targets, lengths, reduction=reduction)
    np.testing.assert_array_equal(fused_loss, loss)
    np.testing.assert_array_equal(fused_dx, dx)
    for name, gradient in one.grads.items():
        np.testing.assert_array_equal(other.grads[name], gradient, err_msg=name)
    only, nothing = rc.fused_softmax_cross_entropy(other, x, targets, lengths, reduction=reduction, training=False)
    np.testing.assert_array_equal(only, loss)
    assert nothing is None


def test_fused_loss_checks_its_arguments(rng):
    dense = rc.Dense(3, 4, seed=0)
    x, targets = rng.normal(size=(5, 2, 3)), rng.integers(4, size=(5, 2))
    for arguments, message in (
        ((x[..., :2], targets), r"x must be \(..., input_size\) = \(..., 3\); got \(5, 2, 2\)"),
        ((x, targets[1:]), "targets must have the shape of x"),
        ((x, targets + 4), r"targets must lie in \[0, V\) = \[0, 4\)"),
        ((x, targets, [6, 1]), "lengths must lie in"),
    ):
        with pytest.raises(ValueError, match=message):
            rc.fused_softmax_cross_entropy(dense, *arguments)
    with pytest.raises(TypeError, match="targets must be integer ids"):
        rc.fused_softmax_cross_entropy(dense, x, targets * 1.0)
    assert not any(gradient.any() for gradient in dense.grads.values())


# ---- the functions under Dense and the fused loss: weights by columns ---------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("L", "D", "K"), [(1, 7, 20), (5, 33, 70), (90, 70, 33), (70, 20, 1100)])
def test_weights_by_columns_give_the_same_bits(L, D, K, dtype):
    rng = np.random.default_rng(3)
    x, W, b, dy = (rng.normal(size=shape).astype(dtype) for shape in [(L, D), (D, K), (K,), (L, K)])
    targets, weights = rng.integers(K, size=L), rng.random(L)
    results = []
    for order in "CF":
        given, dW = np.array(W, order=order), np.zeros_like(W, order=order)
        db = np.zeros_like(b)
        y = native.affine_forward(x, given, b)
        dx = native.affine_backward(x, given, dy, dW, db)
        losses, dx_loss = native.softmax_head(x, given, b, targets, weights, dW, db)
        results.append([y, dx, losses, dx_loss, dW, db])
    assert_near(results[0][:2], [x @ W + b, dy @ W.T], dtype)
    for by_rows, by_columns in zip(*results, strict=True):
        np.testing.assert_array_equal(by_columns, by_rows)
