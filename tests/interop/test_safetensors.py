"""Layers in safetensors files: what comes back, what is refused, and that a failure leaves everything as it was."""

import json
import os
import struct

import numpy as np
import pytest
from support.compare import TOLERANCE

import rnncore as rc
from rnncore.interop import state_dict

library = pytest.importorskip("safetensors.numpy")
safetensors = pytest.importorskip("rnncore.interop.safetensors")

T, N, D, H = 6, 3, 4, 5

LAYERS = {
    "RNN": lambda **o: rc.RNN(D, H, activation="relu", **o),
    "GRU": lambda **o: rc.GRU(D, H, form="reset_after", update="old", **o),
    "GRU-simplified": lambda **o: rc.GRU(D, H, form="simplified", **o),
    "LSTM": lambda **o: rc.LSTM(D, H, **o),
    "LSTM-peephole": lambda **o: rc.LSTM(
        D, H, peephole=True, peephole_output="previous", output_activation="identity", forget_bias=0.5, **o
    ),
}
STACK = {
    "num_layers": 2,
    "bidirectional": True,
    "batch_first": True,
    "dropout": 0.25,
    "recurrent_dropout": 0.5,
    "checkpoint": 3,
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "layer.safetensors"


def filled(layer, rng):
    for array in layer.params.values():
        array[...] = rng.normal(scale=0.5, size=array.shape)
    return layer


def copies(layer):
    return {name: array.copy() for name, array in layer.params.items()}


def assert_same(got, wanted):
    assert got.keys() == wanted.keys()
    for name, array in wanted.items():
        assert got[name].dtype == array.dtype, name
        np.testing.assert_array_equal(got[name], array, err_msg=name)


def settings(layer):
    return {name: value for name, value in vars(layer).items() if name not in ("params", "grads", "_rng")}


def write(path, arrays, metadata=None):
    path.write_bytes(library.save(arrays, metadata))


def rewrite(path, arrays=None, **metadata):
    """The file with some of its arrays and metadata exchanged; None takes one away."""
    with library.safe_open(path, framework="numpy") as file:
        everything = {name: file.get_tensor(name) for name in file.keys()} | (arrays or {})
        described = file.metadata() | metadata
    write(
        path,
        {name: array for name, array in everything.items() if array is not None},
        {name: value for name, value in described.items() if value is not None},
    )


# ---- what comes back --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("options", [{}, STACK], ids=["plain", "stack"])
@pytest.mark.parametrize("name", LAYERS)
def test_recurrent_layers_come_back(rng, path, name, options, dtype):
    layer = filled(LAYERS[name](dtype=dtype, **options), rng)
    safetensors.save(layer, path)
    again = safetensors.load(str(path))
    assert type(again) is type(layer)
    assert settings(again) == settings(layer)
    assert_same(again.params, layer.params)
    x = rng.normal(size=(T, N, D))
    np.testing.assert_array_equal(again(x)[0], layer(x)[0])

    other = filled(LAYERS[name](dtype=dtype, **options), rng)
    owned = dict(other.params)
    safetensors.load_into(other, path)
    assert_same(other.params, layer.params)
    assert all(other.params[name] is array for name, array in owned.items())


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_embedding_and_dense_come_back(rng, path, dtype):
    for layer in (rc.Embedding(D, H, dtype=dtype), rc.Dense(D, H, dtype=dtype)):
        filled(layer, rng)
        safetensors.save(layer, path)
        again = safetensors.load(path)
        assert type(again) is type(layer)
        assert settings(again) == settings(layer)
        assert_same(again.params, layer.params)


def test_every_argument_is_in_the_file(path):
    """As JSON in the metadata, for other programs; arrays under the layer's names, C-contiguous."""
    layer = rc.LSTM(D, H, checkpoint=np.int64(4), forget_bias=2)
    layer.params["Wh_0"] = layer.params["Wh_0"].copy(order="F")
    safetensors.save(layer, path)
    with library.safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    assert metadata.keys() == {"format", "version", "layer", "arguments"}
    assert (metadata["format"], metadata["version"], metadata["layer"]) == ("rnncore layer", "1", "LSTM")
    assert json.loads(metadata["arguments"]) == {
        "input_size": D,
        "hidden_size": H,
        "num_layers": 1,
        "peephole": False,
        "peephole_output": "current",
        "output_activation": "tanh",
        "forget_bias": 2.0,
        "bidirectional": False,
        "batch_first": False,
        "dropout": 0.0,
        "recurrent_dropout": 0.0,
        "checkpoint": 4,
        "dtype": "float32",
    }
    assert_same(library.load_file(path), layer.params)


@pytest.mark.parametrize("prefix", ["", "encoder.rnn."])
def test_files_with_names_of_torch(rng, path, prefix):
    layer = filled(rc.GRU(D, H, 2, form="reset_after", update="old", bidirectional=True), rng)
    arrays = {prefix + name: array for name, array in state_dict.from_layer(layer).items()}
    if prefix:
        arrays["embedding.weight"] = np.zeros((2, 3), "int64")
    write(path, arrays, {"format": "pt"})
    again = safetensors.load(path, prefix=prefix)
    assert repr(again) == repr(layer)
    assert_same(again.params, layer.params)
    other = filled(rc.GRU(D, H, 2, form="reset_after", update="new", bidirectional=True), rng)
    safetensors.load_into(other, path, prefix=prefix)
    assert_same(state_dict.from_layer(other), state_dict.from_layer(layer))


def test_load_into_takes_names_with_a_prefix(rng, path):
    one, two, other = (filled(rc.LSTM(D, H), rng) for _ in range(3))
    write(path, {f"{k}.{name}": array for k, layer in enumerate([one, two]) for name, array in layer.params.items()})
    safetensors.load_into(other, path, prefix="1.")
    assert_same(other.params, two.params)


# ---- what is refused --------------------------------------------------------------------------------------------


def test_damaged_files(rng, path):
    layer = filled(rc.RNN(D, H), rng)
    safetensors.save(layer, path)
    whole, before = path.read_bytes(), copies(layer)
    length = 8 + struct.unpack("<Q", whole[:8])[0]
    for damaged in (
        b"",
        whole[:5],
        whole[: length - 3],
        whole[:length],
        whole[:-1],
        whole + b"\0",
        b"\xff" * 200,
        whole[:8] + b"\xff" + whole[9:],
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="layer.safetensors is not a safetensors file, or is damaged"):
            safetensors.load(path)
        with pytest.raises(ValueError, match="layer.safetensors is not a safetensors file, or is damaged"):
            safetensors.load_into(layer, path)
        assert_same(layer.params, before)
    for function in (safetensors.load, lambda name: safetensors.load_into(layer, name)):
        with pytest.raises(FileNotFoundError):
            function(path.with_name("none"))


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"b_0": None}, r"layer\.safetensors must have b_0 too$"),
        ({"b_0": None, "bias": np.zeros(H)}, r"layer\.safetensors must have b_0 too$"),
        ({"Wx_1": np.zeros(2)}, "has Wx_1, which the layer has not$"),
        (
            {"Wh_0": np.zeros((H, H + 1), "float32")},
            r"Wh_0 in .* must be \(5, 5\) float32 as .*; got \(5, 6\) float32$",
        ),
        ({"b_0": np.zeros(H)}, r"b_0 in .* must be \(5,\) float32 as in the layer; got \(5,\) float64$"),
        ({"b_0": np.zeros(H, "float16")}, r"b_0 in .* must be \(5,\) float32 as in the layer; got \(5,\) float16$"),
    ],
)
def test_files_with_other_arrays(rng, path, arrays, message):
    layer = rc.RNN(D, H)
    safetensors.save(layer, path)
    rewrite(path, arrays)
    filled(layer, rng)
    before = copies(layer)
    with pytest.raises(ValueError, match=message):
        safetensors.load(path)
    with pytest.raises(ValueError, match=message):
        safetensors.load_into(layer, path)
    assert_same(layer.params, before)


