"""Dropout between layers and on the recurrent weights."""

import numpy as np
import pytest
from support.layers import (
    CLOSE,
    D,
    H,
    N,
    T,
    each_cell,
    gradients_of,
    join,
    make_layer,
    make_state,
    split,
    with_recurrent_weights,
)

import rnncore as rc
from rnncore import functional, reference


def identity_stack(num_layers, size, **options):
    """A recurrent stack that hands its input through: only dropout can change it."""
    layer = rc.RNN(size, size, num_layers, activation="identity", dtype="float64", **options)
    for name, value in layer.params.items():
        value[...] = np.eye(size) if name.startswith("Wx") else 0
    return layer


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_dropout_acts_between_layers_and_scales(rng, num_layers):
    dropout = 0.3
    layer = identity_stack(num_layers, 30, dropout=dropout, seed=5)
    x = rng.uniform(1, 2, size=(40, 20, 30))
    y, _, _ = layer.forward(x)
    factor = y / x
    kept = factor > 0
    np.testing.assert_allclose(factor[kept], (1 - dropout) ** (1 - num_layers), rtol=1e-12)
    # 24000 draws: the share is good to 0.003, five times that is allowed.
    share = (1 - dropout) ** (num_layers - 1)
    assert abs(kept.mean() - share) < 0.016
    if num_layers > 1:  # each step, row and unit on its own
        for axes in ((1, 2), (0, 2), (0, 1)):
            shares = kept.mean(axis=axes)
            assert 0 < shares.std() < 0.1
        assert (kept[0] != kept[1]).any()
        assert (kept[:, 0] != kept[:, 1]).any()
        again, _, _ = layer.forward(x)
        assert ((again > 0) != kept).any()
    np.testing.assert_array_equal(layer(x)[0], x)  # inference: off


def test_dropout_leaves_final_states_of_its_own_layer(rng):
    """What is dropped is what the next layer sees, not the state."""
    layer = identity_stack(2, 30, dropout=0.5, seed=5)
    x = rng.uniform(1, 2, size=(4, 5, 30))
    y, h, _ = layer.forward(x)
    np.testing.assert_array_equal(h[0], x[-1])
    np.testing.assert_array_equal(h[1], y[-1])
    assert (y == 0).any()


def test_seeds_reproduce_dropout(rng):
    x = rng.uniform(1, 2, size=(4, 5, 30))
    runs = []
    for seed in (5, 5, np.random.default_rng(5), 6):
        layer = identity_stack(2, 30, dropout=0.5, seed=seed)
        runs.append(np.stack([layer.forward(x)[0], layer.forward(x)[0]]))
    np.testing.assert_array_equal(runs[1], runs[0])
    np.testing.assert_array_equal(runs[2], runs[0])
    assert (runs[3] != runs[0]).any()


