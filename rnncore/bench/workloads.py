"""What is measured: variants of cells, shapes, language models; and their arrays, the same in every run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from .._types import Array
from ..engine.cells import CELLS, Variant

Shape = tuple[int, int, int, int]  # T, N, D, H

#: Shapes of real workloads, and where each comes from.
SHAPES: dict[Shape, str] = {
    (1, 1, 64, 128): "one step of one sequence: control, games, sampling",
    (100, 1, 64, 64): "a small model on a stream",
    (100, 1, 256, 256): "one sequence; weights in the second-level cache",
    (100, 1, 512, 512): "one sequence; weights beyond the second-level cache",
    (50, 8, 128, 128): "a small batch",
    (100, 16, 64, 32): "a batch of a small model: time series",
    (100, 32, 256, 256): "a character language model",
    (50, 64, 512, 512): "a large batch",
    (32, 64, 1024, 1024): "all product",
}
#: By cell: layers of models in production and of benchmarks of the field. T is cut in the
#: large batches of training, to save time.
REAL: dict[str, dict[Shape, str]] = {
    "lstm": {
        (246, 1, 240, 1024): "MLPerf RNN-T, first encoder layer",
        (123, 1, 2048, 1024): "MLPerf RNN-T, third encoder layer",
        (1, 1, 320, 320): "RNN-T prediction network, one call",
        (8, 512, 512, 512): "RNN-T prediction network, training",
        (50, 1, 512, 512): "GNMT encoder, one sentence",
        (50, 32, 512, 512): "GNMT encoder, a batch",
        (30, 1, 1024, 1024): "GNMT inference",
        (629, 1, 128, 128): "speech recognition",
        (95, 128, 128, 128): "speech recognition, a batch",
        (63, 1, 24, 32): "speech, small layers",
        (15, 1, 96, 32): "speech, small layers",
        (25, 16, 1024, 1024): "DeepBench",
        (50, 1, 1536, 1536): "DeepBench",
        (150, 1, 256, 256): "DeepBench, a device",
        (1, 1, 128, 128): "voice detection, one call",
        (1, 512, 128, 128): "voice detection, a block",
        (480, 1, 1, 40): "guitar amplifier, 10 ms of sound",
        (590, 32, 60, 128): "speaker segmentation",
        (35, 20, 650, 650): "word language model (Zaremba et al. 2014)",
        (100, 4, 100, 100): "a few rows, a width that no vector divides",
    },
    "gru": {
        (8, 512, 92, 256): "training",
        (8, 512, 379, 681): "training",
        (187, 1, 1024, 1024): "DeepBench",
        (50, 32, 1536, 1536): "DeepBench",
        (50, 20, 800, 800): "DeepSpeech",
        (1, 1, 256, 256): "noise suppression, one call",
        (1, 1, 64, 128): "one call",
        (1, 64, 128, 128): "one call of a batch",
    },
    "rnn": {
        (50, 1, 1760, 1760): "DeepSpeech 2",
        (50, 32, 1760, 1760): "DeepSpeech 2, a batch",
        (50, 16, 2048, 2048): "DeepBench",
        (672, 1, 32, 32): "DeepBench, a device",
        (96, 1, 64, 64): "DeepBench, a device",
    },
    "mingru": {(100, 64, 10, 100): "speech commands"},
}
#: One sequence, whose weights are read once a step, and batches, which reuse them.
PRECISION: list[Shape] = [
    (1, 1, 64, 128),
    (100, 1, 64, 64),
    (100, 1, 256, 256),
    (100, 1, 512, 512),
    (100, 1, 1024, 1024),
    (50, 8, 128, 128),
    (100, 32, 256, 256),
    (50, 64, 512, 512),
    (32, 64, 1024, 1024),
]
PRECISION_SHORT: list[Shape] = [(1, 1, 64, 128), (100, 1, 64, 64), (20, 8, 128, 128)]
SHORT: list[Shape] = [(1, 1, 64, 128), (100, 1, 256, 256), (50, 8, 128, 128), (100, 32, 256, 256)]
BATCHES: list[Shape] = [(50, 8, 128, 128), (100, 32, 256, 256)]
BIDIRECTIONAL: list[Shape] = [(100, 1, 128, 128), (50, 8, 128, 128)]
SAMPLED = {128: 1000, 256: 1000}  # hidden size: characters


def _framework_name(name: str) -> str:
    changed = "-".join(str(word) for word in (CELLS[name].framework_options or {}).values())
    return f"{name}-{changed}" if changed else name


#: By cell: the name in VARIANTS that is compared with frameworks. They have one GRU, reset_after with update "old".
COMPARED = {name: _framework_name(name) for name in CELLS}
#: By name: every cell with its default options, and as frameworks have it.
VARIANTS: dict[str, Variant] = {name: cell.variant() for name, cell in CELLS.items()} | {
    COMPARED[name]: cell.choose(**(cell.framework_options or {})) for name, cell in CELLS.items()
}


class LanguageModelSize(NamedTuple):
    """The size of a language model and of its batches."""

    cell: str
    V: int  # tokens of the vocabulary
    embedding: int | None  # None: one-hot
    H: int
    layers: int
    N: int
    T: int

    def __str__(self) -> str:
        E = self.embedding or "one-hot"
        return f"V={self.V} E={E} H={self.H} x {self.layers} N={self.N} T={self.T}"


LANGUAGE_MODELS = [
    LanguageModelSize("lstm", 65, None, 128, 1, 32, 64),
    LanguageModelSize("lstm", 65, 64, 256, 1, 32, 64),
    LanguageModelSize("gru", 65, 64, 256, 1, 32, 64),
    LanguageModelSize("lstm", 65, 64, 512, 2, 64, 64),
    LanguageModelSize("lstm", 10_000, 256, 256, 1, 20, 35),
]


@dataclass
class Problem:
    """The arguments of a forward call, and the cotangent of its output."""

    variant: Variant
    x: Array  # (T, N, D)
    weights: dict[str, Array]
    dh: Array  # (T, N, H)
    keywords: dict[str, Any] = field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        """All arguments of the forward function."""
        words = {name: word for name, word in self.variant.options.items() if not isinstance(word, bool)}
        if self.variant.gate_order != self.variant.gates:
            words["gate_order"] = self.variant.gate_order
        return {"x": self.x, **self.weights, **words, **self.keywords}


def make_problem(variant: Variant, shape: Shape, dtype: DTypeLike) -> Problem:
    """Draw the arrays of a variant; optional weights are left out."""
    T, N, D, H = shape
    rng = np.random.default_rng(0)
    scales = {"Wx": D**-0.5, "Wh": H**-0.5, "b": 0.1}

    def normal(size: tuple[int, ...], scale: float) -> Array:
        return (scale * rng.normal(size=size)).astype(dtype)

    x = normal((T, N, D), 1)
    weights = {
        array.name: normal(variant.shape(array, D=D, H=H), scales.get(array.name, 1))
        for array in variant.weights
        if not array.optional
    }
    return Problem(variant, x, weights, normal((T, N, H), 1))


@dataclass(frozen=True)
class Option:
    """A change of a plain cell, by option or by the layout of its arguments."""

    name: str
    variant: Variant
    change: str = ""  # "reverse", "resets", "ids", "Fortran order"

    def problem(self, shape: Shape, dtype: DTypeLike) -> Problem:
        """Draw the arrays of the changed cell."""
        T, N, D, _ = shape
        problem, rng = make_problem(self.variant, shape, dtype), np.random.default_rng(0)
        if self.change == "reverse":
            problem.keywords["reverse"] = True
        elif self.change == "resets":
            problem.keywords["resets"] = rng.random((T, N)) < 0.05
        elif self.change == "ids":
            problem.x = rng.integers(D, size=(T, N))
        elif self.change == "Fortran order":
            problem.weights = {name: np.asfortranarray(array) for name, array in problem.weights.items()}
        return problem


def options(cell_name: str) -> list[Option]:
    """Return every option of a cell that is not its default, and every layout of its arguments."""
    cell = CELLS[cell_name]
    found = [
        Option(f"{cell_name} {name}" if word is True else f"{cell_name} {name} {word}", cell.choose(**{name: word}))
        for name, words in cell.options.items()
        for word in words[1:]
    ]
    if len(cell.gate_orders) > 1:
        order = cell.gate_orders[-1]
        found.append(Option(f"{cell_name} gate_order", cell.choose(gate_order=order)))
    layouts = ("reverse", "resets", "ids", "Fortran order")
    return found + [Option(f"{cell_name} {change}", cell.variant(), change) for change in layouts]
