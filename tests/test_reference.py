"""The reference against numbers from elsewhere, its gradients against central differences, and its edges.

Numeric gradients cannot see two gates swapped, because such a cell is consistent with itself; so the forward
pass is compared with fractions worked out by hand, with published course results, and with a scalar loop.
"""

import doctest
import inspect
import itertools
import math

import gradcheck
import numpy as np
import pytest
from gradcheck import check_gradients

from rnncore import reference
from rnncore.reference import gru, lstm, rnn

# Both sides compute the same float64 expressions of scale 1, in another order: some 1e-16 a step.
TOL = 1e-12

LN2, LN3, LN4 = math.log(2), math.log(3), math.log(4)
# sigmoid(ln 3) = 3/4   sigmoid(-ln 3) = 1/4   sigmoid(ln 4) = 4/5   tanh(ln 2) = 3/5   tanh(ln 3) = 4/5

CELLS = [
    ("rnn", {"activation": "tanh"}),
    ("rnn", {"activation": "relu"}),
    ("rnn", {"activation": "identity"}),
    ("gru", {"form": "reset_before", "update": "new"}),
    ("gru", {"form": "reset_before", "update": "old"}),
    ("gru", {"form": "reset_after", "update": "new"}),
    ("gru", {"form": "reset_after", "update": "old"}),
    ("gru", {"form": "simplified", "update": "new"}),
    ("gru", {"form": "simplified", "update": "old"}),
    ("lstm", {"output_activation": "tanh"}),
    ("lstm", {"output_activation": "identity"}),
    ("lstm", {"peephole_output": "current", "output_activation": "tanh"}),
    ("lstm", {"peephole_output": "current", "output_activation": "identity"}),
    ("lstm", {"peephole_output": "previous", "output_activation": "tanh"}),
    ("lstm", {"peephole_output": "previous", "output_activation": "identity"}),
    ("mingru", {"candidate": "identity"}),
    ("mingru", {"candidate": "positive"}),
]
RUNS = ["plain", "reverse", "lengths", "resets", "all", "ids", "ids all"]

every_cell = pytest.mark.parametrize(
    ("cell", "options"), CELLS, ids=lambda v: v if isinstance(v, str) else "-".join(v.values())
)
every_run = pytest.mark.parametrize("run", RUNS)

T, N, D, H = 5, 3, 2, 4


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def close(got, want, tol=TOL):
    np.testing.assert_allclose(got, want, rtol=0, atol=tol, equal_nan=False)


def names_of_gates(cell, options):
    if cell == "rnn":
        return "h"
    if cell == "lstm":
        return "ifgo"
    return "zn" if cell == "mingru" or options["form"] == "simplified" else "rzn"


def make_arguments(rng, cell, options, T=T, N=N, D=D, H=H):
    """Random float64 arrays for every differentiable argument of a cell."""
    G = len(names_of_gates(cell, options))
    shapes = {"x": (T, N, D), "Wx": (D, G * H), "Wh": (H, G * H), "b": (G * H,), "h0": (N, H)}
    if cell == "mingru":
        del shapes["Wh"]
    if cell == "lstm":
        shapes["c0"] = (N, H)
    if "peephole_output" in options:
        shapes["peephole"] = (3, H)
    if options.get("form") == "reset_after":
        shapes["bhn"] = (H,)
    return {name: rng.normal(scale=0.7, size=shape) for name, shape in shapes.items()}


def make_run(rng, run, T=T, N=N):
    """The options of one way to run: ragged lengths with a 0 and a T, resets, reverse."""
    settings = {}
    if run in ("lengths", "all", "ids all"):
        settings["lengths"] = np.array([T - 2, 0, T])
    if run in ("resets", "all", "ids all"):
        settings["resets"] = rng.random((T, N)) < 0.3
        settings["resets"][1, 0] = settings["resets"][2, 2] = True
    if run in ("reverse", "all", "ids all"):
        settings["reverse"] = True
    return settings


def use_ids(rng, run, arguments):
    """Take x out of the arguments and give ids for it, if the run wants that."""
    if not run.startswith("ids"):
        return {}
    x = arguments.pop("x")
    return {"x": rng.integers(0, len(arguments["Wx"]), size=x.shape[:2])}


def forward(cell, **arguments):
    """Call the forward function; return ([h, h_n] or [h, h_n, c_n], cache)."""
    h, state, cache = getattr(reference, f"{cell}_forward")(**arguments)
    return ([h, *state] if cell == "lstm" else [h, state]), cache


