"""Model files made to do harm: whatever they hold, ValueError names the file, and no memory is taken for it."""

import copy
import io
import json
import os
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from support.training import each_model, fit, make

import rnncore as rc
from rnncore.models.storage import READABLE, read_model


def nested(levels, value):
    for _ in range(levels):
        value = [value] if isinstance(value, list) else {"a": value}
    return value


VALUES = [None, True, 0, -1, 2**62, 10**400, float("nan"), float("inf"), 1e308, "", "abc", "\ud800", "U999999999", "O"]
VALUES += [[], [1], ["a", "a"], [[]], {}, {"a": 1}, nested(300, []), nested(300, {})]


def places_in(value, place=()):
    """The ways to everything in JSON types; of lists, to the first two entries."""
    yield place
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(min(len(value), 2)):
            yield from places_in(value[key], (*place, key))


@each_model
def test_anything_in_the_place_of_anything(name, tmp_path, monkeypatch):
    """In the description: the model loads or the file is damaged; nothing else is raised."""
    path = tmp_path / "model.npz"
    fit(make(name, cell_options={"init": "uniform"}), True).save(path, training=True)
    kind, description, arrays = read_model(path)
    refused = 0
    for place in places_in(description):
        for value in VALUES:
            changed = copy.deepcopy(description) if place else value
            inner = changed
            for key in place[:-1]:
                inner = inner[key]
            if place:
                inner[place[-1]] = value
            monkeypatch.setattr("rnncore.models.read_model", lambda path, changed=changed: (kind, changed, arrays))
            try:
                rc.load(path)
            except ValueError as error:
                assert str(error).startswith(f"{path} is ")
                assert "damaged" in str(error)
                refused += 1
    assert refused > 500


def refusal_of(path):
    """What is said of a file, and the bytes that Python and NumPy allocated meanwhile at most."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=f"^{path} ") as caught:
            rc.load(path)
        return str(caught.value), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture
def members(tmp_path):
    """Of a file of version 4, which has no checksum: by name, and the path for another one."""
    path = tmp_path / "model.npz"
    rc.SequenceTagger(hidden_size=2, embedding_size=0, epochs=1).fit(["ab"], [["p", "q"]]).save(path)
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive if name != "sha256"}
    arrays["header"] = np.array(str(arrays["header"]).replace('"version": 5', '"version": 4'))
    return {f"{name}.npy": npy(array) for name, array in arrays.items()}


def npy(array, **options):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, **options)
    return stream.getvalue()


def write(path, members, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


WEIGHT = "array/output.W.npy"


@pytest.mark.parametrize(
    "name",
    ["../array/output.W", "/array/output.W", "array/../../output.W", "array\\output.W", "output.W", "array/", ""],
)
def test_names_of_members(name, members, tmp_path):
    """Nothing is ever written where they say; beside the others and in the place of one."""
    path = tmp_path / "folder" / "bad.npz"
    path.parent.mkdir()
    before = os.listdir(tmp_path)
    for changed in (members | {f"{name}.npy": members[WEIGHT]}, {**members, f"{name}.npy": members.pop(WEIGHT)}):
        write(path, changed)
        assert "damaged" in refusal_of(path)[0]
    assert os.listdir(path.parent) == ["bad.npz"]
    assert os.listdir(tmp_path) == before


def test_two_members_of_one_name(members, tmp_path):
    """Also where only one of them ends in .npy."""
    path = tmp_path / "bad.npz"
    write(path, members | {WEIGHT.removesuffix(".npy"): members[WEIGHT]})
    assert "damaged" in refusal_of(path)[0]
    write(path, members)
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr(WEIGHT, members[WEIGHT])
    assert "damaged" in refusal_of(path)[0]


def test_members_that_share_their_bytes(members, tmp_path):
    """A thousand names in the directory for one large member: refused for the sum of their sizes."""
    path = tmp_path / "bad.npz"
    write(path, members | {WEIGHT: npy(np.zeros(100_000))})
    with zipfile.ZipFile(path, "a") as archive:
        for n in range(1000):
            copied = copy.copy(archive.getinfo(WEIGHT))
            copied.filename = copied.orig_filename = f"array/{n}.npy"
            archive.filelist.append(copied)
        archive._didModify = True
    message, peak = refusal_of(path)
    assert "damaged" in message
    assert peak < 4 * path.stat().st_size


@pytest.mark.parametrize(
    "content",
    [
        npy(np.array([None, {}], object), allow_pickle=True),
        npy(np.zeros(2, [("a", "O")]), allow_pickle=True),
        npy(np.zeros((3, 2), "M8[s]")),
        npy(np.zeros((3, 2), "V8")),
        npy(np.zeros((3, 2), [("a", "<f4")])),
        npy(np.zeros((3, 2), "S4")),
        npy(np.zeros((3, 2), "U0")),
        npy(np.zeros((3, 2), "c16")),
        b"\x93NUMPY\x01\x00" + struct.pack("<H", 65535) + b"(" * 65535,
        b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{}",
        b"\x93NUMPY\x09\x00",
        b"\x93NUMPY",
        b"",
        *(
            b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text
            for text in (
                b"{'descr': '<f4', 'fortran_order': False, 'shape': (%d,), }\n" % 2**60,
                b"{'descr': '<f4', 'fortran_order': False, 'shape': (%d, 0), }\n" % 2**62,
                b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -1), }\n",
                b"{'descr': '<f4', 'fortran_order': False, 'shape': (1e300,), }\n",
                b"{'descr': '|U%d', 'fortran_order': False, 'shape': (), }\n" % 2**40,
                b"{'descr': __import__('os').abort(), 'fortran_order': False, 'shape': (), }\n",
                b"[" * 9000 + b"\n",
            )
        ),
    ],
    ids=lambda content: str(content[10:60]),
)
def test_what_is_no_array_of_numbers(content, members, tmp_path):
    """In the place of a weight, of the header, and beside them; with a checksum and without."""
    path = tmp_path / "bad.npz"
    for name in (WEIGHT, "header.npy", "array/more.npy"):
        write(path, members | {name: content})
        message, peak = refusal_of(path)
        assert "damaged" in message
        assert peak < 4_000_000  # the parser of NumPy's headers, of at most 10,000 characters


@pytest.mark.parametrize(
    "header",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        "1" + "0" * 5000,
        "NaN",
        "null",
        "[]",
        "{}",
        '"' + "a" * 100_000,
        '{"format": "rnncore model"}',
        '{"format": "rnncore model", "version": 1e400, "model": "SequenceTagger", "description": {}}',
    ],
    ids=lambda header: header[:20],
)
def test_headers(header, members, tmp_path):
    path = tmp_path / "bad.npz"
    write(path, members | {"header.npy": npy(np.array(header))})
    message, peak = refusal_of(path)
    assert "damaged" in message or "version inf" in message
    assert peak < 1_000_000 + 4 * path.stat().st_size  # a character takes 4 bytes in the file, fewer in a str


@pytest.mark.parametrize("version", READABLE)
def test_an_archive_in_an_archive(version, members, tmp_path):
    """Which zip would find if it were searched for: what is loaded is the outer one, or nothing."""
    path, inner = tmp_path / "bad.npz", io.BytesIO()
    write(inner, members)
    header = json.dumps({"format": "rnncore model", "version": version, "model": "SequenceTagger", "description": {}})
    write(path, {"header.npy": npy(np.array(header)), WEIGHT: inner.getvalue()})
    assert "damaged" in refusal_of(path)[0]
