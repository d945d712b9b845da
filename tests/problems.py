"""Random problems for the three cells, and one way to run them through the reference or the engine."""

import numpy as np

# Relative to the largest value of the array compared, or to 1, the size of the inputs and cotangents, where a sum of
# many such terms happens to cancel. float64: the engine sums in another order and its exp is good to
# a few units in the last place, 1e-15 a step, with room for a hundred steps of growth. float32: the same at 1e-7.
TOLERANCE = {"float64": 1e-10, "float32": 2e-5}

# name -> (cell, gate blocks G, options)
VARIANTS = {
    **{f"rnn-{a}": ("rnn", 1, {"activation": a}) for a in ("tanh", "relu", "identity")},
    **{
        f"gru-{form}-{update}": ("gru", 2 if form == "simplified" else 3, {"form": form, "update": update})
        for form in ("reset_before", "reset_after", "simplified")
        for update in ("new", "old")
    },
    **{
        f"lstm-{peephole}-{activation}": (
            "lstm",
            4,
            {"output_activation": activation} | ({} if peephole == "plain" else {"peephole_output": peephole}),
        )
        for peephole in ("plain", "current", "previous")
        for activation in ("tanh", "identity")
    },
    "gru-reset_before-zrn": ("gru", 3, {"gate_order": "zrn"}),
    "gru-reset_after-zrn": ("gru", 3, {"form": "reset_after", "update": "old", "gate_order": "zrn"}),
    "lstm-plain-fgio": ("lstm", 4, {"gate_order": "fgio"}),
    "lstm-current-ogif": ("lstm", 4, {"peephole_output": "current", "gate_order": "ogif"}),
    "lstm-previous-gofi": ("lstm", 4, {"peephole_output": "previous", "gate_order": "gofi"}),
}


def make_problem(
    rng, variant, T=7, N=3, D=4, H=5, dtype="float64", *, lengths=False, resets=False, reverse=False, ids=False
):
    """-> cell name, dict of arguments for its forward function. No weight is symmetric, no state is zero."""
    cell, G, options = VARIANTS[variant]

    def normal(*shape, scale=1.0):
        return (scale * rng.normal(size=shape)).astype(dtype)

    arguments = {
        "x": rng.integers(D, size=(T, N)) if ids else normal(T, N, D),
        "Wx": normal(D, G * H, scale=0.7 / np.sqrt(D)),
        "Wh": normal(H, G * H, scale=0.7 / np.sqrt(H)),
        "b": normal(G * H, scale=0.5),
        "h0": normal(N, H),
        **options,
    }
    if cell == "lstm":
        arguments["c0"] = normal(N, H)
        if "peephole_output" in options:
            arguments["peephole"] = normal(3, H, scale=0.5)
    if options.get("form") == "reset_after":
        arguments["bhn"] = normal(H, scale=0.5)
    if lengths:
        arguments["lengths"] = rng.integers(T + 1, size=N)
        if N > 1:
            arguments["lengths"][rng.integers(N)] = 0
    if resets:
        arguments["resets"] = rng.random((T, N)) < 0.3
    if reverse:
        arguments["reverse"] = True
    return cell, arguments


def make_cotangents(rng, cell, T, N, H, dtype="float64"):
    shapes = {"dh": (T, N, H), "dh_n": (N, H)} | ({"dc_n": (N, H)} if cell == "lstm" else {})
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}


def run(module, cell, arguments, cotangents):
    """-> dict of every output and every gradient of a cell."""
    h, state, cache = getattr(module, f"{cell}_forward")(**arguments)
    h_n, c_n = state if cell == "lstm" else (state, None)
    gradients = getattr(module, f"{cell}_backward")(cache=cache, **cotangents)
    return {"h": h, "h_n": h_n, "c_n": c_n, "gates": cache.gates, **gradients._asdict()}


def assert_same(actual, expected, tolerance, context=""):
    """Compare two results of `run`: same keys, shapes, and values to a tolerance relative to scale."""
    assert actual.keys() == expected.keys(), (actual.keys(), expected.keys())
    for name, wanted in expected.items():
        got = actual[name]
        if wanted is None or got is None:
            assert got is wanted, f"{name} {context}: {got} is not {wanted}"
            continue
        scale = np.abs(wanted).max(initial=1)
        np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * scale, err_msg=f"{name} {context}")
