"""Calls of the reference on random problems."""

import numpy as np
import pytest

from rnncore import reference

# Both sides compute the same float64 expressions of scale 1, in another order: some 1e-16 a step.
TOL = 1e-12

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

RUNS = ["plain", "reverse", "lengths", "resets", "mask", "all", "ids", "ids all"]

every_cell = pytest.mark.parametrize(
    ("cell", "options"), CELLS, ids=lambda v: v if isinstance(v, str) else "-".join(v.values())
)

every_run = pytest.mark.parametrize("run", RUNS)
T, N, D, H = 5, 3, 2, 4


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


def make_run(rng, run, cell, T=T, N=N, H=H):
    """The options of one way to run: ragged lengths with a 0 and a T, resets, reverse, a mask."""
    settings = {}
    if run in ("lengths", "all", "ids all"):
        settings["lengths"] = np.array([T - 2, 0, T])
    if run in ("resets", "all", "ids all"):
        settings["resets"] = rng.random((T, N)) < 0.3
        settings["resets"][1, 0] = settings["resets"][2, 2] = True
    if run in ("reverse", "all", "ids all"):
        settings["reverse"] = True
    if run in ("mask", "ids all") and cell != "mingru":
        settings["recurrent_mask"] = rng.normal(size=(N, H))
        settings["recurrent_mask"][0, 1] = 0
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