def backward(cell, cotangents, cache):
    """Call the backward function; return its gradients by the name of the argument."""
    gradients = getattr(reference, f"{cell}_backward")(cotangents[0], cache, *cotangents[1:])
    return {name[1:]: g for name, g in gradients._asdict().items() if g is not None}


def make_cotangents(rng, outputs):
    return [rng.normal(size=y.shape) for y in outputs]


# ---- hand-worked fractions ---------------------------------------------------------------------------------


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


# ---- published course results ------------------------------------------------------------------------------


def ramp(low, high, *shape):
    return np.linspace(low, high, math.prod(shape)).reshape(shape)


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


# ---- a scalar loop, one row at a time ----------------------------------------------------------------------


def scalar_cell(cell, options, gates, H):
    """Return a function (x_t, h, c) -> (h, c) on lists of floats.

    ``gates[name]`` holds wx[d][k], wh[j][k], b[k]; also "p" (peephole) and "bhn" where the cell has them.
    """

    def logistic(a):
        return 1 / (1 + math.exp(-a))

    def recurrent(name, h, k):
        return sum(h[j] * gates[name][1][j][k] for j in range(H))

    def inputs(name, x, k):
        return sum(x[d] * gates[name][0][d][k] for d in range(len(x))) + gates[name][2][k]

    def pre(name, x, h, k):
        return inputs(name, x, k) + recurrent(name, h, k)

    def rnn_unit(x, h, c, k):
        a = pre("h", x, h, k)
        return {"tanh": math.tanh(a), "relu": max(a, 0.0), "identity": a}[options["activation"]], c[k]

    def gru_unit(x, h, c, k):
        z = logistic(pre("z", x, h, k))
        if options["form"] == "simplified":
            n = math.tanh(pre("n", x, h, k))
        else:
            r = [logistic(pre("r", x, h, j)) for j in range(H)]
            if options["form"] == "reset_before":
                n = math.tanh(inputs("n", x, k) + recurrent("n", [r[j] * h[j] for j in range(H)], k))
            else:
                n = math.tanh(inputs("n", x, k) + r[k] * (recurrent("n", h, k) + gates["bhn"][k]))
        return (z * n + (1 - z) * h[k] if options["update"] == "new" else (1 - z) * n + z * h[k]), c[k]

    def lstm_unit(x, h, c, k):
        p_i, p_f, p_o = (row[k] for row in gates["p"])
        i = logistic(pre("i", x, h, k) + p_i * c[k])
        f = logistic(pre("f", x, h, k) + p_f * c[k])
        new = f * c[k] + i * math.tanh(pre("g", x, h, k))
        seen = c[k] if options.get("peephole_output") == "previous" else new
        o = logistic(pre("o", x, h, k) + p_o * seen)
        return o * (math.tanh(new) if options["output_activation"] == "tanh" else new), new

    def mingru_unit(x, h, c, k):
        z, a = logistic(pre("z", x, h, k)), pre("n", x, h, k)
        n = a if options["candidate"] == "identity" else a + 0.5 if a >= 0 else logistic(a)
        return (1 - z) * h[k] + z * n, 0.0

    unit = {"rnn": rnn_unit, "gru": gru_unit, "lstm": lstm_unit, "mingru": mingru_unit}[cell]

    def step(x, h, c):
        pairs = [unit(x, h, c, k) for k in range(H)]
        return [p[0] for p in pairs], [p[1] for p in pairs]

    return step


def scalar_outputs(cell, options, arguments, x, lengths=None, resets=None, reverse=False):
    """Run every row by itself over its own valid steps."""
    Wx, b, H = arguments["Wx"], arguments["b"], arguments["h0"].shape[1]
    Wh = arguments.get("Wh", np.zeros((H, len(b))))
    T, N = x.shape[:2]
    gates = {
        "p": arguments.get("peephole", np.zeros((3, H))).tolist(),
        "bhn": arguments.get("bhn", np.zeros(H)).tolist(),
    }
    for k, name in enumerate(names_of_gates(cell, options)):
        gates[name] = [w[..., k * H : k * H + H].tolist() for w in (Wx, Wh, b)]
    step = scalar_cell(cell, options, gates, H)

    h_all, h_n, c_n = np.zeros((T, N, H)), np.zeros((N, H)), np.zeros((N, H))
    for n in range(N):
        h, c = arguments["h0"][n].tolist(), arguments.get("c0", np.zeros((N, H)))[n].tolist()
        order = list(range(T if lengths is None else int(lengths[n])))
        for t in order[::-1] if reverse else order:
            if resets is not None and resets[t, n]:
                h, c = [0.0] * H, [0.0] * H
            h, c = step(x[t, n].tolist(), h, c)
            h_all[t, n] = h
        h_n[n], c_n[n] = h, c
    return [h_all, h_n, c_n] if cell == "lstm" else [h_all, h_n]


