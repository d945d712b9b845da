"""Keras' recurrent weights: against its equations written as a loop, against Keras where it is, and every refusal."""

import numpy as np
import pytest
from support.compare import TOLERANCE
from support.layouts import transposed

import rnncore as rc
from rnncore.interop.keras import from_keras, to_keras

T, N, D, H = 6, 3, 4, 5

KINDS = {  # class of Keras, gate blocks, bias shape, cell and settings here
    "SimpleRNN": ("SimpleRNN", 1, (H,), rc.RNN, {}),
    "LSTM": ("LSTM", 4, (4 * H,), rc.LSTM, {}),
    "GRU-after": ("GRU", 3, (2, 3 * H), rc.GRU, {"form": "reset_after", "update": "old"}),
    "GRU-before": ("GRU", 3, (3 * H,), rc.GRU, {"form": "reset_before", "update": "old"}),
}
STACKS = [(1, 1), (2, 1), (1, 2), (2, 2)]  # num_layers, directions


def random_sources(rng, kind, num_layers=1, directions=1, use_bias=True, dtype="float64"):
    _, G, bias, _, _ = KINDS[kind]
    sources = []
    for k in range(num_layers):
        shapes = [(directions * H if k else D, G * H), (H, G * H), bias][: 2 + use_bias] * directions
        sources.append([rng.normal(scale=0.5, size=shape).astype(dtype) for shape in shapes])
    return sources


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def loop(kind, sources, x, directions, activation=np.tanh):
    """The equations of Keras' SimpleRNN, GRU, LSTM with its arrays: x (N, T, D) -> y (N, T, H * directions)."""
    for arrays in sources:
        each = len(arrays) // directions
        outputs = [
            one_direction(kind, arrays[d * each : (d + 1) * each], x if d == 0 else x[:, ::-1], activation)
            for d in range(directions)
        ]
        # Bidirectional turns the second output round again before it puts the two side by side.
        x = np.concatenate([y if d == 0 else y[:, ::-1] for d, y in enumerate(outputs)], axis=2)
    return x


