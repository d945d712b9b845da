"""What calls do when memory or threads run out: python bench/faults.py [--only lstm] [--quick]

Each allocation of a call fails in turn: those of the engine, by the address of the caller (faults.c, preloaded), those
of NumPy's arrays in the same way, those of the interpreter, and the starts of threads. Once that one alone fails, and
once all from there on. The call must raise MemoryError or give its result with the same bits; when it raises, what it
was given must be as before; nothing may stay allocated, and the same call afterwards must give the same bits. Each case
runs in forked processes, so that a crash ends no more than that. Linux with the GNU C library and a C compiler.
"""

import argparse
import contextlib
import ctypes
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import rnncore as rc
from rnncore import _engine
from rnncore.bench.workloads import Option, options
from rnncore.engine.cells import CELLS

try:
    from _testcapi import remove_mem_hooks, set_nomemory
except ImportError:  # an interpreter without its tests
    set_nomemory = remove_mem_hooks = None

SHIM = "RNNCORE_FAULTS"  # names the compiled faults.c to the process that it is preloaded into
SHAPE = T, N, D, H = 40, 8, 6, 64  # results are in pooled memory
V = 300
SECONDS = 300  # after which a case hangs
ALL = 2**62

KINDS = ("engine", "numpy", "python", "threads")


class Case(NamedTuple):
    call: Callable[[], Any]  # gives arrays and numbers, nested in tuples, lists and dicts
    kept: list[np.ndarray] = []  # what must be as before when the call fails
    begin: Callable[[], None] = lambda: None  # before each call: undoes what the one before has changed


def arrays_in(result: Any) -> Iterator[np.ndarray]:
    """Copies of all arrays, in order."""
    if isinstance(result, (dict, list, tuple)):
        for item in result.values() if isinstance(result, dict) else result:
            yield from arrays_in(item)
    elif result is not None:
        yield np.array(result)


# ---- calls ----------------------------------------------------------------------------------------------------------


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return (0.3 * np.random.default_rng(seed).normal(size=shape)).astype("float32")


LENGTHS = np.random.default_rng(0).integers(T + 1, size=N)


def function_case(option: Option, backward: bool, **keywords: Any) -> Case:
    problem = option.problem(SHAPE, "float32")
    forward = getattr(rc, f"{option.variant.cell.name}_forward")
    arguments = problem.arguments() | keywords
    given = [value for value in (*arguments.values(), problem.dh) if isinstance(value, np.ndarray)]
    if not backward:
        return Case(lambda: forward(**arguments, training=False)[:2], given)
    gradients = getattr(rc, f"{option.variant.cell.name}_backward")

    def call() -> Any:
        h, state, cache = forward(**arguments)
        return h, state, cache.gates, gradients(problem.dh, cache)

    return Case(call, given)


def layer_case(name: str, backward: bool, **keywords: Any) -> Case:
    """``grads`` are not among what is kept: layers that come first have added theirs."""
    layer = getattr(rc, name)(D, H, **{"num_layers": 2, "seed": 0} | keywords)
    x, dy = normal(T, N, D), normal(T, N, H * layer.directions, seed=1)

    def call() -> Any:
        if not backward:
            return layer(x)
        y, state, cache = layer.forward(x, lengths=LENGTHS)
        return y, state, layer.backward(dy, cache), dict(layer.grads)

    return Case(call, [x, dy, *layer.params.values()], layer.zero_grad)


def dense_case() -> Case:
    dense, x, dy = rc.Dense(H, V, seed=0), normal(T, N, H), normal(T, N, V, seed=1)

    def call() -> Any:
        y, cache = dense.forward(x)
        return y, dense.backward(dy, cache), dict(dense.grads)

    return Case(call, [x, dy, *dense.params.values(), *dense.grads.values()], dense.zero_grad)


def embedding_case() -> Case:
    embedding, ids, dy = rc.Embedding(V, D, seed=0), np.arange(T * N).reshape(T, N) % V, normal(T, N, D)

    def call() -> Any:
        y, cache = embedding.forward(ids)
        embedding.backward(dy, cache)
        return y, dict(embedding.grads)

    return Case(call, [ids, dy, *embedding.params.values(), *embedding.grads.values()], embedding.zero_grad)