@every_cell
@every_run
def test_forward_equals_scalar_loop(rng, cell, options, run):
    arguments = make_arguments(rng, cell, options)
    settings = make_run(rng, run)
    x = arguments["x"]
    fixed = use_ids(rng, run, arguments)
    if fixed:
        x = np.eye(D)[fixed["x"]]
    want = scalar_outputs(cell, options, arguments, x, **settings)
    got, cache = forward(cell, **arguments, **fixed, **options, **settings)
    for y, w in zip(got, want, strict=True):
        close(y, w)
    got, nothing = forward(cell, **arguments, **fixed, **options, **settings, training=False)
    assert nothing is None
    for y, w in zip(got, want, strict=True):
        close(y, w)


# ---- gradients ---------------------------------------------------------------------------------------------


@every_cell
@every_run
def test_gradients(rng, cell, options, run):
    arguments = make_arguments(rng, cell, options)
    settings = make_run(rng, run)
    fixed = use_ids(rng, run, arguments)

    def f(**arguments):
        return forward(cell, **arguments, **fixed, **options, **settings)[0]

    outputs, cache = forward(cell, **arguments, **fixed, **options, **settings)
    cotangents = make_cotangents(rng, outputs)
    check_gradients(f, arguments, cotangents, backward(cell, cotangents, cache))


def test_gradcheck_can_fail(rng):
    x = rng.normal(size=(3, 2))
    right = {"x": 2 * x}
    check_gradients(lambda x: [x**2], {"x": x}, [np.ones((3, 2))], right)
    for wrong in (
        2 * x + 1e-5 * (np.arange(6).reshape(3, 2) == 4),
        np.full((3, 2), np.nan),
        2 * x[:2],
        2 * x.T,
    ):
        with pytest.raises(AssertionError):
            check_gradients(lambda x: [x**2], {"x": x}, [np.ones((3, 2))], {"x": wrong})
    with pytest.raises(AssertionError, match="every argument"):
        check_gradients(lambda x: [x**2], {"x": x}, [np.ones((3, 2))], {})


@every_cell
def test_missing_cotangents_are_zeros(rng, cell, options):
    arguments = make_arguments(rng, cell, options)
    outputs, cache = forward(cell, **arguments, **options)
    cotangents = make_cotangents(rng, outputs)
    for k in range(len(outputs)):
        alone = [c if j == k else None for j, c in enumerate(cotangents)]
        zeros = [c if j == k else np.zeros_like(c) for j, c in enumerate(cotangents)]
        want = backward(cell, zeros, cache)
        for name, g in backward(cell, alone, cache).items():
            np.testing.assert_array_equal(g, want[name], err_msg=name)


@every_cell
def test_missing_states_and_biases_are_zeros(rng, cell, options):
    arguments = make_arguments(rng, cell, options)
    optional = [name for name in ("h0", "c0", "bhn") if name in arguments]
    given = {name: np.zeros_like(a) if name in optional else a for name, a in arguments.items()}
    left_out = {name: a for name, a in arguments.items() if name not in optional}
    want, cache = forward(cell, **given, **options)
    got, cache_left_out = forward(cell, **left_out, **options)
    for y, w in zip(got, want, strict=True):
        np.testing.assert_array_equal(y, w)
    cotangents = make_cotangents(rng, want)
    gradients = backward(cell, cotangents, cache)
    assert set(gradients) == set(arguments)
    for name, g in backward(cell, cotangents, cache_left_out).items():
        np.testing.assert_array_equal(g, gradients[name], err_msg=name)


# ---- identities and edges ----------------------------------------------------------------------------------


