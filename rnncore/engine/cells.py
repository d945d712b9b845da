"""The table of cells: everything that tells one cell from another and is not arithmetic.

A :class:`Cell` is a row of the table: names, gates, states, weights, options, what the forward pass saves and what the
backward pass returns. A :class:`Variant` is a cell with its options chosen: calls, layers and native code work with
variants. To add a cell, start with a row here; docs/how_it_works/add_a_cell.md lists the other files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any, NamedTuple

from .. import _engine, checks
from .._types import GRUGradients, LSTMGradients, MinGRUGradients, RNNGradients

__all__ = ["CELLS", "GRU", "LSTM", "RNN", "Array", "Cell", "MinGRU", "Variant"]

Word = str | bool


class Array(NamedTuple):
    """An array that a cell has."""

    name: str
    axes: tuple[str | int, ...]  # D inputs, H hidden units, GH columns of all gates, L tokens, or a number
    when: tuple[str, Word] | None = None  # only with this word of this option
    optional: bool = False  # callers may leave it out: zeros


@dataclass(frozen=True, eq=False)
class Cell:
    """A row of the table."""

    name: str  # prefix of its functions, and the word for it in the settings of models
    label: str  # its layer class
    gates: str  # a letter for each gate block, in the order of the equations
    gate_orders: tuple[str, ...]  # orders of the blocks in memory that the engine reads
    states: str  # a letter for each state
    weights: tuple[Array, ...]
    options: Mapping[str, tuple[Word, ...]]  # the words of each option, its default first
    saved: tuple[Array, ...]  # what the forward pass saves for the backward pass, besides h
    gradients: type[Any]  # what the backward function returns
    missing_gates: Mapping[tuple[str, Word], str] = field(default_factory=dict)  # gates that an option does without
    framework_options: Mapping[str, Word] | None = None  # with which PyTorch, Keras and ONNX have it; None: they do not
    _variants: dict[tuple[Word, ...], Variant] = field(default_factory=dict, repr=False)

    def variant(self, *words: Word) -> Variant:
        """The cell with its options chosen.

        Parameters
        ----------
        *words
            A word for each of :attr:`options`, then the order of the gate blocks; defaults for those left out.

        Raises
        ------
        ValueError
            An unknown word.
        """
        try:
            return self._variants[words]
        except (KeyError, TypeError, ValueError):  # a new one, or not hashable and therefore unknown
            variant = Variant(self, words)
        return self._variants.setdefault(words, variant)

    def choose(self, **words: Word) -> Variant:
        """The variant with some options by name, ``gate_order`` among them; defaults for those left out."""
        orders = {"gate_order": self.gate_orders}
        if unknown := words.keys() - self.options.keys() - orders.keys():
            raise ValueError(f"{self.name} has the options {', '.join(self.options)}, gate_order; got {min(unknown)!r}")
        return self.variant(*(words.get(name, choices[0]) for name, choices in {**self.options, **orders}.items()))

    def __reduce__(self) -> tuple[Any, ...]:
        return _by_name, (self.name,)


class Variant:
    """A cell with its options chosen.

    Attributes
    ----------
    cell : Cell
    options : dict of str to str or bool
    gates : str
        Letters of the gate blocks, in the order of the equations.
    gate_order : str
        The same letters, in the order of the blocks in memory.
    weights, saved : tuple of Array
        Those of the cell that this variant has.
    saved_blocks : tuple of (str, int)
        Names of the saved arrays, and how many blocks of H columns each has.
    has_bhn : bool
        Whether it has this weight, which callers may leave out.
    native : _engine.Cell
        The same for native code.
    """

    def __init__(self, cell: Cell, words: tuple[Word, ...]) -> None:
        given = dict(zip((*cell.options, "gate_order"), words, strict=False))
        self.cell, self._words = cell, words
        self.options: dict[str, Word] = {}
        for name, choices in cell.options.items():
            rule = checks.flag if choices == (False, True) else checks.one_of(choices)
            self.options[name] = rule(name, given.get(name, choices[0]))
        order = _gate_order(cell, given.get("gate_order", cell.gate_orders[0]))
        missing = "".join(letters for choice, letters in cell.missing_gates.items() if self._has(choice))
        self.gates = "".join(letter for letter in cell.gates if letter not in missing)
        self.gate_order = "".join(letter for letter in order if letter not in missing)
        self.weights = tuple(array for array in cell.weights if self._has(array.when))
        self.saved = tuple(array for array in cell.saved if self._has(array.when))
        self.saved_blocks = tuple((array.name, self.shape(array, L=1, H=1)[-1]) for array in self.saved)
        self.has_bhn = any(array.name == "bhn" for array in self.weights)
        places = tuple(map(self.gate_order.index, self.gates))
        self.native = _engine.Cell(cell.name, places, self.options)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.cell.variant, self._words

    def _has(self, choice: tuple[str, Word] | None) -> bool:
        return choice is None or self.options[choice[0]] == choice[1]

    def shapes(self, D: int, H: int) -> dict[str, tuple[int, ...]]:
        """The shape of each weight, by name."""
        return {array.name: self.shape(array, D=D, H=H) for array in self.weights}

    def shape(self, array: Array, **sizes: int) -> tuple[int, ...]:
        """The shape of an array of the cell, given the sizes of its axes, GH excepted."""
        sizes["GH"] = len(self.gates) * sizes["H"]
        return tuple(axis if isinstance(axis, int) else sizes[axis] for axis in array.axes)

    def letters(self, array: Array) -> str:
        """The axes of an array as messages show them: ``(H, 4H)``."""
        blocks = "H" if len(self.gates) == 1 else f"{len(self.gates)}H"
        axes = [blocks if axis == "GH" else str(axis) for axis in array.axes]
        return f"({', '.join(axes)}{',' if len(axes) == 1 else ''})"

    def __repr__(self) -> str:
        options = "".join(f" {name}={word}" for name, word in self.options.items())
        return f"<{self.cell.name}{options} gates {self.gate_order}>"


def describe_order(letters: str) -> str:
    """Say what ``gate_order`` must be, for error messages."""
    # Many call the candidate c or c~, and its block by that letter.
    candidate, other = ("g", "c~") if "g" in letters else ("n", "h~")
    return f"the letters {' '.join(letters)} in some order, {candidate} for the candidate ({other})"


def _gate_order(cell: Cell, order: Word) -> str:
    if not isinstance(order, str) or order not in cell.gate_orders:
        if len(cell.gate_orders) == len(list(permutations(cell.gates))) > 2:
            wanted = describe_order(cell.gates)
        else:
            wanted = f"one of {', '.join(map(repr, cell.gate_orders))}"
        raise ValueError(f"gate_order must be {wanted}; got {order!r}")
    return str(order)


# ---- the table --------------------------------------------------------------------------------------------------

_WX, _WH, _B = Array("Wx", ("D", "GH")), Array("Wh", ("H", "GH")), Array("b", ("GH",))
_GATES = Array("gates", ("L", "GH"))

RNN = Cell(
    name="rnn",
    label="RNN",
    gates="h",
    gate_orders=("h",),
    states="h",
    weights=(_WX, _WH, _B),
    options={"activation": ("tanh", "relu", "identity")},
    saved=(),  # its gate is the state
    gradients=RNNGradients,
    framework_options={},
)

GRU = Cell(
    name="gru",
    label="GRU",
    gates="rzn",
    gate_orders=("rzn", "zrn"),
    states="h",
    weights=(_WX, _WH, _B, Array("bhn", ("H",), when=("form", "reset_after"), optional=True)),
    options={"form": ("reset_before", "reset_after", "simplified"), "update": ("new", "old")},
    saved=(_GATES, Array("m", ("L", "H"), when=("form", "reset_after"))),  # m = h' Whn + bhn
    gradients=GRUGradients,
    missing_gates={("form", "simplified"): "r"},
    framework_options={"form": "reset_after", "update": "old"},
)

LSTM = Cell(
    name="lstm",
    label="LSTM",
    gates="ifgo",
    gate_orders=("ifgo", *("".join(order) for order in permutations("ifgo") if order != tuple("ifgo"))),
    states="hc",
    weights=(_WX, _WH, _B, Array("peephole", (3, "H"), when=("peephole", True))),
    options={
        "peephole": (False, True),
        "peephole_output": ("current", "previous"),
        "output_activation": ("tanh", "identity"),
    },
    saved=(_GATES, Array("c", ("L", "H"))),
    gradients=LSTMGradients,
    framework_options={},
)

MinGRU = Cell(
    name="mingru",
    label="MinGRU",
    gates="zn",
    gate_orders=("zn",),
    states="h",
    weights=(_WX, _B),
    options={"candidate": ("identity", "positive")},
    saved=(_GATES,),
    gradients=MinGRUGradients,
)

#: By name.
CELLS = {cell.name: cell for cell in (RNN, GRU, LSTM, MinGRU)}


def _by_name(name: str) -> Cell:
    return CELLS[name]
