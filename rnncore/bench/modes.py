"""The modes of the comparison: each measures some workloads and yields a record of each."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .. import functional
from ..engine.cells import CELLS
from ..engine.quantization import PRECISIONS
from ..engine.settings import set_num_threads
from ..layers import RECURRENT
from ..models import LanguageModel
from ..optim import Adam
from ..text import Vocabulary
from . import precision, workloads
from .competitors import competitors, has, make_call, make_layer
from .measure import Call, bytes_limit, limit, measure
from .report import FLOAT32, Record
from .workloads import COMPARED, SHORT, VARIANTS, LanguageModelSize, Shape, make_problem

Mode = Callable[[argparse.Namespace, str, str], Iterator[Record]]


def describe(shape: Shape) -> str:
    """Return a shape as the records name it."""
    return " ".join(map(str, shape))


def sequences(arguments: argparse.Namespace, mode: str, dtype: str) -> Iterator[Record]:
    """Whole sequences: forward for inference, or forward and backward."""
    backward = mode == "train"
    for cell in arguments.cell:
        for shape in workloads.REAL[cell] if arguments.real else SHORT if arguments.short else workloads.SHAPES:
            seconds = measure(competitors(cell, shape, dtype, backward, arguments.threads), arguments.seconds)
            bound = limit(VARIANTS[COMPARED[cell]], shape, dtype, backward, arguments.threads)
            yield Record(mode, cell, dtype, arguments.threads, describe(shape), seconds, bound)


def streams(arguments: argparse.Namespace, mode: str, dtype: str) -> Iterator[Record]:
    """One step a call: a stream, which has packed its weights, beside the cheapest such call of each framework."""
    for cell in arguments.cell:
        for D, H in [(64, 128), (64, 256)]:
            shape = (1, 1, D, H)
            problem = make_problem(VARIANTS[COMPARED[cell]], shape, dtype)
            calls = competitors(cell, shape, dtype, False, arguments.threads)
            stream, x, out = make_layer(problem).stream(), problem.x[0], np.empty((1, H), dtype)
            np.testing.assert_allclose(stream.step(x), calls["engine"]()[0], atol=1e-6)
            calls["engine"] = lambda stream=stream, x=x, out=out: stream.step(x, out=out)  # type: ignore[misc]
            seconds = measure(calls, arguments.seconds)
            yield Record(mode, cell, dtype, arguments.threads, f"D={D} H={H}", seconds, unit="us")


def _language_model(size: LanguageModelSize, dtype: str) -> LanguageModel:
    model = LanguageModel(
        "word",
        size.cell,
        size.H,
        size.layers,
        embedding_size=size.embedding or 0,
        batch_size=size.N,
        chunk_length=size.T,
        cell_options=dict(CELLS[size.cell].framework_options or {}),
        dtype=dtype,
        seed=0,
    )
    return model.build(Vocabulary([f"w{k}" for k in range(size.V - 2)], level="word"))


def language_models(arguments: argparse.Namespace, mode: str, dtype: str) -> Iterator[Record]:
    """Updates of a language model: embedding, layers, softmax, cross-entropy, clipping, Adam."""
    for size in workloads.LANGUAGE_MODELS[: 3 if arguments.short else None]:
        if size.cell not in arguments.cell:
            continue
        model = _language_model(size, dtype)
        ids = np.random.default_rng(0).integers(size.V, size=(size.T + 1, size.N))
        optimizer = Adam(model.params or {}, model.learning_rate)

        def update(model: LanguageModel = model, ids: np.ndarray = ids, optimizer: Adam = optimizer) -> float:
            loss, _ = model.loss_and_gradients(ids[:-1], ids[1:])
            optimizer.step(model.grads or {}, clip_norm=model.clip_norm)
            return loss

        calls: dict[str, Call] = {"engine": update}
        if has("torch") and CELLS[size.cell].framework_options is not None:
            from .twins import TorchLanguageModel

            twin = TorchLanguageModel(model, arguments.threads)
            inputs, targets = (twin.torch.from_numpy(a) for a in (ids[:-1], ids[1:]))
            np.testing.assert_allclose(float(twin.loss(inputs, targets)[0].detach()), update(), rtol=1e-4)
            calls["PyTorch"] = lambda twin=twin, x=inputs, y=targets: twin.update(x, y)  # type: ignore[misc]
        seconds = measure(calls, 4 * arguments.seconds)
        tokens = size.N * size.T
        yield Record(mode, size.cell, dtype, arguments.threads, str(size), seconds, unit="tokens/s", amount=tokens)


def sampling(arguments: argparse.Namespace, mode: str, dtype: str) -> Iterator[Record]:
    """Characters drawn one after the other."""
    for cell in arguments.cell:
        for H, n in workloads.SAMPLED.items():
            model = _language_model(LanguageModelSize(cell, 65, None, H, 1, 1, 1), dtype)
            calls: dict[str, Call] = {}
            calls["engine"] = lambda model=model, n=n: model.sample(n, seed=0, stop_at_eos=False)  # type: ignore[misc]
            if has("torch") and CELLS[cell].framework_options is not None:
                from .twins import TorchLanguageModel

                twin = TorchLanguageModel(model, arguments.threads)
                calls["PyTorch"] = lambda twin=twin, n=n: twin.sample(n)  # type: ignore[misc]
            seconds = measure(calls, arguments.seconds)
            yield Record(mode, cell, dtype, arguments.threads, f"V=65 H={H}", seconds, unit="characters/s", amount=n)


def precisions(arguments: argparse.Namespace, mode: str, dtype: str) -> Iterator[Record]:
    """Weights in bfloat16 and int8 beside float32 and peers: sequences, steps of a stream, sampling.

    The limit of sequences is the time to read the weights.
    """
    for cell in arguments.cell:
        variant, cases = VARIANTS[COMPARED[cell]], []
        for shape in workloads.PRECISION_SHORT if arguments.short else workloads.PRECISION:
            calls = precision.layer_calls(cell, shape, arguments.threads)
            limits = {name: bytes_limit(variant, shape, item) for name, item in (("bfloat16", 2), ("int8", 1))}
            cases.append((describe(shape), calls, limits))
        for D, H in [(64, 128), (64, 256)]:
            layer, x = make_layer(make_problem(variant, (1, 1, D, H), "float32")), np.zeros((1, D), np.float32)
            own: dict[str, Any] = {"float32": layer.stream()}
            own |= {name: layer.quantize(name).stream() for name in PRECISIONS}
            calls = {name: {"engine": _step(stream, x)} for name, stream in own.items()}
            cases.append((f"stream D={D} H={H}", calls, {}))
        H, n = max(workloads.SAMPLED.items())
        model = _language_model(LanguageModelSize(cell, 65, None, H, 1, 1, 1), "float32")
        own = {"float32": model} | {name: model.quantize(name) for name in PRECISIONS}
        calls = {name: {"engine": _sample(m, n)} for name, m in own.items()}
        cases.append((f"{n} characters V=65 H={H}", calls, {}))
        yield from _precision_records(arguments, mode, cell, cases)


def _precision_records(
    arguments: argparse.Namespace, mode: str, cell: str, cases: list[tuple[str, Any, dict[str, float]]]
) -> Iterator[Record]:
    """Measure all precisions of a case (name, calls, limits) in one run; yield the records by precision."""
    measured = []
    for name, calls, limits in cases:
        flat = {f"{p}/{rival}": call for p, own in calls.items() for rival, call in own.items()}
        measured.append((name, measure(flat, arguments.seconds), limits))
    for p in PRECISIONS:
        for name, seconds, limits in measured:
            own = {key.removeprefix(f"{p}/"): value for key, value in seconds.items() if key.startswith(f"{p}/")}
            own[FLOAT32] = seconds["float32/engine"]
            yield Record(mode, cell, p, arguments.threads, name, own, limits.get(p), unit="us")


def _step(stream: Any, x: np.ndarray) -> Call:
    out = np.empty((1, stream.hidden_size), np.float32)
    return lambda: stream.step(x, out=out)


def _sample(model: LanguageModel, n: int) -> Call:
    return lambda: model.sample(n, seed=0, stop_at_eos=False)


def ragged(arguments: argparse.Namespace, mode: str, dtype: str) -> Iterator[Record]:
    """Lengths uniform in 1..T beside the padded batch; the limit is the share of tokens that are valid."""
    for cell in arguments.cell:
        for shape in workloads.BATCHES:
            T, N, _, _ = shape
            lengths = np.random.default_rng(0).integers(1, T + 1, size=N)
            padded, problem = (make_problem(VARIANTS[cell], shape, dtype) for _ in range(2))
            problem.keywords["lengths"] = lengths
            for backward in (False, True):
                calls = {
                    "engine": make_call(functional, problem, backward),
                    "padded": make_call(functional, padded, backward),
                }
                seconds = measure(calls, arguments.seconds)
                share = lengths.sum() / (T * N)
                name = f"{describe(shape)} {_pass(backward)}, {share:.0%} of the tokens"
                yield Record(mode, cell, dtype, arguments.threads, name, seconds, seconds["padded"] * share)


def options(arguments: argparse.Namespace, mode: str, dtype: str) -> Iterator[Record]:
    """Every option beside the plain cell."""
    for cell in arguments.cell:
        for option in workloads.options(cell):
            for shape in workloads.BATCHES:
                changed, plain = option.problem(shape, dtype), make_problem(VARIANTS[cell], shape, dtype)
                for backward in (False, True):
                    calls = {
                        "engine": make_call(functional, changed, backward),
                        "plain": make_call(functional, plain, backward),
                    }
                    workload = f"{option.name}, {describe(shape)} {_pass(backward)}"
                    yield Record(mode, cell, dtype, arguments.threads, workload, measure(calls, arguments.seconds))


def scaling(arguments: argparse.Namespace, mode: str, dtype: str) -> Iterator[Record]:
    """All threads beside one, functions and layers in both directions; three calls in a row, as in a loop."""

    def with_threads(count: int, call: Call) -> Call:
        def function() -> None:
            set_num_threads(count)
            for _ in range(3):
                call()

        return function

    for cell in arguments.cell:
        calls: dict[str, Call] = {}
        for shape in workloads.SHAPES:
            problem = make_problem(VARIANTS[COMPARED[cell]], shape, dtype)
            for backward in (False, True):
                calls[f"{describe(shape)} {_pass(backward)}"] = make_call(functional, problem, backward)
        for shape in workloads.BIDIRECTIONAL:
            _, _, D, H = shape
            layer = RECURRENT[cell](D, H, bidirectional=True, dtype=dtype, seed=0)
            x = make_problem(VARIANTS[cell], shape, dtype).x

            def both(layer: Any = layer, x: Any = x) -> Any:
                y, _, cache = layer.forward(x)
                return layer.backward(y, cache)

            calls[f"{describe(shape)} bidirectional"] = lambda layer=layer, x=x: layer(x)  # type: ignore[misc]
            calls[f"{describe(shape)} bidirectional train"] = both
        for name, call in calls.items():
            pair = {"engine": with_threads(arguments.threads, call), "one thread": with_threads(1, call)}
            seconds = {rival: value / 3 for rival, value in measure(pair, arguments.seconds).items()}
            yield Record(mode, cell, dtype, arguments.threads, name, seconds)
        set_num_threads(arguments.threads)


def _pass(backward: bool) -> str:
    return "train" if backward else "forward"


MODES: dict[str, Mode] = {
    "forward": sequences,
    "train": sequences,
    "stream": streams,
    "lm": language_models,
    "sample": sampling,
    "ragged": ragged,
    "options": options,
    "threads": scaling,
    "precision": precisions,
}