@every_cell
def test_reset_equals_cutting_there(rng, cell, options):
    arguments = make_arguments(rng, cell, options)
    resets = np.zeros((T, N), bool)
    resets[2] = True
    [h, *states], cache = forward(cell, **arguments, **options, resets=resets)
    first = {**arguments, "x": arguments["x"][:2]}
    rest = {name: a for name, a in arguments.items() if name not in ("h0", "c0")} | {"x": arguments["x"][2:]}
    [h_first, *_], cache_first = forward(cell, **first, **options)
    [h_rest, *states_rest], cache_rest = forward(cell, **rest, **options)
    close(h, np.concatenate([h_first, h_rest]))
    close(states, states_rest)
    dh, *dstates = make_cotangents(rng, [h, *states])
    whole = backward(cell, [dh, *dstates], cache)
    one = backward(cell, [dh[:2]], cache_first)
    two = backward(cell, [dh[2:], *dstates], cache_rest)
    close(whole["x"], np.concatenate([one["x"], two["x"]]))
    close(whole["h0"], one["h0"])
    for name in {"Wx", "Wh"} & arguments.keys():
        close(whole[name], one[name] + two[name])


@every_cell
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("ids", [False, True])
def test_padding_does_not_matter(rng, cell, options, reverse, ids):
    arguments = make_arguments(rng, cell, options)
    lengths = np.array([T - 2, 0, T])
    padding = np.arange(T)[:, None] >= lengths
    resets = rng.random((T, N)) < 0.3
    if ids:
        arguments["x"] = rng.integers(0, D, size=(T, N))
    dirty = arguments["x"].copy()
    dirty[padding] = 10**9 if ids else np.nan
    more_resets = resets | padding
    settings = {**options, "lengths": lengths, "reverse": reverse}

    want, cache_clean = forward(cell, **arguments, **settings, resets=resets)
    got, cache = forward(cell, **{**arguments, "x": dirty}, **settings, resets=more_resets)
    for y, w in zip(got, want, strict=True):
        np.testing.assert_array_equal(y, w)
    for kept in ("h", "gates", "c"):
        if hasattr(cache, kept):
            np.testing.assert_array_equal(getattr(cache, kept)[padding], 0)
    np.testing.assert_array_equal(got[0][padding], 0)

    cotangents = make_cotangents(rng, want)
    dirty_cotangents = [cotangents[0].copy(), *cotangents[1:]]
    dirty_cotangents[0][padding] = np.nan
    gradients = backward(cell, cotangents, cache_clean)
    for name, g in backward(cell, dirty_cotangents, cache).items():
        np.testing.assert_array_equal(g, gradients[name], err_msg=name)
    # The row of length 0 gives its states, and its gradients, straight back.
    for k, name in enumerate(["h0", "c0"][: len(want) - 1], start=1):
        np.testing.assert_array_equal(got[k][1], arguments[name][1])
        np.testing.assert_array_equal(gradients[name][1], cotangents[k][1])


@every_cell
@pytest.mark.parametrize(
    "sizes", [{"T": 0}, {"N": 0}, {"D": 0}, {"T": 0, "N": 0}, {"H": 0}, {"T": 1, "N": 1, "D": 1, "H": 1}]
)
@pytest.mark.parametrize("ragged", [False, True])
def test_empty_sizes(rng, cell, options, sizes, ragged):
    sizes = {"T": T, "N": N, "D": D, "H": H, **sizes}
    arguments = make_arguments(rng, cell, options, **sizes)
    settings = {}
    if ragged:
        settings = {
            "lengths": np.full(sizes["N"], sizes["T"]),
            "resets": np.zeros((sizes["T"], sizes["N"]), bool),
            "reverse": True,
        }
    [h, *states], cache = forward(cell, **arguments, **options, **settings)
    assert h.shape == (sizes["T"], sizes["N"], sizes["H"])
    initial = [arguments[name] for name in ("h0", "c0") if name in arguments]
    for s, s0 in zip(states, initial, strict=True):
        assert s.shape == (sizes["N"], sizes["H"])
        assert not np.shares_memory(s, s0)
        if sizes["T"] == 0:
            np.testing.assert_array_equal(s, s0)
    cotangents = make_cotangents(rng, [h, *states])
    gradients = backward(cell, cotangents, cache)
    assert {name: g.shape for name, g in gradients.items()} == {name: a.shape for name, a in arguments.items()}
    if sizes["T"] == 0:
        for name, cotangent in zip(("h0", "c0"), cotangents[1:], strict=False):
            np.testing.assert_array_equal(gradients[name], cotangent)
    if sizes["D"] == 0:
        x = np.full((sizes["T"], sizes["N"], 1), 5.0)  # D=0 is D=1 with a weight of zero
        same = {**arguments, "x": x, "Wx": np.zeros((1, arguments["Wx"].shape[1]))}
        close(h, forward(cell, **same, **options, **settings)[0][0])


