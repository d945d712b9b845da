"""Training on several processes: sums over the ranks of an MPI communicator, always in the same order.

Communicators are those of mpi4py, or objects with the same ``Get_rank``, ``Get_size``, ``Isend``, ``Irecv``, ``isend``,
``iprobe``, ``recv`` and ``Abort``; mpi4py is not imported here.

The sum of R ranks is a binary tree over neighbours: ((g0 + g1) + (g2 + g3)) + ... No rank waits in a blocking call of
MPI: a rank that waits hears of the errors of others, and gives up on one that stays silent.
"""

from __future__ import annotations

import atexit
import itertools
import os
import platform
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np

from . import checks
from ._types import Array
from .engine.settings import usable_cores

__all__ = ["RankError", "reduce"]

TIMEOUT = 600.0
ARRAYS, OBJECTS, NEWS = 24101, 24102, 24103  # tags of messages
SPIN = 2e-3  # seconds of waiting at full speed
PAUSE, LONGEST_PAUSE = 1e-4, 2e-3  # seconds between two looks after that


class RankError(RuntimeError):
    """Another rank of a run raised an error, or did not answer in time.

    Attributes
    ----------
    ranks : tuple of int
        Those that failed.
    """

    def __init__(self, message: str, ranks: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.ranks = tuple(ranks)


_runs = itertools.count(1)


class CommonError(ValueError):
    """An error that all ranks raise."""


def reduce(
    comm: Any, grads: Mapping[str, Array], loss_sum: float, weight: float, *, timeout: float = TIMEOUT
) -> tuple[float, float]:
    """Replace gradients that are sums over the examples of this rank by the mean over those of all ranks.

    For training loops of one's own; ``fit(..., comm=comm)`` of the models does it. Every rank divides by the weight of
    all, so that a rank with few tokens counts as little as it should; the mean of the ranks' means would not do that.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm
        Of 1, 2, 4, ... ranks, all of which call this.
    grads : dict of str to ndarray
        Sums over the examples of this rank, not means; all float32 or all float64. They are replaced in place.
    loss_sum : float
        Sum of the losses of this rank.
    weight : float
        What the sums are to be divided by: the number of the losses, or the sum of their weights. 0 for a rank without
        examples.
    timeout : float
        Seconds after which a rank that does not answer is given up.

    Returns
    -------
    loss : float
        Mean of all ranks, 0 if they have no weight.
    weight : float
        Of all ranks.

    Raises
    ------
    RankError
        Another rank failed or did not answer in time.
    TypeError, ValueError
        An argument is wrong, or the ranks have gradients of other names, shapes or dtypes.

    Examples
    --------
    One rank alone, without MPI:

    >>> grads = {"W": np.array([2.0, 6.0])}
    >>> reduce(None, grads, loss_sum=3.0, weight=4)
    (0.75, 4.0)
    >>> grads["W"]
    array([0.5, 1.5])
    """
    with Ranks(comm, timeout) as ranks:
        return _reduce(ranks, grads, loss_sum, weight)


def _reduce(ranks: Ranks, grads: Mapping[str, Array], loss_sum: float, weight: float) -> tuple[float, float]:
    if not isinstance(grads, Mapping):
        raise TypeError(f"grads must be a dict of arrays; got {type(grads).__name__}")
    for name, grad in grads.items():
        if not isinstance(grad, np.ndarray) or grad.dtype not in (np.float32, np.float64):
            got = grad.dtype if isinstance(grad, np.ndarray) else type(grad).__name__
            raise TypeError(f"grads[{name!r}] must be a float32 or float64 array; got {got}")
        if not grad.flags.writeable:
            raise ValueError(f"grads[{name!r}] must be writeable, it is replaced in place; got a read-only array")
    if len({grad.dtype for grad in grads.values()}) > 1:
        raise TypeError("grads must be all float32 or all float64; got both")
    loss_sum, weight = checks.real("loss_sum", loss_sum), checks.not_negative("weight", weight)
    layout = zlib.crc32(repr([(name, grad.shape, grad.dtype.str) for name, grad in grads.items()]).encode())
    table = ranks.gather(np.array([[loss_sum, weight, layout]]), np.arange(ranks.size + 1))
    if (table[:, 2] != layout).any():
        other = int(np.flatnonzero(table[:, 2] != layout)[0])
        raise CommonError(
            f"grads must have the same names, shapes and dtypes on all ranks; those of rank {other} differ"
        )
    flat = np.concatenate([np.ravel(grad) for grad in grads.values()]) if grads else np.zeros(0)
    ranks.sum(flat)
    loss, total = map(float, tree_sum(table[:, :2]))
    divide(flat, total, grads)
    return loss / total if total else 0.0, total


def divide(flat: Array, weight: float, grads: Mapping[str, Array]) -> None:
    """Write sums that lie one after another in ``flat``, divided by their weight, to the arrays; zeros for weight 0."""
    end = 0
    for grad in grads.values():
        begin, end = end, end + grad.size
        sums = flat[begin:end].reshape(grad.shape)
        if weight:
            with np.errstate(all="ignore"):
                np.divide(sums, grad.dtype.type(weight), out=grad)
        else:
            grad[...] = 0


def tree_sum(rows: Array) -> Array:
    """Sum of rows (R, ...), R a power of two, neighbours first: ((0 + 1) + (2 + 3)) + ..."""
    while len(rows) > 1:
        rows = rows[::2] + rows[1::2]
    total: Array = rows[0]
    return total


class Ranks:
    """The processes that train together, seen from one of them; of a single one, if ``comm`` is None.

    As a context manager it tells the others of an error that ends the block.
    """

    def __init__(self, comm: Any = None, timeout: float = TIMEOUT) -> None:
        self.timeout = checks.positive("timeout", timeout)
        self._patience = min(1.0, self.timeout / 4)  # seconds for the answer of a rank that is alive
        self._moves = 0  # how often this rank has begun to wait, or listened
        self._seen: dict[int, int] = {}  # the moves of all ranks when they were asked last
        self._run = 0
        self._sent: list[Any] = []  # requests of news
        self.rank, self.size, self._comm = 0, 1, comm
        if comm is not None:
            needed = ("Get_rank", "Get_size", "Isend", "Irecv", "isend", "iprobe", "recv", "Abort")
            if missing := [name for name in needed if not hasattr(comm, name)]:
                kind = type(comm).__name__
                raise TypeError(f"comm must be a communicator of mpi4py; got {kind}, which has no {missing[0]}")
            self.rank, self.size = comm.Get_rank(), comm.Get_size()
        if self.size & (self.size - 1):
            raise ValueError(f"comm must have 1, 2, 4, 8, ... ranks; got {self.size}")

    # ---- exchange -----------------------------------------------------------------------------------------------

    def sum(self, flat: Array) -> None:
        """Replace an array (n,) by its sum over all ranks: the tree of tree_sum, to the bit.

        Neighbours exchange halves, then pairs of neighbours quarters, and so on, until each rank has the whole sum of
        1 / R of the array; the way back spreads it (Rabenseifner 2004): 2 log2(R) messages, 2 n (R - 1) / R values.
        """
        begin, end, room = 0, len(flat), np.empty(-(-len(flat) // 2) if self.size > 1 else 0, flat.dtype)
        steps = []
        distance = 1
        while distance < self.size:
            partner, middle = self.rank ^ distance, (begin + end) // 2
            kept, given = slice(begin, middle), slice(middle, end)
            if partner < self.rank:
                kept, given = given, kept
            mine, theirs = flat[kept], room[: kept.stop - kept.start]
            self._exchange(partner, flat[given], theirs)
            np.add(mine, theirs, out=mine)  # commutative: the order of the two is no matter
            steps.append((partner, kept, given))
            begin, end, distance = kept.start, kept.stop, 2 * distance
        for partner, kept, given in reversed(steps):
            self._exchange(partner, flat[kept], flat[given])

    def gather(self, own: Array, bounds: Array) -> Array:
        """Return the arrays of all ranks one after another: that of rank r from bounds[r] to bounds[r + 1]."""
        rows = np.empty((int(bounds[-1]), *own.shape[1:]), own.dtype)
        rows[bounds[self.rank] : bounds[self.rank + 1]] = own
        distance = 1
        while distance < self.size:
            partner = self.rank ^ distance
            mine, theirs = (first // distance * distance for first in (self.rank, partner))
            parts = (rows[bounds[first] : bounds[first + distance]] for first in (mine, theirs))
            self._exchange(partner, *parts)
            distance *= 2
        return rows

    def _exchange(self, partner: int, given: Array, taken: Array) -> None:
        requests = [self._comm.Irecv(taken, partner, ARRAYS), self._comm.Isend(given, partner, ARRAYS)]
        self._wait(lambda: all([request.Test() for request in requests]))

    def broadcast(self, value: Any = None) -> Any:
        """Return the object of rank 0 on all ranks."""
        distance = 1
        while distance < self.size:
            if self.rank < distance:
                self._send(value, self.rank + distance)
            elif self.rank < 2 * distance:
                value = self._receive(self.rank - distance)
            distance *= 2
        return value

    def collect(self, value: Any) -> list[Any]:
        """Return the objects of all ranks in their order, on all ranks."""
        if self.rank:
            self._send(value, 0)
            return list(self.broadcast())
        return list(self.broadcast([value, *(self._receive(rank) for rank in range(1, self.size))]))

    def _send(self, value: Any, rank: int) -> None:
        self._wait(self._comm.isend(value, rank, OBJECTS).Test)

    def _receive(self, rank: int) -> Any:
        self._wait(lambda: self._comm.iprobe(rank, OBJECTS))
        return self._comm.recv(None, rank, OBJECTS)

    def agree(self, what: str, values: Mapping[str, Any]) -> None:
        """Raise ValueError, on all ranks, unless all have the same values."""
        everyone = self.collect(dict(values))
        for rank, theirs in enumerate(everyone):
            for name, wanted in everyone[0].items():
                if theirs[name] != wanted:
                    difference = f"{name} is {wanted!r} on rank 0 and {theirs[name]!r} on rank {rank}"
                    raise CommonError(f"all ranks must have the same {what}; {difference}")

    # ---- waiting ------------------------------------------------------------------------------------------------

    def _wait(self, is_done: Callable[[], bool]) -> None:
        """Return when something is done that needs another rank; RankError if that cannot be."""
        begin = None
        self._moves += 1
        while not is_done():
            now = time.monotonic()
            begin = now if begin is None else begin
            if now - begin > SPIN:
                self._hear()
                if now - begin > self.timeout - self._patience:
                    self._ask_the_silent()
                    begin = time.monotonic()
                time.sleep(min(max(PAUSE, (now - begin) / 50), LONGEST_PAUSE))
            else:
                _let_others_run()

    def listen(self) -> None:
        """Answer those who ask whether this rank is alive, in long work; RankError if another one failed."""
        self._moves += 1
        self._hear()

    def _hear(self) -> dict[int, int]:
        """Answer, or raise; -> who spoke, and how often they have moved on"""
        spoke = {}
        while self.size > 1 and self._comm.iprobe(tag=NEWS):
            news = self._comm.recv(tag=NEWS)
            if news["run"] < self._run:
                continue  # of a run that all have left
            if news["kind"] == "failed":
                self._end(news["message"], news["ranks"])
            if news["kind"] == "question":
                self._tell({"kind": "answer"}, [news["rank"]])
            spoke[news["rank"]] = news["moves"]
        return spoke

    def _ask_the_silent(self) -> None:
        """RankError for the ranks that do not answer; a rank that waits answers at once."""
        others = set(range(self.size)) - {self.rank}
        self._tell({"kind": "question"}, others)
        seen, end = {self.rank: self._moves}, time.monotonic() + self._patience
        while len(seen) < self.size and time.monotonic() < end:
            seen |= self._hear()
            time.sleep(PAUSE)
        silent = others - seen.keys()
        if seen == self._seen:
            message = (
                f"all ranks wait for each other, and have for {self.timeout:g} s: they have not made the same calls"
            )
            self._tell({"kind": "failed", "message": message, "ranks": []}, others)
            self._end(message, [])
        self._seen = {} if silent else seen
        if silent:
            names = f"rank {min(silent)}" if len(silent) == 1 else f"ranks {', '.join(map(str, sorted(silent)))}"
            message = f"{names} did not answer for {self.timeout:g} s: ended, stopped, or busy elsewhere"
            self._tell({"kind": "failed", "message": message, "ranks": sorted(silent)}, others - silent)
            self._end(message, sorted(silent))

    def _tell(self, news: dict[str, Any], ranks: Any) -> None:
        news = news | {"rank": self.rank, "run": self._run, "moves": self._moves}
        # A request holds what it sends.
        self._sent = [request for request in self._sent if not request.Test()]
        self._sent += [self._comm.isend(news, rank, NEWS) for rank in ranks]

    def _end(self, message: str, ranks: Sequence[int]) -> None:
        # MPI_Finalize would wait for a rank that is no more.
        atexit.register(_abort, self._comm)
        raise RankError(message, ranks)

    def __enter__(self) -> Self:
        self._run = next(_runs)  # the same on all ranks, if they make the same calls
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self.size > 1 and error is not None and not isinstance(error, (RankError, CommonError)):
            message = f"rank {self.rank} on {platform.node()}: {type(error).__name__}: {error}".rstrip(": ")
            news = {"kind": "failed", "message": message, "ranks": [self.rank]}
            self._tell(news, set(range(self.size)) - {self.rank})
            end = time.monotonic() + 1
            while not all([request.Test() for request in self._sent]) and time.monotonic() < end:
                time.sleep(PAUSE)

    # ---- the node -----------------------------------------------------------------------------------------------

    def threads(self) -> int:
        """Threads for each rank: the cores that the ranks on this node may use together, over the ranks there."""
        cores = set(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))
        node, own = platform.node(), usable_cores()
        here = [theirs for name, theirs in self.collect((node, cores)) if name == node]
        # Ranks that are not bound to cores of their own share the quota of their container, too.
        together = own if all(theirs == cores for theirs in here) else len(set().union(*here))
        return max(1, min(together // len(here), own))


ALONE = Ranks()


def _let_others_run() -> None:
    if hasattr(os, "sched_yield"):
        os.sched_yield()


def _abort(comm: Any) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    time.sleep(0.5)  # mpiexec has not always read what was written when it is told to end
    comm.Abort(1)