def attention_case(score: str) -> Case:
    """``grads`` are those of several products."""
    attention = rc.Attention(H, D, score, seed=0)
    queries, memory, dcontext = normal(T, N, H), normal(T, N, D, seed=1), normal(T, N, D, seed=2)

    def call() -> Any:
        context, weights, cache = attention.forward(queries, memory, memory_lengths=LENGTHS)
        return context, weights, attention.backward(dcontext, cache), dict(attention.grads)

    return Case(call, [queries, memory, dcontext, *attention.params.values()], attention.zero_grad)


def head_case() -> Case:
    dense, x, targets = rc.Dense(H, V, seed=0), normal(T, N, H), np.arange(T * N).reshape(T, N) % V
    kept = [x, targets, *dense.params.values(), *dense.grads.values()]

    def call() -> Any:
        return rc.fused_softmax_cross_entropy(dense, x, targets, LENGTHS), dict(dense.grads)

    return Case(call, kept, dense.zero_grad)


def softmax_case() -> Case:
    logits, targets = normal(T, N, V), np.arange(T * N).reshape(T, N) % V
    return Case(lambda: rc.softmax_cross_entropy(logits, targets, LENGTHS), [logits, targets])


def ctc_case() -> Case:
    logits, labels = normal(T, N, V), [np.arange(1, 2 + n) for n in range(N)]
    return Case(lambda: rc.ctc_loss(logits, labels, zero_infinity=True), [logits, *labels])


def crf_case() -> Case:
    emissions, transitions, tags = normal(T, N, D), normal(D, D, seed=1), np.arange(T * N).reshape(T, N) % D
    kept = [emissions, transitions, tags]

    def call() -> Any:
        return rc.crf_loss(emissions, transitions, tags, LENGTHS), rc.viterbi(emissions, transitions, LENGTHS)

    return Case(call, kept)


def frozen_case(precision: str | None, bidirectional: bool) -> Case:
    layer = rc.GRU(D, H, 3, bidirectional=bidirectional, seed=0)
    frozen, x = layer.quantize(precision) if precision else layer.freeze(), normal(T, N, D)
    return Case(lambda: (frozen(x), frozen(x, lengths=LENGTHS)), [x])


def making_case(make: Callable[[Any], Any]) -> Case:
    layer, x = rc.LSTM(D, H, 2, seed=0), normal(T, N, D)
    return Case(lambda: make(layer)(x), [x, *layer.params.values()])


def freeze_case() -> Case:
    Wx, Wh, b, x = normal(D, 4 * H), normal(H, 4 * H), normal(4 * H), normal(T, N, D)
    return Case(lambda: rc.freeze("lstm", Wx, Wh, b)(x), [Wx, Wh, b, x])


def stream_case(precision: str | None) -> Case:
    layer, x = rc.LSTM(D, H, 2, seed=0), normal(T, N, D)
    frozen = layer.quantize(precision) if precision else layer.freeze()
    return Case(lambda: [frozen.stream(N).step(x_t) for x_t in x[:2]], [x])


def step_case() -> Case:
    stream, x = rc.LSTM(D, H, 2, seed=0).stream(N), normal(N, D)
    out = np.zeros((N, H), "float32")
    kept = [x, out, *stream._state]

    def begin() -> None:
        stream.reset()
        out.fill(0)

    return Case(lambda: (stream.step(x[:, ::-1], out), *stream._state), kept, begin)


def sample_case(precision: str | None) -> Case:
    model = rc.LanguageModel(hidden_size=H, embedding_size=D, num_layers=2, seed=0)
    model.build(rc.Vocabulary("".join(map(chr, range(200, 200 + V)))))
    if precision:
        model = model.quantize(precision)
    kept = [] if precision else list(model.params.values())
    return Case(lambda: np.array([ord(c) for c in model.sample(50, seed=1, top_k=20)]), kept)


def optimizer_case() -> Case:
    params = {"Wx": normal(D, H), "Wh": normal(H, H, seed=1)}
    grads = {name: normal(*p.shape, seed=2) for name, p in params.items()}
    optimizer = rc.Adam(params, 0.1)
    own = [*params.values(), *(array for kind in optimizer.state.values() for array in kind.values())]
    before = [array.copy() for array in own]

    def begin() -> None:
        optimizer.iterations = 0
        for array, values in zip(own, before, strict=True):
            array[...] = values

    def call() -> Any:
        norm = optimizer.step({name: g.astype("float64") for name, g in grads.items()}, clip_norm=0.5)
        return norm, own, optimizer.iterations

    return Case(call, own, begin)