@every_cell
@pytest.mark.parametrize("ids", [False, True])
def test_dtypes(rng, cell, options, ids):
    arguments = make_arguments(rng, cell, options)
    if ids:
        arguments["x"] = rng.integers(0, D, size=(T, N), dtype=np.uint8)

    def dtypes(**changed):
        given = {
            name: a if a.dtype.kind == "u" else a.astype(changed.get(name, changed["rest"]))
            for name, a in arguments.items()
        }
        outputs, cache = forward(cell, **given, **options)
        gradients = backward(cell, [y.astype(np.float64) for y in outputs], cache)
        return {a.dtype for a in (*outputs, *gradients.values(), cache.h, cache.gates)}

    single, double = {np.dtype(np.float32)}, {np.dtype(np.float64)}
    assert dtypes(rest=np.float32) == single
    assert dtypes(rest=np.float64) == double
    assert dtypes(rest=">f8") == double
    assert dtypes(rest=np.float16) == single
    assert dtypes(rest=np.float32, b=np.float16) == single
    for name in arguments:
        if not (ids and name == "x"):
            assert dtypes(rest=np.float32, **{name: np.float64}) == double, name


@every_cell
def test_float16_is_computed_in_float32(rng, cell, options):
    half = {name: a.astype(np.float16) for name, a in make_arguments(rng, cell, options).items()}
    got, _ = forward(cell, **half, **options)
    want, _ = forward(cell, **{name: a.astype(np.float32) for name, a in half.items()}, **options)
    for y, w in zip(got, want, strict=True):
        np.testing.assert_array_equal(y, w)


@every_cell
@every_run
def test_nothing_given_or_kept_is_written(rng, cell, options, run):
    arguments = make_arguments(rng, cell, options)
    settings = make_run(rng, run)
    arguments |= use_ids(rng, run, arguments)
    before = {name: a.copy() for name, a in arguments.items()}
    for a in [*arguments.values(), *(v for v in settings.values() if isinstance(v, np.ndarray))]:
        a.flags.writeable = False
    outputs, cache = forward(cell, **arguments, **options, **settings)
    for kept in (cache.h, cache.gates, *([cache.c] if cell == "lstm" else [])):
        assert not kept.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            kept[...] = 0
    cotangents = make_cotangents(rng, outputs)
    for c in cotangents:
        c.flags.writeable = False
    first = backward(cell, cotangents, cache)
    for y in (*outputs, *first.values()):
        assert y.flags.writeable
        assert not any(np.shares_memory(y, a) for a in (*arguments.values(), *cotangents))
    saved = {name: g.copy() for name, g in first.items()}
    for y in (*outputs, *first.values()):  # results belong to the caller
        y[...] = np.nan
    for name, g in backward(cell, cotangents, cache).items():
        np.testing.assert_array_equal(g, saved[name], err_msg=name)
    for name, a in arguments.items():
        np.testing.assert_array_equal(a, before[name], err_msg=name)


def test_large_values_neither_overflow_nor_warn():
    x = np.array([1e4, -1e4], np.float32).reshape(1, 2, 1)
    with np.errstate(all="raise", under="ignore"):
        _, _, cache = reference.lstm_forward(x, np.ones((1, 4), "f"), np.ones((1, 4), "f"), np.zeros(4, "f"))
    np.testing.assert_array_equal(cache.gates[0], [[1, 1, 1, 1], [0, 0, -1, 0]])


@every_cell
def test_nan_stays_in_its_row(rng, cell, options):
    arguments = make_arguments(rng, cell, options)
    want, _ = forward(cell, **arguments, **options)
    x = arguments["x"].copy()
    x[1, 2] = np.nan
    got, _ = forward(cell, **{**arguments, "x": x}, **options)
    np.testing.assert_array_equal(got[0][:, :2], want[0][:, :2])
    np.testing.assert_array_equal(got[0][0], want[0][0])
    assert np.isnan(got[0][1:, 2]).all()


