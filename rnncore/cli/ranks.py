"""``rnncore train`` on several processes that ``mpiexec`` or ``srun`` started."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from typing import Any, TypeVar

from ..config import config
from ..distributed import Ranks
from ..engine import settings
from .errors import UserError

# Where the launchers of MPI say how many processes they started: Open MPI; MPICH, Intel and others; a step of Slurm.
SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")

Result = TypeVar("Result")


def find_comm() -> Any:
    """Return the communicator of the processes that were started together; None for one alone."""
    size = next((int(os.environ[name]) for name in SIZES if os.environ.get(name, "").isdigit()), 1)
    if size == 1:
        return None
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        wanted = 'pip install "rnncore[mpi]"'
        raise UserError(f"one of {size} processes, which need mpi4py and its MPI: {wanted} ({error})") from None
    found = MPI.COMM_WORLD.Get_size()
    if found == 1:
        library = MPI.Get_library_version().partition("\n")[0]
        raise UserError(
            f"one of {size} processes, but alone for mpi4py: the launcher is not that of its MPI, {library!r}"
        )
    return MPI.COMM_WORLD


def as_ranks(comm: Any, timeout: float) -> Ranks:
    """Return the ranks; UserError, said by the first of them, if there are not 1, 2, 4, 8, ..."""
    try:
        return Ranks(comm, timeout)
    except ValueError as error:
        raise UserError(str(error).replace("comm", "mpiexec -n"), silent=comm.Get_rank() > 0) from None


def _threads(ranks: Ranks) -> int:
    shared = ranks.threads()  # all ranks ask, whatever each of them has set
    return settings.get_num_threads() if settings.threads_are_set() else shared


def describe(ranks: Ranks) -> str:
    """Return a line that says who trains together."""
    nodes = ranks.collect(platform.node())
    threads = _threads(ranks)
    machines = "1 machine" if len(set(nodes)) == 1 else f"{len(set(nodes))} machines"
    return f"{ranks.size} ranks of MPI on {machines}, {threads} {'thread' if threads == 1 else 'threads'} each"


def table(ranks: Ranks) -> str:
    """Return what each rank sees of its machine."""
    threads = _threads(ranks)
    seen = config()
    own = {
        "rank": f"{ranks.rank} of {ranks.size}",
        "machine": platform.node(),
        "cores": settings.usable_cores(),
        "threads": threads,
        "instruction set": settings.get_isa(),
        "rnncore": seen["rnncore"],
        "NumPy": seen["NumPy"].partition(",")[0],
        "processor": seen["processor"].partition(",")[0],
    }
    rows = [list(own), *(list(map(str, row.values())) for row in ranks.collect(own))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def together(ranks: Ranks, prepare: Callable[[], Result]) -> Result:
    """Return what a function returns here; if it raises UserError on any rank, raise it on all, said once."""
    result, message = None, ""
    try:
        result = prepare()
    except UserError as error:
        message = str(error)
    said = ranks.collect(message)
    messages = dict.fromkeys(filter(None, said))
    if messages:
        texts = [
            f"{text} (rank {', '.join(str(rank) for rank, one in enumerate(said) if one == text)})"
            if ranks.size > 1 and said.count(text) < ranks.size
            else text
            for text in messages
        ]
        raise UserError("; ".join(texts), silent=ranks.rank > 0)
    return result  # type: ignore[return-value]  # None stands for a message
