"""The engine beside the NumPy reference, PyTorch, ONNX Runtime (those installed) and the limits of the machine.

Everything is measured in one run, in interleaved rounds, medians, with threads pinned. Limits, measured in the same
run: the rate of large products, and the bandwidth at which weights of that size are read. A workload cannot take less
than its products at that rate, or its weights read once a step at that bandwidth.
"""

import argparse
import datetime
import importlib.util
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np

from . import _engine, functional, layers, models, optim, reference, text
from .engine import native
from .peers import TorchLanguageModel

# (T, N, D, H): reason
SHAPES = {
    (1, 1, 64, 128): "one step of one sequence: control, games, sampling",
    (100, 1, 64, 64): "a small model on a stream",
    (100, 1, 256, 256): "one sequence; weights in the second-level cache",
    (100, 1, 512, 512): "one sequence; weights beyond the second-level cache",
    (50, 8, 128, 128): "a small batch",
    (100, 16, 64, 32): "a batch of a small model: time series",
    (100, 32, 256, 256): "a character language model",
    (50, 64, 512, 512): "a large batch",
    (32, 64, 1024, 1024): "all product",
}
SHORT = [(1, 1, 64, 128), (100, 1, 256, 256), (50, 8, 128, 128), (100, 32, 256, 256)]

# name -> gate blocks G, options of the functions
CELLS = {
    "rnn": (1, {}),
    "gru": (3, {}),
    "gru-reset_after": (3, {"form": "reset_after", "update": "old"}),
    "lstm": (4, {}),
}
# PyTorch and ONNX Runtime have one GRU: reset after the product, z weighs the old state.
COMPARED = {"lstm": "lstm", "gru": "gru-reset_after", "rnn": "rnn"}
LAYERS = {"lstm": layers.LSTM, "gru": layers.GRU, "rnn": layers.RNN}

# (cell, V, embedding or None for one-hot, H, layers, N, T)
LANGUAGE_MODELS = [
    ("lstm", 65, None, 128, 1, 32, 64),
    ("lstm", 65, 64, 256, 1, 32, 64),
    ("gru", 65, 64, 256, 1, 32, 64),
    ("lstm", 65, 64, 512, 2, 64, 64),
    ("lstm", 10_000, 256, 256, 1, 20, 35),
]

# name -> cell, changes of its arguments; each is compared with the plain cell.
OPTIONS = {
    "lstm peephole": ("lstm", {"peephole": (3,)}),
    "lstm identity": ("lstm", {"output_activation": "identity"}),
    "lstm reverse": ("lstm", {"reverse": True}),
    "lstm resets": ("lstm", {"resets": True}),
    "lstm ids": ("lstm", {"ids": True}),
    "lstm gate_order": ("lstm", {"gate_order": "ogif"}),
    "lstm Fortran order": ("lstm", {"by_columns": True}),
    "gru reset_after": ("gru", {"form": "reset_after"}),
    "gru simplified": ("gru", {"form": "simplified"}),
    "gru update old": ("gru", {"update": "old"}),
    "gru gate_order": ("gru", {"gate_order": "zrn"}),
    "gru Fortran order": ("gru", {"by_columns": True}),
    "rnn relu": ("rnn", {"activation": "relu"}),
    "rnn identity": ("rnn", {"activation": "identity"}),
}

PINNED = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "RNNCORE_NUM_THREADS")


@dataclass
class Record:
    """One workload: median seconds of each competitor, and what it cannot fall below (None where unknown)."""

    mode: str
    cell: str
    dtype: str
    threads: int
    workload: str
    seconds: dict
    limit: float | None = None
    unit: str = "ms"
    amount: float = 1.0  # of the unit (tokens, characters) in one call

    def ratio(self, name):
        return self.seconds[name] / self.seconds["engine"]

    @property
    def peers(self):
        return [name for name in self.seconds if name not in ("engine", "reference")]


# ---- measuring --------------------------------------------------------------------------------------------------


