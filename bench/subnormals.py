"""What subnormal numbers cost: python bench/subnormals.py [--seconds 0.3] [--only lstm losses ...]

The same call on normal numbers and on data, weights, states or gradients that are or become subnormal: processor times
of both, medians of interleaved rounds on one thread, and their ratio. Rows above 1.2 are marked. NumPy, which computes
with subnormal numbers, is the last row, to see what they cost on this processor.
"""

import argparse
import time

import numpy as np

import rnncore as rc
from rnncore import functional
from rnncore.bench.competitors import make_call
from rnncore.bench.workloads import VARIANTS, make_problem
from rnncore.config import processor
from rnncore.testing import interleaved_medians

SHAPE = (50, 16, 64, 64)  # T, N, D, H
LONG = (1200, 2, 64, 64)  # so many steps halve a float64 until it is zero
LIMIT = 1.2
TINY = {"float32": 1e-41, "float64": 1e-312}  # subnormal when multiplied by numbers of about 1


def cell_calls(name, dtype):
    """Yield name, call on normal numbers, call on subnormal ones."""

    def call(shape, change=None, backward=True):
        problem = make_problem(VARIANTS[name], shape, dtype)
        if change:
            change(problem)
        return make_call(functional, problem, backward)

    def small_x(problem):
        problem.x *= TINY[dtype]

    def small_weights(problem):
        for array in problem.weights.values():
            array *= TINY[dtype]

    def small_states(problem):
        small_x(problem)
        small_weights(problem)

    def small_gradients(problem):
        problem.dh *= TINY[dtype]

    def forgetting(problem):
        """A state or gradient is halved at every step, or becomes smaller still."""
        problem.weights["b"][:] = 0
        if "Wh" in problem.weights:
            problem.weights["Wh"] *= 0.2

    def vanishing_gradients(problem):
        forgetting(problem)
        problem.dh[:-1] = 0

    def decaying_states(problem):
        forgetting(problem)
        problem.x[1:] = 0

    for change in (small_x, small_weights, small_states, decaying_states):
        shape = LONG if change is decaying_states else SHAPE
        yield f"{name} forward, {change.__name__}", call(shape, backward=False), call(shape, change, backward=False)
    for change in (small_x, small_weights, small_states, decaying_states, small_gradients, vanishing_gradients):
        shape = LONG if change in (decaying_states, vanishing_gradients) else SHAPE
        yield f"{name} training, {change.__name__}", call(shape), call(shape, change)


def layer_calls(dtype):
    rng, tiny = np.random.default_rng(0), TINY[dtype]
    T, N, D, H = SHAPE
    x, dy = (rng.normal(size=(T, N, size)).astype(dtype) for size in (D, H))
    dense, small = rc.Dense(D, H, dtype=dtype, seed=0), rc.Dense(D, H, dtype=dtype, seed=0)
    small.params["W"] *= tiny

    def train(layer, x, dy):
        def call():
            _, cache = layer.forward(x)
            layer.backward(dy, cache)

        return call

    yield "dense, small x", train(dense, x, dy), train(dense, tiny * x, dy)
    yield "dense, small weights", train(dense, x, dy), train(small, x, dy)
    yield "dense, small gradients", train(dense, x, dy), train(dense, x, tiny * dy)
    embedding, ids = rc.Embedding(100, H, dtype=dtype, seed=0), rng.integers(100, size=(T, N))
    small_embedding = rc.Embedding(100, H, dtype=dtype, seed=0)
    small_embedding.params["W"] *= tiny
    yield "embedding, small weights", train(embedding, ids, dy), train(small_embedding, ids, dy)
    yield "embedding, small gradients", train(embedding, ids, dy), train(embedding, ids, tiny * dy)
    for score in ("additive", "multiplicative"):
        attention = rc.Attention(H, D, score, dtype=dtype, seed=0)

        def attend(query, memory, dy, attention=attention):
            def call():
                _, _, cache = attention.forward(query, memory)
                attention.backward(dy, cache)

            return call

        calls = attend(dy, x, x), attend(tiny * dy, tiny * x, x)
        yield f"{score} attention, small states", *calls
        yield f"{score} attention, small gradients", calls[0], attend(dy, x, tiny * x)
        yield f"{score} attention, small shares", calls[0], attend(30 * dy, 30 * x, x)


