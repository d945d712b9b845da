"""Files of other programs, damaged ones, and ones made to do harm: ONNX and safetensors."""

import json
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

import rnncore as rc

onnx = pytest.importorskip("onnx")
safetensors = pytest.importorskip("safetensors.numpy")

from onnx import numpy_helper  # noqa: E402

from rnncore.interop import safetensors as bridge  # noqa: E402
from rnncore.interop.onnx import from_onnx, operators, to_onnx  # noqa: E402

LAYER = rc.GRU(3, 4, form="reset_after", update="old", seed=0)
WRITERS = {
    "layer.safetensors": lambda path: bridge.save(LAYER, path),
    "model.onnx": lambda path: path.write_bytes(to_onnx(LAYER).SerializeToString()),
    "model.npz": lambda path: rc.SequenceTagger(hidden_size=1, epochs=1).fit(["ab"], [["p", "q"]]).save(path),
}
READERS = {
    "load": (rc.load, "model.npz"),
    "safetensors": (bridge.load, "layer.safetensors"),
    "load_into": (lambda path: bridge.load_into(LAYER, path), "layer.safetensors"),
    "onnx": (from_onnx, "model.onnx"),
    "operators": (operators, "model.onnx"),
}
each_reader = pytest.mark.parametrize(("read", "own"), READERS.values(), ids=READERS)


@each_reader
def test_what_is_there_is_something_else(read, own, tmp_path):
    """The message names the file; nothing waits for a FIFO."""
    np.savez(tmp_path / "arrays.npz", a=np.arange(3))
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("{} hello" * 9)
    (tmp_path / "zeros").write_bytes(bytes(100))
    for name, write in WRITERS.items():
        write(tmp_path / name)
    assert read(tmp_path / own) is not False
    for path in set(tmp_path.iterdir()) - {tmp_path / own}:
        with pytest.raises(ValueError, match=f"^{path} is no"):
            read(path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "fifo")
    for name, error, said in (
        ("folder", IsADirectoryError, "Is a directory: '{}'"),
        ("loop", OSError, "Too many levels of symbolic links: '{}'"),
        ("missing", FileNotFoundError, "No such file or directory: '{}'"),
        ("fifo", ValueError, "{} must be a file: a FIFO or a device cannot be read in any order"),
    ):
        with pytest.raises(error, match=said.format(tmp_path / name)):
            read(tmp_path / name)


@each_reader
def test_truncated_files(read, own, tmp_path):
    """At every length, of model files at some; tests/models/test_survival.py has all."""
    WRITERS[own](tmp_path / own)
    content, cut = (tmp_path / own).read_bytes(), tmp_path / "cut"
    for length in range(0, len(content), 97 if own == "model.npz" else 1):
        cut.write_bytes(content[:length])
        with pytest.raises(ValueError, match=f"^{cut} is no"):
            read(cut)


def peak_of_refusal(read, path, message, error=ValueError):
    tracemalloc.start()
    try:
        with pytest.raises(error, match=message) as caught:
            read(path)
        assert str(path) in str(caught.value)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# ---- ONNX -----------------------------------------------------------------------------------------------------------


def write_onnx(path, change):
    """Change the weights W of a model, and the model."""
    model = to_onnx(LAYER)
    change(next(tensor for tensor in model.graph.initializer if tensor.name.startswith("W")), model)
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("location", "entries", "message"),
    [
        ("../secret", {}, "points outside the directory"),
        ("{}/secret", {}, "it is an absolute path"),
        ("link", {}, "it is a symbolic link"),
        ("fifo", {}, "not regular file"),
        ("none", {}, "not regular file"),
        ("data", {"length": 2**60}, "exceeds"),
        ("data", {"offset": 2**60}, "exceeds"),
        ("data", {"offset": -5}, "non-negative"),
        ("data", {"offset": "x"}, "invalid literal"),
        ("data", {}, "no array|reshape"),
    ],
    ids=str,
)
def test_weights_in_another_file(location, entries, message, tmp_path):
    (tmp_path / "secret").write_bytes(bytes(1000))
    (folder := tmp_path / "folder").mkdir()
    (folder / "data").write_bytes(bytes(100))
    (folder / "link").symlink_to("../secret")
    os.mkfifo(folder / "fifo")

    def move(tensor, model):
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in {"location": location.format(tmp_path), **entries}.items():
            tensor.external_data.add(key=key, value=str(value))

    write_onnx(folder / "model.onnx", move)
    assert peak_of_refusal(from_onnx, folder / "model.onnx", message) < 1_000_000


@pytest.mark.parametrize("dims", [[2**60], [2**31, 2**31, 4], [1, 12, 2**40], [-1], [0]], ids=str)
def test_shapes_that_are_not_there(dims, tmp_path):
    def change(tensor, model):
        tensor.dims[:] = dims

    write_onnx(tmp_path / "model.onnx", change)
    assert peak_of_refusal(from_onnx, tmp_path / "model.onnx", "GRU 'gru_0': ") < 1_000_000


@pytest.mark.parametrize("kind", [0, 8, 16, 99])
def test_types_that_are_not_there(kind, tmp_path):
    def change(tensor, model):
        tensor.data_type = kind

    write_onnx(tmp_path / "model.onnx", change)
    peak_of_refusal(from_onnx, tmp_path / "model.onnx", "GRU 'gru_0': 'W_0' is no array")


