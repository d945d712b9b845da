"""Whether memory stays flat: python bench/leaks.py [--short] [--only NAME ...]

Each row is a fresh process that does a thing many times: half of them before it looks at its resident memory and the
number of objects of Python, and half until it looks again. Exits with 1 if memory grows by more than 5 %, or objects by
more than one in fifty times and 500. Linux.
"""

import argparse
import gc
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import rnncore as rc
from rnncore import _engine
from rnncore.bench.workloads import VARIANTS, make_problem

MOST_GROWTH = 0.05
MOST_OBJECTS = 1 / 50  # for each time, and WARMING more
WARMING = 500


class Work(NamedTuple):
    times: int
    make: Callable[[], Callable[[int], None]]  # the function gets a number that counts up
    threads: int = 1
    short: int = 20  # a short run does it so many times less often


def resident() -> int:
    """Bytes of this process that are in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


# ---- what is done ---------------------------------------------------------------------------------------------------


def train(cell: str, shape: tuple[int, int, int, int]) -> None:
    problem = make_problem(VARIANTS[cell], shape, "float32")
    h, _, cache = getattr(rc, f"{cell}_forward")(**problem.arguments())
    getattr(rc, f"{cell}_backward")(h, cache)


def changing_shapes() -> Callable[[int], None]:
    rng = np.random.default_rng(0)
    cells = itertools.cycle(["rnn", "gru", "lstm", "mingru"])
    return lambda _: train(next(cells), tuple(map(int, rng.integers(1, 12, size=4))))


def large_shapes() -> Callable[[int], None]:
    """Results in pooled memory, of every size."""
    rng = np.random.default_rng(0)
    return lambda _: train("gru", (int(rng.integers(20, 60)), int(rng.integers(8, 40)), 8, 48))


def python_threads() -> Callable[[int], None]:
    def once(_: int) -> None:
        thread = threading.Thread(target=train, args=("lstm", (9, 6, 5, 24)))
        thread.start()
        thread.join()

    return once


def engine_threads() -> Callable[[int], None]:
    def once(number: int) -> None:
        rc.set_num_threads(1 + number % 4)
        train("gru", (9, 6, 5, 24))

    return once


def forks() -> Callable[[int], None]:
    def once(_: int) -> None:
        child = os.fork()
        if not child:
            train("lstm", (9, 6, 5, 24))
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            raise RuntimeError("the child failed")
        train("lstm", (9, 6, 5, 24))

    return once


def small_model() -> Any:
    return rc.LanguageModel(hidden_size=8, embedding_size=4, epochs=1, batch_size=2).fit(
        "a small text of a few words " * 4
    )


def loads() -> Callable[[int], None]:
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "model.npz"
    small_model().save(path)

    def once(_: int, folder: Any = folder) -> None:
        rc.load(path)

    return once


def saves() -> Callable[[int], None]:
    folder, model = tempfile.TemporaryDirectory(), small_model()

    def once(_: int) -> None:
        model.save(Path(folder.name) / "model.npz")

    return once


def of_a_layer(use: Callable[[Any, Any], Any]) -> Callable[[], Callable[[int], None]]:
    """Use a layer and an input (3, 2, 4)."""

    def make() -> Callable[[int], None]:
        layers = [getattr(rc, kind)(4, 16, 2, seed=0) for kind in ("RNN", "GRU", "LSTM", "MinGRU")]
        x = np.random.default_rng(0).normal(size=(3, 2, 4)).astype("float32")

        def once(number: int) -> None:
            use(layers[number % 4], x)

        return once

    return make


def models() -> Callable[[int], None]:
    X = [np.ones((4, 3)), np.zeros((2, 3))]

    def once(_: int) -> None:
        model = rc.SequenceClassifier(hidden_size=4, epochs=1, batch_size=2).fit(X, ["a", "b"])
        model.predict_proba(X)

    return once


def errors() -> Callable[[int], None]:
    """Wrong arguments at every depth: of functions, native records, layers, losses, models and files."""
    x, Wx, Wh, b = (np.zeros(shape, "float32") for shape in [(3, 2, 4), (4, 20), (5, 20), (20,)])
    h, _, cache = rc.lstm_forward(x, Wx, Wh, b)
    layer, dense, embedding = rc.LSTM(4, 5, 2), rc.Dense(5, 7), rc.Embedding(7, 4)
    frozen = layer.freeze()
    stream, optimizer = frozen.stream(2), rc.Adam(dense.params)
    logits, model = np.zeros((3, 2, 7)), small_model()
    deep = layer.forward(x)[2]
    wrong: list[Callable[[], Any]] = [
        lambda: rc.lstm_forward(x, Wx, Wx, b),
        lambda: rc.lstm_forward(x, Wx, Wh, b, lengths=[4, 1]),
        lambda: rc.lstm_forward(x, Wx, Wh, b, resets=np.zeros(3)),
        lambda: rc.lstm_forward(np.array([[9, 1]]), Wx, Wh, b),
        lambda: rc.lstm_forward(x, Wx, Wh, b, h0=np.zeros((3, 5))),
        lambda: rc.lstm_forward(x, Wx, Wh, b, checkpoint=False),
        lambda: rc.lstm_forward(x.astype(object), Wx, Wh, b),
        lambda: rc.lstm_forward(np.broadcast_to(x[:1], (2**59, 2, 4)), Wx, Wh, b, training=False),
        lambda: rc.gru_forward(x, Wx, Wh, b),
        lambda: rc.rnn_forward(x, Wx[:, :5], Wh[:, :5], b[:5], activation="sine"),
        lambda: rc.lstm_backward(h[:2], cache),
        lambda: rc.gru_backward(h, cache),
        lambda: rc.lstm_backward(h, cache, dh_n=np.zeros((2, 6))),
        lambda: layer(x[..., :3]),
        lambda: layer(x, state=np.zeros(3)),
        lambda: layer.backward(np.zeros((3, 2, 6)), deep),
        lambda: layer.quantize("int4"),
        lambda: frozen(x, state=(np.zeros((2, 2, 6)), None)),
        lambda: frozen.forward(x),
        lambda: stream.step(x[0, :, :3]),
        lambda: stream.step(np.array([9, 9])),
        lambda: stream.step(x[0], out=np.zeros((2, 6))),
        lambda: dense(x),
        lambda: dense.backward(np.zeros((3, 7)), np.zeros((2, 5), "float32")),
        lambda: embedding(np.array([7])),
        lambda: embedding.backward(np.zeros((1, 4)), np.array([7])),
        lambda: optimizer.step({"W": dense.grads["W"]}),
        lambda: rc.softmax_cross_entropy(logits, np.full((3, 2), 7)),
        lambda: rc.fused_softmax_cross_entropy(dense, h, np.full((3, 2), -1)),
        lambda: rc.ctc_loss(logits, [[1], [0]]),
        lambda: rc.crf_loss(logits, np.zeros((6, 6)), np.zeros((3, 2), int)),
        lambda: rc.viterbi(logits, np.zeros((7, 7)), lengths=[4, 4]),
        lambda: rc.freeze("lstm", Wx, Wx, b),
        lambda: rc.LSTM(2**40, 2**40),
        lambda: rc.use_isa("none"),
        lambda: rc.set_num_threads(0),
        lambda: _engine.Block(2**62),
        lambda: _engine.ForwardCall(1, 2, 3),
        lambda: model.sample(-1),
        lambda: rc.load(os.devnull),
    ]

    def once(number: int) -> None:
        try:
            wrong[number % len(wrong)]()
        except (ValueError, TypeError, MemoryError, OSError, KeyError, IndexError, AttributeError):
            return
        raise RuntimeError(f"wrong call {number % len(wrong)} raises nothing")

    return once


WORK = {
    "calls of changing shapes": Work(100_000, changing_shapes),
    "calls with results in the pool": Work(10_000, large_shapes),
    "threads of Python, each with calls": Work(1_000, python_threads, threads=3),
    "threads of the engine, set up and down": Work(1_000, engine_threads),
    "forks, with calls in child and parent": Work(1_000, forks, threads=3),
    "models loaded": Work(10_000, loads),
    "models saved": Work(10_000, saves),
    "models fitted": Work(1_000, models),
    "streams made, stepped and dropped": Work(10_000, of_a_layer(lambda layer, x: layer.stream(2).step(x[0]))),
    "layers frozen, called and dropped": Work(10_000, of_a_layer(lambda layer, x: layer.freeze()(x))),
    "layers in bfloat16": Work(10_000, of_a_layer(lambda layer, x: layer.quantize("bfloat16")(x))),
    "layers in int8": Work(10_000, of_a_layer(lambda layer, x: layer.quantize("int8")(x))),
    "layers trained": Work(10_000, of_a_layer(lambda layer, x: layer.backward(None, layer.forward(x)[2]))),
    "calls that raise": Work(10_000, errors, short=4),
}


# ---- the table ------------------------------------------------------------------------------------------------------


def measure(name: str, times: int) -> dict[str, int]:
    """In this process: resident memory and objects after half of the times, and after all."""
    work = WORK[name]
    rc.set_num_threads(work.threads)
    _engine.set_cost_rule(flops=1, rows=1, products=1, units=4, cores=64)
    once = work.make()
    found = {}
    for when, numbers in (("before", range(times // 2)), ("after", range(times // 2, times))):
        for number in numbers:
            once(number)
        gc.collect()
        found[when], found[f"objects {when}"] = resident(), sys.getallocatedblocks()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="fewer times")
    parser.add_argument("--only", nargs="+", default=[""], help="rows that have one of these in their name")
    parser.add_argument("--measure", nargs=2, metavar=("NAME", "TIMES"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure[0], int(arguments.measure[1]))))
        return 0
    grown = False
    print(f"{'what':<42}{'times':>8}{'MB before':>11}{'MB after':>10}{'growth':>9}{'objects':>10}")
    for name, work in WORK.items():
        if not any(part in name for part in arguments.only):
            continue
        times = work.times // (work.short if arguments.short else 1)
        command = [sys.executable, *sys.argv[:1], "--measure", name, str(times)]
        found = json.loads(subprocess.check_output(command, text=True))
        growth = found["after"] / found["before"] - 1
        objects = found["objects after"] - found["objects before"]
        grown |= growth > MOST_GROWTH or objects > times * MOST_OBJECTS + WARMING
        megabytes = "".join(f"{found[when] / 1e6:>{width}.1f}" for when, width in (("before", 11), ("after", 10)))
        print(f"{name:<42}{times:>8,}{megabytes}{growth:>9.1%}{objects:>10,}", flush=True)
    return int(grown)


if __name__ == "__main__":
    sys.exit(main())