def interleaved_medians(calls, seconds):
    """Median seconds of each call, all called in turn until `seconds` have passed for each, at least five times."""
    times = [[] for _ in calls]
    for call in calls:
        call()
    begin = time.perf_counter()
    while len(times[0]) < 5 or time.perf_counter() - begin < seconds * len(calls):
        for call, seen in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            seen.append(time.perf_counter() - start)
    return [statistics.median(seen) for seen in times]


def processor():
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def best(call, seconds=0.15):
    """Shortest time of a call."""
    shortest, end = math.inf, time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        shortest = min(shortest, time.perf_counter() - start)
    return shortest


@cache
def peak(dtype):
    """Multiplications and additions a second of the fastest large product: the engine's or NumPy's."""
    rates = []
    for size in (256, 512, 1024):
        rng = np.random.default_rng(0)
        a, b = (rng.normal(size=(size, size)).astype(dtype) for _ in range(2))
        zeros = np.zeros(size, dtype)
        rates += [2 * size**3 / best(call) for call in (lambda: native.affine_forward(a, b, zeros), lambda: a @ b)]  # noqa: B023
    return max(rates)


@cache
def bandwidth(size):
    """Bytes a second at which an array of about `size` bytes is read again and again."""
    a = np.ones(max(size // 4, 1024), np.float32)
    repeats = max(1, (1 << 24) // a.nbytes)
    return repeats * a.nbytes / best(lambda: [_engine.read(a) for _ in range(repeats)])


def limit(cell, shape, dtype, backward, threads):
    """Seconds that no implementation can beat: products at the peak, recurrent weights read once a step.

    Two threads have two caches: each reads its part.
    """
    T, N, D, H = shape
    columns = CELLS[cell][0] * H
    item = np.dtype(dtype).itemsize
    read = H * columns * item / bandwidth(H * columns * item // threads) / threads
    step = max(read, 2 * N * H * columns / peak(dtype))
    project = max(2 * T * N * D * columns / peak(dtype), D * columns * item / bandwidth(D * columns * item))
    return (T * step + project) * (2 if backward else 1) + (
        2 * T * N * (D + H) * columns / peak(dtype) if backward else 0
    )


# ---- the competitors --------------------------------------------------------------------------------------------


def flops(cell, shape, backward):
    """Multiplications and additions of the products: 2 T N (D+H) G H, three times that with the backward pass."""
    T, N, D, H = shape
    return 2 * T * N * (D + H) * CELLS[cell][0] * H * (3 if backward else 1)


def make_arrays(cell, shape, dtype):
    """-> x (T,N,D), Wx (D,GH), Wh (H,GH), b (GH,), dh (T,N,H), the same for every call."""
    T, N, D, H = shape
    G = CELLS[cell][0]
    rng = np.random.default_rng(0)
    sizes = [((T, N, D), 1), ((D, G * H), D**-0.5), ((H, G * H), H**-0.5), ((G * H,), 0.1), ((T, N, H), 1)]
    return [(scale * rng.normal(size=size)).astype(dtype) for size, scale in sizes]


def make_call(module, cell, shape, dtype, backward, **options):
    """-> a function without arguments: one forward call (inference), or one forward and one backward call."""
    x, Wx, Wh, b, dh = make_arrays(cell, shape, dtype)
    options = {**CELLS[cell][1], **options}
    x, Wx, Wh = (options.pop(name, array) for name, array in (("x", x), ("Wx", Wx), ("Wh", Wh)))
    name = cell.partition("-")[0]
    forward = getattr(module, f"{name}_forward")
    backward_function = getattr(module, f"{name}_backward")

    def infer():
        return forward(x, Wx, Wh, b, training=False, **options)[0]

    def train():
        _, _, kept = forward(x, Wx, Wh, b, **options)
        return backward_function(dh, kept)

    return train if backward else infer


def torch_call(cell, shape, dtype, backward, threads):
    import torch

    torch.set_num_threads(threads)
    _, _, D, H = shape
    x, Wx, Wh, b, dh = (torch.from_numpy(a) for a in make_arrays(COMPARED[cell], shape, dtype))
    layer = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[cell](D, H, dtype=x.dtype)
    with torch.no_grad():
        layer.weight_ih_l0.copy_(Wx.T)
        layer.weight_hh_l0.copy_(Wh.T)
        layer.bias_ih_l0.copy_(b)
        layer.bias_hh_l0.zero_()

    def infer():
        with torch.inference_mode():
            return layer(x)[0].numpy()

    def train():
        layer.zero_grad()
        h, _ = layer(x.detach().requires_grad_(True))
        h.backward(dh)
        return h.detach().numpy()

    return train if backward else infer


ONNX_GATES = {"rnn": [0], "gru": [1, 0, 2], "lstm": [0, 3, 1, 2]}  # our blocks in its order: z r h, i o f c


def onnx_call(cell, shape, threads):
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    T, N, D, H = shape
    x, Wx, Wh, b, _ = make_arrays(COMPARED[cell], shape, "float32")

    def reorder(a):
        blocks = np.split(a, len(ONNX_GATES[cell]), axis=-1)
        return np.concatenate([blocks[k] for k in ONNX_GATES[cell]], axis=-1)

    weights = {"W": reorder(Wx).T[None], "R": reorder(Wh).T[None], "B": np.concatenate([reorder(b), 0 * b])[None]}
    options = {"linear_before_reset": 1} if cell == "gru" else {}
    graph = helper.make_graph(
        [helper.make_node(cell.upper(), ["x", *weights], ["y"], hidden_size=H, **options)],
        cell,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [T, N, D])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [T, 1, N, H])],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": x})[0][:, 0]


def has(*packages):
    return all(importlib.util.find_spec(package) for package in packages)


def competitors(cell, shape, dtype, backward, threads):
    """-> dict of name -> call; the frameworks are checked against the engine before they are timed."""
    calls = {
        "engine": make_call(functional, COMPARED[cell], shape, dtype, backward),
        "reference": make_call(reference, COMPARED[cell], shape, dtype, backward),
    }
    if has("torch"):
        calls["PyTorch"] = torch_call(cell, shape, dtype, backward, threads)
    if has("onnxruntime", "onnx") and not backward and dtype == "float32":
        calls["ONNX Runtime"] = onnx_call(cell, shape, threads)
    wanted = make_call(functional, COMPARED[cell], shape, dtype, False)()
    for name in list(calls)[2:]:
        np.testing.assert_allclose(calls[name](), wanted, atol=1e-4 if dtype == "float32" else 1e-10, err_msg=name)
    return calls


# ---- the modes --------------------------------------------------------------------------------------------------


def describe(shape):
    return " ".join(map(str, shape))


def measure(calls, seconds):
    return dict(zip(calls, interleaved_medians(list(calls.values()), seconds), strict=True))


def sequences(arguments, mode, dtype):
    """Whole sequences: forward without, or with the backward pass."""
    backward = mode == "train"
    for cell in arguments.cell:
        for shape in SHORT if arguments.short else SHAPES:
            seconds = measure(competitors(cell, shape, dtype, backward, arguments.threads), arguments.seconds)
            bound = limit(COMPARED[cell], shape, dtype, backward, arguments.threads)
            yield Record(mode, cell, dtype, arguments.threads, describe(shape), seconds, bound)


def streams(arguments, mode, dtype):
    """One step a call, weights packed before; the frameworks' cheapest call of one step."""
    for cell in arguments.cell:
        for D, H in [(64, 128), (64, 256)]:
            shape = (1, 1, D, H)
            x, Wx, Wh, b, _ = make_arrays(COMPARED[cell], shape, dtype)
            calls = competitors(cell, shape, dtype, False, arguments.threads)
            layer = LAYERS[cell](D, H, dtype=dtype, **CELLS[COMPARED[cell]][1])
            for name, value in zip(("Wx_0", "Wh_0", "b_0"), (Wx, Wh, b), strict=True):
                layer.params[name][...] = value
            stream, x, out = layer.stream(), x[0], np.empty((1, H), dtype)
            np.testing.assert_allclose(stream.step(x), calls["engine"]()[0], atol=1e-6)
            calls["engine"] = lambda stream=stream, x=x, out=out: stream.step(x, out=out)
            seconds = measure(calls, arguments.seconds)
            yield Record(mode, cell, dtype, arguments.threads, f"D={D} H={H}", seconds, unit="us")


def language_model(cell, V, embedding, H, depth, batch, chunk, dtype):
    model = models.LanguageModel(
        "word",
        cell,
        H,
        depth,
        embedding_size=embedding or 0,
        batch_size=batch,
        chunk_length=chunk,
        cell_options={"form": "reset_after", "update": "old"} if cell == "gru" else None,
        dtype=dtype,
        seed=0,
    )
    return model.build(text.Vocabulary([f"w{k}" for k in range(V - 2)], level="word"))


def language_models(arguments, mode, dtype):
    """Updates of a language model: embedding, layers, softmax, cross-entropy, clipping, Adam."""
    for cell, V, embedding, H, depth, batch, chunk in LANGUAGE_MODELS[: 3 if arguments.short else None]:
        if cell not in arguments.cell:
            continue
        model = language_model(cell, V, embedding, H, depth, batch, chunk, dtype)
        ids = np.random.default_rng(0).integers(V, size=(chunk + 1, batch))
        optimizer = optim.Adam(model.params, model.learning_rate)

        def update(model=model, ids=ids, optimizer=optimizer):
            loss, _ = model.loss_and_gradients(ids[:-1], ids[1:])
            optimizer.step(model.grads, clip_norm=model.clip_norm)
            return loss

        calls = {"engine": update}
        if has("torch"):
            other = TorchLanguageModel(model, arguments.threads)
            inputs, targets = (other.torch.from_numpy(a) for a in (ids[:-1], ids[1:]))
            np.testing.assert_allclose(float(other.loss(inputs, targets)[0].detach()), update(), rtol=1e-4)
            calls["PyTorch"] = lambda other=other, inputs=inputs, targets=targets: other.update(inputs, targets)
        name = f"V={V} E={embedding or 'one-hot'} H={H} x {depth} N={batch} T={chunk}"
        seconds = measure(calls, 4 * arguments.seconds)
        yield Record(mode, cell, dtype, arguments.threads, name, seconds, unit="tokens/s", amount=batch * chunk)


def sampling(arguments, mode, dtype):
    """Characters drawn one after the other."""
    for cell in arguments.cell:
        for H in (128, 256):
            model = language_model(cell, 65, None, H, 1, 1, 1, dtype)
            n = 1000
            calls = {"engine": lambda model=model, n=n: model.sample(n, seed=0, stop_at_eos=False)}
            if has("torch"):
                other = TorchLanguageModel(model, arguments.threads)
                calls["PyTorch"] = lambda other=other, n=n: other.sample(n)
            seconds = measure(calls, arguments.seconds)
            name = f"V=65 H={H}"
            yield Record(mode, cell, dtype, arguments.threads, name, seconds, unit="characters/s", amount=n)


def ragged(arguments, mode, dtype):
    """Lengths uniform in 1..T against the padded batch; the limit is the share of tokens that are there."""
    for cell in arguments.cell:
        for shape in [(50, 8, 128, 128), (100, 32, 256, 256)]:
            lengths = np.random.default_rng(0).integers(1, shape[0] + 1, size=shape[1])
            for backward in (False, True):
                calls = {
                    "engine": make_call(functional, cell, shape, dtype, backward, lengths=lengths),
                    "padded": make_call(functional, cell, shape, dtype, backward),
                }
                seconds = measure(calls, arguments.seconds)
                share = lengths.sum() / (shape[0] * shape[1])
                name = f"{describe(shape)} {'train' if backward else 'forward'}, {share:.0%} of the tokens"
                bound = seconds["padded"] * share
                yield Record(mode, cell, dtype, arguments.threads, name, seconds, bound)


def options(arguments, mode, dtype):
    """Every option against the plain cell."""
    for name, (cell, change) in OPTIONS.items():
        if cell not in arguments.cell:
            continue
        for shape in [(50, 8, 128, 128), (100, 32, 256, 256)]:
            T, N, D, H = shape
            rng = np.random.default_rng(0)
            keywords = dict(change)
            if "peephole" in keywords:
                keywords["peephole"] = rng.normal(size=(3, H)).astype(dtype)
            if "resets" in keywords:
                keywords["resets"] = rng.random((T, N)) < 0.05
            if keywords.pop("ids", False):
                keywords["x"] = rng.integers(D, size=(T, N))
            if keywords.pop("by_columns", False):
                _, *weights, _, _ = make_arrays(cell, shape, dtype)
                keywords |= zip(("Wx", "Wh"), map(np.asfortranarray, weights), strict=True)
            for backward in (False, True):
                plain = make_call(functional, cell, shape, dtype, backward)
                if keywords.get("form") == "simplified":
                    call = simplified_call(shape, dtype, backward)
                else:
                    call = make_call(functional, cell, shape, dtype, backward, **keywords)
                seconds = measure({"engine": call, "plain": plain}, arguments.seconds)
                workload = f"{name}, {describe(shape)} {'train' if backward else 'forward'}"
                yield Record(mode, cell, dtype, arguments.threads, workload, seconds)


def simplified_call(shape, dtype, backward):
    """The simplified GRU has two blocks of the three."""
    x, Wx, Wh, b, dh = make_arrays("gru", shape, dtype)
    columns = 2 * shape[3]
    Wx, Wh, b = (np.ascontiguousarray(a[..., :columns]) for a in (Wx, Wh, b))

    def infer():
        return functional.gru_forward(x, Wx, Wh, b, form="simplified", training=False)

    def train():
        return functional.gru_backward(dh, functional.gru_forward(x, Wx, Wh, b, form="simplified")[2])

    return train if backward else infer


def scaling(arguments, mode, dtype):
    """All threads against one, for functions and for layers in both directions; three calls in a row, as in a loop."""

    def with_threads(count, call):
        def function():
            _engine.set_num_threads(count)
            for _ in range(3):
                call()

        return function

    for cell in arguments.cell:
        calls = {}
        for shape in SHAPES:
            for backward in (False, True):
                name = f"{describe(shape)} {'train' if backward else 'forward'}"
                calls[name] = make_call(functional, COMPARED[cell], shape, dtype, backward)
        for shape in [(100, 1, 128, 128), (50, 8, 128, 128)]:
            T, N, D, H = shape
            layer = LAYERS[cell](D, H, bidirectional=True, dtype=dtype, seed=0)
            x = make_arrays(cell, shape, dtype)[0]

            def both(layer=layer, x=x):
                y, _, kept = layer.forward(x)
                return layer.backward(y, kept)

            calls[f"{describe(shape)} bidirectional"] = lambda layer=layer, x=x: layer(x)
            calls[f"{describe(shape)} bidirectional train"] = both
        for name, call in calls.items():
            pair = {"engine": with_threads(arguments.threads, call), "one thread": with_threads(1, call)}
            seconds = {rival: value / 3 for rival, value in measure(pair, arguments.seconds).items()}
            yield Record(mode, cell, dtype, arguments.threads, name, seconds)
        _engine.set_num_threads(arguments.threads)


MODES = {
    "forward": sequences,
    "train": sequences,
    "stream": streams,
    "lm": language_models,
    "sample": sampling,
    "ragged": ragged,
    "options": options,
    "threads": scaling,
}


# ---- the table --------------------------------------------------------------------------------------------------


def figure(record, seconds):
    if record.unit in ("ms", "us"):
        return f"{seconds * (1e3 if record.unit == 'ms' else 1e6):,.3f}"
    return f"{record.amount / seconds:,.0f}"


def line(record):
    figures = ", ".join(f"{name} {figure(record, seconds)}" for name, seconds in record.seconds.items())
    ratios = [f"{record.ratio(name):.2f} x {name}" for name in record.seconds if name != "engine"]
    if record.limit is not None:
        ratios.append(f"{record.limit / record.seconds['engine']:.0%} of the limit")
    return f"  {record.workload:>24}: {figures}" + (f"; {', '.join(ratios)}" if ratios else "")


def summary(records):
    """Geometric means and worst ratios of some records."""
    lines = []
    if all("reference" in record.seconds for record in records):
        lines.append(("the reference", [record.ratio("reference") for record in records]))
    if all(record.peers for record in records):
        name = "the fastest peer" if len({p for r in records for p in r.peers}) > 1 else f"{records[0].peers[0]}"
        lines.append((name, [min(record.ratio(peer) for peer in record.peers) for record in records]))
    if all(record.limit is not None for record in records):
        lines.append(("the limit", [record.limit / record.seconds["engine"] for record in records]))
    return [
        f"  of {name}: geometric mean {statistics.geometric_mean(ratios):.2f}, worst {min(ratios):.2f}"
        for name, ratios in lines
    ]


def make_parser():
    parser = argparse.ArgumentParser(prog="rnncore bench", description=__doc__.splitlines()[0])
    parser.add_argument("--cell", nargs="+", choices=COMPARED, default=list(COMPARED))
    parser.add_argument("--dtype", nargs="+", choices=["float32", "float64"], default=["float32"])
    parser.add_argument("--mode", nargs="+", choices=MODES, default=["forward", "train"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.3, help="for each call of each workload")
    parser.add_argument("--short", action="store_true", help="few workloads, a tenth of a second each")
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    return parser


def pinned(arguments, argv):
    """Whether the threads of BLAS are pinned; if not, the run is started again in a process where they are.

    -> None, or the exit code of that process. BLAS reads its variables when it is loaded.
    """
    if all(os.environ.get(name) == str(arguments.threads) for name in PINNED):
        return None
    environment = {**os.environ, **dict.fromkeys(PINNED, str(arguments.threads))}
    # The same package, whatever the folder that the command is given in.
    paths = [str(Path(__file__).parents[1]), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return subprocess.call([sys.executable, "-P", "-m", "rnncore.bench", *argv], env=environment)


def main(argv=None):
    """Run the comparison; returns the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if arguments.threads < 1:
        parser.error(f"--threads must be at least 1; got {arguments.threads}")
    code = pinned(arguments, argv)
    if code is not None:
        return code
    if arguments.short:
        arguments.seconds = min(arguments.seconds, 0.1)
    versions = {"numpy": np.__version__}
    for package in ("torch", "onnxruntime"):
        if has(package):
            versions[package] = importlib.import_module(package).__version__
    head = {
        "date": str(datetime.date.today()),
        "processor": processor(),
        "instruction set": _engine.current_isa(),
        "threads": arguments.threads,
        **versions,
    }
    print(", ".join(f"{name} {value}" for name, value in head.items()))
    for dtype in arguments.dtype:
        rates = ", ".join(f"{size >> 10:,} KB {bandwidth(size) / 1e9:.0f}" for size in (1 << 18, 1 << 20, 1 << 22))
        print(f"limits: large {dtype} product {peak(dtype) / 1e9:.0f} GFLOP/s; reading GB/s: {rates}")
    print("ms, us: less is better; /s: more is better; N x: times as fast as")
    records = []
    for mode in arguments.mode:
        group = None
        for record in chain.from_iterable(MODES[mode](arguments, mode, dtype) for dtype in arguments.dtype):
            if (record.mode, record.cell, record.dtype) != group:
                finish(records, group)
                group = record.mode, record.cell, record.dtype
                print(f"\n{record.cell} {record.dtype} {record.mode}, {record.unit}")
            records.append(record)
            print(line(record), flush=True)
        finish(records, group)
    if arguments.json:
        content = {**head, "records": [asdict(record) for record in records]}
        Path(arguments.json).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


def finish(records, group):
    chosen = [record for record in records if (record.mode, record.cell, record.dtype) == group]
    if chosen:
        print(*summary(chosen), sep="\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
