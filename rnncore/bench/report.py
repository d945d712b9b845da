"""One measured workload, and how it is printed."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

#: The engine again: its products by BLAS, or its weights in float32 where the engine's are in less.
BLAS, FLOAT32 = "BLAS", "float32"


@dataclass
class Record:
    """One workload: median seconds of each competitor, and the least that any could take (None where unknown)."""

    mode: str
    cell: str
    dtype: str
    threads: int
    workload: str
    seconds: dict[str, float]
    limit: float | None = None
    unit: str = "ms"
    amount: float = 1.0  # of the unit (tokens, characters) in one call

    def ratio(self, name: str) -> float:
        """How many times as long as the engine a competitor takes."""
        return self.seconds[name] / self.seconds["engine"]

    @property
    def peers(self) -> list[str]:
        return [name for name in self.seconds if name not in ("engine", "reference", BLAS, FLOAT32)]

    def __str__(self) -> str:
        figures = ", ".join(f"{name} {self._figure(seconds)}" for name, seconds in self.seconds.items())
        ratios = [f"{self.ratio(name):.2f} x {name}" for name in self.seconds if name != "engine"]
        if self.limit is not None:
            ratios.append(f"{self.limit / self.seconds['engine']:.0%} of the limit")
        return f"  {self.workload:>24}: {figures}" + (f"; {', '.join(ratios)}" if ratios else "")

    def _figure(self, seconds: float) -> str:
        if self.unit in ("ms", "us"):
            return f"{seconds * (1e3 if self.unit == 'ms' else 1e6):,.3f}"
        return f"{self.amount / seconds:,.0f}"


def summary(records: list[Record]) -> list[str]:
    """Return lines with the geometric mean and the worst of the ratios of some records."""
    ratios: dict[str, list[float]] = {}
    if all("reference" in record.seconds for record in records):
        ratios["the reference"] = [record.ratio("reference") for record in records]
    for own in (BLAS, FLOAT32):
        if all(own in record.seconds for record in records):
            ratios[own] = [record.ratio(own) for record in records]
    compared = [record for record in records if record.peers]
    if compared:
        one = len({peer for record in compared for peer in record.peers}) == 1
        name = compared[0].peers[0] if one else "the fastest peer"
        ratios[name] = [min(record.ratio(peer) for peer in record.peers) for record in compared]
    limits = [record.limit / record.seconds["engine"] for record in records if record.limit is not None]
    if len(limits) == len(records):
        ratios["the limit"] = limits
    return [
        f"  of {name}: geometric mean {statistics.geometric_mean(values):.2f}, worst {min(values):.2f}"
        for name, values in ratios.items()
    ]
