"""Files with flipped bits, writes without room, and runs that are killed while they save.

``PYTHONPATH=tests python -m support.survival --kills 200 --flips 20000 --writes 600`` prints how many were survived.
"""

import argparse
import contextlib
import io
import json
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

import rnncore as rc
from rnncore.cli import main
from rnncore.models.storage import read_model

# ---- bits -----------------------------------------------------------------------------------------------------------


def contents_of(path):
    """All that a model file says, to the bit."""
    name, description, arrays = read_model(path)
    return name, json.dumps(description), {key: (a.dtype, a.shape, a.tobytes()) for key, a in arrays.items()}


def flip_bits(path, bits):
    """Load a file with each of these bits flipped in turn. -> how many were refused, and how many changed nothing"""
    found, good, wanted = Counter(), path.read_bytes(), contents_of(path)
    damaged = path.with_name("damaged.npz")
    for bit in bits:
        content = bytearray(good)
        content[bit // 8] ^= 1 << bit % 8
        damaged.write_bytes(content)
        try:
            rc.load(damaged)
        except ValueError as error:
            assert str(damaged) in str(error)
            assert "damaged" in str(error)
            found["refused"] += 1
        else:
            assert contents_of(damaged) == wanted, f"bit {bit}"
            found["the same model"] += 1
    return found


# ---- kills ----------------------------------------------------------------------------------------------------------

TRAIN = "--resume --epochs 60 --hidden 4 --batch 2 --chunk 16 --sample 1 --dropout 0.2 --dtype float64".split()


def run(folder, name):
    """Begin the run of a model in a folder, or go on with it: one of training.MODELS, or "train" of the command line.

    It saves after every update or epoch. The file "saving" has a byte that is 1 during a save.
    """
    from . import training

    (folder / "saving").write_bytes(b"\0")
    with open(folder / "saving", "r+b") as file:
        saving = mmap.mmap(file.fileno(), 1)
    save, path = rc.models.Model.save, folder / "model.npz"

    def marked(*arguments, **options):
        saving[0] = 1
        save(*arguments, **options)
        saving[0] = 0

    rc.models.Model.save = marked
    print("ready", flush=True)
    if name == "train":
        (folder / "text").write_text(training.LINES)
        with contextlib.redirect_stdout(io.StringIO()):
            assert main(["train", str(folder / "text"), "-o", str(path), *TRAIN]) == 0
    else:
        resume = path.exists()
        model = rc.load(path) if resume else training.make(name, epochs=12, dropout=0.2)
        training.fit(model, True, callback=lambda at: model.save(path, training=True), resume=resume)


def start(folder, name):
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-P", "-m", "support.survival", "--run", str(folder), name]
    paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)})
    assert process.stdout.readline() == b"ready\n"
    return process


def end_of(folder):
    """What a run came to."""
    model = rc.load(folder / "model.npz")
    history = [{key: value for key, value in record.items() if key != "seconds"} for record in model.history]
    return model.losses, history, {name: p.tobytes() for name, p in model.params.items()}


def kill_runs(folder, name, count, rng):
    """Kill runs of a model at random moments, go on with each from its file, and kill it again, until it has ended.

    Returns how many kills came during a save, between saves and before the first file; and how many left a second file,
    which must be whole: they came after it was written and named, and before it took the place of the first.
    """
    found, number = Counter(), 0
    with start(folder / "whole", name) as process:
        begin = time.monotonic()
        assert process.wait() == 0
    longest, wanted = 0.7 * (time.monotonic() - begin), end_of(folder / "whole")
    while True:
        place = folder / str(number)
        with start(place, name) as process:
            if found.total() < count:
                try:
                    process.wait(longest * rng.random())
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
            assert process.wait() in (0, -signal.SIGKILL)
        if process.returncode:
            if (place / "model.npz").exists():
                rc.load(place / "model.npz")
                found["in a save" if (place / "saving").read_bytes() == b"\1" else "between saves"] += 1
            else:
                found["before the first file"] += 1
            continue
        assert end_of(place) == wanted
        if found.total() == count:
            break
        number += 1
    left = list(folder.glob("*/.rnncore-*"))
    for path in left:
        rc.load(path)
    return found, len(left)


def report(kills, flips, writes):
    from .files import run_out_of_room
    from .training import MODELS, fit, make

    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        found, left = Counter(), 0
        names = [*MODELS, "train"]
        for n, name in enumerate(names):
            (place := Path(folder, name)).mkdir()
            found_of_one, left_of_one = kill_runs(place, name, len(range(n, kills, len(names))), rng)
            found, left = found + found_of_one, left + left_of_one
        how = ", ".join(f"{count} {when}" for when, count in found.most_common())
        print(f"kills survived: {found.total()} of {kills} ({how}); {left} left a second file, whole")
        found, failed = Counter(), 0
        for n, name in enumerate(MODELS):
            path = Path(folder, "model.npz")
            model, training = fit(make(name)), bool(n % 2)
            model.save(path, training=training)
            bits = rng.choice(8 * path.stat().st_size, len(range(n, flips, len(MODELS))), replace=False)
            found += flip_bits(path, bits.tolist())
            sizes = rng.integers(path.stat().st_size, size=len(range(n, writes, len(MODELS)))).tolist()
            save = partial(model.save, training=training)
            failed += run_out_of_room(save, path, sizes)
        how = ", ".join(f"{count:,} {what}" for what, count in found.most_common())
        print(f"flipped bits survived: {found.total():,} of {flips:,} ({how})")
        print(f"writes without room survived: {failed:,} of {writes:,} (one error, the old file whole, nothing left)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--flips", type=int, default=20_000)
    parser.add_argument("--writes", type=int, default=600)
    parser.add_argument("--run", nargs=2)
    options = parser.parse_args()
    if options.run:
        run(Path(options.run[0]), options.run[1])
    else:
        report(options.kills, options.flips, options.writes)
