"""PyTorch's recurrent weights as arrays: against its equations written as a loop, and against PyTorch where it is."""

import numpy as np
import pytest
from support.compare import TOLERANCE
from support.layouts import transposed

import rnncore as rc
from rnncore.interop import state_dict

T, N, D, H = 6, 3, 4, 5

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
STACKS = [(1, 1), (2, 1), (1, 2), (2, 2)]  # num_layers, directions
GRU_FORM = {"form": "reset_after", "update": "old"}


def suffixes(num_layers, directions):
    return [f"_l{k}{turn}" for k in range(num_layers) for turn in ("", "_reverse")[:directions]]


def random_arrays(rng, kind, num_layers=1, directions=1, bias=True, dtype="float64"):
    G = GATES[kind]
    arrays = {}
    for suffix in suffixes(num_layers, directions):
        shapes = {"weight_ih": (G * H, D if suffix.startswith("_l0") else directions * H), "weight_hh": (G * H, H)}
        shapes |= {"bias_ih": (G * H,), "bias_hh": (G * H,)} if bias else {}
        for name, shape in shapes.items():
            arrays[name + suffix] = rng.normal(scale=0.5, size=shape).astype(dtype)
    return arrays


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def loop(kind, arrays, x, num_layers, directions, nonlinearity=np.tanh):
    """The equations of torch.nn.RNN, GRU, LSTM with its arrays: x (T, N, D) -> y (T, N, H * directions)."""
    for k in range(num_layers):
        outputs = []
        for suffix in suffixes(num_layers, directions)[k * directions :][:directions]:
            W_ih, W_hh = arrays["weight_ih" + suffix], arrays["weight_hh" + suffix]
            b_ih = arrays.get("bias_ih" + suffix, np.zeros(len(W_ih)))
            b_hh = arrays.get("bias_hh" + suffix, np.zeros(len(W_ih)))
            h, c, y = np.zeros((N, H)), np.zeros((N, H)), [None] * T
            order = range(T)
            for t in reversed(order) if "reverse" in suffix else order:
                a, m = x[t] @ W_ih.T + b_ih, h @ W_hh.T + b_hh
                if kind == "RNN":
                    h = nonlinearity(a + m)
                elif kind == "GRU":
                    (a_r, a_z, a_n), (m_r, m_z, m_n) = np.split(a, 3, axis=1), np.split(m, 3, axis=1)
                    z, n = sigmoid(a_z + m_z), np.tanh(a_n + sigmoid(a_r + m_r) * m_n)
                    h = (1 - z) * n + z * h
                else:
                    i, f, g, o = np.split(a + m, 4, axis=1)
                    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                    h = sigmoid(o) * np.tanh(c)
                y[t] = h
            outputs.append(np.stack(y))
        x = np.concatenate(outputs, axis=2)
    return x


def random_layer(rng, kind, num_layers=1, directions=1, dtype="float64", **options):
    options = {"form": "reset_after"} | options if kind == "GRU" else options
    layer = getattr(rc, kind)(D, H, num_layers, bidirectional=directions == 2, dtype=dtype, **options)
    for array in layer.params.values():
        array[...] = rng.normal(scale=0.5, size=array.shape)
    return layer


def assert_near(got, wanted, dtype="float64"):
    assert got.shape == wanted.shape
    assert got.dtype == dtype
    assert np.abs(got - wanted).max() < TOLERANCE[dtype]


def copies(params):
    return {name: array.copy() for name, array in params.items()}


def assert_same(got, wanted):
    assert got.keys() == wanted.keys()
    for name, array in wanted.items():
        assert got[name].dtype == array.dtype, name
        np.testing.assert_array_equal(got[name], array, err_msg=name)


# ---- outputs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("num_layers, directions", STACKS)
@pytest.mark.parametrize("kind", GATES)
def test_to_layer_computes_what_the_equations_say(rng, kind, num_layers, directions, bias, dtype):
    arrays = random_arrays(rng, kind, num_layers, directions, bias, dtype)
    before = copies(arrays)
    layer = state_dict.to_layer(arrays)
    assert type(layer) is getattr(rc, kind)
    assert (layer.input_size, layer.hidden_size, layer.num_layers) == (D, H, num_layers)
    assert (layer.directions, layer.dtype) == (directions, dtype)
    x = rng.normal(size=(T, N, D))
    wanted = loop(kind, arrays, x, num_layers, directions)
    assert_near(layer(x)[0], wanted, dtype)
    for array in layer.params.values():
        assert array.flags.c_contiguous
        array[...] = 0  # a copy: the arrays given do not change
    assert_same(arrays, before)


