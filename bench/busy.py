"""Two threads beside one while other processes keep the cores busy, and many Python threads that call at once.

    python bench/busy.py [--load 0 1 2 4] [--threads 2] [--seconds 3] [--cells lstm gru rnn] [--short]
                         [--callers 8] [--torch]

First the time of all threads over that of one, with so many busy processes beside: forward alone, then forward and
backward. Calls run in blocks of a quarter of a second, in turns; a figure is the median over pairs of blocks of the
ratio of their median calls. Then the throughput of Python threads that run inference at once over that of one. With
--torch, modules of rnncore.interop.torch and of torch.nn in turns in one process: the time of torch.nn over ours. The
busy processes end by themselves after ten minutes.
"""

import argparse
import contextlib
import datetime
import itertools
import statistics
import subprocess
import sys
import threading
import time

import rnncore as rc
from rnncore import functional
from rnncore.bench.competitors import make_call, make_layer
from rnncore.bench.measure import shortest
from rnncore.bench.workloads import COMPARED, VARIANTS, make_problem
from rnncore.config import processor

SHAPES = {  # T N D H, by cell: of bench/compare.py's, and real workloads (rnncore/bench/workloads.py)
    "lstm": [
        (100, 1, 256, 256),
        (100, 1, 512, 512),
        (30, 1, 1024, 1024),
        (246, 1, 240, 1024),
        (629, 1, 128, 128),
        (50, 8, 128, 128),
        (100, 16, 64, 32),
        (100, 32, 256, 256),
        (50, 64, 512, 512),
    ],
    "gru": [(100, 1, 256, 256), (187, 1, 1024, 1024), (50, 8, 128, 128), (100, 32, 256, 256), (300, 20, 800, 800)],
    "rnn": [(100, 1, 512, 512), (50, 1, 1760, 1760), (100, 32, 256, 256), (50, 64, 512, 512)],
}
SHORT = {"lstm": [(100, 1, 256, 256), (50, 8, 128, 128)]}
BLOCK = 0.25  # seconds
BUSY = "import time; end = time.monotonic() + 600\nwhile time.monotonic() < end: pass"


@contextlib.contextmanager
def busy_processes(count):
    """Keep so many processes busy, at most ten minutes."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    time.sleep(0.3 * bool(count))
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def block(call):
    """Return the median time of a call in a block of calls."""
    times, end = [], time.perf_counter() + BLOCK
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def ratio(first, second, seconds):
    """Return the median ratio of the times of two calls, in turns."""
    ratios, end = [], time.perf_counter() + seconds
    for turn in itertools.count():
        if turn >= 3 and time.perf_counter() >= end:
            return statistics.median(ratios)
        times = {call: block(call) for call in ((first, second) if turn % 2 else (second, first))}
        ratios.append(times[first] / times[second])


def with_threads(count, call):
    def function():
        rc.set_num_threads(count)
        call()

    return function


def loaded(arguments):
    """Print the table of all threads over one, a column for each load."""
    print(f"time on {arguments.threads} threads over one, with 0, 1 ... busy processes beside")
    heads = [f"{load:>4} {kind:<5}" for load in arguments.load for kind in ("fwd", "train")]
    print(f"{'T N D H':>24}  " + " ".join(heads))
    worst = dict.fromkeys(arguments.load, 0.0)
    for cell in arguments.cells:
        for shape in (SHORT if arguments.short else SHAPES).get(cell, []):
            problem = make_problem(VARIANTS[COMPARED[cell]], shape, "float32")
            row = []
            for load in arguments.load:
                with busy_processes(load):
                    for backward in (False, True):
                        call = make_call(functional, problem, backward)
                        found = ratio(with_threads(arguments.threads, call), with_threads(1, call), arguments.seconds)
                        worst[load] = max(worst[load], found)
                        row.append(f"{found:>10.2f}")
            print(f"{cell + ' ' + ' '.join(map(str, shape)):>24}  " + " ".join(row), flush=True)
    print("worst: " + ", ".join(f"{value:.2f} with {load}" for load, value in worst.items()))


def throughput(call, callers, seconds):
    """Return the calls a second of so many Python threads."""
    counts, start = [0] * callers, time.perf_counter()

    def work(caller):
        while time.perf_counter() < start + seconds:
            call()
            counts[caller] += 1

    threads = [threading.Thread(target=work, args=(caller,)) for caller in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - start)


def callers(arguments):
    """Print the throughput of Python threads at once over that of one on one thread."""
    print(f"throughput of {arguments.callers} Python threads at once over that of one")
    for cell in arguments.cells:
        for shape in (SHORT if arguments.short else SHAPES).get(cell, [])[:6]:
            problem = make_problem(VARIANTS[COMPARED[cell]], shape, "float32")
            layer = make_layer(problem)
            found = []
            for _ in range(3):
                rates = []
                for count, threads in ((1, 1), (arguments.callers, arguments.threads)):
                    rc.set_num_threads(threads)
                    rates.append(throughput(lambda: layer(problem.x), count, arguments.seconds / 3))  # noqa: B023
                found.append(rates[1] / rates[0])
            print(f"{cell + ' ' + ' '.join(map(str, shape)):>24}  {statistics.median(found):.2f}", flush=True)


def in_turns(arguments):
    """Print the time of torch.nn over that of rnncore.interop.torch, call by call in turns, on all threads."""
    import torch

    import rnncore.interop.torch as modules

    torch.set_num_threads(arguments.threads)
    rc.set_num_threads(arguments.threads)
    print("time of torch.nn over rnncore.interop.torch, in turns: forward, forward and backward")
    for cell in arguments.cells:
        for shape in (SHORT if arguments.short else SHAPES).get(cell, []):
            T, N, D, H = shape
            pair = [getattr(module, cell.upper())(D, H) for module in (torch.nn, modules)]
            x, row = torch.randn(T, N, D), []

            def forward(module, x=x):
                with torch.no_grad():
                    module(x)

            def train(module, x=x):
                module(x)[0].square().mean().backward()

            for run in (forward, train):
                ratios, end = [], time.perf_counter() + arguments.seconds
                while len(ratios) < 5 or time.perf_counter() < end:
                    times = []
                    for module in pair:
                        start = time.perf_counter()
                        run(module)
                        times.append(time.perf_counter() - start)
                    ratios.append(times[0] / times[1])
                row.append(f"{statistics.median(ratios[1:]):>10.2f}")
            print(f"{cell + ' ' + ' '.join(map(str, shape)):>24}  " + " ".join(row), flush=True)


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--load", nargs="*", type=int, default=[0, 1, 2, 4], help="busy processes beside")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3, help="for each figure")
    parser.add_argument("--cells", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--short", action="store_true", help="two shapes")
    parser.add_argument("--callers", type=int, default=8, help="Python threads at once; 0: leave this out")
    parser.add_argument("--torch", action="store_true", help="in turns with torch.nn")
    arguments = parser.parse_args(argv)
    rate = shortest(lambda: sum(range(100_000)))  # of the machine, as Python has it
    print(f"{datetime.date.today()}, {processor()}, sum(range(100000)) in {rate * 1e3:.1f} ms")
    if arguments.load:
        loaded(arguments)
    if arguments.callers:
        callers(arguments)
    if arguments.torch:
        in_turns(arguments)


if __name__ == "__main__":
    main()