def quantized_layer_case(precision: str) -> Case:
    dense, embedding = rc.Dense(H, V, seed=0), rc.Embedding(V, H, seed=0)
    ids = np.arange(T * N).reshape(T, N) % V
    return Case(lambda: dense.quantize(precision)(embedding.quantize(precision)(ids)), [ids, *dense.params.values()])


def cases() -> dict[str, Callable[[], Case]]:
    """By name: what makes the case."""
    found: dict[str, Callable[[], Case]] = {}
    for cell in CELLS.values():
        for option in (Option(cell.name, cell.variant()), *options(cell.name)):
            found[option.name] = lambda option=option: function_case(option, True)
        plain = Option(cell.name, cell.variant())
        found[f"{cell.name} inference"] = lambda plain=plain: function_case(plain, False)
        found[f"{cell.name} lengths"] = lambda plain=plain: function_case(plain, True, lengths=LENGTHS)
        found[f"{cell.name} checkpoint"] = lambda plain=plain: function_case(plain, True, checkpoint=3)
        found[f"{cell.label} layer"] = lambda cell=cell: layer_case(cell.label, True)
        found[f"{cell.label} layer both directions"] = lambda cell=cell: layer_case(
            cell.label, True, bidirectional=True
        )
        found[f"{cell.label} layer inference"] = lambda cell=cell: layer_case(cell.label, False, bidirectional=True)
    found |= {"Dense": dense_case, "Embedding": embedding_case, "fused softmax": head_case, "softmax": softmax_case}
    found |= {"CTC": ctc_case, "CRF": crf_case, "freeze": freeze_case, "stream step": step_case, "Adam": optimizer_case}
    for score in ("additive", "multiplicative"):
        found[f"Attention {score}"] = lambda score=score: attention_case(score)
    for precision in (None, "bfloat16", "int8"):
        name = precision or "frozen"
        for both in (False, True):
            found[f"{name} layers{' both directions' * both}"] = lambda p=precision, both=both: frozen_case(p, both)
        found[f"{name} stream"] = lambda precision=precision: stream_case(precision)
        found[f"{name} sample"] = lambda precision=precision: sample_case(precision)
    for precision in ("bfloat16", "int8"):
        found[f"{precision} quantize"] = lambda p=precision: making_case(lambda layer: layer.quantize(p))
        found[f"{precision} Dense and Embedding"] = lambda p=precision: quantized_layer_case(p)
    found["layer freeze"] = lambda: making_case(lambda layer: layer.freeze())
    return found


# ---- faults ---------------------------------------------------------------------------------------------------------


class Faults:
    """Lets allocations of one kind fail: those numbered first .. last, from 1."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.shim = ctypes.CDLL(os.environ[SHIM])
        self.shim.faults_begin.argtypes = ctypes.c_long, ctypes.c_long, ctypes.c_int
        self.shim.faults_watch.argtypes = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t
        library = "_multiarray_umath" if kind == "numpy" else "rnncore/_engine"
        with open("/proc/self/maps") as file:
            ranges = [line.split()[0].split("-") for line in file if library in line and " r-xp " in line]
        begin, end = min(int(r[0], 16) for r in ranges), max(int(r[1], 16) for r in ranges)
        # NumPy keeps small arrays for later.
        self.shim.faults_watch(begin, end, 1024 if kind == "numpy" else 0)

    def begin(self, first: int, last: int) -> None:
        if self.kind == "python":
            set_nomemory(first - 1, 0 if last >= ALL else last)
        else:
            self.shim.faults_begin(first, last, self.kind == "threads")

    def end(self) -> bool:
        """Let all succeed again; return whether some have failed, as far as is known."""
        if self.kind == "python":
            remove_mem_hooks()
            return False
        return self.shim.faults_end() > 0

    def live(self) -> int:
        """Allocations that are there."""
        return self.shim.faults_live()


def differ(got: list[np.ndarray], wanted: list[np.ndarray]) -> bool:
    return len(got) != len(wanted) or any(a.tobytes() != b.tobytes() for a, b in zip(got, wanted, strict=True))


def is_foreign(error: BaseException) -> bool:
    """Whether NumPy forgot to set an exception, or the interpreter found no lock; not the engine."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = bool(frames) and frames[-1].filename.endswith(".pyx")
    return type(error) in (SystemError, RuntimeError) and not inside


