"""The reference against numbers worked out by hand and published course results."""

import math

import numpy as np
import pytest
from support.reference import close

from rnncore import reference

# ---- hand-worked fractions -----------------------------------------------------------------------------------------


def test_rnn_identity_and_relu_by_hand():
    x = np.array([[[1.0, 2.0]], [[-1.0, 1.0]]])  # T=2, N=1, D=2
    Wx = np.array([[1.0, 2.0], [3.0, -1.0]])
    Wh = np.array([[1.0, -2.0], [3.0, 1.0]])
    b = np.array([1.0, -3.0])
    h0 = np.array([[1.0, 2.0]])
    # identity  t=0: (7, 0) + (7, 0) + (1, -3) = (15, -3);   t=1: (2, -3) + (6, -33) + (1, -3) = (9, -39)
    h, h_n, _ = reference.rnn_forward(x, Wx, Wh, b, h0, activation="identity")
    np.testing.assert_array_equal(h[:, 0], [[15, -3], [9, -39]])
    np.testing.assert_array_equal(h_n, [[9, -39]])
    # relu      t=0: (15, 0);   t=1: (2, -3) + (15, -30) + (1, -3) = (18, -36) -> (18, 0)
    h, h_n, _ = reference.rnn_forward(x, Wx, Wh, b, h0, activation="relu")
    np.testing.assert_array_equal(h[:, 0], [[15, 0], [18, 0]])
    np.testing.assert_array_equal(h_n, [[18, 0]])


# sigmoid(ln 3) = 3/4   sigmoid(-ln 3) = 1/4   sigmoid(ln 4) = 4/5   tanh(ln 2) = 3/5   tanh(ln 3) = 4/5
LN2, LN3, LN4 = math.log(2), math.log(3), math.log(4)


def test_rnn_tanh_by_hand():
    # t=0: tanh(ln 2) = 3/5;   t=1: tanh(ln 3 - 3/5 + 3/5) = 4/5 with Wh = 2, x = ln 3 - 6/5
    x = np.array([LN2 - 1, LN3 - 1.2]).reshape(2, 1, 1)
    h, h_n, _ = reference.rnn_forward(x, [[1.0]], [[2.0]], [0.0], [[0.5]])
    close(h.ravel(), [0.6, 0.8])
    close(h_n, [[0.8]])


def test_lstm_by_hand():
    Wx, Wh, b = np.array([[LN3, LN4, LN2, -LN3]]), np.zeros((1, 4)), np.zeros(4)
    x = np.array([1.0, -1.0]).reshape(2, 1, 1)
    # t=0: i f g o = 3/4 4/5 3/5 1/4,    c = 4/5 * 1/2 + 3/4 * 3/5 = 0.85
    # t=1: i f g o = 1/4 1/5 -3/5 3/4,   c = 1/5 * 0.85 - 1/4 * 3/5 = 0.02
    h, (h_n, c_n), cache = reference.lstm_forward(x, Wx, Wh, b, c0=[[0.5]])
    close(cache.gates[:, 0], [[0.75, 0.8, 0.6, 0.25], [0.25, 0.2, -0.6, 0.75]])
    close(cache.c.ravel(), [0.85, 0.02])
    close(h.ravel(), [math.tanh(0.85) / 4, math.tanh(0.02) * 3 / 4])
    close([h_n.item(), c_n.item()], [math.tanh(0.02) * 3 / 4, 0.02])
    h, (h_n, c_n), _ = reference.lstm_forward(x, Wx, Wh, b, c0=[[0.5]], output_activation="identity")
    close(h.ravel(), [0.85 / 4, 0.02 * 3 / 4])
    close([h_n.item(), c_n.item()], [0.015, 0.02])


