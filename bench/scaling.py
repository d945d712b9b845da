"""Data-parallel training: measured on this machine, and what that predicts for more ranks.

    python bench/scaling.py TEXT [--rounds 10] [--short]

1. Tokens a second of a character model (LSTM 256, 64 rows x 64 steps) on one thread, on two threads, cut into 8 shards,
   with a communicator of one rank, on two ranks, and in two processes that share nothing: blocks of updates in turns,
   in one job of mpiexec.
2. The sum over R ranks of n values: t = 2 log2(R) alpha + 2 (R - 1) / R n beta, fitted to times of this machine.
3. Seconds of a step by the rows of a rank, for three models, and from all that the time of a step on up to 1,024 ranks
   of two networks, whose alpha and beta are assumed: predicted, not measured.

Threads are pinned to one a rank. 4 and 8 ranks share the cores there are.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import rnncore as rc
from rnncore.config import processor
from rnncore.distributed import Ranks

UPDATES = 12  # of a block; the first two warm up
SIZES = [1, 1_000, 30_000, 350_000, 3_000_000]  # values of a sum
NETWORKS = {  # seconds of a message, seconds of a byte: assumed
    "10 Gbit Ethernet": (30e-6, 1 / 1.1e9),
    "200 Gbit InfiniBand": (2e-6, 1 / 20e9),
}
MODELS = {  # hidden size, layers, words, steps of a chunk
    "LSTM 256, 65 characters": (256, 1, 65, 64),
    "LSTM 512, 10,000 words": (512, 1, 10_000, 32),
    "2 x LSTM 1024, 30,000 words": (1024, 2, 30_000, 32),
}
ROWS = [1, 2, 4, 8, 16, 32, 64]
RANKS = [1, 2, 4, 8, 16, 64, 256, 1024]

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("text")
parser.add_argument("--rounds", type=int, default=10)
parser.add_argument("--short", action="store_true", help="little of everything, to see that it runs")
parser.add_argument("--rank", choices=["train", "sum"], help=argparse.SUPPRESS)


# ---- what ranks do --------------------------------------------------------------------------------------------------


def seconds_of_updates(text: str, threads: int, updates: int, rows: int = 64, **options: Any) -> float:
    times: list[float] = []

    def note(at: Any) -> bool:
        times.append(time.perf_counter())
        return at.update == updates

    rc.set_num_threads(threads)
    rc.LanguageModel(hidden_size=256, batch_size=rows, epochs=1, random_state=0).fit(text, callback=note, **options)
    return statistics.median(np.diff(times[1:])) if times else 0.0


def train(arguments: argparse.Namespace) -> None:
    """Print, on rank 0, the seconds of an update of each mode in each round."""
    from mpi4py import MPI

    ranks = Ranks(MPI.COMM_WORLD)
    text = Path(arguments.text).read_text(encoding="utf-8")
    updates = 4 if arguments.short else UPDATES
    modes: dict[str, tuple[int, dict[str, Any]]] = {
        "one thread": (1, {}),
        "two threads": (2, {}),
        "one thread, 8 shards": (1, {"shards": 8}),
        "one rank": (1, {"comm": MPI.COMM_SELF}),
        "two ranks": (1, {"comm": MPI.COMM_WORLD}),
        # What the machine gives: each trains on half of the rows, and does not hear of the other.
        "two processes apart": (1, {"rows": 32}),
    }
    found: dict[str, list[float]] = {name: [] for name in modes}
    for _ in range(arguments.rounds):
        for name, (threads, options) in modes.items():
            if ranks.rank == 0 or name.startswith(("two ranks", "two processes")):
                found[name].append(seconds_of_updates(text, threads, updates, **options))
            ranks.collect(None)  # the other one waits
    if ranks.rank == 0:
        print(json.dumps(found))


def sums(arguments: argparse.Namespace) -> None:
    """Print, on rank 0, the median seconds of a sum, by the number of values."""
    from mpi4py import MPI

    ranks, found = Ranks(MPI.COMM_WORLD), {}
    for n in SIZES:
        values, times = np.ones(n, np.float32), []
        for _ in range(3 if arguments.short else 40):
            begin = time.perf_counter()
            ranks.sum(values)
            times.append(time.perf_counter() - begin)
            values[:] = 1
        found[n] = statistics.median(times)
    if ranks.rank == 0:
        print(json.dumps(found))


def on_ranks(size: int, what: str, arguments: argparse.Namespace) -> Any:
    command = [str(Path(sys.executable).with_name("mpiexec")), "-n", str(size), sys.executable, __file__]
    command += [arguments.text, "--rank", what, "--rounds", str(arguments.rounds)]
    command += ["--short"] if arguments.short else []
    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | threads)
    return json.loads(result.stdout)


# ---- the model of a step --------------------------------------------------------------------------------------------


def fit_sum(size: int, seconds: dict[str, float]) -> tuple[float, float]:
    """Return alpha (s) and beta (s a byte) from the times of sums of float32 values."""
    least, most = min(seconds, key=int), max(seconds, key=int)
    alpha = seconds[least] / (2 * math.log2(size))
    beta = (seconds[most] - seconds[least]) / (2 * (size - 1) / size * 4 * int(most))
    return alpha, beta


def seconds_of_sum(size: int, values: int, alpha: float, beta: float) -> float:
    return 2 * math.log2(size) * alpha + 2 * (size - 1) / size * 4 * values * beta


def measure_steps(name: str, short: bool) -> tuple[int, dict[int, float]]:
    """Return the number of parameters, and the seconds of a step by its rows, on one thread."""
    hidden, layers, words, T = MODELS[name]
    level = "char" if words < 1000 else "word"
    tokens = [chr(200 + n) if level == "char" else str(n) for n in range(words - 2)]
    model = rc.LanguageModel(level, hidden_size=hidden, num_layers=layers, random_state=0)
    model.build(rc.Vocabulary(tokens, level))
    rng, found = np.random.default_rng(0), {}
    for N in ROWS[:2] if short else ROWS:
        ids = rng.integers(words, size=(T + 1, N))
        times: list[float] = []
        while len(times) < 3 or (sum(times) < 3 and len(times) < 30):
            begin = time.perf_counter()
            model.loss_and_gradients(ids[:-1], ids[1:])
            times.append(time.perf_counter() - begin)
            if short:
                break
        found[N] = statistics.median(times)
    return sum(p.size for p in model.params.values()), found


def predict(size: int, rows: int, steps: dict[int, float], values: int, network: tuple[float, float]) -> float:
    """Seconds of a step of so many rows a rank: computation, then the sum; nothing overlaps."""
    return steps[rows] + (seconds_of_sum(size, values, *network) if size > 1 else 0)


def row(*cells: Any) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g}"


def main() -> None:
    arguments = parser.parse_args()
    if arguments.rank:
        {"train": train, "sum": sums}[arguments.rank](arguments)
        return
    rc.set_num_threads(1)
    print(f"{processor()}, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}, one thread a rank\n")
    found = on_ranks(2, "train", arguments)
    print("Measured: LSTM 256, 64 x 64 characters, median of", arguments.rounds, "blocks; the ratio within a round\n")
    print(row("", "ms an update", "tokens/s", "times one thread", "times two threads"))
    print(row(*["---"] * 5))
    for name, seconds in found.items():
        ratios = [
            f"{statistics.median(np.array(found[other]) / seconds):.3f}" for other in ("one thread", "two threads")
        ]
        middle = statistics.median(seconds)
        print(row(name, milliseconds(middle), f"{64 * 64 / middle:,.0f}", *ratios))
    overhead = statistics.median(np.array(found["one rank"]) / found["one thread, 8 shards"]) - 1
    ceiling = statistics.median(np.array(found["two processes apart"]) / found["two ranks"])
    print(f"\ntwo ranks: {ceiling:.1%} of the tokens/s of two processes apart", end="")
    print(f"\ncomm of one rank over the same shards without: {overhead:+.2%}")

    print("\nMeasured: seconds of a sum over the ranks of this machine\n")
    print(row("ranks", "alpha, us", "GB/s", *(f"{n:,} values, us" for n in SIZES)))
    print(row(*["---"] * (3 + len(SIZES))))
    for size in (2, 4, 8)[: 1 if arguments.short else 3]:
        times = on_ranks(size, "sum", arguments)
        alpha, beta = fit_sum(size, times)
        print(row(size, f"{1e6 * alpha:.3g}", f"{1e-9 / beta:.2f}", *(f"{1e6 * s:.3g}" for s in times.values())))
        if size == 2:
            here = alpha, beta
    values = 349_569
    predicted = statistics.median(found["one thread, 8 shards"]) / 2 + seconds_of_sum(2, values, *here)
    print(f"\ntwo ranks: predicted {milliseconds(predicted)} ms, measured", end=" ")
    print(f"{milliseconds(statistics.median(found['two ranks']))} ms an update")

    for name in list(MODELS)[: 1 if arguments.short else 3]:
        count, steps = measure_steps(name, arguments.short)
        print(f"\n{name}: {count / 1e6:.2f} million parameters\n")
        print(row("measured: rows of a rank", *steps))
        print(row(*["---"] * (1 + len(steps))))
        print(row("ms a step", *map(milliseconds, steps.values())))
        most = max(steps)
        sizes = [size for size in RANKS if not arguments.short or size < 3]
        print("\nPredicted: times the tokens a second of one rank\n")
        print(row("network", "rows", *(f"{size} ranks" for size in sizes)))
        print(row(*["---"] * (2 + len(sizes))))
        base = most / steps[most]
        for network, (alpha, beta) in NETWORKS.items():
            for label, gradient in (("float32", 1.0), ("bfloat16 gradients", 0.5)):
                cells = [
                    f"{size * most / predict(size, most, steps, int(count * gradient), (alpha, beta)) / base:.3g}"
                    for size in sizes
                ]
                print(row(f"{network}, {label}", f"{most} a rank", *cells))
            cells = [
                f"{most / predict(size, most // size, steps, count, (alpha, beta)) / base:.3g}"
                if most // size in steps
                else ""
                for size in sizes
            ]
            print(row(f"{network}, float32", f"{most} in all", *cells))
    print()


if __name__ == "__main__":
    main()
