"""The comparison with the originals runs; no figure is judged here."""

import os
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench"


def run(folder, *arguments):
    command = [sys.executable, "-P", BENCH / "dropin.py", "--seconds", "0.001", *arguments]
    paths = os.pathsep.join(filter(None, [str(BENCH), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": paths}
    options = {"cwd": folder, "env": environment, "timeout": 300}
    return subprocess.run(command, check=False, capture_output=True, text=True, **options)


def test_a_row(tmp_path):
    result = run(tmp_path, "--only", "coursera rnn")
    assert result.returncode == 0, result.stderr
    _, _, head, _, *rows = result.stdout.splitlines()
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [row[0] for row in rows] == ["Coursera RNN", "Coursera RNN 64"]
    assert {len(row) for row in rows} == {head.count("|") - 1}
    assert all(float(row[k]) > 0 for row in rows for k in (3, 4, 5, 8))


def test_a_row_that_is_not_there(tmp_path):
    result = run(tmp_path, "--only", "nothing")
    assert result.returncode == 2
    assert "no row has nothing in its name" in result.stderr