@pytest.mark.parametrize("num_layers, directions", STACKS)
@pytest.mark.parametrize("kind", GATES)
def test_torch_computes_the_same(rng, kind, num_layers, directions):
    torch = pytest.importorskip("torch")
    module = getattr(torch.nn, kind)(D, H, num_layers, bidirectional=directions == 2, dtype=torch.float64)
    layer = state_dict.to_layer({name: tensor.numpy() for name, tensor in module.state_dict().items()})
    x = rng.normal(size=(T, N, D))

    def of_module():
        with torch.no_grad():
            return module(torch.from_numpy(x))[0].numpy()

    assert_near(layer(x)[0], of_module())
    layer = random_layer(rng, kind, num_layers, directions)
    result = module.load_state_dict({name: torch.from_numpy(a) for name, a in state_dict.from_layer(layer).items()})
    assert not result.missing_keys
    assert_near(layer(x)[0], of_module())


def test_torch_without_bias_and_with_relu_computes_the_same(rng):
    torch = pytest.importorskip("torch")
    options = {"bias": False, "batch_first": True, "dtype": torch.float64}
    module = torch.nn.RNN(D, H, 2, nonlinearity="relu", **options)
    arrays = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    layer = state_dict.to_layer(arrays, nonlinearity="relu", batch_first=True)
    x = rng.normal(size=(N, T, D))
    with torch.no_grad():
        assert_near(layer(x)[0], module(torch.from_numpy(x))[0].numpy())


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("num_layers, directions", STACKS)
@pytest.mark.parametrize("kind, options", [("RNN", {}), ("GRU", {}), ("GRU", GRU_FORM), ("LSTM", {})])
def test_of_layer_computes_what_the_equations_say(rng, kind, options, num_layers, directions, dtype):
    layer = random_layer(rng, kind, num_layers, directions, dtype, **options)
    params = copies(layer.params)
    arrays = state_dict.from_layer(layer)
    x = rng.normal(size=(T, N, D))
    y = layer(x)[0]
    assert_near(y, loop(kind, arrays, x, num_layers, directions), dtype)
    shapes = {name: array.shape for name, array in random_arrays(rng, kind, num_layers, directions).items()}
    assert {name: array.shape for name, array in arrays.items()} == shapes
    for array in arrays.values():
        assert array.flags.c_contiguous
        assert array.dtype == dtype
        array[...] = 0
    assert_same(layer.params, params)


def test_relu_batch_first_and_dropout_are_those_of_the_layer(rng):
    arrays = random_arrays(rng, "RNN", 2)
    layer = state_dict.to_layer(arrays, nonlinearity="relu", batch_first=True, dropout=0.25)
    assert (layer.activation, layer.batch_first, layer.dropout) == ("relu", True, 0.25)
    x = rng.normal(size=(T, N, D))
    wanted = loop("RNN", arrays, x, 2, 1, nonlinearity=lambda a: np.maximum(a, 0))
    assert_near(layer(x.swapaxes(0, 1))[0].swapaxes(0, 1), wanted)


# ---- round trips and load ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("num_layers, directions", STACKS)
@pytest.mark.parametrize("kind", GATES)
def test_round_trip_of_a_layer_keeps_every_bit(rng, kind, num_layers, directions, dtype):
    options = GRU_FORM if kind == "GRU" else {}
    layer = random_layer(rng, kind, num_layers, directions, dtype, **options)
    again = state_dict.to_layer(state_dict.from_layer(layer))
    assert repr(again) == repr(layer)
    assert again.options() == layer.options()
    assert_same(again.params, layer.params)


@pytest.mark.parametrize("kind", GATES)
def test_round_trip_of_arrays_keeps_weights_and_what_biases_add_up_to(rng, kind):
    arrays = random_arrays(rng, kind, 2, 2)
    again = state_dict.from_layer(state_dict.to_layer(arrays))
    assert again.keys() == arrays.keys()
    for suffix in suffixes(2, 2):
        for name in ("weight_ih" + suffix, "weight_hh" + suffix):
            np.testing.assert_array_equal(again[name], arrays[name])
        np.testing.assert_array_equal(
            again["bias_ih" + suffix] + again["bias_hh" + suffix],
            arrays["bias_ih" + suffix] + arrays["bias_hh" + suffix],
        )
        if kind == "GRU":
            np.testing.assert_array_equal(again["bias_hh" + suffix][2 * H :], arrays["bias_hh" + suffix][2 * H :])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind, options", [("RNN", {}), ("GRU", {}), ("GRU", GRU_FORM), ("LSTM", {})])
