"""Native code gives back every reference that it takes, in calls that work and in calls that raise."""

import gc
import sys

import numpy as np
import pytest
from support.functions import CELLS, final_states
from support.problems import make_cotangents, make_problem

import rnncore as rc
from rnncore import _engine
from rnncore.engine import native
from rnncore.engine.quantization import quantize
from rnncore.engine.weights import pack_matrix, read_rows

T, N, D, H, V = 5, 3, 4, 6, 7
TIMES = 300


def arrays(rng, *shapes, dtype="float32"):
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


def sequence_call(rng, variant, **options):
    cell, arguments = make_problem(rng, variant, T, N, D, H, "float32", **options)
    cotangents = make_cotangents(rng, cell, T, N, H, "float32")
    given = [value for value in (arguments | cotangents).values() if isinstance(value, np.ndarray)]

    def call():
        h, state, cache = getattr(rc, f"{cell}_forward")(**arguments)
        final_states(cell, state)
        getattr(rc, f"{cell}_backward")(cache=cache, **cotangents)
        getattr(rc, f"{cell}_forward")(**arguments, training=False)

    return call, given


def other_calls(rng):
    """By name: a function and what it is given."""
    x, W, b, rows, logits = arrays(rng, (T * N, D), (D, V), (V,), (T * N, D), (T, N, V))
    dy = logits.reshape(-1, V)
    dW, db, table = np.zeros_like(W), np.zeros_like(b), np.zeros((V, D), "f4")
    ids, weights = rng.integers(V, size=T * N), np.ones(T * N)
    lengths, labels = np.full(N, T), [rng.integers(1, V, size=2) for _ in range(N)]
    transitions, memory = np.zeros((V, V)), rng.normal(size=(9, N, D)).astype("f4")
    tags, long_lengths = ids.reshape(T, N), np.full(N, 9)
    q = x.reshape(T, N, D)
    layer = rc.LSTM(D, H, 2, seed=0)
    frozen, small = layer.freeze(), layer.quantize("int8")
    stream, sampled = frozen.stream(N), rc.LSTM(V, H, seed=0).freeze()
    out, h, c = np.empty((N, H), "f4"), np.zeros((1, H), "f4"), np.zeros((1, H), "f4")
    Wy, by = arrays(rng, (H, V), (V,))
    packed = pack_matrix("W", quantize("W", W, "int8"), np.dtype("f4"))
    sampling = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "banned": [], "stop": -1}
    p, g, m, v = arrays(rng, *[(D, V)] * 4)
    constants = (0.1, 1.0, 0.9, 0.1, 0.9, 0.1, 1e-8)
    found = {
        "affine": (lambda: native.affine_forward(x, W, b), [x, W, b]),
        "affine, packed": (lambda: native.affine_forward(x, packed, b), [x, packed, b]),
        "affine backward": (
            lambda: native.affine_backward(x, W, dy, dW, db),
            [x, W, dy, dW, db],
        ),
        "softmax head": (
            lambda: native.softmax_head(x, W, b, ids, weights, dW, db),
            [x, W, b, ids, weights, dW, db],
        ),
        "softmax": (lambda: rc.softmax_cross_entropy(logits, tags), [logits, tags]),
        "ctc": (lambda: rc.ctc_loss(logits, labels, lengths), [logits, lengths, *labels]),
        "crf": (lambda: rc.crf_loss(logits, transitions, tags, lengths), [logits, transitions, tags, lengths]),
        "viterbi": (lambda: rc.viterbi(logits, transitions), [logits, transitions]),
        "attention": (lambda: native.attend(lengths, long_lengths, q, None, None, memory), [lengths, q, memory]),
        "time first": (lambda: native.time_first(logits), [logits]),
        "scatter": (lambda: native.scatter_add(ids, rows, table), [ids, rows, table]),
        "read rows": (lambda: read_rows(packed, ids % D), [packed]),
        "optimiser": (lambda: native.optimizer_step("adam", constants, [(g, p, m, v)]), [g, p, m, v]),
        "frozen": (lambda: frozen(q), [q, frozen.native]),
        "int8": (lambda: small(q, lengths=lengths), [q, lengths, small.native]),
        "stream": (lambda: (frozen.stream(N), stream.step(q[0], out)), [q, out, frozen.native]),
        "sample": (
            lambda: native.sample_ids(sampled.native, None, Wy, by, h, c, 0, weights, **sampling),
            [Wy, by, h, c, weights, sampled.native],
        ),
        "pool": (lambda: np.frombuffer(_engine.Block(1 << 17), "u1")[5:9], []),
    }
    return found


OTHERS = list(other_calls(np.random.default_rng(0)))


def check(call, given):
    """Many calls leave the numbers of references as they were, and no object for each call."""
    for _ in range(TIMES):
        call()
    gc.collect()
    references, objects = [sys.getrefcount(value) for value in given], sys.getallocatedblocks()
    for _ in range(TIMES):
        call()
    gc.collect()
    assert [sys.getrefcount(value) for value in given] == references
    assert sys.getallocatedblocks() - objects < TIMES


@pytest.mark.parametrize("options", [{}, {"lengths": True, "resets": True, "reverse": True}, {"ids": True}])
@pytest.mark.parametrize("variant", CELLS)
def test_sequence_calls(rng, variant, options):
    check(*sequence_call(rng, variant, **options))


@pytest.mark.parametrize("name", OTHERS)
def test_other_calls(rng, name):
    check(*other_calls(rng)[name])


@pytest.mark.parametrize("variant", CELLS)
def test_sequence_calls_that_raise(rng, variant):
    """For each argument in turn, that one is wrong."""
    cell, arguments = make_problem(rng, variant, T, N, D, H, "float32")
    cotangents = make_cotangents(rng, cell, T, N, H, "float32")
    functions = getattr(rc, f"{cell}_forward"), getattr(rc, f"{cell}_backward")
    _, _, cache = functions[0](**arguments)
    wrong = np.zeros((2, 2, 2, 2))
    names = [name for name, value in arguments.items() if isinstance(value, np.ndarray)]

    def call():
        for function, given, own in [
            *((functions[0], arguments, name) for name in [*names, "lengths", "resets"]),
            *((functions[1], {**cotangents, "cache": cache}, name) for name in cotangents),
        ]:
            with pytest.raises((ValueError, TypeError)):
                function(**{**given, own: wrong})

    check(call, [wrong, cache, *(arguments[name] for name in names), *cotangents.values()])