def test_dtypes_that_are_none_of_ours(rng, path):
    layer = rc.RNN(D, H)
    safetensors.save(layer, path)
    rewrite(path, {"b_0": np.zeros(H, "int32")})
    with pytest.raises(TypeError, match=r"b_0 in .* must be one of F16, F32, F64; got I32"):
        safetensors.load(path)
    header = {"b.weight_ih_l0": {"dtype": "BF16", "shape": [2, 1], "data_offsets": [0, 4]}}
    header = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    before = copies(layer)
    for function in (safetensors.load, lambda *a, **k: safetensors.load_into(layer, *a, **k)):
        with pytest.raises(TypeError, match=r"b\.weight_ih_l0 in .* must be one of F16, F32, F64; got BF16"):
            function(path, prefix="b.")
        with pytest.raises(ValueError, match=r"must have names that start with 'a\.'; got b\.weight_ih_l0$"):
            function(path, prefix="a.")
    assert_same(layer.params, before)


@pytest.mark.parametrize(
    "metadata, message",
    [
        ({"version": "2"}, "has version 2 of the format; this rnncore reads version 1"),
        ({"version": None}, "has version None of the format"),
        ({"layer": "Stream"}, "does not describe a layer, or is damaged: KeyError"),
        ({"layer": None}, "does not describe a layer, or is damaged: KeyError"),
        ({"layer": "Dense"}, "must have the arguments input_size, output_size, dtype; got input_size, hidden_size"),
        ({"arguments": None}, "does not describe a layer, or is damaged: KeyError"),
        ({"arguments": "{"}, "does not describe a layer, or is damaged: JSONDecodeError"),
        ({"arguments": "[1]"}, "does not describe a layer, or is damaged: AttributeError"),
        ({"arguments": "{}"}, "must have the arguments input_size, hidden_size, .*, dtype; got $"),
    ],
)
def test_metadata_that_is_wrong(path, metadata, message):
    layer = rc.RNN(D, H)
    safetensors.save(layer, path)
    rewrite(path, **metadata)
    before = copies(layer)
    with pytest.raises(ValueError, match=message):
        safetensors.load(path)
    with pytest.raises(ValueError, match=message):
        safetensors.load_into(layer, path)
    assert_same(layer.params, before)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"activation": "selu"}, "or is damaged: activation must be one of"),
        ({"hidden_size": "5"}, "or is damaged: its arguments are not those of its arrays"),
        ({"hidden_size": 10**9}, "or is damaged: its arguments are not those of its arrays"),
        ({"num_layers": 10**9}, "or is damaged: its arguments are not those of its arrays"),
        ({"num_layers": "2"}, "or is damaged: its arguments are not those of its arrays"),
        ({"dtype": "int32"}, "or is damaged: dtype must be float32 or float64; got int32"),
        ({"hidden_size": 6}, "or is damaged: its arguments are not those of its arrays"),
        ({"dtype": "float64"}, r"Wx_0 in .* must be \(4, 5\) float64 as in the layer; got \(4, 5\) float32"),
        ({"num_layers": 2}, "must have Wx_1, Wh_1, b_1 too"),
    ],
)
def test_arguments_that_are_wrong(path, change, message):
    safetensors.save(rc.RNN(D, H), path)
    with library.safe_open(path, framework="numpy") as file:
        arguments = json.loads(file.metadata()["arguments"])
    rewrite(path, arguments=json.dumps(arguments | change))
    with pytest.raises(ValueError, match=message):
        safetensors.load(path)


