"""Damaged files are noticed, and a run that is killed goes on. ``support/survival.py`` prints the figures."""

import os
import signal
import zipfile

import numpy as np
import pytest
from support.survival import flip_bits, kill_runs
from support.training import MODELS, fit, make

import rnncore as rc

KILLS = int(os.environ.get("RNNCORE_TEST_KILLS", "20"))
FLIPS = int(os.environ.get("RNNCORE_TEST_FLIPS", "300"))
RUNS = ("language", "seq2seq", "train")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kept", ["model", "training", "int8"])
def test_a_flipped_bit_is_noticed_or_changes_nothing(name, kept, tmp_path):
    """RNNCORE_TEST_FLIPS=1000000: all bits of each file."""
    model = fit(make(name))
    model = model.quantize("int8") if kept == "int8" else model
    model.save(tmp_path / "model.npz", training=kept == "training")
    size = 8 * (tmp_path / "model.npz").stat().st_size
    bits = np.random.default_rng(0).choice(size, min(FLIPS, size), replace=False)
    found = flip_bits(tmp_path / "model.npz", bits.tolist())
    assert found.total() == len(bits)
    assert found["refused"] > len(bits) / 2


def tiny():
    return rc.SequenceClassifier(hidden_size=1, embedding_size=0, cell="rnn", epochs=1).fit(["ab", "b"], ["p", "q"])


def test_every_bit_of_the_directory_of_the_archive(tmp_path):
    """Which CRC-32 does not cover: names, sizes, places and checksums of the arrays."""
    path = tmp_path / "model.npz"
    tiny().save(path)
    with zipfile.ZipFile(path) as archive:
        begin = archive.start_dir
    found = flip_bits(path, range(8 * begin, 8 * path.stat().st_size))
    assert found["refused"] > 1000


def members_of(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_members(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)


CHANGES = ["swap", "value", "dtype", "name", "missing", "surplus", "twice", "header", "no checksum"]


@pytest.mark.parametrize("change", CHANGES)
def test_a_whole_archive_with_other_arrays_is_refused(change, tmp_path):
    """Whose own checksums are right."""
    path = tmp_path / "model.npz"
    fit(make("tagger", cell="gru"), True, callback=lambda at: at.update == 7).save(path, training=True)
    members = members_of(path)
    one, other = "array/recurrent.b_0.npy", "array/recurrent.b_0_reverse.npy"
    if change == "swap":
        members[one], members[other] = members[other], members[one]
        assert members[one] != members[other]
    elif change == "value":
        members[one] = members[one][:-1] + bytes([members[one][-1] ^ 1])
    elif change == "dtype":
        losses = "array/training/losses.npy"
        members[losses] = members[losses].replace(b"<f8", b"<i8")
    elif change == "name":
        best = "array/training/best_params/"
        assert any(name.startswith(best) for name in members)
        members = {name.replace(best, best.replace("best", "last")): content for name, content in members.items()}
    elif change == "missing":
        del members[one]
    elif change == "surplus":
        members["array/more.npy"] = members[one]
    elif change == "header":
        learning_rate = "0.002".encode("utf-32-le")
        assert learning_rate in members["header.npy"]
        members["header.npy"] = members["header.npy"].replace(learning_rate, "0.003".encode("utf-32-le"))
    elif change == "no checksum":
        del members["sha256.npy"]
    write_members(path, members.items())
    if change == "twice":
        with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as archive:
            archive.writestr(one, members[one])
    with pytest.raises(ValueError, match=f"^{path} is .*damaged"):
        rc.load(path)


def test_truncated_at_every_length(tmp_path):
    path, cut = tmp_path / "model.npz", tmp_path / "cut.npz"
    tiny().save(path)
    content = path.read_bytes()
    for length in range(len(content)):
        cut.write_bytes(content[:length])
        with pytest.raises(ValueError, match=f"^{cut} is .*damaged"):
            rc.load(cut)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_killed_again_and_again(name, tmp_path):
    """RNNCORE_TEST_KILLS=200: what is on the disk loads, and in the end the run has the bits of one without kills."""
    kills = len(range(RUNS.index(name), KILLS, len(RUNS)))
    found, _ = kill_runs(tmp_path, name, kills, np.random.default_rng(RUNS.index(name)))
    assert found.total() == kills
    assert kills < 50 or found["in a save"] > 0  # of a few, none may meet one
