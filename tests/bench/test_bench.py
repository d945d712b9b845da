"""The comparison runs in every mode, with whatever peers are installed; no figure is judged here."""

import json
import os
import re
import subprocess
import sys

import pytest

from rnncore.bench import command, modes, report, workloads
from rnncore.engine.quantization import PRECISIONS


def run(*arguments):
    command = [sys.executable, "-P", "-m", "rnncore", "bench", "--seconds", "0.001", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mode", modes.MODES)
def test_every_mode_runs(mode, dtype, monkeypatch):
    """On small workloads."""
    monkeypatch.setattr(workloads, "SHAPES", {(3, 2, 4, 5): ""})
    monkeypatch.setattr(workloads, "BATCHES", [(3, 2, 4, 5)])
    monkeypatch.setattr(workloads, "BIDIRECTIONAL", [(3, 2, 4, 5)])
    monkeypatch.setattr(workloads, "PRECISION", [(3, 2, 4, 5)])
    monkeypatch.setattr(workloads, "SAMPLED", {5: 10})
    sizes = [("gru", 20, None, 8, 2, 3, 4), ("lstm", 20, 5, 8, 1, 3, 4)]
    monkeypatch.setattr(workloads, "LANGUAGE_MODELS", [workloads.LanguageModelSize(*size) for size in sizes])
    parser = command.make_parser()
    arguments = parser.parse_args(["--seconds", "0.001", "--mode", mode])
    records = list(modes.MODES[mode](arguments, mode, dtype))
    assert records
    for record in records:
        assert record.dtype in (PRECISIONS if mode == "precision" else (dtype,))
        assert "engine" in record.seconds
        assert min(record.seconds.values()) > 0
        assert record.workload in str(record)
    assert len(report.summary(records)) <= 4


def test_json_and_threads(tmp_path):
    file = tmp_path / "figures.json"
    result = run("--cell", "mingru", "--mode", "forward", "--threads", "2", "--json", str(file))
    assert result.returncode == 0, result.stderr
    content = json.loads(file.read_text())
    assert content["threads"] == 2
    assert len(content["records"]) == len(workloads.SHORT)
    assert all(record["limit"] > 0 for record in content["records"])
    assert "of the reference: geometric mean" in result.stdout


def test_wrong_arguments():
    assert "--threads must be at least 1" in run("--threads", "0").stderr
    assert "invalid choice" in run("--mode", "nothing").stderr
    command = [sys.executable, "-P", "-m", "rnncore", "info", "--what"]
    other = subprocess.run(command, check=False, capture_output=True, text=True)
    assert other.returncode == 2
    assert "unrecognized arguments: --what" in other.stderr


def test_threads_are_pinned_in_a_new_process_only_where_they_are_not(monkeypatch):
    for name in command.PINNED:
        monkeypatch.setenv(name, "1")
    assert command.run_pinned(command.make_parser().parse_args([]), []) is None
    assert os.environ["RNNCORE_NUM_THREADS"] == "1"


MINE = """
import numpy as np, rnncore as rc
def pair():
    x, Wx, Wh, b = np.ones((9, 2, 3)), np.ones((3, 16)), np.ones((4, 16)), np.zeros(16)
    return (lambda: rc.reference.lstm_forward(x, Wx, Wh, b)[0]), (lambda: rc.lstm_forward(x, Wx, Wh, b)[0])
def pairs():
    return {"right": pair(), "wrong": (lambda: 1.0, lambda: 2.0)}
def number():
    return 5
"""


def test_mine(tmp_path, monkeypatch):
    (tmp_path / "mymodel.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    result = run("--mine", "mymodel:pair")
    assert result.returncode == 0, result.stderr
    assert re.fullmatch(r"pair  original \S+ \S+, replacement \S+ \S+: \S+ times as fast\n", result.stdout)
    result = run("--mine", "mymodel:pairs")
    assert result.returncode == 1
    assert result.stdout.splitlines()[1] == "wrong  not the same: result differs by 1; allowed: 1e-10"


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("mymodel", "--mine must be module:function; got 'mymodel'"),
        ("absent:pair", "there is no module 'absent' here"),
        ("mymodel:absent", "mymodel has no function 'absent'"),
        (
            "mymodel:number",
            "must return a pair of callables, (original, replacement), or a dict of such pairs; got int",
        ),
    ],
)
def test_mine_that_is_not_there(place, message, tmp_path, monkeypatch, capsys):
    (tmp_path / "mymodel.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in command.PINNED:
        monkeypatch.setenv(name, "1")
    with pytest.raises(SystemExit) as stop:
        command.main(["--mine", place])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