def test_weights_of_another_meaning(rng, path):
    """Names and shapes are the same; the outputs would not be."""
    for saved, given, message in [
        (rc.GRU(D, H), rc.GRU(D, H, update="old"), "is of a layer with update='new'; got one with 'old'"),
        (rc.RNN(D, H), rc.RNN(D, H, activation="relu"), "is of a layer with activation='tanh'; got one with 'relu'"),
        (rc.RNN(H, H), rc.LSTM(H, H), "is of a layer RNN; got LSTM"),
    ]:
        safetensors.save(saved, path)
        before = copies(filled(given, rng))
        with pytest.raises(ValueError, match=message):
            safetensors.load_into(given, path)
        assert_same(given.params, before)


def test_names_of_torch_that_do_not_fit(rng, path):
    arrays = state_dict.from_layer(rc.LSTM(D, H))
    layer = filled(rc.LSTM(D, H, dtype="float64"), rng)
    before = copies(layer)
    write(path, arrays)
    with pytest.raises(ValueError, match=r"_l0 in .* must be float64 as in the layer; got float32"):
        safetensors.load_into(layer, path)
    write(path, {name: array.astype("float64") for name, array in arrays.items()} | {"bias_hh_l0": np.zeros(2)})
    with pytest.raises(ValueError, match=r"bias_hh_l0 must be \(4H,\) = \(20,\); got \(2,\)"):
        safetensors.load_into(layer, path)
    assert_same(layer.params, before)
    with pytest.raises(ValueError, match=r"bias_hh_l0 must be \(4H,\) = \(20,\); got \(2,\)"):
        safetensors.load(path, prefix="")
    write(path, {"Wx_0": np.zeros((2, 2))})
    with pytest.raises(ValueError, match="Wx_0 is no weight of an RNN, GRU or LSTM"):
        safetensors.load(path)


def test_only_layers():
    for function in (safetensors.save, safetensors.load_into):
        with pytest.raises(
            TypeError, match="layer must be an RNN, GRU, LSTM, MinGRU, Embedding or Dense; got Vocabulary"
        ):
            function(rc.Vocabulary("ab"), "none")


# ---- writing ----------------------------------------------------------------------------------------------------


def test_a_failed_save_leaves_the_old_file(path, monkeypatch):
    safetensors.save(rc.RNN(D, H), path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError("no space")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fail)
            with pytest.raises(OSError, match="no space"):
                safetensors.save(rc.RNN(D, H + 1), path)
        assert path.read_bytes() == before
        assert os.listdir(path.parent) == [path.name]
    with pytest.raises(FileNotFoundError):
        safetensors.save(rc.RNN(D, H), path.parent / "none" / "layer.safetensors")


def test_save_over_a_file_with_the_usual_permissions(path):
    path.write_text("old")
    safetensors.save(rc.RNN(D, H), path)
    (other := path.with_name("other")).touch()
    assert path.stat().st_mode == other.stat().st_mode
    assert safetensors.load(path).hidden_size == H
