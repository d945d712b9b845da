"""The functions on small random problems: calls, casts and the cells that a test runs on."""

import os
import subprocess
import sys

import numpy as np
import pytest
from support.compare import TOLERANCE
from support.problems import VARIANTS, make_cotangents, make_problem, run

import rnncore as rc

T, N, D, H = 7, 3, 4, 5

# One of each cell, together with every argument that there is.
CELLS = ["rnn-tanh", "gru-reset_after-old", "lstm-peephole-current-tanh", "mingru-positive"]

# One of each path through the code of a cell.
PATHS = [
    "rnn-relu",
    "gru-reset_before-new",
    "gru-reset_after-old",
    "gru-simplified-new",
    "lstm-plain-current-tanh",
    "lstm-peephole-current-tanh",
    "lstm-peephole-previous-identity",
    "mingru-positive",
]

# The axis of the rows of a batch, for every array that has one.
ROW_AXIS = {"x": 1, "resets": 1, "h": 1, "gates": 1, "dh": 1, "dx": 1}
ROW_AXIS |= dict.fromkeys(["h0", "c0", "recurrent_mask", "lengths", "h_n", "c_n", "dh_n", "dc_n", "dh0", "dc0"], 0)

DTYPES = list(TOLERANCE)
every_cell = pytest.mark.parametrize("variant", CELLS)
every_path = pytest.mark.parametrize("variant", PATHS)
every_variant = pytest.mark.parametrize("variant", VARIANTS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
both_directions = pytest.mark.parametrize("reverse", [False, True])


def problem(rng, variant, dtype="float64", T=T, N=N, D=D, H=H, **options):
    """-> cell, arguments, cotangents"""
    cell, arguments = make_problem(rng, variant, T, N, D, H, dtype, **options)
    return cell, arguments, make_cotangents(rng, cell, T, N, H, dtype)


def results_of(seed):
    """Of the engine, for the problem of a seed. Here, where other processes can import it."""
    rng = np.random.default_rng(seed)
    return run(rc, *problem(rng, PATHS[seed % len(PATHS)], "float32", T=12, N=9, D=20, H=40))


def forward(cell, arguments, **changes):
    return getattr(rc, f"{cell}_forward")(**{**arguments, **changes})


def backward(cell, cache, cotangents, **changes):
    return getattr(rc, f"{cell}_backward")(cache=cache, **{**cotangents, **changes})


def final_states(cell, state):
    """What a forward function returns second, as a list [h_n] or [h_n, c_n]."""
    return list(state) if cell == "lstm" else [state]


def floats_of(arguments):
    """The names of the arguments that are floating arrays."""
    return [name for name, a in arguments.items() if isinstance(a, np.ndarray) and a.dtype.kind == "f"]


def cast(arguments, dtype):
    floats = floats_of(arguments)
    return {name: a.astype(dtype) if name in floats else a for name, a in arguments.items()}


def take_rows(arrays, rows):
    return {
        name: np.take(a, rows, ROW_AXIS[name]) if name in ROW_AXIS and a is not None else a
        for name, a in arrays.items()
    }


def in_chunks(cell, arguments, cotangents, cuts, reverse):
    """`run`, but piece by piece: the state goes along, its gradient comes back."""
    spans = [slice(*pair) for pair in zip([0, *cuts], [*cuts, len(arguments["x"])], strict=True)]
    states = {name: arguments[name] for name in ("h0", "c0") if name in arguments}
    h, gates, dx, caches = {}, {}, {}, {}
    for span in spans[::-1] if reverse else spans:
        part = {"x": arguments["x"][span]} | states
        if "lengths" in arguments:
            part["lengths"] = np.clip(arguments["lengths"] - span.start, 0, span.stop - span.start)
        if "resets" in arguments:
            part["resets"] = arguments["resets"][span]
        h[span.start, span.stop], state, cache = forward(cell, arguments | part)
        caches[span.start, span.stop], gates[span.start, span.stop] = cache, cache.gates
        states = dict(zip(states, final_states(cell, state), strict=True))

    gradients = {}
    d_n = {name: d for name, d in cotangents.items() if name != "dh"}
    for span, cache in reversed(caches.items()):
        g = backward(cell, cache, {"dh": cotangents["dh"][slice(*span)], **d_n})._asdict()
        dx[span] = g.pop("dx")
        d_n = {f"d{s}_n": g.pop(f"d{s}0") for s in ("h", "c") if f"d{s}0" in g}
        for name, value in g.items():
            gradients[name] = value if value is None or name not in gradients else gradients[name] + value

    def in_time(pieces):
        pieces = [pieces[span] for span in sorted(pieces)]
        return None if any(piece is None for piece in pieces) else np.concatenate(pieces)

    result = {name.replace("_n", "0"): d for name, d in d_n.items()} | gradients
    result |= {"h": in_time(h), "gates": in_time(gates), "dx": in_time(dx)}
    return result | {f"{name[0]}_n": state for name, state in states.items()}


def in_new_python(folder, code, **environment):
    """Run code in another folder, so that no folder called rnncore is imported for the package under test."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment}
    command = [sys.executable, "-c", code]
    options = {"cwd": folder, "env": environment, "timeout": 120}
    return subprocess.run(command, check=False, capture_output=True, text=True, **options)