def test_lstm_recurrent_weights_by_hand():
    Wh, b = np.array([[LN3, LN4, LN2, -LN3]]), np.zeros(4)
    # h' = 1: the gates 3/4 4/5 3/5 1/4 come from h' alone;   h' = -1: 1/4 1/5 -3/5 3/4
    for h0, gates in ((1.0, [0.75, 0.8, 0.6, 0.25]), (-1.0, [0.25, 0.2, -0.6, 0.75])):
        _, _, cache = reference.lstm_forward(np.zeros((1, 1, 1)), np.zeros((1, 4)), Wh, b, [[h0]])
        close(cache.gates.ravel(), gates)


@pytest.mark.parametrize(("peephole_output", "po"), [("current", -LN3 / 0.85), ("previous", -LN3 / 0.5)])
def test_lstm_peephole_by_hand(peephole_output, po):
    # c' = 1/2 makes i = 3/4 and f = 4/5 through pi = 2 ln 3 and pf = 2 ln 4, the bias g = 3/5, so c = 0.85;
    # o = 1/4 through po and the cell it sees, 0.85 or 1/2.
    peephole = np.array([[2 * LN3], [2 * LN4], [po]])
    h, (_, c_n), cache = reference.lstm_forward(
        np.zeros((1, 1, 1)),
        np.zeros((1, 4)),
        np.zeros((1, 4)),
        np.array([0, 0, LN2, 0]),
        c0=[[0.5]],
        peephole=peephole,
        peephole_output=peephole_output,
        output_activation="identity",
    )
    close(cache.gates.ravel(), [0.75, 0.8, 0.6, 0.25])
    close([c_n.item(), h.item()], [0.85, 0.2125])


@pytest.mark.parametrize(
    ("form", "whn", "bhn"),
    [
        ("reset_before", LN2 / 0.375, None),  # (r h') whn       = 3/8 whn         = ln 2
        ("reset_after", 2 * LN2, LN2 / 3),  # r (h' whn + bhn) = 3/4 * 4/3 ln 2  = ln 2
        ("simplified", 2 * LN2, None),  # h' whn           = 1/2 * 2 ln 2    = ln 2
    ],
)
@pytest.mark.parametrize(("update", "want"), [("new", 0.58), ("old", 0.52)])
def test_gru_by_hand(form, whn, bhn, update, want):
    # h' = 1/2, r = 3/4, z = 4/5, n = tanh(ln 2) = 3/5
    # new: 4/5 * 3/5 + 1/5 * 1/2 = 0.58      old: 1/5 * 3/5 + 4/5 * 1/2 = 0.52
    Wx, Wh, b = np.zeros((1, 3)), np.array([[0, 0, whn]]), np.array([LN3, LN4, 0])
    gates = [0.75, 0.8, 0.6]
    if form == "simplified":
        Wx, Wh, b, gates = Wx[:, 1:], Wh[:, 1:], b[1:], gates[1:]
    bhn = None if bhn is None else np.array([bhn])
    h, h_n, cache = reference.gru_forward(np.zeros((1, 1, 1)), Wx, Wh, b, [[0.5]], form=form, update=update, bhn=bhn)
    close(cache.gates.ravel(), gates)
    close([h.item(), h_n.item()], [want, want])


@pytest.mark.parametrize("form", ["reset_before", "reset_after"])
def test_gru_weights_by_hand(form):
    # Each gate from x alone, then r and z from h' = 1 alone.
    close(
        reference.gru_forward(np.ones((1, 1, 1)), [[LN3, LN4, LN2]], np.zeros((1, 3)), np.zeros(3), form=form)[
            2
        ].gates.ravel(),
        [0.75, 0.8, 0.6],
    )
    close(
        reference.gru_forward(np.zeros((1, 1, 1)), np.zeros((1, 3)), [[LN3, LN4, 0]], np.zeros(3), [[1.0]], form=form)[
            2
        ].gates.ravel(),
        [0.75, 0.8, 0],
    )


def ramp(low, high, *shape):
    return np.linspace(low, high, math.prod(shape)).reshape(shape)


# ---- published course results --------------------------------------------------------------------------------------


