"""Run functions on several ranks of MPI, each a process; ``python -m support.ranks`` is one of them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest


def run_on_ranks(size, function, folder, *arguments, check=True, seconds=100):
    """Call function(comm, folder, *arguments) of this module on some ranks. -> results by rank, or what mpiexec said.

    check: the ranks are to end well; otherwise return the completed process, and the seconds that it took.
    """
    begin = time.monotonic()
    process = start_on_ranks(size, function, folder, *arguments)
    try:
        output, errors = process.communicate(timeout=seconds)
    finally:
        process.kill()
    result = subprocess.CompletedProcess(process.args, process.returncode, output, errors)
    if not check:
        return result, time.monotonic() - begin
    assert result.returncode == 0, result.stdout + result.stderr
    return [json.loads((Path(folder) / f"rank-{rank}.json").read_text()) for rank in range(size)]


def start_on_ranks(size, function, folder, *arguments):
    """The process of mpiexec, whose ranks call the function."""
    pytest.importorskip("mpi4py")
    mpiexec = Path(sys.executable).with_name("mpiexec")
    found = str(mpiexec) if mpiexec.exists() else shutil.which("mpiexec")
    if found is None:
        pytest.skip("there is no mpiexec")
    command = [found, "-n", str(size), sys.executable, "-P", "-m", "support.ranks", function.__name__, str(folder)]
    paths = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    options = {"env": os.environ | {"PYTHONPATH": paths}, "stdin": subprocess.DEVNULL}
    options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*command, json.dumps(arguments)], **options)


def checksum(arrays):
    return zlib.crc32(b"".join(array.tobytes() for array in arrays))


# ---- what ranks do --------------------------------------------------------------------------------------------------


def exchanges(comm, folder):
    """Sums, gathered arrays and objects of Ranks, and reduce, beside what they must be."""
    import numpy as np

    from rnncore.distributed import Ranks, reduce, tree_sum

    ranks, rng, wrong = Ranks(comm), np.random.default_rng(0), []
    for dtype in ("float32", "float64"):
        for n in (0, 1, 2, 3, 17, 1000, 200_001):
            values = rng.normal(size=(ranks.size, n)).astype(dtype)
            flat = values[ranks.rank].copy()
            ranks.sum(flat)
            if not np.array_equal(flat, tree_sum(values)):
                wrong.append(f"sum of {n}")
            counts = rng.integers(0, 5, ranks.size)
            bounds = np.cumsum([0, *counts])
            rows = rng.normal(size=(bounds[-1], 3)).astype(dtype)
            if not np.array_equal(ranks.gather(rows[bounds[ranks.rank] : bounds[ranks.rank + 1]], bounds), rows):
                wrong.append(f"gather of {counts}")
        grads = {"W": np.full((2, 3), ranks.rank + 1.0, dtype), "b": np.arange(4, dtype=dtype)}
        loss, weight = reduce(comm, grads, 2.0 * ranks.rank, 3 * ranks.rank)
        total = ranks.size * (ranks.size - 1) / 2
        if (loss, weight) != (2 / 3 if total else 0, 3 * total):
            wrong.append(f"reduce: {loss}, {weight}")
        if total:
            mean = np.float64(ranks.size * (ranks.size + 1) / 2) / (3 * total)
            np.testing.assert_allclose(grads["W"], mean, rtol=1e-6)
            np.testing.assert_allclose(grads["b"], ranks.size * np.arange(4) / (3 * total), rtol=1e-6)
    text = "x" * 200_000
    if ranks.broadcast(text if ranks.rank == 0 else None) != text:
        wrong.append("broadcast")
    if ranks.collect((ranks.rank, text)) != [(rank, text) for rank in range(ranks.size)]:
        wrong.append("collect")
    if ranks.size > 1:
        for values, refused in [({"a": 1}, False), ({"a": 1, "b": min(ranks.rank, 1)}, True)]:
            try:
                ranks.agree("things", values)
                raised = ""
            except ValueError as error:
                raised = str(error)
            if bool(raised) != refused or (refused and "b is 0 on rank 0 and 1 on rank 1" not in raised):
                wrong.append(f"agree: {raised!r}")
        try:
            reduce(comm, {"W" if ranks.rank else "V": np.ones(3)}, 0, 1)
            wrong.append("reduce took other names")
        except ValueError:
            pass
    return wrong


def fit_models(comm, folder, settings, options, names=None):
    """The run of each model on small data: checksum of the parameters, losses, history."""
    from . import training

    results = {}
    for name in names or training.MODELS:
        seen = []
        model = training.make(name, **settings)
        training.fit(model, True, comm=comm, callback=seen.append, **options)
        records = [{k: v for k, v in record.items() if k != "seconds"} for record in model.history]
        results[name] = {
            "parameters": checksum(model.params.values()),
            "losses": model.losses,
            "history": records,
            "calls": len(seen),
        }
    return results


def with_accident(comm, folder, kind, timeout):
    """Train, saving after every update on rank 0; rank 1 has an accident in its fifth update."""
    from . import training

    signal.signal(signal.SIGINT, signal.default_int_handler)
    model = training.make("language", epochs=4, batch_size=8, dropout=0.2)
    update, count = model._update, [0]

    def accident(part):
        count[0] += 1
        if comm.Get_rank() == 1 and count[0] == 4 * 5:  # of 8 shards it has 4
            if kind == "raise":
                raise ValueError("the data of rank 1 are bad")
            if kind == "interrupt":
                os.kill(os.getpid(), signal.SIGINT)
            if kind == "hang":
                time.sleep(1000)
            if kind == "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            if kind == "exit":
                sys.exit(3)
            if kind == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
        return update(part)

    model._update = accident
    path = Path(folder) / "model.npz"

    def save(at):
        del model._update  # the file is that of the model itself
        model.save(path, training=True)
        model._update = accident

    training.fit(model, True, comm=comm, callback=save, timeout=timeout)
    return {"interrupted": model.interrupted, "updates": len(model.losses)}


def with_large_rate(comm, folder):
    """Train with a learning rate that is far too large, then another model."""
    import numpy as np

    from . import training

    model = training.make("language", learning_rate=3e38, dtype="float32", optimizer="adagrad")
    try:
        training.fit(model, comm=comm, timeout=5)
        said = ""
    except ValueError as error:
        said = str(error)
    finite = all(bool(np.isfinite(p).all()) for p in model.params.values())
    other = training.fit(training.make("tagger"), comm=comm, timeout=5)
    return {"error": said, "finite": finite, "losses": other.losses}


LONG_RUN = {"epochs": 40, "batch_size": 8, "dropout": 0.2, "accumulation": 2}


def long_run(comm, folder, timeout):
    """Train with dropout, saving after every update; says which process it is."""
    from . import training

    (Path(folder) / f"pid-{comm.Get_rank()}").write_text(str(os.getpid()))
    model = training.make("language", **LONG_RUN)
    save = lambda at: model.save(Path(folder) / "model.npz", training=True)  # noqa: E731
    training.fit(model, True, comm=comm, callback=save, timeout=timeout)


def resume(comm, folder):
    """Go on with the run in model.npz."""
    import rnncore as rc

    from . import training

    model = rc.load(Path(folder) / "model.npz")
    training.fit(model, True, comm=comm, resume=True)
    return {"parameters": checksum(model.params.values()), "losses": model.losses}


def fit_files(comm, folder, path):
    """Train on a file; whether this rank wrote its ids."""
    import rnncore as rc

    from . import training

    written, write = [], rc.Corpus._write

    def noted(self, *arguments):
        written.append(arguments)
        write(self, *arguments)

    rc.Corpus._write = noted
    model = training.make("language", epochs=2, batch_size=8).fit(Path(path), comm=comm)
    return {"parameters": checksum(model.params.values()), "written": bool(written)}


def other_data(comm, folder):
    """Rank 1 is given other data, or other settings: every rank says so."""
    from . import training

    said = []
    for name in ("tagger", "language"):
        model = training.make(name, random_state=None) if name == "tagger" else training.make(name)
        _, X, y = training.MODELS[name]
        data = (X if comm.Get_rank() == 0 else X[::-1],) + (() if y is None else (y[:: 1 - 2 * comm.Get_rank()],))
        try:
            model.fit(*data, comm=comm)
        except ValueError as error:
            said.append(str(error))
        said.append(model.layers is None)
    model = training.make("tagger", learning_rate=0.1 * (1 + comm.Get_rank()))
    try:
        training.fit(model, comm=comm)
    except ValueError as error:
        said.append(str(error))
    _, X, y = training.MODELS["tagger"]
    for validation in [(X[: 5 + comm.Get_rank()], y[: 5 + comm.Get_rank()]), None if comm.Get_rank() else (X, y)]:
        try:
            training.make("tagger").fit(X, y, validation=validation, comm=comm)
        except ValueError as error:
            said.append(str(error))
    return said


def other_circumstances(comm, folder):
    """Ranks whose threads differ; that raised the same error before; that loaded a model without a random state."""
    import rnncore as rc

    from . import training

    if comm.Get_rank():
        rc.set_num_threads(1)
    results = [checksum(training.fit(training.make("language"), comm=comm, timeout=5).params.values())]
    for _ in range(2):
        try:
            training.make("language").fit("", comm=comm)
        except ValueError as error:
            results.append(str(error))
        results.append(checksum(training.fit(training.make("tagger"), comm=comm, timeout=5).params.values()))
    path = Path(folder) / f"model-{comm.Get_rank()}.npz"
    training.fit(training.make("tagger", random_state=None), comm=comm).save(path)
    model = rc.load(path).set_params(warm_start=True)
    results.append(checksum(training.fit(model, comm=comm).params.values()))
    results.append(checksum(training.fit(model, comm=comm).params.values()))
    return results


def other_calls(comm, folder):
    """One rank gathers arrays, the other one objects."""
    import numpy as np

    from rnncore.distributed import Ranks

    ranks = Ranks(comm, timeout=1)
    if comm.Get_rank():
        ranks.collect(None)
    else:
        ranks.gather(np.zeros(1), np.arange(3))


def with_interrupt_in_a_callback(comm, folder, where):
    """Ctrl-C comes to rank 0 while it calls back, in the middle or at the very end; or the callback raises it."""
    from . import training

    signal.signal(signal.SIGINT, signal.default_int_handler)
    model = training.make("language", epochs=3, batch_size=8)
    updates = 3 * len(model_chunks(model))

    def interrupt(at):
        if at.update == (updates if where == "last callback" else 5):
            if where == "raised":
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal.SIGINT)

    training.fit(model, True, comm=comm, callback=interrupt, timeout=5)
    return {"interrupted": model.interrupted, "parameters": checksum(model.params.values())}


def model_chunks(model):
    from . import training

    text = training.LINES
    return range(0, len(text) // model.batch_size, model.chunk_length)


if __name__ == "__main__":
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    target = Path(sys.argv[2])
    result = globals()[sys.argv[1]](world, target, *json.loads(sys.argv[3]))
    (target / f"rank-{world.Get_rank()}.json").write_text(json.dumps(result))