def loss_calls(dtype):
    rng, tiny = np.random.default_rng(0), TINY[dtype]
    T, N, V = 50, 16, 100
    spread = 90 if dtype == "float32" else 720  # exp(-spread) is subnormal
    y = rng.normal(size=(T, N, V)).astype(dtype)
    far = y.copy()
    far[..., 1:] = y[..., 1:] - np.array(spread, dtype)
    far[..., 0] = 5
    targets, labels = rng.integers(V, size=(T, N)), [rng.integers(1, V, size=15) for _ in range(N)]
    dense, A = rc.Dense(64, V, dtype=dtype, seed=0), rng.normal(size=(V, V))
    x = rng.normal(size=(T, N, 64)).astype(dtype)
    for name, loss in (
        ("softmax", lambda y: rc.softmax_cross_entropy(y, targets)),
        ("sigmoid", lambda y: rc.sigmoid_cross_entropy(y, (targets[..., None] == np.arange(V)).astype(dtype))),
        ("ctc", lambda y: rc.ctc_loss(y, labels)),
        ("crf", lambda y: rc.crf_loss(y[:, :4, :20], A[:20, :20], targets[:, :4] % 20)),
        ("viterbi", lambda y: rc.viterbi(y[:, :4, :20], A[:20, :20])),
    ):
        yield f"{name}, small logits", lambda loss=loss: loss(y), lambda loss=loss, small=tiny * y: loss(small)
        yield f"{name}, small probabilities", lambda loss=loss: loss(y), lambda loss=loss: loss(far)
    yield (
        "fused softmax, small x",
        lambda: rc.fused_softmax_cross_entropy(dense, x, targets),
        lambda small=tiny * x: rc.fused_softmax_cross_entropy(dense, small, targets),
    )
    yield (
        "softmax, small gradients",
        lambda: rc.softmax_cross_entropy(y, targets),
        lambda: rc.softmax_cross_entropy(y, targets, weights=np.full((T, N), tiny), reduction="sum"),
    )


def optimizer_calls(dtype):
    rng, tiny = np.random.default_rng(0), TINY[dtype]

    def step(kind, parameters, gradients, states, **options):
        p, g = (scale * rng.normal(size=100_000).astype(dtype) for scale in (parameters, gradients))
        optimizer = kind({"p": p}, **options)
        for state in optimizer.state.values():
            state["p"][:] = states * np.abs(rng.normal(size=p.shape))
        return lambda: optimizer.step({"p": g}, clip_norm=5.0)

    for kind, options in ((rc.SGD, {}), (rc.SGD, {"momentum": 0.9}), (rc.RMSProp, {}), (rc.Adagrad, {}), (rc.Adam, {})):
        name = kind.__name__ + " with momentum" * bool(options)
        normal = step(kind, 1, 1, 1, **options)
        yield f"{name}, small parameters", normal, step(kind, tiny, 1, 1, **options)
        yield f"{name}, small gradients", normal, step(kind, 1, tiny, 1, **options)
        yield f"{name}, all small", normal, step(kind, tiny, tiny, tiny, **options)


def numpy_calls(dtype):
    x = np.random.default_rng(0).normal(size=100_000).astype(dtype)
    small, half = TINY[dtype] * x, np.array(0.5, dtype)
    yield "NumPy, for comparison: x * 0.5", lambda: x * half, lambda: small * half


def main() -> None:
    groups = {name: lambda dtype, name=name: cell_calls(name, dtype) for name in VARIANTS}
    groups |= {"layers": layer_calls, "losses": loss_calls, "optimizers": optimizer_calls, "NumPy": numpy_calls}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(groups), choices=list(groups))
    parser.add_argument("--dtype", nargs="+", default=["float32", "float64"], choices=["float32", "float64"])
    parser.add_argument("--seconds", type=float, default=0.3)
    arguments = parser.parse_args()
    rc.set_num_threads(1)
    print(f"{processor()}; milliseconds with normal and with subnormal numbers")
    for group in arguments.only:
        for dtype in arguments.dtype:
            with np.errstate(under="ignore"):
                for name, *calls in groups[group](dtype):
                    normal, subnormal = interleaved_medians(calls, arguments.seconds, time.thread_time)
                    mark = "  above" if subnormal > LIMIT * normal else ""
                    times = f"{1e3 * normal:8.3f} {1e3 * subnormal:8.3f} {subnormal / normal:6.2f}"
                    print(f"{name:<50} {dtype} {times}{mark}", flush=True)


if __name__ == "__main__":
    main()
