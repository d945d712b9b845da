"""Random problems for every cell, and one way to run them through the reference or the engine."""

import itertools

import numpy as np

from rnncore.engine.cells import CELLS


def _variants():
    """Yield every combination of options of every cell; every second one also with another order of the gates."""
    for cell in CELLS.values():
        orders = cell.gate_orders[1:]
        for number, words in enumerate(itertools.product(*cell.options.values())):
            named = zip(cell.options, words, strict=True)
            text = [{True: name, False: "plain"}.get(word, word) for name, word in named]
            yield "-".join([cell.name, *text]), cell.variant(*words)
            if orders and number % 2 == 0:
                order = orders[5 * number % len(orders)]
                yield "-".join([cell.name, *text, order]), cell.variant(*words, order)


#: By name: cell, words of its options and, where it is not the default, the order of its gates.
VARIANTS = dict(_variants())


def make_problem(
    rng,
    variant,
    T=7,
    N=3,
    D=4,
    H=5,
    dtype="float64",
    *,
    lengths=False,
    resets=False,
    reverse=False,
    ids=False,
    mask=False,
):
    """-> cell name, dict of arguments for its forward function. No weight is symmetric, no state is zero.

    ``variant`` is one of the engine's, or a name in VARIANTS.
    """
    variant = VARIANTS.get(variant, variant)
    scales = {"Wx": 0.7 / np.sqrt(max(D, 1)), "Wh": 0.7 / np.sqrt(max(H, 1))}

    def normal(*shape, scale=1.0):
        return (scale * rng.normal(size=shape)).astype(dtype)

    shapes = variant.shapes(D, H)
    arguments = {
        "x": rng.integers(D, size=(T, N)) if ids else normal(T, N, D),
        **{name: normal(*shape, scale=scales.get(name, 0.5)) for name, shape in shapes.items()},
        **{f"{state}0": normal(N, H) for state in variant.cell.states},
        **{name: word for name, word in variant.options.items() if not isinstance(word, bool)},
    }
    if variant.gate_order != variant.gates:
        arguments["gate_order"] = variant.gate_order
    if lengths:
        arguments["lengths"] = rng.integers(T + 1, size=N)
        if N > 1:
            arguments["lengths"][rng.integers(N)] = 0
    if resets:
        arguments["resets"] = rng.random((T, N)) < 0.3
    if reverse:
        arguments["reverse"] = True
    if mask and "Wh" in shapes:
        # Not above what dropout has, so that rounding errors do not grow from step to step.
        arguments["recurrent_mask"] = (rng.uniform(0.3, 1.4, (N, H)) * (rng.random((N, H)) < 0.7)).astype(dtype)
    return variant.cell.name, arguments


def make_cotangents(rng, cell, T, N, H, dtype="float64"):
    shapes = {"dh": (T, N, H)} | {f"d{state}_n": (N, H) for state in CELLS[cell].states}
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}


def run(module, cell, arguments, cotangents):
    """-> dict of every output and every gradient of a cell."""
    h, final, cache = getattr(module, f"{cell}_forward")(**arguments)
    names = [f"{state}_n" for state in CELLS[cell].states]
    finals = dict(zip(names, final if len(names) > 1 else (final,), strict=True))
    gradients = getattr(module, f"{cell}_backward")(cache=cache, **cotangents)
    return {"h": h, **finals, "gates": cache.gates, **gradients._asdict()}
