"""The loop: calls in a child process, so that a crash or a hang costs one call, and is reported."""

import argparse
import collections
import faulthandler
import json
import mmap
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HANG, EVERY = 20.0, 500  # seconds; calls between two notes of the counts
MOST_CRASHES = 50  # then something is wrong with all calls
LIMIT = 6 * 2**30  # bytes of address space, without a sanitizer


def child(seed, begin, end, directory):
    """Make the calls begin .. end - 1; the index of each goes to a file before it is made."""
    from .calls import Fuzzer

    directory = Path(directory)
    faulthandler.enable(open(directory / "crash", "w"))
    if "libasan" not in os.environ.get("LD_PRELOAD", ""):
        resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    with open(directory / "index", "r+b") as file:
        place = mmap.mmap(file.fileno(), 8)
    scratch = directory / "scratch"
    scratch.mkdir(exist_ok=True)
    os.chdir(scratch)
    sys.setswitchinterval(1e-5)
    fuzzer = Fuzzer(seed, scratch)
    counts = collections.Counter()
    with open(directory / "found", "a") as found:
        for index in range(begin, end):
            place[:] = index.to_bytes(8, "little")
            outcome = fuzzer.call(index)
            counts["calls"] += 1
            counts[f"reached {outcome.name}"] += 1
            counts[f"error {outcome.error}" if outcome.error else "returned"] += 1
            for finding in outcome.findings:
                note = {"index": index, "name": outcome.name, "hostile": outcome.hostile, "found": finding}
                found.write(json.dumps(note) + "\n")
                found.flush()
            if counts["calls"] % EVERY == 0 or index == end - 1:
                (directory / f"counts{begin}").write_text(json.dumps(counts))


def run(seed, calls, first=0, directory=None, progress=False):
    """Make the calls in child processes, a new one after each crash; return the counts and what was found."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(directory or temporary)
        directory.mkdir(exist_ok=True)
        (directory / "found").touch()
        begin, end = first, first + calls
        crashes = []
        while begin < end:
            (directory / "index").write_bytes(begin.to_bytes(8, "little"))
            error = _watch(seed, begin, end, directory, progress)
            index = int.from_bytes((directory / "index").read_bytes(), "little")
            if error is None:
                break
            crashes.append({"index": index, "name": "?", "hostile": [], "found": error})
            begin = index + 1
            if len(crashes) == MOST_CRASHES:
                break
        counts = collections.Counter()
        for file in directory.glob("counts*"):
            counts.update(json.loads(file.read_text()))
        found = [json.loads(line) for line in (directory / "found").read_text().splitlines()]
        return counts, crashes + found


def _watch(seed, begin, end, directory, progress):
    """Run a child; return None, or how it ended."""
    # -P: the package is that of this process, not one of the folder where it began.
    command = [sys.executable, "-P", "-m", "fuzz", "--child", str(begin), str(end), str(directory), "--seed", str(seed)]
    paths = [str(Path(__file__).parent.parent), *map(os.path.abspath, filter(None, sys.path))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    with open(directory / "output", "w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        seen, since, told = None, time.monotonic(), time.monotonic()
        while process.poll() is None:
            time.sleep(0.2)
            index = (directory / "index").read_bytes()
            if index != seen:
                seen, since = index, time.monotonic()
            elif time.monotonic() - since > HANG:
                process.send_signal(signal.SIGABRT)  # faulthandler writes where it is
                process.wait()
                return "hang: " + _tail(directory / "crash")
            if progress and time.monotonic() - told > 60:
                told = time.monotonic()
                print(f"call {int.from_bytes(seen, 'little')}", flush=True)
        if process.returncode == 0:
            return None
        output.seek(0)
        text = output.read()
        begin = max(text.find("ERROR: AddressSanitizer"), text.find("runtime error"), 0)
        return f"crash: exit {process.returncode}\n{text[begin : begin + 3000]}\n{_tail(directory / 'crash')}"


def _tail(path):
    return path.read_text()[-3000:] if path.exists() else ""


def _kind(note):
    """Crashes first, then errors of a type that must not be, then messages that do not name the argument."""
    kinds = ("crash", "hang", "memory", "time"), ("TypeError", "ValueError", "IndexError", "UFuncTypeError")
    return 0 if note["found"].startswith(kinds[0]) else 2 if note["found"].startswith(kinds[1]) else 1


def report(counts, found, seed):
    reached = sorted(name for name in counts if name.startswith("reached "))
    print(f"{counts['calls']} calls of {len(reached)} callables, seed {seed}; {counts['returned']} returned")
    for name, count in sorted(counts.items(), key=lambda item: -item[1]):
        if name.startswith("error "):
            print(f"  {count:8d} {name.removeprefix('error ')}")
    groups = collections.defaultdict(list)
    for note in found:
        groups[note["found"].rpartition(" at ")[2] if " at " in note["found"] else note["found"][:40]].append(note)
    for notes in sorted(groups.values(), key=lambda notes: (_kind(notes[0]), -len(notes))):
        note = notes[0]
        others = ", ".join(str(n["index"]) for n in notes[1:4])
        print(f"\n{len(notes)} x {note['name']} ({'; '.join(note['hostile'])})\n    {note['found']}")
        print(f"    --seed {seed} --only {note['index']}" + (f"; also {others}" if others else ""))
        print("    callables: " + ", ".join(sorted({n["name"] for n in notes})[:6]))
    print(f"\nfindings: {len(found)} in {len(groups)} places")
    return 1 if found else 0


def main(argv=None):
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--calls", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="index of the first call")
    parser.add_argument("--only", type=int, help="make the call of this index, in this process, and show its error")
    parser.add_argument("--keep", help="directory for the notes")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.child:
        begin, end, directory = options.child
        return child(options.seed, int(begin), int(end), directory)
    if options.only is not None:
        return only(options.seed, options.only)
    return report(*run(options.seed, options.calls, options.first, options.keep, progress=True), options.seed)


def only(seed, index):
    from .calls import Fuzzer

    faulthandler.enable()
    with tempfile.TemporaryDirectory() as scratch:
        fuzzer = Fuzzer(seed, scratch)
        outcome = fuzzer.call(index, shows=True)
    print(outcome)
    return 1 if outcome.findings else 0
