"""Gradients of shards of a batch, in one pass over all rows: the bits of a pass over the rows of each."""

import numpy as np
import pytest
from support.isas import has_equal_bits

import rnncore as rc
from rnncore import _engine
from rnncore.losses import fused_softmax_cross_entropy

pytestmark = pytest.mark.skipif(not has_equal_bits(), reason="BLAS sums in an order that depends on the sizes")

LAYERS = {
    "rnn": (rc.RNN, {}),
    "relu, two layers": (rc.RNN, {"activation": "relu", "num_layers": 2}),
    "lstm": (rc.LSTM, {}),
    "peephole": (rc.LSTM, {"peephole": True}),
    "peephole of c'": (rc.LSTM, {"peephole": True, "peephole_output": "previous"}),
    "both directions": (rc.LSTM, {"bidirectional": True, "num_layers": 2}),
    "checkpoint": (rc.LSTM, {"checkpoint": 3}),
    "recurrent dropout": (rc.GRU, {"recurrent_dropout": 0.5}),
    "gru": (rc.GRU, {}),
    "reset after": (rc.GRU, {"form": "reset_after", "bidirectional": True}),
    "simplified": (rc.GRU, {"form": "simplified"}),
    "mingru": (rc.MinGRU, {}),
}
T, N, D, H, S = 70, 12, 5, 19, 4


def in_pieces(layer, shards):
    """Arrays for the gradients of each shard, one shard after another in memory."""
    sizes = [p.size for p in layer.params.values()]
    flat, ends = np.zeros((shards, sum(sizes)), layer.dtype), np.cumsum([0, *sizes])
    parts = {
        name: flat[:, begin:end].reshape(shards, *p.shape)
        for (name, p), begin, end in zip(layer.params.items(), ends[:-1], ends[1:], strict=True)
    }
    return flat, parts


def of_rows(cache, rows):
    """The masks of some rows of a cache, for a layer that is to drop the same."""
    return [mask[rows] for mask in cache.recurrent_masks]


@pytest.mark.usefixtures("restore_threads")
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("ids", [False, True], ids=["features", "ids"])
@pytest.mark.parametrize("case", LAYERS)
def test_shards_have_the_bits_of_calls_of_their_own(case, ids, threads, rng, monkeypatch):
    kind, options = LAYERS[case]
    layer = kind(D, H, **options, seed=1)
    x = rng.integers(D, size=(T, N)) if ids else rng.normal(size=(T, N, D)).astype("float32")
    rc.set_num_threads(threads)
    _engine.set_cost_rule(flops=1, rows=2, products=1, units=4, cores=64)
    y, state, cache = layer.forward(x)
    dy = rng.normal(size=y.shape)
    states = state if isinstance(state, tuple) else (state,)
    dstate = tuple(rng.normal(size=s.shape) for s in states)
    flat, parts = in_pieces(layer, S)
    flat += 0.5  # they are added to
    with layer.adding_by_shards(parts, S):
        dx, _ = layer.backward(dy, cache, dstate if len(states) > 1 else dstate[0])
    for shard in range(S):
        rows = slice(shard, None, S)
        masks = iter(of_rows(cache, rows))
        with monkeypatch.context() as patch:
            patch.setattr("rnncore.layers.recurrent.dropout_mask", lambda *_, masks=masks: next(masks))
            _, _, alone = layer.forward(x[:, rows])
        for grad in layer.grads.values():
            grad[...] = 0.5
        ends = tuple(d[:, rows] for d in dstate)
        own_dx, _ = layer.backward(dy[:, rows], alone, ends if len(states) > 1 else ends[0])
        for name, grad in layer.grads.items():
            np.testing.assert_array_equal(parts[name][shard], grad, err_msg=f"{name} of shard {shard}")
        if not ids:
            np.testing.assert_array_equal(dx[:, rows], own_dx)


@pytest.mark.parametrize("V", [3, 40_000])
def test_output_layer_and_embedding(V, rng):
    """With more logits than go through at once, too."""
    dense, embedding = rc.Dense(H, V, seed=0), rc.Embedding(V, H, seed=1)
    ids, targets = rng.integers(V, size=(2, T, N))
    (flat_dense, parts_dense), (flat_embedding, parts_embedding) = in_pieces(dense, S), in_pieces(embedding, S)
    h, cache = embedding.forward(ids)
    with dense.adding_by_shards(parts_dense, S), embedding.adding_by_shards(parts_embedding, S):
        losses, dh = fused_softmax_cross_entropy(dense, h, targets, reduction="none")
        embedding.backward(dh, cache)
    for shard in range(S):
        rows = slice(shard, None, S)
        for layer in (dense, embedding):
            layer.zero_grad()
        h, cache = embedding.forward(ids[:, rows])
        own, dh = fused_softmax_cross_entropy(dense, h, targets[:, rows], reduction="none")
        embedding.backward(dh, cache)
        np.testing.assert_array_equal(losses[:, rows], own)
        for parts, layer in ((parts_dense, dense), (parts_embedding, embedding)):
            for name, grad in layer.grads.items():
                np.testing.assert_array_equal(parts[name][shard], grad, err_msg=name)
    assert flat_dense.any()
    assert flat_embedding.any()


def test_refused():
    layer = rc.LSTM(D, H, seed=0)
    y, _, cache = layer.forward(np.ones((3, 6, D)))
    for shards, match in [(4, "a batch of 6 rows cannot be cut into 4 equal shards"), (3, "equally far apart")]:
        grads = {name: np.zeros((shards, *p.shape), "float32") for name, p in layer.params.items()}
        with pytest.raises(ValueError, match=match), layer.adding_by_shards(grads, shards):
            layer.backward(y, cache)
    _, parts = in_pieces(layer, 3)
    _, _, ragged = layer.forward(np.ones((3, 6, D)), lengths=[3, 3, 2, 1, 0, 3])
    with pytest.raises(ValueError, match="shards need rows of the same length"), layer.adding_by_shards(parts, 3):
        layer.backward(y, ragged)
    assert layer.shards == 1
    layer.backend = rc.reference
    _, _, cache = layer.forward(np.ones((3, 6, D)))
    with pytest.raises(ValueError, match="shards need the engine"), layer.adding_by_shards(parts, 3):
        layer.backward(y, cache)
    dense = rc.Dense(H, 5, dtype="float64", seed=0)
    for dtype, writeable in [("float32", True), ("float64", False)]:
        flat = np.zeros((3, sum(p.size for p in dense.params.values())), dtype)
        grads = {"W": flat[:, : H * 5].reshape(3, H, 5), "b": flat[:, H * 5 :]}
        for grad in grads.values():
            grad.flags.writeable = writeable
        with pytest.raises(ValueError, match="shards need gradients"), dense.adding_by_shards(grads, 3):
            fused_softmax_cross_entropy(dense, np.ones((3, 6, H)), np.zeros((3, 6), int))
