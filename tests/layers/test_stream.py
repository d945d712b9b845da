"""layer.stream: the same bits as the sequence in one call, one step at a time."""

import numpy as np
import pytest
from support.compare import assert_equal_bits
from support.isas import DEFAULT

import rnncore as rc

LAYERS = {
    "rnn": lambda **options: rc.RNN(5, 7, **options),
    "rnn-relu": lambda **options: rc.RNN(5, 7, activation="relu", **options),
    "gru": lambda **options: rc.GRU(5, 7, **options),
    "gru-after-old": lambda **options: rc.GRU(5, 7, form="reset_after", update="old", **options),
    "gru-simplified": lambda **options: rc.GRU(5, 7, form="simplified", **options),
    "lstm": lambda **options: rc.LSTM(5, 7, **options),
    "lstm-peephole": lambda **options: rc.LSTM(5, 7, peephole=True, peephole_output="previous", **options),
    "mingru": lambda **options: rc.MinGRU(5, 7, candidate="positive", **options),
    "lstm-wide": lambda **options: rc.LSTM(5, 70, **options),
}


def make_layer(kind, **options):
    layer = LAYERS[kind](seed=1, **options)
    rng = np.random.default_rng(2)
    for p in layer.params.values():
        p += 0.3 * rng.normal(size=p.shape).astype(p.dtype)
    return layer


def states(layer, N, rng):
    shape = (layer.num_layers, N, layer.hidden_size)
    arrays = tuple(rng.normal(size=shape).astype(layer.dtype) for _ in layer.state_names)
    return arrays if len(arrays) > 1 else arrays[0]


@pytest.fixture(params=rc.available_isas())
def isa(request):
    rc.use_isa(request.param)
    yield request.param
    rc.use_isa(DEFAULT)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("N", [1, 3, 9])
@pytest.mark.parametrize("kind", LAYERS)
def test_steps_have_the_bits_of_the_sequence(kind, N, num_layers, dtype, isa):
    layer = make_layer(kind, num_layers=num_layers, dtype=dtype)
    rng = np.random.default_rng(3)
    x, state = rng.normal(size=(20, N, 5)).astype(dtype), states(layer, N, rng)
    expected, last = layer(x, state)
    stream = layer.stream(N)
    stream.state = state
    for x_t, wanted in zip(x, expected, strict=True):
        assert_equal_bits(stream.step(x_t), wanted)
    assert_equal_bits(stream.state, last)


def test_ids():
    layer, ids = make_layer("lstm", num_layers=2), np.array([[3, 0], [4, 4], [1, 2]])
    stream = layer.stream(2)
    steps = np.stack([stream.step(row) for row in ids])
    assert_equal_bits(steps, layer(ids)[0])
    with pytest.raises(ValueError, match=r"ids in x must lie in \[0, D\) = \[0, 5\); got 5"):
        stream.step(np.array([0, 5]))
    with pytest.raises(ValueError, match=r"x of integers holds ids and must be \(N,\) = \(2,\); got \(3,\)"):
        stream.step(np.array([0, 1, 2]))


def test_weights_are_those_of_the_moment():
    layer = make_layer("gru-after-old")
    x = np.random.default_rng(0).normal(size=(1, 5)).astype("float32")
    before, stream = layer(x[None])[0][0], layer.stream()
    for p in layer.params.values():
        p += 1
    assert_equal_bits(stream.step(x), before)
    assert np.abs(layer(x[None])[0][0] - before).max() > 1e-3


def test_out_is_written_and_inputs_are_not():
    layer = make_layer("lstm")
    stream, again = layer.stream(2), layer.stream(2)
    x = np.random.default_rng(0).normal(size=(2, 5))
    x.flags.writeable = False
    out = np.full((2, 7), np.nan, "float32")
    assert stream.step(x, out=out) is out
    first = again.step(x)
    assert_equal_bits(out, first)
    kept = first.copy()
    again.step(x)
    assert_equal_bits(first, kept)


def test_inputs_of_any_layout():
    layer = make_layer("lstm")
    x = np.random.default_rng(0).normal(size=(2, 5)).astype("float32")
    wanted = layer.stream(2).step(x)
    wide = np.zeros((4, 10), "float32")
    wide[::2, ::2] = x
    for other in (np.asfortranarray(x), wide[::2, ::2], x.astype(">f4"), x.tolist(), x.astype("float64")):
        assert_equal_bits(layer.stream(2).step(other), wanted)


def test_state_and_reset():
    layer = make_layer("lstm", num_layers=2)
    stream, x = layer.stream(), np.random.default_rng(0).normal(size=(6, 1, 5)).astype("float32")
    first = [stream.step(x_t) for x_t in x]
    h, c = stream.state
    kept = h.copy()
    h += 1
    assert_equal_bits(stream.state[0], kept)
    stream.reset()
    assert_equal_bits(stream.state, np.zeros((2, 2, 1, 7)))
    assert_equal_bits([stream.step(x_t) for x_t in x], first)
    with pytest.raises(ValueError, match=r"state h must be \(2, 1, 7\); got \(1, 1, 7\)"):
        stream.state = (h[:1], c)
    with pytest.raises(TypeError, match=r"state of an LSTM must be a tuple \(h, c\); got ndarray"):
        stream.state = h[0]


def test_refuses():
    with pytest.raises(ValueError, match="a bidirectional layer needs the whole sequence"):
        make_layer("gru", bidirectional=True).stream()
    with pytest.raises(ValueError, match="batch_size must be at least 1; got 0"):
        make_layer("gru").stream(0)
    stream = make_layer("gru").stream(2)
    x = np.zeros((2, 5), "float32")
    for wrong, message in [
        (np.zeros((2, 4)), r"x must be \(2, 5\); got \(2, 4\)"),
        (np.zeros((1, 2, 5)), r"x must be \(2, 5\); got \(1, 2, 5\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            stream.step(wrong)
    with pytest.raises(TypeError, match="x must be an array of float32 or float64; got dtype object"):
        stream.step(x.astype(object))
    for out in (np.zeros((2, 7)), np.zeros((7, 2), "float32"), [[0.0] * 7] * 2):
        with pytest.raises(ValueError, match=r"out must be an array \(N, H\) = \(2, 7\) of float32; got"):
            stream.step(x, out=out)
    with pytest.raises(ValueError, match="out must be C-contiguous, writable, and apart from x"):
        stream.step(x, out=np.zeros((7, 2), "float32").T)
    shared = np.zeros((2, 7), "float32")
    with pytest.raises(ValueError, match="out must be C-contiguous, writable, and apart from x"):
        stream.step(shared[:, :5], out=shared)