def test_cs231n_rnn():
    x, h0, b = ramp(-0.4, 0.7, 1, 3, 10), ramp(-0.2, 0.5, 3, 4), ramp(-0.2, 0.4, 4)
    _, h_n, _ = reference.rnn_forward(x, ramp(-0.1, 0.9, 10, 4), ramp(-0.3, 0.7, 4, 4), b, h0)
    want = [
        [-0.58172089, -0.50182032, -0.41232771, -0.31410098],
        [0.66854692, 0.79562378, 0.87755553, 0.92795967],
        [0.97934501, 0.99144213, 0.99646691, 0.99854353],
    ]
    close(h_n, want, 1e-8)

    x, h0, b = ramp(-0.1, 0.3, 2, 3, 4), ramp(-0.3, 0.1, 2, 5), ramp(-0.7, 0.1, 5)
    h, _, _ = reference.rnn_forward(x.transpose(1, 0, 2), ramp(-0.2, 0.4, 4, 5), ramp(-0.4, 0.1, 5, 5), b, h0)
    want = [
        [-0.42070749, -0.27279261, -0.11074945, 0.05740409, 0.22236251],
        [-0.39525808, -0.22554661, -0.0409454, 0.14649412, 0.32397316],
        [-0.42305111, -0.24223728, -0.04287027, 0.15997045, 0.35014525],
    ]
    close(h[:, 0], want, 1e-8)


def test_cs231n_lstm():
    def blocks_ifgo(a):  # CS231n lays them out i f o g
        i, f, o, g = np.split(a, 4, axis=-1)
        return np.concatenate([i, f, g, o], axis=-1)

    x, h0 = ramp(-0.4, 0.6, 2, 3, 5), ramp(-0.4, 0.8, 2, 4)
    Wx, Wh, b = ramp(-0.2, 0.9, 5, 16), ramp(-0.3, 0.6, 4, 16), ramp(0.2, 0.7, 16)
    h, _, _ = reference.lstm_forward(x.transpose(1, 0, 2), blocks_ifgo(Wx), blocks_ifgo(Wh), blocks_ifgo(b), h0)
    want = [
        [[0.01764008, 0.01823233, 0.01882671, 0.0194232], [0.45767879, 0.4761092, 0.4936887, 0.51041945]],
        [[0.11287491, 0.12146228, 0.13018446, 0.13902939], [0.6704845, 0.69350089, 0.71486014, 0.7346449]],
        [[0.31358768, 0.33338627, 0.35304453, 0.37250975], [0.81733511, 0.83677871, 0.85403753, 0.86935314]],
    ]
    close(h, want, 1e-8)


def test_deep_learning_specialization_rnn_cell():
    r = np.random.RandomState(1)  # the notebook's seed; examples in columns
    x, a_prev, Waa, Wax, _, ba = (r.randn(*s) for s in [(3, 10), (5, 10), (5, 5), (5, 3), (2, 5), (5, 1)])
    _, h_n, _ = reference.rnn_forward(x.T[None], Wax.T, Waa.T, ba[:, 0], a_prev.T)
    want = [0.59584544, 0.18141802, 0.61311866, 0.99808218, 0.85016201, 0.99980978, -0.18887155, 0.99815551]
    close(h_n[:8, 4], want, 1e-8)


def test_deep_learning_specialization_lstm_cell():
    r = np.random.RandomState(1)
    x, a_prev, c_prev = r.randn(3, 10), r.randn(5, 10), r.randn(5, 10)
    Wf, bf, Wi, bi, Wo, bo, Wc, bc = (r.randn(5, k) for k in (8, 1) * 4)
    W, b = np.concatenate([Wi, Wf, Wc, Wo]).T, np.concatenate([bi, bf, bc, bo])[:, 0]  # rows [a, x]
    _, (h_n, c_n), _ = reference.lstm_forward(x.T[None], W[5:], W[:5], b, a_prev.T, c_prev.T)
    close(h_n[:5, 4], [-0.66408471, 0.0036921, 0.02088357, 0.22834167, -0.85575339], 1e-8)
    close(c_n[:5, 2], [0.63267805, 1.00570849, 0.35504474, 0.20690913, -1.64566718], 1e-8)