@pytest.mark.parametrize("op_type", ["Gather", "Concat"])
def test_one_node_that_makes_much_of_little(op_type, tmp_path):
    """400 KB: half of it one slice, half of it 25,000 times this slice."""
    count, size = 25_000, 200_000

    def change(tensor, model):
        name, tensor.name = tensor.name, "unused"
        slice_, indices = np.zeros((1, size), np.int8), np.zeros(count, np.int64)
        model.graph.initializer.append(numpy_helper.from_array(slice_, "w"))
        model.graph.initializer.append(numpy_helper.from_array(indices, "indices"))
        inputs = ["w", "indices"] if op_type == "Gather" else ["w"] * count
        model.graph.node.insert(0, onnx.helper.make_node(op_type, inputs, [name], axis=0))

    write_onnx(tmp_path / "model.onnx", change)
    peak = peak_of_refusal(from_onnx, tmp_path / "model.onnx", "is a constant far larger than the graph")
    assert peak < 20 * (tmp_path / "model.onnx").stat().st_size  # of 5 GB that the node would make


# ---- safetensors ----------------------------------------------------------------------------------------------------


def write_safetensors(path, header, data=b""):
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(content).to_bytes(8, "little") + content + data)


W = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
MORE = W | {"data_offsets": [24, 48]}


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ({"W": W | {"shape": [2**60]}}, bytes(24)),
        ({"W": W | {"data_offsets": [0, 2**60]}}, bytes(24)),
        ({"W": W | {"shape": [2**32, 2**32], "data_offsets": [0, 2**64 - 1]}}, bytes(24)),
        ({"W": W | {"shape": [-1, 6]}}, bytes(24)),
        ({"W": W | {"dtype": "O"}}, bytes(24)),
        ({"W": W, "b": {"dtype": "F32", "shape": [3], "data_offsets": [12, 24]}}, bytes(24)),  # they overlap
        ({"W": W}, bytes(25)),
        (b'{"W": ' + json.dumps(W).encode() + b', "W": ' + json.dumps(MORE).encode() + b"}", bytes(48)),
        (b"[" * 100_000, b""),
        (b'{"W": NaN}', b""),
        (b'{"W": 1' + b"0" * 5000 + b"}", b""),
    ],
)
def test_headers_that_are_wrong(header, data, tmp_path):
    write_safetensors(tmp_path / "file", header, data)
    for read in (bridge.load, lambda path: bridge.load_into(rc.Dense(2, 3), path)):
        assert peak_of_refusal(read, tmp_path / "file", "is not a safetensors file, or is damaged") < 2_000_000


def test_a_header_longer_than_the_file(tmp_path):
    for length in (2**63, 2**60, 10**8):
        (tmp_path / "file").write_bytes(length.to_bytes(8, "little") + b"{}")
        assert peak_of_refusal(bridge.load, tmp_path / "file", "is not a safetensors file, or is damaged") < 1_000_000


@pytest.mark.parametrize(
    "arguments",
    [
        {"input_size": 2**60},
        {"hidden_size": 10**400},
        {"num_layers": 2**40},
        {"input_size": [3]},
        {"hidden_size": float("nan")},
        {"dropout": "much"},
        {"form": []},
        {"form": {}},
        {"dtype": 10**400},
        {"dtype": "O"},
        {"num_layers": 0},
    ],
    ids=lambda value: str(value)[:40],
)
def test_arguments_that_are_wrong(arguments, tmp_path):
    bridge.save(LAYER, tmp_path / "good")
    with safetensors.safe_open(tmp_path / "good", "numpy") as file:
        metadata, arrays = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    metadata["arguments"] = json.dumps(json.loads(metadata["arguments"]) | arguments)
    safetensors.save_file(arrays, tmp_path / "bad", metadata)
    assert peak_of_refusal(bridge.load, tmp_path / "bad", "does not describe a layer, or is damaged") < 1_000_000


def test_arrays_of_no_layer(tmp_path):
    write_safetensors(tmp_path / "file", {"W": W}, bytes(24))
    with pytest.raises(ValueError, match=f"^{tmp_path / 'file'}: W is no weight"):
        bridge.load(tmp_path / "file")
    write_safetensors(tmp_path / "file", {"weight_ih_l0": W}, bytes(24))
    with pytest.raises(ValueError, match=f"^{tmp_path / 'file'}: "):
        bridge.load_into(rc.RNN(3, 2), tmp_path / "file")


def test_memory_of_the_process(tmp_path):
    """What safetensors and protobuf allocate, too: megabytes, where the files claim an exabyte."""
    claims, header = tmp_path / "claims", '{"W": {"dtype": "F32", "shape": [%d], "data_offsets": [0, %d]}}'
    write_safetensors(tmp_path / "file", (header % (2**58, 2**60)).encode(), bytes(24))
    (tmp_path / "long").write_bytes((10**8).to_bytes(8, "little") + b"{}")

    def change(tensor, model):
        tensor.dims[:] = [2**58]

    write_onnx(claims, change)
    code = """if True:
        import resource, sys
        from rnncore.interop.onnx import from_onnx
        from rnncore.interop.safetensors import load

        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KB

        for read, path in zip((load, load, from_onnx), sys.argv[1:]):
            for turn in range(2):  # the first loads what is needed to refuse a file
                before = peak()
                try:
                    read(path)
                except ValueError:
                    print(peak() - before)
    """
    paths = [tmp_path / "file", tmp_path / "long", claims]
    result = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    assert len(result.stdout.split()) == 6
    assert max(map(int, result.stdout.split()[1::2])) < 20_000
