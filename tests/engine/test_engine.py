"""The engine against the reference: every cell, option, dtype, instruction set and edge."""

import inspect
import itertools

import numpy as np
import pytest
from support.compare import TOLERANCE, assert_same
from support.problems import VARIANTS, make_cotangents, make_problem, run

import rnncore as rc
from rnncore import reference
from rnncore.engine.cells import CELLS

FUNCTIONS = [f"{cell}_{direction}" for cell in CELLS for direction in ("forward", "backward")]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_engine_and_reference_have_one_signature(name):
    ours, specified = (inspect.signature(getattr(module, name)).parameters.values() for module in (rc, reference))
    assert [(p.name, p.kind, p.default) for p in ours] == [(p.name, p.kind, p.default) for p in specified]


def check(rng, variant, T, N, D, H, dtype, options):
    """One problem on every instruction set, all outputs and gradients, against the reference in float64."""
    cell, arguments = make_problem(rng, variant, T, N, D, H, dtype, **options)
    cotangents = make_cotangents(rng, cell, T, N, H, dtype)
    exact = {k: np.asarray(v, "f8") if np.asarray(v).dtype.kind == "f" else v for k, v in arguments.items()}
    expected = run(reference, cell, exact, {k: v.astype("f8") for k, v in cotangents.items()})
    for isa in rc.available_isas():
        rc.use_isa(isa)
        actual = run(rc, cell, arguments, cotangents)
        assert_same(actual, expected, TOLERANCE[dtype], f"{T=} {N=} {D=} {H=} {options} {isa}")
        assert all(a is None or a.dtype == dtype for a in actual.values())


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("variant", VARIANTS)
def test_engine_equals_reference(variant, dtype, restore_isa):
    """A quarter of the grid of sizes, with random options, on every instruction set.

    The next variant, and the other dtype, take the next quarter, so that each cell runs the whole grid.
    """
    number = 2 * list(VARIANTS).index(variant) + list(TOLERANCE).index(dtype)
    rng = np.random.default_rng(number)
    sizes = list(itertools.product([0, 1, 2, 7, 33], [0, 1, 3, 17], [1, 3, 16, 33], [1, 3, 16, 33]))
    np.random.default_rng(0).shuffle(sizes)
    for T, N, D, H in sizes[number % 4 :: 4]:
        lengths, resets, reverse, ids, mask = rng.random(5) < [0.5, 0.3, 0.5, 0.25, 0.25]
        options = {"lengths": lengths, "resets": resets, "reverse": reverse, "ids": ids, "mask": mask}
        check(rng, variant, T, N, D, H, dtype, options)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_combination_of_options(variant, dtype, restore_isa):
    rng = np.random.default_rng(100 + list(VARIANTS).index(variant))
    names = ("lengths", "resets", "reverse", "ids", "mask")
    for chosen in itertools.product([False, True], repeat=5):
        for T, N, D, H in [(7, 3, 5, 4), (20, 9, 6, 17)]:
            check(rng, variant, T, N, D, H, dtype, dict(zip(names, chosen, strict=True)))