@pytest.mark.parametrize("backend", [functional, reference], ids=["engine", "reference"])
@pytest.mark.parametrize("kind", with_recurrent_weights)
def test_recurrent_dropout_is_one_mask_a_sequence_for_all_steps(rng, kind, backend):
    """Each sequence alone, by weights whose rows are scaled: (mask * h') Wh = h' (diag(mask) Wh)."""
    layer = make_layer(rng, kind, num_layers=2, bidirectional=True, recurrent_dropout=0.5)
    layer.backend = backend
    x, lengths, state = rng.normal(size=(T, N, D)), [4, 0, 5], make_state(rng, layer)
    dy, dstate = rng.normal(size=(T, N, 2 * H)), make_state(rng, layer)
    y, final, cache = layer.forward(x, join(layer, state), lengths)
    dx, dinitial = layer.backward(dy, cache, join(layer, dstate))
    masks = dict(zip(("_0", "_0_reverse", "_1", "_1_reverse"), cache.recurrent_masks, strict=True))
    for mask in masks.values():
        assert mask.shape == (N, H)
        assert set(mask.ravel()) <= {0, 2}
    assert len({row.tobytes() for mask in masks.values() for row in mask}) > N
    sums = {name: np.zeros_like(p) for name, p in layer.params.items()}
    for n in range(N):
        row = slice(n, n + 1)
        scaled = make_layer(rng, kind, num_layers=2, bidirectional=True)
        for name, value in scaled.params.items():
            value[...] = layer.params[name]
        for end, mask in masks.items():
            scaled.params["Wh" + end] *= mask[n][:, None]
        state_n, dstate_n = ([a[:, row] for a in arrays] for arrays in (state, dstate))
        arguments = x[:, row], state_n, lengths[row]
        y_n, final_n = scaled(arguments[0], join(layer, state_n), lengths[row])
        np.testing.assert_allclose(y[:, row], y_n, **CLOSE)
        np.testing.assert_allclose(np.stack(split(layer, final))[:, :, row], np.stack(split(layer, final_n)), **CLOSE)
        gradients = gradients_of(scaled, *arguments, dy[:, row], dstate_n)
        np.testing.assert_allclose(dx[:, row], gradients.pop("x"), **CLOSE)
        for k, d in enumerate(split(layer, dinitial)):
            np.testing.assert_allclose(d[:, row], gradients.pop(f"state {k}"), **CLOSE)
        for end, mask in masks.items():
            gradients["Wh" + end] *= mask[n][:, None]
        for name, gradient in gradients.items():
            sums[name] += gradient
    for name, wanted in sums.items():
        atol = CLOSE["atol"] * np.abs(wanted).max(initial=1)
        np.testing.assert_allclose(layer.grads[name], wanted, rtol=0, atol=atol, err_msg=name)


@each_cell
def test_no_recurrent_dropout_is_as_without_the_argument(rng, kind):
    x, dy = rng.normal(size=(T, N, D)), rng.normal(size=(T, N, 2 * H))
    runs = []
    for options in ({}, {"recurrent_dropout": 0}):
        layer = make_layer(np.random.default_rng(0), kind, num_layers=2, bidirectional=True, dropout=0.5, **options)
        y, _, cache = layer.forward(x)
        assert cache.recurrent_masks == []
        dx, _ = layer.backward(dy, cache)
        runs.append([y, dx, *layer.grads.values()])
    for a, b in zip(*runs, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", with_recurrent_weights)
def test_inference_has_no_recurrent_dropout(rng, kind):
    layer = make_layer(rng, kind, num_layers=2, recurrent_dropout=0.5)
    plain = make_layer(rng, kind, num_layers=2)
    for name, value in plain.params.items():
        value[...] = layer.params[name]
    x = rng.normal(size=(T, N, D))
    np.testing.assert_array_equal(layer(x)[0], plain(x)[0])
    stream = layer.stream(N)
    np.testing.assert_array_equal([stream.step(x_t) for x_t in x], plain(x)[0])
    assert np.abs(layer.forward(x)[0] - plain(x)[0]).max() > 1e-3
    for name, value in plain.params.items():
        np.testing.assert_array_equal(layer.params[name], value)


def test_recurrent_masks_are_drawn_anew_every_call_and_keep_the_mean():
    layer = rc.RNN(1, 1000, 2, bidirectional=True, recurrent_dropout=0.3, init="uniform", dtype="float32", seed=5)
    calls = [layer.forward(np.ones((2, 3, 1)))[2].recurrent_masks for _ in range(2)]
    masks = [row for call in calls for mask in call for row in mask]
    assert len({m.tobytes() for m in masks}) == 24
    for m in masks:
        assert m.dtype == np.float32
        assert set(m) == {np.float32(0), np.float32(1) / np.float32(0.7)}
        assert abs((m > 0).mean() - 0.7) < 0.06  # 1000 draws: four standard deviations


def test_dropout_is_in_the_description():
    layer = rc.GRU(2, 3, dropout=0.25, recurrent_dropout=0.5)
    assert repr(layer) == "GRU(2, 3, 1, dropout=0.25, recurrent_dropout=0.5)"
    assert "dropout" not in repr(rc.GRU(2, 3))
