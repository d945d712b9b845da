"""``mpiexec rnncore train``: the model of one process; said and written once."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support.training import assert_same

import rnncore as rc
from rnncore.cli import main, texts

MPIEXEC = Path(sys.executable).with_name("mpiexec")
RNNCORE = [sys.executable, "-m", "rnncore"]
TEXT = "the cat sat on the mat and the dog lay in the log. " * 100
SMALL = ["--hidden", "8", "--batch", "8", "--chunk", "16", "--sample", "20"]

pytestmark = pytest.mark.skipif(not MPIEXEC.exists(), reason="there is no mpiexec beside this Python")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "text").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RNNCORE_NUM_THREADS", "1")
    return tmp_path


def on_ranks(size, *arguments, **options):
    command = [str(MPIEXEC), "-n", str(size), *RNNCORE, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=100, stdin=subprocess.DEVNULL, check=False, **options
    )


def test_train_on_two_ranks(folder, capsys):
    """And go on, on one and on two."""
    found = on_ranks(2, "train", "text", *SMALL, "--epochs", "2", "-o", "two.npz")
    assert found.returncode == 0, found.stderr
    lines = found.stdout.splitlines()
    assert lines[0] == "2 ranks of MPI on 1 machine, 1 thread each"
    for line in ("epoch 1/2", "epoch 2/2", "model: two.npz", "text: 4,590 characters to train on, 510 held out"):
        assert sum(line in said for said in lines) == 1, line
    assert main(["train", "text", *SMALL, "--epochs", "2", "--shards", "8", "-o", "one.npz"]) == 0
    one, two = rc.load(folder / "one.npz"), rc.load(folder / "two.npz")
    assert_same(one.params, two.params)
    assert one.losses == two.losses

    assert main(["train", "text", *SMALL, "--epochs", "3", "--shards", "8", "-o", "one.npz", "--resume"]) == 0
    found = on_ranks(2, "train", "text", *SMALL, "--epochs", "3", "-o", "two.npz", "--resume")
    assert found.returncode == 0, found.stderr
    assert_same(rc.load(folder / "one.npz").params, rc.load(folder / "two.npz").params)
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "cannot read nothing: No such file or directory"),
        (["text", "--shards", "1"], "shards must be at least the number of ranks, 2; got 1"),
        (["text", "--learning-rate", "0"], "argument --learning-rate"),
        (["text", "-o", "none/model.npz"], "cannot write none/model.npz"),
    ],
)
def test_errors_are_said_once(arguments, said):
    found = on_ranks(2, "train", *arguments)
    assert found.returncode == 2
    if "--learning-rate" not in arguments:  # of argparse, which knows nothing of ranks
        assert found.stderr.count(said) == 1
    assert said in found.stderr
    assert "Traceback" not in found.stderr


def test_a_run_on_another_text_is_refused_once(folder):
    assert main(["train", "text", *SMALL, "--epochs", "1", "--shards", "8"]) == 0
    (folder / "text").write_text(TEXT[::-1])
    found = on_ranks(2, "train", "text", *SMALL, "--epochs", "2", "--resume")
    assert found.returncode == 2
    assert found.stderr.count("cannot go on with model.npz: resume needs the data of the run") == 1
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize("size", [1, 2])
def test_a_learning_rate_that_is_far_too_large_is_said_once(folder, size):
    """In a line, not a traceback; the file has the last parameters that were finite."""
    found = on_ranks(size, "train", "text", *SMALL, "--learning-rate", "3e38")
    assert found.returncode == 2
    said = re.findall("update [23], in epoch 1: parameter '.*' would become infinite or NaN", found.stderr)
    assert len(said) == 1, found.stderr
    assert "Traceback" not in found.stderr
    assert all(np.isfinite(p).all() for p in rc.load(folder / "model.npz").params.values())


def test_a_large_text_stays_in_its_file(folder, monkeypatch, capsys):
    """The same model as of a text in memory; and what is wrong with it is said in a line."""
    arguments = ["train", "text", *SMALL, "--epochs", "1"]
    assert main([*arguments, "-o", "small.npz"]) == 0
    monkeypatch.setattr(texts, "LARGE", 100)
    assert main([*arguments, "-o", "large.npz"]) == 0
    assert_same(rc.load("small.npz").params, rc.load("large.npz").params)
    assert len(list(folder.glob("text.*.ids.npy"))) == 2
    (folder / "text").write_bytes(b"abc\xff" * 100)
    assert main(arguments) == 2
    assert "text is not utf-8-sig text" in capsys.readouterr().err


def test_three_ranks():
    found = on_ranks(3, "train", "text")
    assert found.returncode == 2
    assert found.stderr.count("mpiexec -n must have 1, 2, 4, 8, ... ranks; got 3") == 1


def test_what_each_rank_sees():
    found = on_ranks(2, "train", "--ranks-check")
    assert found.returncode == 0
    rows = [re.split("  +", line) for line in found.stdout.splitlines()]
    assert rows[0][:4] == ["rank", "machine", "cores", "threads"]
    assert [row[0] for row in rows[1:]] == ["0 of 2", "1 of 2"]
    assert [row[3] for row in rows[1:]] == ["1", "1"]


def test_a_launcher_of_another_mpi(monkeypatch, capsys):
    """Processes that were started together but do not see each other would all write the same file."""
    monkeypatch.setenv("PMI_SIZE", "4")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    assert main(["train", "text"]) == 2
    assert "one of 4 processes, which need mpi4py" in capsys.readouterr().err

    found = subprocess.run(
        [*RNNCORE, "train", "text"],
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "PMI_SIZE"} | {"SLURM_STEP_NUM_TASKS": "4"},
    )
    assert found.returncode == 2
    assert "one of 4 processes, but alone for mpi4py" in found.stderr


def test_ctrl_c_saves_and_the_run_goes_on(folder):
    command = [str(MPIEXEC), "-n", "2", *RNNCORE, "train", "text", *SMALL, "--epochs", "10000", "--patience", "10000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        said = ""
        while "epoch 3/" not in said:
            said += process.stdout.readline()
        process.send_signal(signal.SIGINT)  # as a terminal does; mpiexec passes it on
        said += process.communicate(timeout=60)[0]
    finally:
        process.kill()
    model = rc.load(folder / "model.npz")
    assert model.losses
    assert "the same command with --resume goes on" in said


def test_a_stopped_rank_ends_the_run(folder):
    output = f"{folder.name}.npz"  # by which its processes are found
    command = [str(MPIEXEC), "-n", "2", *RNNCORE, "train", "text", "-o", output, *SMALL]
    command += ["--epochs", "10000", "--timeout", "4"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        said = ""
        while "epoch 2/" not in said:
            said += process.stdout.readline()
        pids = [int(pid) for pid in subprocess.check_output(["pgrep", "-f", f"rnncore train text -o {output}"]).split()]
        ranks = [pid for pid in pids if pid != process.pid and "python" in os.readlink(f"/proc/{pid}/exe")]
        assert len(ranks) == 2
        os.kill(max(ranks), signal.SIGSTOP)
        begin = time.monotonic()
        said += process.communicate(timeout=60)[0]
    finally:
        process.kill()
    assert time.monotonic() - begin < 4 + 5
    assert process.returncode != 0
    assert "did not answer for 4 s" in said
    assert "Traceback" not in said
    assert rc.load(folder / output).losses
