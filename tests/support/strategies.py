"""Random calls for Hypothesis: a strategy draws options, sizes and a seed, and the arrays are made from the seed.

So an example prints as one line and shrinks to small sizes, and drawing it takes little time.
"""

from dataclasses import dataclass

import numpy as np
from hypothesis import assume, settings
from hypothesis import strategies as st
from support.compare import TOLERANCE, assert_same
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


def sizes(least=0, most=70):
    edges = [size for size in EDGES if size <= most]
    return st.one_of(st.integers(least, 5), st.sampled_from(edges), st.integers(least, most))


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


# ---- comparison with the reference ----------------------------------------------------------------------------------


def disturbed(array, dtype):
    """A float array with every element off by up to a rounding of this dtype; anything else as it is."""
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        return array
    return array * (1 + np.finfo(dtype).eps * np.random.default_rng(0).uniform(-1, 1, array.shape))


def assert_same_unless_chaotic(actual, expected, dtype, expected_of_disturbed):
    """Compare with the reference, except where the problem itself makes rounding errors grow from step to step.

    ``expected_of_disturbed()`` returns what the reference computes from `disturbed` inputs: the error of the engine is
    a small multiple of what a single rounding of the inputs leads to.
    """
    try:
        assert_same(actual, expected, TOLERANCE[dtype])
    except AssertionError:
        others = expected_of_disturbed()
        for name, wanted in expected.items():
            if wanted is not None:
                limit = TOLERANCE[dtype] / 10 * np.abs(wanted).max(initial=1)
                assume(np.abs(others[name] - wanted).max(initial=0) <= limit)
        raise


# ---- functions ------------------------------------------------------------------------------------------------------


@st.composite
def variants(draw):
    """Every cell with every option and order of gates."""
    cell = draw(st.sampled_from(list(CELLS.values())))
    words = [draw(st.sampled_from(choices)) for choices in cell.options.values()]
    return cell.variant(*words, draw(st.sampled_from(cell.gate_orders)))


class OfVariant:
    """What calls of a variant of a cell share."""

    @property
    def rng(self):
        """For what a test draws besides."""
        return np.random.default_rng([self.seed, self.number])

    @property
    def has_kink(self):
        """Whether a derivative jumps: where float32 rounds to the other side, its gradients are others."""
        return bool({"relu", "positive"} & set(self.variant.options.values()))


@dataclass(frozen=True)
class Call(OfVariant):
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

    number = 1

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


# ---- recurrent layers -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LayerCall(OfVariant):
    """Recurrent layers, a forward call of them and its backward call."""

    variant: Variant
    dtype: str
    T: int
    N: int
    D: int
    H: int
    num_layers: int
    bidirectional: bool
    batch_first: bool
    dropout: float
    recurrent_dropout: float
    checkpoint: int | bool | None
    init: str
    lengths: bool
    ids: bool
    state: bool
    seed: int

    number = 2

    def layer(self, dtype=None, **options):
        """The layer, all its parameters random; in another dtype with the same parameters and the same dropout."""
        names = ("num_layers", "bidirectional", "batch_first", "dropout", "recurrent_dropout", "checkpoint", "init")
        options = {name: getattr(self, name) for name in names} | self.variant.options | options
        if "Wh" not in self.variant.shapes(1, 1):
            options["recurrent_dropout"] = 0.0
        layer = getattr(rc, self.variant.cell.label)(
            self.D, self.H, **options, dtype=dtype or self.dtype, seed=self.seed
        )
        rng = np.random.default_rng([self.seed, 1])
        for value in layer.params.values():
            scale = 0.7 / np.sqrt(len(value)) if value.ndim == 2 else 0.5
            value[...] = rng.normal(scale=scale, size=value.shape).astype(self.dtype)
        return layer

    def arguments(self):
        """x, state, lengths, dy, dstate: the same in every call. No state is None."""
        rng = np.random.default_rng(self.seed)
        T, N, directions = self.T, self.N, 1 + self.bidirectional

        def normal(*shape):
            return rng.normal(size=shape).astype(self.dtype)

        def states():
            shape = (self.num_layers * directions, N, self.H)
            return tuple(normal(*shape) for _ in self.variant.cell.states)

        x = rng.integers(self.D, size=(T, N)) if self.ids else normal(T, N, self.D)
        dy = normal(T, N, self.H * directions)
        if self.batch_first:
            x, dy = (np.ascontiguousarray(a.swapaxes(0, 1)) for a in (x, dy))
        lengths = rng.integers(T + 1, size=N) if self.lengths else None
        return x, states() if self.state else None, lengths, dy, states() if self.state else None


@st.composite
def layer_calls(draw, **fixed):
    """Calls of recurrent layers; ``fixed``: fields of LayerCall that are not random."""
    fields = {"T": sizes(most=40), "N": sizes(), "D": sizes(1), "H": sizes(1), "num_layers": st.integers(1, 3)}
    fields |= dict.fromkeys(["bidirectional", "batch_first", "lengths", "ids", "state"], st.booleans())
    fields |= dict.fromkeys(["dropout", "recurrent_dropout"], st.sampled_from([0.0, 0.0, 0.4]))
    fields |= {"checkpoint": st.sampled_from([None, None, True, 3]), "init": st.sampled_from(["orthogonal", "uniform"])}
    fields |= {"variant": variants(), "dtype": dtypes, "seed": seeds}
    fields |= {name: st.just(value) for name, value in fixed.items()}
    return LayerCall(**{name: draw(strategy) for name, strategy in fields.items()})