@pytest.mark.parametrize(
    ("cell", "argument", "choices"),
    [
        ("rnn", "activation", ["tanh", "relu", "identity"]),
        ("gru", "form", ["reset_before", "reset_after", "simplified"]),
        ("gru", "update", ["new", "old"]),
        ("gru", "gate_order", ["rzn", "zrn"]),
        ("lstm", "peephole_output", ["current", "previous"]),
        ("lstm", "output_activation", ["tanh", "identity"]),
    ],
)
@pytest.mark.parametrize("wrong", ["sigmoid", None, ""])
def test_unknown_option(rng, cell, argument, choices, wrong):
    arguments = make_arguments(rng, cell, {"form": "reset_before"})
    with pytest.raises(ValueError, match=argument) as caught:
        forward(cell, **arguments, **{argument: wrong})
    for word in (*choices, repr(wrong)):
        assert word in str(caught.value)


@pytest.mark.parametrize("wrong", ["ifg", "iifgo", "IFGO", "", None, ["i", "f", "g", "o"]])
def test_unknown_gate_order_of_an_lstm(rng, wrong):
    with pytest.raises(ValueError, match="gate_order must be the letters i f g o in some order; got "):
        forward("lstm", **make_arguments(rng, "lstm", {}), gate_order=wrong)


@pytest.mark.parametrize("form", ["reset_before", "simplified"])
def test_bhn_needs_reset_after(rng, form):
    arguments = make_arguments(rng, "gru", {"form": form})
    with pytest.raises(ValueError, match="bhn"):
        reference.gru_forward(**arguments, form=form, bhn=np.zeros(H))


@pytest.mark.parametrize(
    ("cell", "gates", "orders", "options"),
    [
        ("gru", "rzn", ["zrn"], {"form": "reset_before"}),
        ("gru", "rzn", ["zrn"], {"form": "reset_after", "update": "old"}),
        ("lstm", "ifgo", map("".join, itertools.permutations("ifgo")), {"peephole_output": "current"}),
    ],
)
def test_gate_order_is_the_order_of_the_blocks(rng, cell, gates, orders, options):
    arguments = make_arguments(rng, cell, options)
    outputs, cache = forward(cell, **arguments, **options)
    cotangents = make_cotangents(rng, outputs)
    gradients = backward(cell, cotangents, cache)

    for order in orders:

        def arranged(a, order=order):
            return np.concatenate([np.split(a, len(gates), axis=-1)[gates.index(gate)] for gate in order], axis=-1)

        weights = {name: arranged(arguments[name]) for name in ("Wx", "Wh", "b")}
        other_outputs, other = forward(cell, **(arguments | weights), **options, gate_order=order)
        close(other.gates, arranged(cache.gates), TOL)
        for got, wanted in zip(other_outputs, outputs, strict=True):
            close(got, wanted, TOL)
        for name, got in backward(cell, cotangents, other).items():
            close(got, arranged(gradients[name]) if name in weights else gradients[name], TOL)


def test_signatures():
    run = "lengths=None, resets=None, reverse=False, training=True, checkpoint=None"
    want = {
        "rnn_forward": f"(x, Wx, Wh, b, h0=None, *, activation='tanh', {run})",
        "mingru_forward": f"(x, Wx, b, h0=None, *, candidate='identity', {run})",
        "mingru_backward": "(dh, cache, dh_n=None)",
        "rnn_backward": "(dh, cache, dh_n=None)",
        "gru_forward": "(x, Wx, Wh, b, h0=None, *, form='reset_before', update='new', bhn=None, "
        f"gate_order='rzn', {run})",
        "gru_backward": "(dh, cache, dh_n=None)",
        "lstm_forward": "(x, Wx, Wh, b, h0=None, c0=None, *, peephole=None, peephole_output='current', "
        f"output_activation='tanh', gate_order='ifgo', {run})",
        "lstm_backward": "(dh, cache, dh_n=None, dc_n=None)",
    }
    for name, signature in want.items():
        found = inspect.signature(getattr(reference, name))
        plain = [parameter.replace(annotation=parameter.empty) for parameter in found.parameters.values()]
        assert str(found.replace(parameters=plain, return_annotation=found.empty)) == signature
    assert reference.RNNGradients._fields == ("dx", "dWx", "dWh", "db", "dh0")
    assert reference.GRUGradients._fields == ("dx", "dWx", "dWh", "db", "dh0", "dbhn")
    assert reference.LSTMGradients._fields == ("dx", "dWx", "dWh", "db", "dh0", "dc0", "dpeephole")


@pytest.mark.parametrize("module", [rnn, gru, lstm, gradcheck], ids=lambda m: m.__name__)
def test_docstring_examples(module):
    failed, attempted = doctest.testmod(module)
    assert attempted > 0
    assert failed == 0