def test_load_writes_in_place(rng, kind, options, bias):
    arrays = random_arrays(rng, kind, 2, 2, bias)
    layer = random_layer(rng, kind, 2, 2, "float32", **options)
    owned = dict(layer.params)
    state_dict.load(layer, {f"a.{name}": a for name, a in arrays.items()} | {"other": np.zeros(2)}, prefix="a.")
    assert layer.params.keys() == owned.keys()
    assert all(layer.params[name] is array for name, array in owned.items())
    x = rng.normal(size=(T, N, D))
    assert_near(layer(x)[0], loop(kind, arrays, x, 2, 2), "float32")


def test_load_of_views_of_the_layers_own_params(rng):
    """Two directions exchanged: the second one must not read what the first one wrote."""
    layer = random_layer(rng, "RNN", directions=2)
    params = copies(layer.params)
    views = {
        "weight_ih_l0": layer.params["Wx_0_reverse"].T,
        "weight_hh_l0": layer.params["Wh_0_reverse"].T,
        "weight_ih_l0_reverse": layer.params["Wx_0"].T,
        "weight_hh_l0_reverse": layer.params["Wh_0"].T,
    }
    state_dict.load(layer, views)
    np.testing.assert_array_equal(layer.params["Wh_0"], params["Wh_0_reverse"])
    np.testing.assert_array_equal(layer.params["Wh_0_reverse"], params["Wh_0"])


def test_prefix_chooses_a_module(rng):
    encoder, decoder = random_arrays(rng, "LSTM"), random_arrays(rng, "GRU", 2)
    arrays = {"embedding.weight": np.zeros((9, D), "float16")}
    arrays |= {f"encoder.rnn.{name}": a for name, a in encoder.items()}
    arrays |= {f"decoder.{name}": a for name, a in decoder.items()}
    assert_same(state_dict.to_layer(arrays, prefix="encoder.rnn.").params, state_dict.to_layer(encoder).params)
    assert_same(state_dict.to_layer(arrays, prefix="decoder.").params, state_dict.to_layer(decoder).params)


def test_arrays_of_any_layout_and_byte_order(rng):
    arrays = random_arrays(rng, "GRU", 2)
    wanted = state_dict.to_layer(arrays).params
    for other in (transposed, lambda a: a.astype(">f8")):
        assert_same(state_dict.to_layer({name: other(a) for name, a in arrays.items()}).params, wanted)
    mixed = arrays | {"weight_hh_l1": arrays["weight_hh_l1"].astype(">f8")}  # one dtype, two byte orders
    assert_same(state_dict.to_layer(mixed).params, wanted)


def test_dtypes(rng):
    arrays = random_arrays(rng, "LSTM", dtype="float16")
    layer = state_dict.to_layer(arrays)
    assert layer.dtype == "float32"
    # Two float16 are added without another rounding.
    b = arrays["bias_ih_l0"].astype("float32") + arrays["bias_hh_l0"]
    np.testing.assert_array_equal(layer.params["b_0"], b)
    assert state_dict.to_layer(arrays, dtype="float64").dtype == "float64"
    mixed = arrays | {"bias_hh_l0": np.zeros(4 * H, "float64")}
    assert state_dict.to_layer(mixed, dtype="float32").dtype == "float32"
    with pytest.raises(
        ValueError,
        match="arrays must have one dtype, or dtype must say which is meant; "
        r"got float16: a\.weight_ih_l0, a\.weight_hh_l0, a\.bias_ih_l0; float64: a\.bias_hh_l0",
    ):
        state_dict.to_layer({f"a.{name}": array for name, array in mixed.items()}, prefix="a.")


# ---- errors -----------------------------------------------------------------------------------------------------


def without(*names):
    return lambda arrays: {name: array for name, array in arrays.items() if name not in names}


def with_array(name, *shape, dtype="float64"):
    return lambda arrays: arrays | {name: np.zeros(shape, dtype)}


