"""The reference against the equations for one unit, and its gradients against central differences."""

import math

import numpy as np
import pytest
from support.gradcheck import check_gradients
from support.reference import (
    D,
    backward,
    close,
    every_cell,
    every_run,
    forward,
    make_arguments,
    make_cotangents,
    make_run,
    names_of_gates,
    use_ids,
)


def scalar_cell(cell, options, gates, H):
    """Return a function (x_t, h, c, mask) -> (h, c) on lists of floats.

    ``gates[name]`` holds wx[d][k], wh[j][k], b[k]; also "p" (peephole) and "bhn" where the cell has them.
    """

    mask = [1.0] * H

    def logistic(a):
        return 1 / (1 + math.exp(-a))

    def recurrent(name, h, k):
        return sum(mask[j] * h[j] * gates[name][1][j][k] for j in range(H))

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

    def step(x, h, c, mask_of_row):
        mask[:] = mask_of_row
        pairs = [unit(x, h, c, k) for k in range(H)]
        return [p[0] for p in pairs], [p[1] for p in pairs]

    return step


def scalar_outputs(cell, options, arguments, x, lengths=None, resets=None, reverse=False, recurrent_mask=None):
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

    mask = np.ones((N, H)) if recurrent_mask is None else recurrent_mask
    h_all, h_n, c_n = np.zeros((T, N, H)), np.zeros((N, H)), np.zeros((N, H))
    for n in range(N):
        h, c = arguments["h0"][n].tolist(), arguments.get("c0", np.zeros((N, H)))[n].tolist()
        order = list(range(T if lengths is None else int(lengths[n])))
        for t in order[::-1] if reverse else order:
            if resets is not None and resets[t, n]:
                h, c = [0.0] * H, [0.0] * H
            h, c = step(x[t, n].tolist(), h, c, mask[n].tolist())
            h_all[t, n] = h
        h_n[n], c_n[n] = h, c
    return [h_all, h_n, c_n] if cell == "lstm" else [h_all, h_n]


# ---- a scalar loop, one row at a time ------------------------------------------------------------------------------


@every_cell
@every_run
def test_forward_equals_scalar_loop(rng, cell, options, run):
    arguments = make_arguments(rng, cell, options)
    settings = make_run(rng, run, cell)
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


# ---- gradients -----------------------------------------------------------------------------------------------------


@every_cell
@every_run
def test_gradients(rng, cell, options, run):
    arguments = make_arguments(rng, cell, options)
    settings = make_run(rng, run, cell)
    fixed = use_ids(rng, run, arguments)

    def f(**arguments):
        return forward(cell, **arguments, **fixed, **options, **settings)[0]

    outputs, cache = forward(cell, **arguments, **fixed, **options, **settings)
    cotangents = make_cotangents(rng, outputs)
    check_gradients(f, arguments, cotangents, backward(cell, cotangents, cache))


def test_gradcheck_can_fail(rng):
    x = rng.normal(size=(3, 2))
    right = {"x": 2 * x}
    for directions in (None, 2):
        check_gradients(lambda x: [x**2], {"x": x}, [np.ones((3, 2))], right, directions=directions)
    for wrong in (
        2 * x + 1e-5 * (np.arange(6).reshape(3, 2) == 4),
        np.full((3, 2), np.nan),
        2 * x[:2],
        2 * x.T,
    ):
        for directions in (None, 2):
            with pytest.raises(AssertionError):
                check_gradients(lambda x: [x**2], {"x": x}, [np.ones((3, 2))], {"x": wrong}, directions=directions)
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
