"""Sequences of 100,000 steps whose gates are shut or open, or whose states grow: finite, and as closed forms say."""

import itertools

import numpy as np
import pytest
from support.compare import TOLERANCE, assert_same
from support.functions import every_dtype, every_path, problem
from support.problems import run

import rnncore as rc
from rnncore import reference

T = 100_000
with_checkpoints = pytest.mark.parametrize("checkpoint", [None, True], ids=["all steps kept", "checkpoint"])


def saturate(rng, arguments):
    """Shut or open every gate of every unit."""
    arguments["b"][:] = rng.choice([-200, 200], size=arguments["b"].shape)
    arguments["Wx"] *= arguments["Wx"].dtype.type(0.1)
    if "Wh" in arguments:
        arguments["Wh"] *= arguments["Wh"].dtype.type(0.1)


@with_checkpoints
@every_dtype
@every_path
def test_saturated_gates(rng, variant, dtype, checkpoint):
    """All results and gradients are finite; the first 300 steps are those of the reference."""
    cell, arguments, cotangents = problem(rng, variant, dtype, T=T, N=2, D=2, H=9)
    saturate(rng, arguments)
    results = run(rc, cell, arguments | {"checkpoint": checkpoint}, cotangents)
    for name, array in results.items():
        assert array is None or np.isfinite(array).all(), name
    start = {"x": arguments["x"][:300]}, {"dh": cotangents["dh"][:300]}
    short = run(rc, cell, arguments | start[0] | {"checkpoint": checkpoint}, cotangents | start[1])
    wanted = run(reference, cell, arguments | start[0], cotangents | start[1])
    if checkpoint:
        wanted["gates"] = None  # not kept
    assert_same(short, wanted, TOLERANCE[dtype])
    np.testing.assert_array_equal(results["h"][:300], short["h"])


@with_checkpoints
@every_dtype
def test_an_lstm_counts_to_100000(rng, dtype, checkpoint):
    """i = f = o = 1 and g = 1, -1, 0: c = c0 + T g and h = c, exactly."""
    N, H = 2, 3
    b = np.full(4 * H, 1e3, dtype)
    b[2 * H : 3 * H] = 1e3, -1e3, 0
    c0 = rng.integers(-9, 10, size=(N, H)).astype(dtype)
    x, Wx, Wh = np.zeros((T, N, 1), dtype), rng.normal(size=(1, 4 * H)).astype(dtype), np.zeros((H, 4 * H), dtype)
    options = {"c0": c0, "output_activation": "identity", "checkpoint": checkpoint}
    h, (_, c_n), cache = rc.lstm_forward(x, Wx, Wh, b, **options)
    g = np.array([1, -1, 0])
    np.testing.assert_array_equal(c_n, c0 + T * g)
    np.testing.assert_array_equal(h, c0 + np.arange(1, T + 1)[:, None, None] * g)
    dh_n, dc_n = (rng.integers(-9, 10, size=(N, H)).astype(dtype) for _ in range(2))
    grads = rc.lstm_backward(np.zeros_like(h), cache, dh_n, dc_n)
    np.testing.assert_array_equal(grads.dc0, dh_n + dc_n)
    wanted = np.zeros((4, H))
    wanted[2] = T * (dh_n + dc_n).sum(axis=0) * (1 - g**2)
    np.testing.assert_array_equal(grads.db.reshape(4, H), wanted)
    wanted[2] = ((dh_n + dc_n) * (1 - g**2) * Wx.reshape(4, H)[2])[0]
    np.testing.assert_allclose(grads.dx[:, 0, 0], np.full(T, wanted[2].sum()), rtol=TOLERANCE[dtype])