BOTH = [  # change of the arrays of a two-layer, bidirectional GRU; error; message
    (without("bias_ih_l1", "bias_hh_l1"), ValueError, "^arrays must have bias_ih_l1, bias_hh_l1 too$"),
    (without("bias_hh_l0"), ValueError, "^arrays must have bias_hh_l0 too$"),
    (without("weight_hh_l1_reverse"), ValueError, "^arrays must have weight_hh_l1_reverse too$"),
    (with_array("weight_hr_l0", 2, H), ValueError, r"^weight_hr_l0 is a projection \(proj_size\)"),
    (with_array("weight_ih_l0_back", 2, H), ValueError, r"^weight_ih_l0_back is no weight of an RNN, GRU or LSTM"),
    (with_array("weight_ih_l01", 2, H), ValueError, "^weight_ih_l01 is no weight"),
    (with_array("dense.weight", 2, H), ValueError, r"^dense\.weight is no weight"),
    (with_array("weight_ih_l0", 3 * H, D, 1), ValueError, r"^weight_ih_l0 must be \(3H, D\).*; got \(15, 4, 1\)$"),
    (
        with_array("weight_ih_l0_reverse", 3 * H, 3),
        ValueError,
        r"must be \(3H, D\) = \(15, 4\); got \(15, 3\)$",
    ),
    (
        with_array("weight_ih_l1", 3 * H, H),
        ValueError,
        r"^weight_ih_l1 .* \(3H, 2H\) = \(15, 10\); got \(15, 5\)$",
    ),
    (with_array("weight_hh_l1", H, 3 * H), ValueError, r"^weight_hh_l1 must be \(3H, H\) = \(15, 5\); got \(5, 15\)$"),
    (with_array("weight_hh_l0", H, 3 * H), ValueError, r"^weight_hh_l0 must be \((3H|G\*H), H\).*; got \(5, 15\)$"),
    (with_array("bias_ih_l1", 4 * H), ValueError, r"^bias_ih_l1 must be \(3H,\) = \(15,\); got \(20,\)$"),
    (with_array("bias_hh_l0", 3 * H, 1), ValueError, r"^bias_hh_l0 must be \(3H,\) = \(15,\); got \(15, 1\)$"),
    (with_array("bias_hh_l0", 3 * H, dtype="int64"), TypeError, "^bias_hh_l0 must be .* float64; got dtype int64$"),
    (with_array("bias_hh_l0", 3 * H, dtype="complex64"), TypeError, "^bias_hh_l0 must be .* got dtype complex64$"),
    (list, TypeError, "^arrays must be a mapping of names to arrays; got list$"),
    (lambda arrays: {}, ValueError, "^arrays must have keys that start with ''; got none$"),
    (lambda arrays: {1: np.zeros(2)}, TypeError, "^keys of arrays must be str; got 1$"),
]


@pytest.mark.parametrize("change, error, message", BOTH, ids=[message for _, _, message in BOTH])
def test_errors_leave_the_layer_as_it_was(rng, change, error, message):
    arrays = change(random_arrays(rng, "GRU", 2, 2))
    with pytest.raises(error, match=message):
        state_dict.to_layer(arrays)
    layer = random_layer(rng, "GRU", 2, 2)
    params = copies(layer.params)
    with pytest.raises(error, match=message):
        state_dict.load(layer, arrays)
    assert_same(layer.params, params)