def empty_pool() -> None:
    """What no memory can hold makes the engine give back all that it keeps for later."""
    with contextlib.suppress(MemoryError):
        _engine.Block(1 << 62)


class Run:
    """A case whose calls fail, one after the other."""

    def __init__(self, case: Case, faults: Faults) -> None:
        self.case, self.faults = case, faults
        self.wanted = self.outcome()  # and what is made once is there from now on
        self.changed = [array.copy() for array in case.kept]
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[str] = []

    def outcome(self) -> list[np.ndarray]:
        self.case.begin()
        return list(arrays_in(self.case.call()))

    def point(self, first: int, last: int) -> bool:
        """One call with faults and one without; return whether there were faults, as far as is known."""
        case, faults = self.case, self.faults
        case.begin()
        empty_pool()
        gc.collect()
        before, live = [array.copy() for array in case.kept], faults.live()
        error: BaseException | None = None
        result = None
        faults.begin(first, last)
        try:
            result = case.call()
        except BaseException as raised:  # SystemError is what is looked for, among others
            error = raised
        failed = faults.end()
        text = ""
        if error is None:
            self.check(not differ(list(arrays_in(result)), self.wanted), first, "the result has other bits")
        else:
            text = "".join(traceback.format_exception(error))
            right = (isinstance(error, MemoryError) or is_foreign(error)) and faults.kind != "threads"
            self.check(right, first, f"raises {text}")
            # The interpreter may fail after a native call, which has done its whole work.
            whole = faults.kind == "python"
            same = [
                not differ([now], [old]) or (whole and not differ([now], [new]))
                for now, old, new in zip(case.kept, before, self.changed, strict=True)
            ]
            self.check(all(same), first, f"what was given is changed by {text}")
        self.outcomes["result" if error is None else type(error).__name__] += 1
        failed |= error is not None
        error = result = None
        gc.collect()
        empty_pool()
        left = faults.live() - live
        # The interpreter loses objects of its own, and what they hold: iterators and generators that it cannot finish.
        right = left <= 0 or faults.kind == "python"
        self.check(right, first, f"{left} allocations are left after {text or 'the call'}")
        self.check(not differ(self.outcome(), self.wanted), first, f"other bits in the call after {text or 'this'}")
        return failed

    def check(self, right: bool, point: int, message: str) -> None:
        if not right:
            self.wrong.append(f"point {point}: {message}")

    def all_points(self, span: int, first: int, note: Callable[[int], None]) -> int:
        """Let allocations k .. k + span - 1 fail for k = first, ... until none of a call fails; return the last k."""
        # The interpreter lives on without some of what it asks for.
        patience = 30 if self.faults.kind == "python" else 1
        k = last = first - 1
        while k < last + patience:
            k += 1
            note(k)
            if self.point(k, k + span - 1):
                last = k
        return last


def set_threads(count: int) -> None:
    """Let calls use so many threads, however small they are."""
    _engine.set_cost_rule(flops=1, rows=1, products=1, units=4, cores=64)
    rc.set_num_threads(count)


def run_case(
    make: Callable[[], Case], kind: str, threads: int, span: int, first: int, note: Callable[[int], None]
) -> Any:
    """In a process of its own."""
    gc.freeze()
    set_threads(1 if kind == "threads" else threads)
    run = Run(make(), Faults(kind))
    if kind == "threads":
        # They stay once they are started: one point a process, whose number is `threads`.
        set_threads(3)
        return {"points": int(run.point(threads, threads + span - 1)), "outcomes": run.outcomes, "wrong": run.wrong}
    last = run.all_points(span, first, note)
    return {"points": last + 1 - first, "outcomes": run.outcomes, "wrong": run.wrong}