def one_direction(kind, arrays, x, activation):
    kernel, recurrent, *bias = arrays
    bias = bias[0] if bias else np.zeros((2, 3 * H) if kind == "GRU-after" else recurrent.shape[1])
    h, c, y = np.zeros((N, H)), np.zeros((N, H)), []
    for x_t in x.swapaxes(0, 1):
        if kind == "SimpleRNN":
            h = activation(x_t @ kernel + bias + h @ recurrent)
        elif kind == "LSTM":
            i, f, candidate, o = np.split(x_t @ kernel + h @ recurrent + bias, 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(candidate)
            h = sigmoid(o) * np.tanh(c)
        else:
            input_bias, recurrent_bias = bias if kind == "GRU-after" else (bias, np.zeros(3 * H))
            x_z, x_r, x_h = np.split(x_t @ kernel + input_bias, 3, axis=1)
            inner_z, inner_r, inner_h = np.split(h @ recurrent + recurrent_bias, 3, axis=1)
            z, r = sigmoid(x_z + inner_z), sigmoid(x_r + inner_r)
            if kind == "GRU-before":
                inner_h, r = (r * h) @ recurrent[:, 2 * H :], 1
            h = z * h + (1 - z) * np.tanh(x_h + r * inner_h)
        y.append(h)
    return np.stack(y, axis=1)


class Layer:
    """What Keras' layers have; the class is named like theirs."""

    def __init__(self, arrays, config):
        self.arrays, self.config = arrays, config

    def get_weights(self):
        return self.arrays

    def get_config(self):
        return self.config


def config_of(name, **changes):
    config = {"go_backwards": False, "activation": "tanh", "units": H, "return_sequences": True, "dropout": 0.5}
    config |= {} if name == "SimpleRNN" else {"recurrent_activation": "sigmoid"}
    return config | ({"reset_after": True} if name == "GRU" else {}) | changes


def keras_layer(name, arrays, **changes):
    return type(name, (Layer,), {})(arrays, config_of(name, **changes))


def bidirectional(name, arrays, merge_mode="concat", backward=None, **changes):
    config = {"merge_mode": merge_mode, "layer": {"class_name": name, "config": config_of(name, **changes)}}
    if backward is not None:
        config["backward_layer"] = {"class_name": name, "config": config_of(name, go_backwards=True, **backward)}
    return type("Bidirectional", (Layer,), {})(arrays, config)


def random_layer(rng, cls, num_layers=1, directions=1, dtype="float64", **options):
    options = {"bidirectional": directions == 2, "batch_first": True, "dtype": dtype} | options
    layer = cls(D, H, num_layers, **options)
    for array in layer.params.values():
        array[...] = rng.normal(scale=0.5, size=array.shape)
    return layer


def assert_near(got, wanted, dtype="float64"):
    assert got.shape == wanted.shape
    assert got.dtype == dtype
    assert np.abs(got - wanted).max() < TOLERANCE[dtype]


def assert_same(got, wanted):
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


# ---- outputs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("num_layers, directions", STACKS)
@pytest.mark.parametrize("kind", KINDS)
def test_from_keras_computes_what_the_equations_say(rng, kind, num_layers, directions, use_bias, dtype):
    sources = random_sources(rng, kind, num_layers, directions, use_bias, dtype)
    before = [[array.copy() for array in source] for source in sources]
    layer = from_keras(*sources, reset_after=False if kind == "GRU-before" else None)
    _, _, _, cls, options = KINDS[kind]
    assert type(layer) is cls
    assert options.items() <= vars(layer).items()
    assert (layer.num_layers, layer.directions, layer.batch_first) == (num_layers, directions, True)
    x = rng.normal(size=(N, T, D))
    assert_near(layer(x)[0], loop(kind, sources, x, directions), dtype)
    for array in layer.params.values():
        array[...] = 0
    for source, copies in zip(sources, before, strict=True):
        assert_same(source, copies)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("update", ["new", "old"])
@pytest.mark.parametrize("num_layers, directions", STACKS)
@pytest.mark.parametrize("kind", KINDS)
def test_to_keras_computes_what_the_equations_say(rng, kind, num_layers, directions, update, dtype):
    _, _, _, cls, options = KINDS[kind]
    layer = random_layer(rng, cls, num_layers, directions, dtype, **(options and options | {"update": update}))
    params = {name: array.copy() for name, array in layer.params.items()}
    sources = [to_keras(layer, number) for number in range(num_layers)]
    x = rng.normal(size=(N, T, D))
    assert_near(layer(x)[0], loop(kind, sources, x, directions), dtype)
    for source, like in zip(sources, random_sources(rng, kind, num_layers, directions), strict=True):
        assert [array.shape for array in source] == [array.shape for array in like]
        for array in source:
            assert array.flags.c_contiguous
            assert array.dtype == dtype
            array[...] = 0
    assert_same(layer.params.values(), params.values())


@pytest.mark.parametrize("num_layers, directions", STACKS)
@pytest.mark.parametrize("kind", KINDS)
def test_keras_computes_the_same(rng, kind, num_layers, directions):
    keras = pytest.importorskip("keras")
    name, _, _, cls, options = KINDS[kind]
    settings = {"reset_after": kind == "GRU-after"} if cls is rc.GRU else {}
    theirs = []
    for _ in range(num_layers):
        one = getattr(keras.layers, name)(H, return_sequences=True, dtype="float64", **settings)
        theirs.append(keras.layers.Bidirectional(one, dtype="float64") if directions == 2 else one)
    x = rng.normal(size=(N, T, D))

    def of_keras():
        y = x
        for one in theirs:
            y = one(y)
        return np.asarray(y)

    of_keras()  # builds the layers
    for one in theirs:
        one.set_weights([rng.normal(scale=0.5, size=array.shape) for array in one.get_weights()])
    assert_near(from_keras(*theirs)(x)[0], of_keras())
    assert_near(from_keras(*(one.get_weights() for one in theirs))(x)[0], of_keras())
    layer = random_layer(rng, cls, num_layers, directions, **options)
    for number, one in enumerate(theirs):
        one.set_weights(to_keras(layer, number))
    assert_near(layer(x)[0], of_keras())


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("num_layers, directions", STACKS)
@pytest.mark.parametrize("kind", KINDS)
def test_round_trips(rng, kind, num_layers, directions, dtype):
    _, _, _, cls, options = KINDS[kind]
    layer = random_layer(rng, cls, num_layers, directions, dtype, **options)
    again = from_keras(*(to_keras(layer, number) for number in range(num_layers)))
    assert repr(again) == repr(layer)
    assert again.params.keys() == layer.params.keys()
    assert_same(again.params.values(), layer.params.values())
    x = rng.normal(size=(N, T, D))
    np.testing.assert_array_equal(again(x)[0], layer(x)[0])

    # Of two biases only the sum is kept in the blocks z and r.
    for number, source in enumerate(sources := random_sources(rng, kind, num_layers, directions, dtype=dtype)):
        back = to_keras(from_keras(*sources), number)
        for got, given in zip(back, source, strict=True):
            if kind == "GRU-after" and given.shape == (2, 3 * H):
                np.testing.assert_array_equal(got[:, 2 * H :], given[:, 2 * H :])
                np.testing.assert_array_equal(got[0, : 2 * H], given[:, : 2 * H].sum(axis=0))
                assert not got[1, : 2 * H].any()
            else:
                np.testing.assert_array_equal(got, given)


@pytest.mark.parametrize(
    "word, function", [("tanh", np.tanh), ("relu", lambda a: np.maximum(a, 0)), ("linear", lambda a: a)]
)
def test_activation_of_a_simple_rnn(rng, word, function):
    (arrays,) = random_sources(rng, "SimpleRNN")
    x = rng.normal(size=(N, T, D))
    wanted = loop("SimpleRNN", [arrays], x, 1, function)
    for layer in (
        from_keras(arrays, activation=word),
        from_keras(keras_layer("SimpleRNN", arrays, activation=word)),
        from_keras(keras_layer("SimpleRNN", arrays, activation=word), activation=word),
    ):
        assert_near(layer(x)[0], wanted)
        assert_same(to_keras(layer), arrays)


@pytest.mark.parametrize("kind", KINDS)
def test_layer_objects_and_lists_are_the_same(rng, kind):
    name, _, _, _, options = KINDS[kind]
    settings = {"reset_after": kind == "GRU-after"} if options else {}
    for use_bias in (True, False):
        one, two = random_sources(rng, kind, 2, use_bias=use_bias)
        wanted = from_keras(one, two, **settings)
        got = from_keras(keras_layer(name, one, **settings), keras_layer(name, two, **settings))
        assert (repr(got), got.options()) == (repr(wanted), wanted.options())
        assert_same(got.params.values(), wanted.params.values())
        one, two = random_sources(rng, kind, 2, directions=2, use_bias=use_bias)
        wanted = from_keras(one, two, bidirectional=True, cell=wanted.cell_name, **settings)
        got = from_keras(bidirectional(name, one, **settings), bidirectional(name, two, backward=settings, **settings))
        assert (repr(got), got.options()) == (repr(wanted), wanted.options())
        assert_same(got.params.values(), wanted.params.values())


def test_layout_dtype_and_batch_first(rng):
    sources = random_sources(rng, "GRU-after", 2, 2)
    wanted = from_keras(*sources)
    for other in (transposed, lambda a: a.astype(">f8")):
        got = from_keras(*(tuple(map(other, source)) for source in sources), batch_first=False)
        assert not got.batch_first
        assert_same(got.params.values(), wanted.params.values())
    half = [[array.astype("float16") for array in source] for source in sources]
    assert from_keras(*half).dtype == "float32"
    assert from_keras(*half, dtype="float64").dtype == "float64"
    with pytest.raises(
        ValueError, match="one dtype, or dtype must say which.*float16: kernel of source 0.*float64: .*of source 1"
    ):
        from_keras(half[0], sources[1])
    assert from_keras(half[0], sources[1], dtype="float32").dtype == "float32"


# ---- errors -----------------------------------------------------------------------------------------------------


def replaced(arrays, index, *shape, dtype="float64"):
    return [np.zeros(shape, dtype) if k == index else array for k, array in enumerate(arrays)]


@pytest.mark.parametrize(
    "source, index, shape, message",
    [
        (0, 0, (D,), r"^kernel of source 0 must be \(D, 3H\); got \(4,\)$"),
        (0, 0, (D, 2 * H), r"^kernel of source 0 must be \(D, 3H\) = \(4, 15\); got \(4, 10\)$"),
        (0, 1, (3 * H, H), r"^recurrent_kernel of source 0 must be \(H, G\*H\), G = 1 .*; got \(15, 5\)$"),
        (0, 1, (0, 0), r"^recurrent_kernel of source 0 must be \(H, G\*H\), G = 1 .*; got \(0, 0\)$"),
        (0, 1, (H, 3, H), r"^recurrent_kernel of source 0 must be \(H, G\*H\); got \(5, 3, 5\)$"),
        (0, 2, (2, 2 * H), r"^bias of source 0 must be \(2, 3H\) = \(2, 15\); got \(2, 10\)$"),
        (0, 3, (D + 1, 3 * H), r"^backward kernel of source 0 must be \(D, 3H\) = \(4, 15\); got \(5, 15\)$"),
        (0, 4, (H + 1, 3 * H), r"^backward recurrent_kernel .* must be \(H, 3H\) = \(5, 15\); got \(6, 15\)$"),
        (0, 5, (3 * H,), r"^backward bias of source 0 must be \(2, 3H\) = \(2, 15\); got \(15,\)$"),
        (1, 0, (H, 3 * H), r"^kernel of source 1 must be \(2H, 3H\) = \(10, 15\); got \(5, 15\)$"),
        (1, 1, (H + 1, 3 * H + 3), r"^recurrent_kernel of source 1 must be \(H, 3H\) = \(5, 15\); got \(6, 18\)$"),
        (1, 1, (H, 4 * H), "^source 1 has cell='lstm', not 'gru'$"),
        (1, 2, (3 * H,), "^source 1 has reset_after=False, not True$"),
    ],
)
def test_wrong_shapes(rng, source, index, shape, message):
    sources = random_sources(rng, "GRU-after", 2, 2)
    sources[source] = replaced(sources[source], index, *shape)
    with pytest.raises(ValueError, match=message):
        from_keras(*sources)


def test_wrong_sources(rng):
    (one,), (both,) = random_sources(rng, "LSTM"), random_sources(rng, "LSTM", directions=2)
    with pytest.raises(TypeError, match="takes at least one list of arrays or Keras layer"):
        from_keras()
    with pytest.raises(TypeError, match="source 0 must be a list of arrays or a Keras layer; got ndarray"):
        from_keras(*one)
    with pytest.raises(TypeError, match="bias of source 0 must be .* float64; got dtype int32"):
        from_keras(replaced(one, 2, 4 * H, dtype="int32"))
    for count in (0, 1, 5):
        with pytest.raises(
            ValueError, match=f"source 1 must have 2 or 3 arrays, with both directions 4 or 6; got {count}"
        ):
            from_keras(one, both[:count])
    with pytest.raises(ValueError, match="source 1 has bidirectional=True, not False"):
        from_keras(one, both)
    with pytest.raises(ValueError, match="source 0 has bidirectional=False, not True"):
        from_keras(one, bidirectional=True)
    with pytest.raises(ValueError, match="source 0 has cell='lstm', not 'rnn'"):
        from_keras(one, cell="rnn")
    with pytest.raises(ValueError, match="cell must be one of 'rnn', 'gru', 'lstm'; got 'LSTM'"):
        from_keras(one, cell="LSTM")
    with pytest.raises(ValueError, match="activation must be one of 'tanh', 'relu', 'linear'; got 'identity'"):
        from_keras(one, activation="identity")
    with pytest.raises(ValueError, match="activation 'relu' belongs to a SimpleRNN; the sources have cell='lstm'"):
        from_keras(one, activation="relu")
    with pytest.raises(ValueError, match="reset_after belongs to a GRU; the sources have cell='lstm'"):
        from_keras(one, reset_after=True)
    with pytest.raises(TypeError, match="bidirectional must be True or False; got 'yes'"):
        from_keras(one, bidirectional="yes")
    with pytest.raises(ValueError, match="dtype must be float32 or float64; got int64"):
        from_keras(one, dtype="int64")
    for kind, given in [("GRU-after", False), ("GRU-before", True)]:
        with pytest.raises(ValueError, match=f"source 0 has reset_after={not given}, not {given}"):
            from_keras(*random_sources(rng, kind), reset_after=given)


def test_layer_objects_that_rnncore_does_not_have(rng):
    (rnn,), (gru,), (lstm,) = (random_sources(rng, kind) for kind in ("SimpleRNN", "GRU-after", "LSTM"))
    (both,) = random_sources(rng, "LSTM", directions=2)
    for source, message in [
        (keras_layer("LSTM", lstm, go_backwards=True), "source 0 must have go_backwards False; got True"),
        (
            keras_layer("SimpleRNN", rnn, activation="selu"),
            "activation 'tanh' or 'relu' or 'linear'; got 'selu'",
        ),
        (keras_layer("SimpleRNN", rnn, activation={"value": 1}), "must have activation .*; got {'value': 1}"),
        (keras_layer("LSTM", lstm, activation="relu"), "must have activation 'tanh'; got 'relu'"),
        (keras_layer("GRU", gru, recurrent_activation="hard_sigmoid"), "recurrent_activation 'sigmoid'; got 'hard_s"),
        (bidirectional("LSTM", both, merge_mode="sum"), "must have merge_mode 'concat'; got 'sum'"),
        (bidirectional("LSTM", both, merge_mode=None), "must have merge_mode 'concat'; got None"),
        (bidirectional("LSTM", both, go_backwards=True), "must have go_backwards False; got True"),
        (bidirectional("LSTM", both, backward={"activation": "relu"}), "must have activation 'tanh'; got 'relu'"),
        (
            bidirectional("SimpleRNN", random_sources(rng, "SimpleRNN", 1, 2)[0], backward={"activation": "relu"}),
            "source 0 must have the same kind of layer in both directions",
        ),
        (keras_layer("LSTM", []), "source 0 has no weights yet: build the layer first"),
        (keras_layer("GRU", gru, reset_after=False), "source 0 has reset_after=True, not False"),
        (keras_layer("GRU", lstm), "source 0 has cell='lstm', not 'gru'"),
    ]:
        with pytest.raises(ValueError, match=message):
            from_keras(source)
    with pytest.raises(ValueError, match="source 0 has activation='tanh', not 'relu'"):
        from_keras(keras_layer("SimpleRNN", rnn), activation="relu")
    with pytest.raises(ValueError, match="source 1 has cell='gru', not 'lstm'"):
        from_keras(keras_layer("LSTM", lstm), keras_layer("GRU", gru))
    for name in ("RNN", "LSTMCell", "ConvLSTM2D"):
        with pytest.raises(
            TypeError, match=f"source 0 must be a SimpleRNN, GRU, LSTM or Bidirectional layer; got {name}"
        ):
            from_keras(keras_layer(name, lstm))
    with pytest.raises(TypeError, match="source 0 must be .*; got RNN"):
        from_keras(bidirectional("RNN", both))


@pytest.mark.parametrize(
    "layer, message",
    [
        (rc.GRU(D, H, form="simplified"), "Keras has no GRU with form='simplified'"),
        (rc.LSTM(D, H, peephole=True), "Keras has no LSTM with peephole=True"),
        (rc.LSTM(D, H, output_activation="identity"), "Keras has no LSTM with output_activation='identity'"),
    ],
)
def test_layers_that_keras_does_not_have(layer, message):
    with pytest.raises(ValueError, match=message):
        to_keras(layer)


def test_number_of_the_layer():
    layer = rc.RNN(D, H, 2)
    with pytest.raises(ValueError, match="number must say which of the 2 layers is meant"):
        to_keras(layer)
    with pytest.raises(ValueError, match="number must be below num_layers = 2; got 2"):
        to_keras(layer, 2)
    with pytest.raises(ValueError, match="number must be at least 0; got -1"):
        to_keras(layer, -1)
    with pytest.raises(TypeError, match="number must be an integer; got 'top'"):
        to_keras(layer, "top")
    with pytest.raises(TypeError, match="layer must be an RNN, GRU or LSTM; got Dense"):
        to_keras(rc.Dense(D, H))
