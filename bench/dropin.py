"""The loops that people have against the drop-ins of rnncore.compat, at the sizes of the sources, one thread.

    python bench/dropin.py [--only NAME ...] [--seconds 0.5]

Forward and backward, but for one step at a time; medians over interleaved rounds; the ratio is original over drop-in.
Both must give the same before they are timed. "least" is what no implementation can beat (rnncore/bench/measure.py):
the products at the rate of large ones, or the weights read at the bandwidth of this machine. "limit", shown where a
target is missed, is the ratio of the original to that.
"""

import argparse
import datetime
import os
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

# BLAS reads them when NumPy is loaded.
os.environ.update(dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import numpy as np
import originals.coursera
import originals.cs231n
import originals.dinosaurus
import originals.dlfs2
import originals.min_char_rnn

import rnncore as rc
from rnncore.bench.measure import bandwidth, flops, limit, peak
from rnncore.bench.workloads import VARIANTS, make_problem
from rnncore.compat import coursera, cs231n, dinosaurus, dlfs2, min_char_rnn
from rnncore.config import processor
from rnncore.testing import assert_same_results, interleaved_medians

#: Of results, relative to their scale.
TOLERANCE = {"float32": 1e-4, "float64": 1e-10}


class Row(NamedTuple):
    size: str
    dtype: str
    original: Callable  # without arguments; returns the results to compare
    dropin: Callable
    work: tuple  # floating-point operations, least seconds of one step
    steps: int = 1  # of training in one call


def work(cell, shape, dtype, backward=True, maps=()):
    """-> floating-point operations of the products, seconds that no implementation can beat

    shape (T, N, D, H); D = 0 for ids, which need no product. maps: matrix products with weights beside the cell, each
    (rows, K, M, whether it has a backward pass).
    """
    variant = VARIANTS[cell]
    operations, least = flops(variant, shape, backward), limit(variant, shape, dtype, backward, 1)
    for rows, K, M, trained in maps:
        product, size = 2 * rows * K * M, K * M * np.dtype(dtype).itemsize
        seconds = product / peak(dtype)
        once = max(seconds, size / bandwidth(size))
        operations += product * (3 if trained else 1)
        least += 2 * once + seconds if trained else once
    return operations, least


def draw_arrays(cell, shape):
    """-> x (T, N, D), Wx, Wh, b, dh (T, N, H)"""
    problem = make_problem(VARIANTS[cell], shape, "float32")
    return problem.x, *problem.weights.values(), problem.dh


def named(**sizes):
    return " ".join(f"{name}={size}" for name, size in sizes.items())


def batch_first(array):
    return np.ascontiguousarray(np.swapaxes(array, 0, 1))


# ---- CS231n ---------------------------------------------------------------------------------------------------------

N, T, W, H, FEATURES, WORDS = 25, 16, 256, 512, 512, 1004


def cs231n_sequence(cell, buffers):
    x, Wx, Wh, b, dh = draw_arrays(cell, (T, N, W, H))
    x, dh = batch_first(x), batch_first(dh)

    def make(module, **options):
        forward, backward = (getattr(module, f"{cell}_{way}") for way in ("forward", "backward"))

        def call():
            h, cache = forward(x, dh[:, 0], Wx, Wh, b, **options)
            return h, backward(dh, cache, **options)

        return call

    calls = make(originals.cs231n, buffers=buffers), make(cs231n)
    return Row(named(N=N, T=T, D=W, H=H), "float32", *calls, work(cell, (T, N, W, H), "float32"))


def cs231n_captioning(cell, buffers):
    rng = np.random.default_rng(0)

    def draw(*shape):
        return (rng.normal(size=shape) / np.sqrt(shape[0])).astype("float32")

    params = originals.cs231n.captioning_parameters(draw, WORDS, FEATURES, W, H, cell)
    features, captions = rng.normal(size=(N, FEATURES)).astype("float32"), rng.integers(WORDS, size=(N, T + 1))
    loss = partial(originals.cs231n.captioning_loss, cell=cell, params=params, features=features, captions=captions)
    maps = [(N, FEATURES, H, True), (N * T, H, WORDS, True)]
    return Row(
        named(N=N, T=T, W=W, H=H, V=WORDS),
        "float32",
        partial(loss, originals.cs231n, buffers=buffers),
        partial(loss, cs231n),
        work(cell, (T, N, W, H), "float32", maps=maps),
    )


def cs231n_step():
    shape = 1, 1, W, H
    x, Wx, Wh, b, h = draw_arrays("lstm", shape)

    def make(module):
        return lambda: module.lstm_step_forward(x[0], h[0], h[0], Wx, Wh, b)[:2]

    return Row(
        named(N=1, D=W, H=H), "float32", make(originals.cs231n), make(cs231n), work("lstm", shape, "float32", False)
    )


# ---- Deep Learning from Scratch 2 -----------------------------------------------------------------------------------


def dlfs2_sequence(cell, H, N=20, T=35):
    shape = T, N, H, H
    xs, Wx, Wh, b, dhs = draw_arrays(cell, shape)
    xs, dhs = batch_first(xs), batch_first(dhs)

    def make(module):
        layer = getattr(module, f"Time{cell.upper()}")(Wx, Wh, b)
        return lambda: (layer.forward(xs), layer.backward(dhs), layer.grads)

    calls = make(originals.dlfs2), make(dlfs2)
    return Row(named(N=N, T=T, D=H, H=H), "float32", *calls, work(cell, shape, "float32"))


def dlfs2_generation(H):
    shape = 1, 1, H, H
    x, Wx, Wh, b, _ = draw_arrays("lstm", shape)

    def make(module):
        layer = module.TimeLSTM(Wx, Wh, b, stateful=True)
        return lambda: layer.forward(x)

    calls = make(originals.dlfs2), make(dlfs2)
    return Row(named(N=1, T=1, D=H, H=H), "float32", *calls, work("lstm", shape, "float32", False))


# ---- the course -----------------------------------------------------------------------------------------------------


def coursera_sequence(cell, n_x, n_a, n_y, m, T):
    rng = np.random.default_rng(0)
    shapes = {"Wax": (n_a, n_x), "Waa": (n_a, n_a), "Wya": (n_y, n_a), "ba": (n_a, 1), "by": (n_y, 1)}
    if cell == "lstm":
        shapes = {f"W{gate}": (n_a, n_a + n_x) for gate in "fico"} | {f"b{gate}": (n_a, 1) for gate in "fico"}
        shapes |= {"Wy": (n_y, n_a), "by": (n_y, 1)}
    parameters = {key: rng.normal(size=shape) / np.sqrt(shape[1]) for key, shape in shapes.items()}
    x, a0, da = (rng.normal(size=shape) for shape in ((n_x, m, T), (n_a, m), (n_a, m, T)))

    def make(module):
        forward, backward = (getattr(module, f"{cell}_{way}") for way in ("forward", "backward"))

        def call():
            *outputs, caches = forward(x, a0, parameters)
            return outputs, backward(da, caches)

        return call

    bounds = work(cell, (T, m, n_x, n_a), "float64", maps=[(T * m, n_a, n_y, False)])
    size = named(n_x=n_x, n_a=n_a, n_y=n_y, m=m, T=T)
    return Row(size, "float64", make(originals.coursera), make(coursera), bounds)


def dinosaurus_island(n_a=50, V=27, lengths=range(7, 18)):
    rng = np.random.default_rng(0)
    names = [rng.integers(1, V, size=length).tolist() for length in lengths]
    initial = dinosaurus.initialize_parameters(n_a, V, V)

    def make(module):
        parameters, a_prev = {key: value.copy() for key, value in initial.items()}, np.zeros((n_a, 1))

        def call():
            nonlocal a_prev
            for ids in names:
                loss, gradients, a_prev = module.optimize([None, *ids], [*ids, 0], a_prev, parameters)
            return loss, gradients, a_prev, parameters

        return call

    T = sum(lengths) // len(names) + 1
    bounds = work("rnn", (T, 1, 0, n_a), "float64", maps=[(T, n_a, V, True)])
    size = named(n_a=n_a, V=V, T=T)
    return Row(size, "float64", make(originals.dinosaurus), make(dinosaurus), bounds, len(names))


# ---- min-char-rnn and its relatives ---------------------------------------------------------------------------------


def min_char(cell, H, T, V):
    rng = np.random.default_rng(0)
    shapes = {
        "rnn": [(H, V), (H, H), (V, H), (H, 1), (V, 1)],
        "lstm": [(H, V + H), (H, 1)] * 4 + [(V, H), (V, 1)],
        "gru": [(V, H)] + [(H, V)] * 3 + [(H, H)] * 3 + [(V, 1)] + [(H, 1)] * 3,
    }[cell]
    states = [rng.normal(size=(H, 1)) for _ in range(2 if cell == "lstm" else 1)]
    weights = [0.1 * rng.normal(size=shape) for shape in shapes]
    inputs, targets = rng.integers(V, size=(2, T)).tolist()

    def make(module):
        return partial(getattr(module, f"char_{cell}_loss"), inputs, targets, *states, *weights)

    bounds = work(cell, (T, 1, 0, H), "float64", maps=[(T, H, V, True)])
    return Row(named(H=H, T=T, V=V), "float64", make(originals.min_char_rnn), make(min_char_rnn), bounds)


def batched(cell, n, b, I, d):  # noqa: E741
    rng = np.random.default_rng(0)
    gates = {"lstm": 4, "gru": 3}[cell]
    X, dH, WX = rng.normal(size=(n, b, I)), rng.normal(size=(n, b, d)), rng.normal(size=(1 + I + d, gates * d))
    WX /= np.sqrt(I + d)

    def make(module):
        layer = getattr(module, cell.upper())

        def call():
            *outputs, cache = layer.forward(X, WX)
            return outputs, layer.backward(dH, cache)

        return call

    bounds = work(cell, (n, b, I, d), "float64")
    return Row(named(n=n, b=b, I=I, d=d), "float64", make(originals.min_char_rnn), make(min_char_rnn), bounds)


# ---- the table ------------------------------------------------------------------------------------------------------

#: Name -> target of the ratio, function that makes the row. The originals of CS231n differ in the dtype of their
#: buffers: see originals/cs231n.py.
ROWS = {
    "CS231n RNN": (None, partial(cs231n_sequence, "rnn", "float32")),
    "CS231n RNN, float64 buffers": (None, partial(cs231n_sequence, "rnn", "float64")),
    "CS231n LSTM": (1.5, partial(cs231n_sequence, "lstm", "float32")),
    "CS231n LSTM, float64 buffers": (1.5, partial(cs231n_sequence, "lstm", "float64")),
    "CS231n captioning RNN": (None, partial(cs231n_captioning, "rnn", "float32")),
    "CS231n captioning LSTM": (None, partial(cs231n_captioning, "lstm", "float32")),
    "CS231n captioning LSTM, float64 buffers": (None, partial(cs231n_captioning, "lstm", "float64")),
    "CS231n lstm_step_forward": (None, cs231n_step),
    "DLFS2 TimeRNN": (None, partial(dlfs2_sequence, "rnn", 100)),
    "DLFS2 TimeGRU": (None, partial(dlfs2_sequence, "gru", 100)),
    "DLFS2 TimeLSTM": (2, partial(dlfs2_sequence, "lstm", 100)),
    "DLFS2 TimeLSTM 650": (1.3, partial(dlfs2_sequence, "lstm", 650)),
    "DLFS2 TimeLSTM seq2seq": (None, partial(dlfs2_sequence, "lstm", 128, N=128, T=29)),
    "DLFS2 TimeLSTM generating": (None, partial(dlfs2_generation, 100)),
    "DLFS2 TimeLSTM 650 generating": (None, partial(dlfs2_generation, 650)),
    "Coursera RNN": (2, partial(coursera_sequence, "rnn", 3, 5, 2, 10, 7)),
    "Coursera LSTM": (2, partial(coursera_sequence, "lstm", 3, 5, 2, 10, 7)),
    "Coursera RNN 64": (4, partial(coursera_sequence, "rnn", 32, 64, 8, 32, 64)),
    "Coursera LSTM 64": (4, partial(coursera_sequence, "lstm", 32, 64, 8, 32, 64)),
    "Dinosaurus Island optimize": (4, dinosaurus_island),
    "min-char-rnn": (5, partial(min_char, "rnn", 100, 25, 65)),
    "min-char-lstm": (None, partial(min_char, "lstm", 100, 16, 65)),
    "min-char-gru": (None, partial(min_char, "gru", 100, 25, 65)),
    "batched LSTM": (2, partial(batched, "lstm", 50, 4, 64, 128)),
    "batched GRU": (None, partial(batched, "gru", 50, 4, 64, 128)),
}


def figures(name, target, row, seconds):
    """-> what stands in the columns of a row"""
    slow, fast = (median / row.steps for median in interleaved_medians([row.original, row.dropin], seconds))
    operations, least = row.work
    missed = target is not None and slow < target * fast
    return (
        *(name, row.size, row.dtype, f"{1e3 * slow:,.3f}", f"{1e3 * fast:,.3f}", f"{slow / fast:.2f}"),
        *("" if target is None else f"{target:g}", f"{slow / least:.1f}" if missed else ""),
        *(f"{1e3 * least:,.4f}", f"{operations / fast / 1e9:,.1f}"),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="rows whose names have one of these in them")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each call of each row")
    arguments = parser.parse_args()
    chosen = {
        name: row
        for name, row in ROWS.items()
        if not arguments.only or any(part.lower() in name.lower() for part in arguments.only)
    }
    if not chosen:
        parser.error(f"no row has {' or '.join(arguments.only)} in its name; there are {', '.join(ROWS)}")

    rc.set_num_threads(1)
    print(f"{datetime.date.today()}, {processor()}, 1 thread, {rc.available_isas()[-1]}, NumPy {np.__version__}\n")
    head = "source", "size", "dtype", "original ms", "drop-in ms", "ratio", "target", "limit", "least ms", "GFLOP/s"
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|", flush=True)
    for name, (target, make) in chosen.items():
        row = make()
        assert_same_results(row.dropin(), row.original(), TOLERANCE[row.dtype])
        print(f"| {' | '.join(figures(name, target, row, arguments.seconds))} |", flush=True)


if __name__ == "__main__":
    main()