@with_checkpoints
@every_dtype
@pytest.mark.parametrize(
    ("cell", "form", "update"),
    [
        *(
            ("gru", *words)
            for words in itertools.product(("reset_before", "reset_after", "simplified"), ("new", "old"))
        ),
        ("mingru", "simplified", "new"),
    ],
)
def test_a_shut_gate_keeps_the_state(rng, cell, form, update, dtype, checkpoint):
    """h = h0 at every step and dh0 = the sum of all dh, exactly; no gradient of a weight."""
    N, D, H = 2, 2, 5
    G = 2 if form == "simplified" else 3
    words = {} if cell == "mingru" else {"form": form, "update": update}
    b = rng.normal(size=G * H).astype(dtype)
    b[(G - 2) * H : (G - 1) * H] = -1e3 if update == "new" else 1e3
    weights = [rng.normal(size=(D, G * H)), rng.normal(size=(H, G * H))][: 1 if cell == "mingru" else 2]
    h0, dh_n = (rng.integers(-9, 10, size=(N, H)).astype(dtype) for _ in range(2))
    x, dh = rng.normal(size=(T, N, D)).astype(dtype), rng.integers(-9, 10, size=(T, N, H)).astype(dtype)
    arguments = [x, *(W.astype(dtype) for W in weights), b]
    h, _, cache = getattr(rc, f"{cell}_forward")(*arguments, h0=h0, checkpoint=checkpoint, **words)
    np.testing.assert_array_equal(h, np.broadcast_to(h0, h.shape))
    grads = getattr(rc, f"{cell}_backward")(dh, cache, dh_n)
    np.testing.assert_array_equal(grads.dh0, dh.sum(axis=0) + dh_n)
    for name, gradient in grads._asdict().items():
        if name != "dh0" and gradient is not None:
            np.testing.assert_array_equal(gradient, np.zeros_like(gradient), err_msg=name)


@with_checkpoints
@every_dtype
def test_a_relu_network_turns_its_state(rng, dtype, checkpoint):
    """With a permutation for Wh the state comes round every H steps, and so does the gradient, exactly."""
    N, H = 2, 5
    turn = np.roll(np.eye(H), 1, axis=1)  # h Wh = np.roll(h, 1)
    h0, dh_n = rng.integers(1, 4, size=(N, H)).astype(dtype), rng.integers(-3, 4, size=(N, H)).astype(dtype)
    x, Wx, b = np.zeros((T, N, 1), dtype), np.ones((1, H), dtype), np.zeros(H, dtype)
    h, h_n, cache = rc.rnn_forward(x, Wx, turn.astype(dtype), b, h0, activation="relu", checkpoint=checkpoint)
    assert T % H == 0
    np.testing.assert_array_equal(h_n, h0)
    np.testing.assert_array_equal(h[H - 1 :: H], np.broadcast_to(h0, (T // H, N, H)))
    grads = rc.rnn_backward(np.zeros_like(h), cache, dh_n)
    np.testing.assert_array_equal(grads.dh0, dh_n)
    turns = [(np.roll(h0, k, axis=1).T @ np.roll(dh_n, k + 1, axis=1)) for k in range(H)]
    np.testing.assert_array_equal(grads.dWh, T // H * sum(turns))
    np.testing.assert_array_equal(grads.db, np.full(H, T // H * dh_n.sum()))


@with_checkpoints
@every_dtype
def test_an_orthogonal_network_keeps_the_norm(rng, dtype, checkpoint):
    """h = h0 Wh^T and dh0 = dh_n (Wh^T)', as powers of the matrix give them."""
    N, H = 2, 16
    Wh = np.linalg.qr(rng.normal(size=(H, H)))[0].astype(dtype)
    h0, dh_n = (rng.normal(size=(N, H)).astype(dtype) for _ in range(2))
    x, Wx, b = np.zeros((T, N, 1), dtype), np.ones((1, H), dtype), np.zeros(H, dtype)
    h, h_n, cache = rc.rnn_forward(x, Wx, Wh, b, h0, activation="identity", checkpoint=checkpoint)
    power = np.linalg.matrix_power(Wh.astype("f8"), T)
    grads = rc.rnn_backward(np.zeros_like(h), cache, dh_n)
    # An error of half a unit in the last place at each of T steps, in sums of H terms.
    tolerance = 4 * T * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(h_n, h0 @ power, atol=tolerance)
    np.testing.assert_allclose(grads.dh0, dh_n @ power.T, atol=tolerance)
    assert np.isfinite(grads.dWh).all()
