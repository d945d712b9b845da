"""The gradient of a batch as a sum over fixed shards of it, which the ranks of a run share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .. import checks
from .._types import Array
from ..distributed import Ranks, divide, tree_sum
from ..engine import settings
from .network import as_states, from_states

SHARDS = 8


def check_shards(shards: Any, ranks: Ranks) -> int:
    """Return the number of shards; ValueError unless the ranks can share them."""
    shards = checks.integer("shards", shards, least=1)
    if shards & (shards - 1):
        raise ValueError(f"shards must be 1, 2, 4, 8, ...; got {shards}")
    if shards < ranks.size:
        raise ValueError(f"shards must be at least the number of ranks, {ranks.size}; got {shards}")
    return shards


@contextmanager
def shared_cores(ranks: Ranks) -> Iterator[None]:
    """Let the ranks of a node share its cores, unless the user has set a number of threads."""
    threads = ranks.threads()  # all ranks ask, whatever each of them has set
    if ranks.size == 1 or settings.threads_are_set():
        yield
        return
    with settings.default_threads(threads):
        yield


ALL = range(1)


def rows_of_shards(N: int, own: range, shards: int) -> Array:
    """Return which of N rows are of some neighbouring shards. Row n is of shard ``n % shards``."""
    rows = np.arange(N)
    return rows[(own[0] <= rows % shards) & (rows % shards <= own[-1])]


class Batches:
    """The batches of an epoch, made when they are needed, as a whole or some shards of it.

    The rows are in order of length, so that shards take about as long.

    Parameters
    ----------
    make : function of an int array of rows
        Returns what ``_update`` of the model takes.
    rows : list of int arrays
        Of each batch.
    """

    def __init__(self, make: Callable[[Array], Any], rows: Sequence[Array]) -> None:
        self._make, self._rows = make, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Any]:
        return (self.part(number) for number in range(len(self)))

    def count(self, number: int) -> int:
        """Return the number of rows of a batch, N."""
        return len(self._rows[number])

    def part(self, number: int, own: range = ALL, shards: int = 1) -> Any:
        """Return some neighbouring shards of a batch, which have at least one row."""
        rows = self._rows[number]
        return self._make(rows[rows_of_shards(len(rows), own, shards)])


class Shards:
    """Sums the gradients of the shards in one fixed order, whichever ranks compute them.

    Shard s of S belongs to rank ``s * R // S``. The sum over the shards is a binary tree, whose lower part a rank
    computes by itself and whose upper part is that of :class:`Ranks`.
    """

    def __init__(self, model: Any, count: int, ranks: Ranks) -> None:
        self.model, self.count, self.ranks = model, count, ranks
        share = count // ranks.size
        self.own = range(ranks.rank * share, (ranks.rank + 1) * share)
        self._first_of_rank = np.arange(ranks.size + 1) * share
        self._drops = bool(model.dropout or model.recurrent_dropout)
        # The gradients of the own shards, those of each in one piece.
        self._flat = np.zeros((share, sum(grad.size for grad in model.grads.values())), model._built["dtype"])

    def gradients(
        self, batches: Any, numbers: Sequence[int], interrupted: Callable[[], bool]
    ) -> tuple[float, float, int]:
        """Leave the gradient of the mean loss of some batches in ``grads``; return it, its weight, and the steps.

        Raises
        ------
        KeyboardInterrupt
            ``interrupted()`` was true on any rank.
        """
        model = self.model
        # Each shard of each batch drops what a generator of its own draws, so that it is no matter who computes it.
        keys = model._rng.integers(2**63, size=(len(numbers), 2)).tolist() if self._drops else [()] * len(numbers)
        after = model._rng.bit_generator.state
        rows = np.zeros((len(self.own), 4))  # loss, weight, steps, and whether Ctrl-C came
        self._flat[...] = 0
        for key, number in zip(keys, numbers, strict=True):
            self._add(batches, number, key, rows[:, :3])
        model._rng.bit_generator.state = after
        rows[0, 3] = interrupted()
        loss, weight, steps, ends = tree_sum(self.ranks.gather(rows, self._first_of_rank))
        if ends:
            raise KeyboardInterrupt
        flat = _sum_in_place(self._flat)
        self.ranks.sum(flat)
        divide(flat, weight, model.grads)
        return float(loss / weight) if weight else 0.0, float(weight), int(steps)

    def _add(self, batches: Any, number: int, key: Sequence[int], rows: Array) -> None:
        """Add the gradients of the own shards of a batch, and what the rows tell of it."""
        model, N = self.model, batches.count(number)
        before = model._carried
        if before is not None and as_states(before)[0].shape[1] != N:
            before = None  # of other sequences: the batch starts anew
        # All ranks decide alike: the sums are rounded otherwise than one by one.
        if N % self.count == 0 and model._reads_shards_at_once:
            model._carried = _columns(before, rows_of_shards(N, self.own, self.count))
            model._add_by_shards(batches.part(number, self.own, self.count), self._flat, rows)
            carried = [_columns(model._carried, slice(place, None, len(self.own))) for place in range(len(self.own))]
        else:
            carried = []
            for place, shard in enumerate(self.own):
                model._carried = _columns(before, slice(shard, None, self.count))
                if shard < N:
                    self._draw_from(*key, shard)
                    part = batches.part(number, range(shard, shard + 1), self.count)
                    rows[place] += self._add_part(self._flat[place], part)
                carried.append(model._carried)
        model._carried = self._join(carried, N)

    def _draw_from(self, *key: int) -> None:
        if self._drops:
            generator = self.model._rng.bit_generator
            generator.state = type(generator)(np.random.SeedSequence(key)).state

    def _add_part(self, flat: Array, part: Any) -> tuple[float, float, int]:
        """Add the gradient of a part, times its weight. -> sum of its losses, its weight, its steps"""
        loss, weight, steps = self.model._update(part)
        end = 0
        for grad in self.model.grads.values():
            begin, end = end, end + grad.size
            flat[begin:end] += grad.ravel() * grad.dtype.type(weight)
        return loss * weight, weight, steps

    def _join(self, carried: list[Any], N: int) -> Any:
        """Return the state of all N rows from those of the own shards, by the ranks that have the others."""
        if self.model._carried_shape is None:
            return None
        states = [np.moveaxis(np.stack(as_states(state)), 2, 0) for state in carried if state is not None]
        # (rows, states, layers, H); of a rank without rows, too
        own = np.concatenate([np.empty((0, *self.model._carried_shape), self.model._built["dtype"]), *states])
        shards = [np.arange(N)[shard :: self.count] for shard in range(self.count)]
        ends = np.cumsum([0, *map(len, shards)])
        rows = np.empty((N, *own.shape[1:]), own.dtype)
        rows[np.concatenate(shards)] = self.ranks.gather(own, ends[self._first_of_rank])
        return from_states(list(np.moveaxis(rows, 0, 2)))


def _columns(state: Any, rows: Any) -> Any:
    """Return the state of some rows."""
    return None if state is None else from_states([array[:, rows] for array in as_states(state)])


def _sum_in_place(rows: Array) -> Array:
    """Sum of 1, 2, 4, ... rows, as tree_sum, in the first of them."""
    distance = 1
    while distance < len(rows):
        rows[:: 2 * distance] += rows[distance :: 2 * distance]
        distance *= 2
    total: Array = rows[0]
    return total
