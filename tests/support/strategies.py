"""Random calls for Hypothesis: a strategy draws options, sizes and a seed, and the arrays are made from the seed.

So an example prints as one line and shrinks to small sizes, and drawing it takes little time.
"""

from dataclasses import dataclass

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from support.compare import TOLERANCE
from support.isas import OWN
from support.layouts import LAYOUTS
from support.machines import RULES, Machine
from support.problems import make_cotangents, make_problem

import rnncore as rc
from rnncore.engine.cells import CELLS, Variant

#: Sizes at the edges of vectors (4 to 16 numbers), of tiles (6 or 8 rows) and of panels (32 or 64 columns).
EDGES = (6, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 70)

seeds = st.integers(0, 2**32 - 1)
dtypes = st.sampled_from(list(TOLERANCE))
layouts = st.sampled_from([None, *LAYOUTS])


def more(factor):
    """Decorator of a property: so many times the usual number of examples."""
    return settings(max_examples=round(factor * settings.default.max_examples))


def sizes(least=0):
    return st.one_of(st.integers(least, 5), st.sampled_from(EDGES), st.integers(least, 70))


def machines(isas=OWN):
    """Instruction sets, by default those whose products are the engine's own, and threads."""
    alone = st.builds(Machine, st.sampled_from(isas))
    team = st.builds(Machine, st.sampled_from(isas), st.integers(2, 5), st.sampled_from(range(len(RULES))))
    return alone | team


def laid_out(arrays, layout, seed=0):
    """A dict with its arrays in another place of memory; "mixed": each in a place of its own."""
    names, rng = list(LAYOUTS), np.random.default_rng(seed)

    def place(array):
        name = names[rng.integers(len(names))] if layout == "mixed" else layout
        return LAYOUTS[name](array)

    return {name: place(a) if layout and isinstance(a, np.ndarray) else a for name, a in arrays.items()}


# ---- functions ------------------------------------------------------------------------------------------------------


@st.composite
def variants(draw):
    """Every cell with every option and order of gates."""
    cell = draw(st.sampled_from(list(CELLS.values())))
    words = [draw(st.sampled_from(choices)) for choices in cell.options.values()]
    return cell.variant(*words, draw(st.sampled_from(cell.gate_orders)))


@dataclass(frozen=True)
class Call:
    """A forward call and its backward call."""

    variant: Variant
    dtype: str
    T: int
    N: int
    D: int
    H: int
    lengths: bool
    resets: bool
    reverse: bool
    ids: bool
    mask: bool
    checkpoint: int | bool | None
    left_out: frozenset  # names of arguments and cotangents that are None
    seed: int

    @property
    def rng(self):
        """For what a test draws besides."""
        return np.random.default_rng([self.seed, 1])

    @property
    def has_kink(self):
        """Whether a derivative jumps: where float32 rounds to the other side, its gradients are others."""
        return {"relu", "positive"} & set(self.variant.options.values())

    def problem(self):
        """-> cell name, arguments, cotangents; the same in every call."""
        rng = np.random.default_rng(self.seed)
        names = ("lengths", "resets", "reverse", "mask")
        options = {name: getattr(self, name) for name in names} | {"ids": self.ids and self.D > 0}
        size = self.T, self.N, self.D, self.H
        cell, arguments = make_problem(rng, self.variant, *size, self.dtype, **options)
        if self.checkpoint is not None:
            arguments["checkpoint"] = self.checkpoint
        cotangents = make_cotangents(rng, cell, self.T, self.N, self.H, self.dtype)
        for given in (arguments, cotangents):
            given |= dict.fromkeys(self.left_out & given.keys())
        return cell, arguments, cotangents


OPTIONAL = ["h0", "c0", "bhn", "dh", "dh_n", "dc_n"]


@st.composite
def calls(draw, least=0, **fixed):
    """Calls of a function; ``fixed``: fields of Call that are not random."""
    fields = {name: sizes(least) for name in "TNDH"}
    fields |= dict.fromkeys(["lengths", "resets", "reverse", "ids", "mask"], st.booleans())
    fields["checkpoint"] = st.sampled_from([None, None, True, 1, 2, 3, 7])
    fields["left_out"] = st.frozensets(st.sampled_from(OPTIONAL), max_size=2)
    fields |= {"variant": variants(), "dtype": dtypes, "seed": seeds}
    fields |= {name: st.just(value) for name, value in fixed.items()}
    return Call(**{name: draw(strategy) for name, strategy in fields.items()})