def in_child(make: Callable[[], Case], kind: str, threads: int, span: int, first: int) -> dict[str, Any]:
    """What run_case returns, from a forked process; with `crash` if that ended otherwise."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(SECONDS)
        os.close(reader)
        ctypes.CDLL(os.environ[SHIM]).faults_report_crash(writer)
        with os.fdopen(writer, "w") as pipe:
            try:
                found = run_case(make, kind, threads, span, first, lambda k: print(k, file=pipe, flush=True))
            except BaseException:
                found = {"points": 0, "outcomes": {}, "wrong": [traceback.format_exc()]}
            print(json.dumps(found), file=pipe, flush=True)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        lines = pipe.read().splitlines()
    _, status = os.waitpid(child, 0)
    if not status:
        return json.loads(lines[-1])
    points = [int(line) for line in lines if line.isdigit()]
    last = max(points, default=first)
    reason = signal.strsignal(-os.waitstatus_to_exitcode(status))
    crash = f"{reason} in {'' if lines[-1].isdigit() else lines[-1]} at point {last}"
    return {"points": last + 1 - first, "outcomes": {}, "wrong": [], "crash": crash, "last": last}


def is_foreign_crash(crash: str) -> bool:
    """Whether NumPy or the interpreter has crashed by itself."""
    return any(name in crash for name in ("/numpy/", "bin/python", "libpython"))


def run_all(make: Callable[[], Case], kind: str, threads: int, span: int) -> dict[str, Any]:
    """Go on behind a crash that is none of the engine."""
    found: dict[str, Any] = {"points": 0, "outcomes": Counter(), "wrong": [], "crashes": [], "foreign": 0}
    first = 1
    while True:
        part = in_child(make, kind, threads, span, first)
        found["points"] += part["points"]
        found["outcomes"].update(part["outcomes"])
        found["wrong"] += part["wrong"]
        if "crash" not in part:
            return found
        if not is_foreign_crash(part["crash"]):
            found["crashes"].append(part["crash"])
            return found
        found["foreign"] += 1
        first = part["last"] + 1


def runs_of(quick: bool, kinds: list[str]) -> Iterator[tuple[str, int, int]]:
    """Kind, threads (or the number of the start that fails), and how many fail one after the other."""
    for kind in kinds:
        for span in (1, ALL):
            if kind == "threads":
                yield from ((kind, k, span) for k in (1, 2))
            elif kind == "python" or (kind == "numpy" and quick):
                yield kind, 1, span
            else:
                yield from ((kind, threads, span) for threads in ((1, 3) if not quick or span == 1 else (1,)))


# ---- the program ----------------------------------------------------------------------------------------------------


def restart_with_shim() -> int:
    """Run this program once more, with faults.c compiled and preloaded."""
    compiler = next(filter(shutil.which, ("cc", "gcc", "clang")), None)
    if compiler is None or not sys.platform.startswith("linux"):
        raise SystemExit("faults.py needs Linux and a C compiler")
    with tempfile.TemporaryDirectory() as folder:
        shim = str(Path(folder) / "faults.so")
        source = str(Path(__file__).with_name("faults.c"))
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-fno-builtin", "-o", shim, source, "-ldl"], check=True)
        environment = {**os.environ, SHIM: shim, "LD_PRELOAD": shim}
        return subprocess.run([sys.executable, *sys.argv], env=environment, check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases that have this in their name")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="what fails (default: all)")
    parser.add_argument("--quick", action="store_true", help="fewer runs of a case")
    parser.add_argument("--verbose", action="store_true", help="a line for each run")
    arguments = parser.parse_args()
    if SHIM not in os.environ:
        return restart_with_shim()
    if set_nomemory is None and "python" in arguments.kinds:
        arguments.kinds.remove("python")
        print("this interpreter has no _testcapi: its own allocations do not fail")
    total: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    points: Counter[str] = Counter()
    for name, make in cases().items():
        if arguments.only not in name:
            continue
        for kind, threads, span in runs_of(arguments.quick, arguments.kinds):
            found = run_all(make, kind, threads, span)
            outcomes.update(found["outcomes"])
            points[kind] += found["points"]
            total.update(runs=1, crashes=len(found["crashes"]), wrong=len(found["wrong"]), foreign=found["foreign"])
            run = f"{name}, {kind} {threads} {'onwards' if span == ALL else 'once'}"
            if arguments.verbose:
                print(f"{run}: {found['points']} points, {dict(found['outcomes'])}", flush=True)
            for message in [*found["crashes"], *found["wrong"]][:3]:
                print(f"WRONG: {run}: {message}", flush=True)
    print(f"what failing calls did: {dict(outcomes)}; NumPy and the interpreter crashed {total['foreign']} times")
    kinds = ", ".join(f"{kind} {count}" for kind, count in points.items())
    results = f"{total['crashes']} crashes, {total['wrong']} wrong"
    print(f"faults injected: {points.total()} points over {total['runs']} runs ({kinds}), {results}")
    return bool(total["crashes"] or total["wrong"])


if __name__ == "__main__":
    sys.exit(main())
