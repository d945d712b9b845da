"""Losses against formulas written down plainly, and their gradients against central differences."""

import numpy as np
import pytest
from support.compare import TOLERANCE
from support.gradcheck import check_gradients
from support.isas import DEFAULT
from support.losses import FUNCTIONS, N, T, V, every_dtype, every_loss, every_reduction, make_targets

import rnncore as rc


def reduce(losses, gradients, valid, reduction):
    """The documented meaning of a reduction, over the valid positions."""
    losses, gradients = np.where(valid, losses, 0), np.where(valid[..., None], gradients, 0)
    if reduction == "none":
        return losses, gradients
    scale = 1 / max(valid.sum(), 1) if reduction == "mean" else 1
    return losses.sum() * scale, gradients * scale


# ---- values --------------------------------------------------------------------------------------------------------


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
        rc.use_isa(DEFAULT)
    valid = np.arange(T)[:, None] < np.array([4, 1, 2])
    wanted_loss, wanted_gradient = reduce(*plain(logits, targets), valid, "mean")
    np.testing.assert_allclose(loss, wanted_loss, rtol=0, atol=TOLERANCE[dtype] * wanted_loss)
    np.testing.assert_allclose(dlogits, wanted_gradient, rtol=0, atol=TOLERANCE[dtype])


# ---- padding -------------------------------------------------------------------------------------------------------


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


# ---- numbers -------------------------------------------------------------------------------------------------------


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
