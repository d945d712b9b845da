"""Disks that are full or cannot be written to: one error that names the file; the old file stays; nothing is left."""

import errno
import importlib
import os
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
from support.files import at_most, mounted, run_out_of_room
from support.training import fit, make

import rnncore as rc
from rnncore.cli import main

TEXT = "the cat sat on the mat. " * 20
TRAIN = "--epochs 1 --hidden 4 --batch 2 --chunk 16 --sample 5".split()


@cache
def model():
    return fit(make("tagger"))


def save_layer(path):
    importlib.import_module("rnncore.interop.safetensors").save(rc.LSTM(3, 40), path)


WRITERS = {
    "model": lambda path: model().save(path),
    "training": lambda path: model().save(path, training=True),
    "int8": lambda path: model().quantize("int8").save(path),
    "safetensors": save_layer,
}


@pytest.fixture(params=WRITERS)
def write(request):
    if request.param == "safetensors":
        pytest.importorskip("safetensors")
    return WRITERS[request.param]


def everything(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_write_that_ends_anywhere(write, tmp_path):
    """Beside an old file, and where there is none."""
    write(tmp_path / "whole")
    size = (tmp_path / "whole").stat().st_size
    sizes = [0, 1, size // 2, size - 1, *np.random.default_rng(0).integers(2, size - 1, 6).tolist()]
    (tmp_path / "old").write_bytes(b"old")
    for name in ("old", "new"):
        assert run_out_of_room(write, tmp_path / name, sizes) == len(sizes)


@pytest.mark.parametrize("old", [False, True])
def test_a_disk_that_is_full(write, old, tmp_path):
    with mounted(tmp_path, "size=48k"):
        if old:
            (tmp_path / "file").write_bytes(b"old")
        with open(tmp_path / "other", "wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(bytes(4096))
        before = everything(tmp_path)
        with pytest.raises(OSError, match="No space left on device") as caught:
            write(tmp_path / "file")
        assert caught.value.filename == str(tmp_path / "file")
        assert everything(tmp_path) == before


def test_a_folder_that_is_read_only(write, tmp_path):
    with mounted(tmp_path, "size=1m"):
        (tmp_path / "file").write_bytes(b"old")
        subprocess.run(["mount", "-o", "remount,ro", tmp_path], check=True)
        for name in ("file", "new"):
            with pytest.raises(OSError, match="Read-only file system") as caught:
                write(tmp_path / name)
            assert caught.value.filename == str(tmp_path / name)
        assert everything(tmp_path) == {"file": b"old"}


# ---- ids of a text --------------------------------------------------------------------------------------------------


def test_ids_on_a_full_disk(tmp_path):
    (tmp_path / "text").write_text(TEXT)
    corpus = rc.Corpus(tmp_path / "text")
    vocabulary = corpus.vocabulary()
    for size in (0, 1, 127, 128, 500, 128 + 2 * len(TEXT) - 1):
        with pytest.raises(OSError, match="File too large") as caught, at_most(size):
            corpus.ids(vocabulary)
        assert caught.value.filename.endswith(".ids.npy")
        assert os.listdir(tmp_path) == ["text"]
    assert len(corpus.ids(vocabulary)) == len(TEXT)


def test_ids_beside_a_text_that_is_read_only(tmp_path):
    with mounted(tmp_path, "size=1m"):
        (tmp_path / "text").write_text(TEXT)
        subprocess.run(["mount", "-o", "remount,ro", tmp_path], check=True)
        corpus = rc.Corpus(tmp_path / "text")
        vocabulary = corpus.vocabulary()
        with pytest.warns(UserWarning, match="go to a temporary file"):
            ids = corpus.ids(vocabulary)
        assert ids[:].tolist() == vocabulary.encode(TEXT).tolist()
        assert os.listdir(tmp_path) == ["text"]


# ---- the command line -----------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "text").write_text(TEXT)
    main(["train", str(tmp_path / "text"), "-o", str(tmp_path / "model.npz"), *TRAIN])
    return tmp_path


@pytest.mark.parametrize("size", [0, 1000, 5000])
@pytest.mark.parametrize("command", ["train", "resume", "quantize"])
def test_commands_on_a_full_disk(command, size, folder, capsys):
    """The message names the file; the old model stays."""
    output = folder / ("small.npz" if command == "quantize" else "model.npz")
    arguments = {
        "train": ["train", str(folder / "text"), "-o", str(output), *TRAIN],
        "resume": ["train", str(folder / "text"), "-o", str(output), *TRAIN, "--resume", "--epochs", "2"],
        "quantize": ["quantize", str(folder / "model.npz"), "int8", "-o", str(output)],
    }
    before = everything(folder)
    capsys.readouterr()
    with at_most(size):
        assert main(arguments[command]) == 2
    assert capsys.readouterr().err == f"rnncore: error: cannot write {output}: File too large\n"
    assert everything(folder) == before


def test_the_loss_curve_on_a_full_disk(folder, capsys):
    pytest.importorskip("matplotlib")
    from rnncore.cli.training import draw_loss_curve

    class Report:
        losses, held_out, saved_update = [3.0, 2.0], [(2, 2.5)], lambda self: 2

    before = everything(folder)
    capsys.readouterr()
    with at_most(1000):
        draw_loss_curve(Report(), folder / "model.png")
    message = f"rnncore: no loss curve: cannot write {folder / 'model.png'}: File too large\n"
    assert capsys.readouterr().err == message
    assert everything(folder) == before


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("command", ["info", "info model.npz", "sample model.npz", "score model.npz text"])
def test_output_to_a_full_disk(command, folder):
    with open("/dev/full", "wb") as full:
        result = subprocess.run(
            [sys.executable, "-m", "rnncore", *command.split()],
            cwd=folder,
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert result.returncode == 2
    assert result.stderr.decode().splitlines()[-1] == "rnncore: error: cannot use the output: No space left on device"
    assert b"Traceback" not in result.stderr


def test_a_text_without_room_for_its_ids(folder, capsys, monkeypatch):
    monkeypatch.setattr("rnncore.cli.texts.LARGE", 100)
    before = everything(folder)
    capsys.readouterr()
    with at_most(200):
        assert main(["train", str(folder / "text"), "-o", str(folder / "model.npz"), *TRAIN]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"rnncore: error: cannot use {folder / 'text'}.")
    assert error.endswith(".ids.npy: File too large\n")
    assert everything(folder) == before


# ---- power that goes ------------------------------------------------------------------------------------------------


def test_content_then_name_are_brought_to_the_disk(tmp_path, monkeypatch):
    """fsync of the file before it takes its name, and of the folder after that."""
    done = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor):
        found = os.fstat(descriptor)
        done.append("folder" if os.path.samestat(found, os.stat(tmp_path)) else ("content", found.st_size))
        fsync(descriptor)

    def noted_replace(*arguments):
        done.append("name")
        replace(*arguments)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    model().save(tmp_path / "model.npz")
    assert done == [("content", (tmp_path / "model.npz").stat().st_size), "name", "folder"]


def test_a_folder_that_cannot_be_brought_to_the_disk(tmp_path, monkeypatch):
    """As in some file systems: the file is there."""
    fsync = os.fsync

    def refuse(descriptor):
        if os.path.samestat(os.fstat(descriptor), os.stat(tmp_path)):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    model().save(tmp_path / "model.npz")
    assert rc.load(tmp_path / "model.npz").layers