def test_errors_of_to_layer(rng):
    arrays = random_arrays(rng, "LSTM", 3)
    with pytest.raises(ValueError, match="layers must be numbered from 0 without a gap; got 0, 2$"):
        state_dict.to_layer({name: a for name, a in arrays.items() if "_l1" not in name})
    for shape in [(7, 5), (10, 5), (5, 20), (0, 0), (5,)]:
        with pytest.raises(ValueError, match=r"weight_hh_l0 must be \(G\*H, H\)(, G = 1 \(RNN\), 3 .*|); got \("):
            state_dict.to_layer(arrays | {"weight_hh_l0": np.zeros(shape)})
    with pytest.raises(ValueError, match=r"weight_ih_l0 must be \(4H, D\); got \(20,\)"):
        state_dict.to_layer(arrays | {"weight_ih_l0": np.zeros(20)})
    with pytest.raises(ValueError, match=r"weight_ih_l0 must be \(4H, D\); got \(\)"):
        state_dict.to_layer(arrays | {"weight_ih_l0": np.float64(1)})
    with pytest.raises(ValueError, match="nonlinearity must be one of 'tanh', 'relu'; got 'sigmoid'"):
        state_dict.to_layer(arrays, nonlinearity="sigmoid")
    with pytest.raises(ValueError, match="nonlinearity 'relu' belongs to an RNN; the arrays have 4 gate blocks"):
        state_dict.to_layer(arrays, nonlinearity="relu")
    with pytest.raises(ValueError, match="dtype must be float32 or float64; got float16"):
        state_dict.to_layer(arrays, dtype="float16")
    with pytest.raises(ValueError, match=r"dropout must be in \[0, 1\); got 1"):
        state_dict.to_layer(arrays, dropout=1)
    with pytest.raises(ValueError, match=r"arrays must have keys that start with 'rnn\.'; got weight_ih_l0, weight_hh"):
        state_dict.to_layer(arrays, prefix="rnn.")
    with pytest.raises(ValueError, match=r"a\.bias_hh_l2 must be \(4H,\) = \(20,\); got \(3,\)"):
        state_dict.to_layer(
            {f"a.{name}": array for name, array in (arrays | {"bias_hh_l2": np.zeros(3)}).items()}, prefix="a."
        )


def test_errors_of_load(rng):
    layer = random_layer(rng, "LSTM")
    params = copies(layer.params)
    for arrays, message in [
        (random_arrays(rng, "GRU"), r"weight_ih_l0 must be \(4H, D\) = \(20, 4\); got \(15, 4\)"),
        (random_arrays(rng, "LSTM", 2), "the layer has no weight_ih_l1, weight_hh_l1, bias_ih_l1, bias_hh_l1$"),
        (random_arrays(rng, "LSTM", 1, 2), "the layer has no weight_ih_l0_reverse, "),
    ]:
        with pytest.raises(ValueError, match=message):
            state_dict.load(layer, arrays)
        assert_same(layer.params, params)
    with pytest.raises(ValueError, match="arrays must have weight_ih_l1, weight_hh_l1, bias_ih_l1, bias_hh_l1 too$"):
        state_dict.load(random_layer(rng, "LSTM", 2), random_arrays(rng, "LSTM"))


@pytest.mark.parametrize(
    "layer, message",
    [
        (rc.GRU(D, H), "PyTorch has no GRU with form='reset_before'"),
        (rc.GRU(D, H, form="simplified"), "PyTorch has no GRU with form='simplified'"),
        (rc.LSTM(D, H, peephole=True), "PyTorch has no LSTM with peephole=True"),
        (rc.LSTM(D, H, output_activation="identity"), "PyTorch has no LSTM with output_activation='identity'"),
        (rc.RNN(D, H, activation="identity"), "PyTorch has no RNN with activation='identity'"),
    ],
)
def test_layers_that_torch_does_not_have(layer, message):
    with pytest.raises(ValueError, match=message):
        state_dict.from_layer(layer)
    with pytest.raises(ValueError, match=message):
        state_dict.load(layer, {})


def test_only_recurrent_layers():
    for layer, name in [(rc.Dense(2, 3), "Dense"), (None, "NoneType")]:
        with pytest.raises(TypeError, match=f"layer must be an RNN, GRU or LSTM; got {name}"):
            state_dict.from_layer(layer)
        with pytest.raises(TypeError, match=f"layer must be an RNN, GRU or LSTM; got {name}"):
            state_dict.load(layer, {})


def test_what_is_no_weight_is_no_obstacle():
    options = {"recurrent_dropout": 0.5, "checkpoint": True, "dropout": 0.1}
    assert "weight_ih_l0" in state_dict.from_layer(rc.RNN(D, H, activation="relu", **options))
    assert "bias_hh_l0" in state_dict.from_layer(rc.LSTM(D, H, peephole_output="previous", **options))


def test_every_option_of_a_cell_is_decided_on():
    """A new one is here when somebody has thought of what it means for the weights."""
    options = {cls.__name__: set(cls(D, H).options()) for cls in (rc.RNN, rc.GRU, rc.LSTM)}
    assert options == {
        "RNN": {"activation"},
        "GRU": {"form", "update"},
        "LSTM": {"peephole_output", "output_activation"},
    }
