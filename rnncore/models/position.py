"""Where a run of training stands: all that it needs to go on as if nothing had ended it."""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.random import Generator

from .. import checks
from .._types import Array

Numbers = dict[str, Any]  # JSON types
Arrays = dict[str, Array]


@dataclasses.dataclass
class Position:
    """The position of a run, as it was after its last whole update."""

    begin_random: Numbers  # of the random generator before ``fit`` drew anything but parameters
    random: Numbers  # after the last update
    data: int  # checksum of what is trained on
    batches: Numbers  # settings that say what a batch is
    epochs: int = 0  # that are finished
    epoch_random: Numbers | None = None  # before the batches of the present epoch were drawn; None between epochs
    weight: float = 0.0  # of the losses in the record of that epoch
    tokens: int = 0
    losses: list[float] = dataclasses.field(default_factory=list)  # of all updates
    best: float = math.inf  # held-out loss
    best_update: int = 0
    since_best: int = 0  # epochs
    carried: Any = None  # state that goes on from batch to batch, in some models
    best_params: Arrays | None = None
    last_params: Arrays | None = None  # where the model has taken the best ones since

    @property
    def update(self) -> int:
        """The number of updates that were made."""
        return len(self.losses)

    def describe(self) -> tuple[Numbers, Arrays]:
        """Return JSON types and arrays by name, for :meth:`restore`."""
        arrays = {"losses": np.array(self.losses)}
        carried = self.carried if isinstance(self.carried, tuple) else (self.carried,)
        arrays |= {f"carried/{n}": state for n, state in enumerate(carried) if state is not None}
        for group in _PARAMS:
            arrays |= {f"{group}/{name}": p for name, p in (getattr(self, group) or {}).items()}
        return {name: getattr(self, name) for name in _NUMBERS}, arrays

    @classmethod
    def restore(cls, numbers: Numbers, arrays: Arrays, params: Arrays) -> Position:
        """Return the position that :meth:`describe` described; ValueError unless it is one of these parameters."""
        groups: dict[str, Any] = {}
        for group in _PARAMS:
            held = take_group(arrays, group)
            groups[group] = check_arrays(group, held, params) if held else None
        carried = tuple(take_group(arrays, "carried").values())
        clean: dict[str, Any] = {"batches": {"shards": None} | numbers["batches"]}
        for name in _RANDOM:
            clean[name] = numbers[name]
            if name != "epoch_random" or clean[name] is not None:
                make_random(clean[name])  # raises for what is no state
        for name in _COUNTS:
            clean[name] = checks.integer(name, numbers[name], least=0)
        for name in ("weight", "best"):
            clean[name] = float(numbers[name])
        return cls(
            losses=np.asarray(arrays["losses"], np.float64).tolist(),
            carried=carried[0] if len(carried) == 1 else carried or None,
            **clean,
            **groups,
        )


_COUNTS = ("data", "epochs", "tokens", "best_update", "since_best")
_RANDOM = ("begin_random", "random", "epoch_random")
_NUMBERS = (*_RANDOM, *_COUNTS, "batches", "weight", "best")
_PARAMS = ("best_params", "last_params")


def take_group(arrays: Arrays, group: str) -> Arrays:
    """Return the arrays ``group/name`` by name."""
    return {key.removeprefix(f"{group}/"): a for key, a in arrays.items() if key.startswith(f"{group}/")}


def check_arrays(what: str, arrays: Arrays, like: Arrays) -> Arrays:
    """Return the arrays; ValueError unless their names, shapes and dtypes are those of others."""
    if arrays.keys() != like.keys():
        raise ValueError(f"{what} must be {sorted(like)}; got {sorted(arrays)}")
    for name, p in like.items():
        if arrays[name].shape != p.shape or arrays[name].dtype != p.dtype:
            wanted = f"{p.shape} {p.dtype}"
            raise ValueError(f"{name} must be {wanted}; got {arrays[name].shape} {arrays[name].dtype}")
    return arrays


def get_random(rng: Generator) -> Numbers:
    """Return the state of a generator in JSON types."""
    return _plain(rng.bit_generator.state)


def set_random(rng: Generator, state: Numbers) -> None:
    """Bring a generator into a state of :func:`get_random`."""
    rng.bit_generator.state = state


def make_random(state: Numbers) -> Generator:
    """Return a new generator in a state of :func:`get_random`; ValueError if NumPy has none of its kind."""
    name = state["bit_generator"]
    kind = getattr(np.random, name) if name in ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64") else None
    if kind is None:
        raise ValueError(f"the random generator must be one of NumPy's; got {name!r}")
    rng = Generator(kind())
    set_random(rng, state)
    return rng


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def checksum(columns: Iterable[Any]) -> int:
    """Return a number that tells data apart: CRC-32 of columns that are arrays, lists of arrays, or None."""
    result = 0
    for column in columns:
        for array in [column] if isinstance(column, np.ndarray) else column or ():
            result = zlib.crc32(repr(array.shape).encode(), result)
            result = zlib.crc32(np.ascontiguousarray(array).data.cast("B") if array.size else b"", result)
    return result
