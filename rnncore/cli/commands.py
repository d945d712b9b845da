"""``rnncore sample``, ``score``, ``quantize``, ``bench`` and ``info``."""

from __future__ import annotations

import math
import sys
import time
import warnings
from os import PathLike
from pathlib import Path
from typing import Any

import rnncore

from ..engine.quantization import Precision
from .errors import DONE, UserError
from .texts import describe_loss, read_text


def load(path: str | PathLike[str]) -> Any:
    """Return the model of a file; UserError if it cannot be read."""
    try:
        return rnncore.load(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(str(error)) from None


def load_language_model(path: str | PathLike[str], precision: Precision | None = None) -> rnncore.LanguageModel:
    model = load(path)
    if not isinstance(model, rnncore.LanguageModel):
        raise UserError(f"{path} holds a {type(model).__name__}; this command takes a LanguageModel")
    return model if precision in (None, model.precision) else rounded(model, precision)


def rounded(model: Any, precision: Precision | None) -> Any:
    """Return the model in a precision; UserError if it cannot be."""
    try:
        return model.quantize(precision)
    except (RuntimeError, ValueError) as error:
        raise UserError(str(error)) from None


def quantize(arguments: Any) -> int:
    source = Path(arguments.model)
    target = arguments.output or source.with_name(f"{source.stem}-{arguments.precision}.npz")
    model = load(source)
    small = rounded(model, arguments.precision)
    if Path(target).exists() and source.samefile(target):
        raise UserError(
            f"{target} is the model that is rounded: write to another file, for the rounding cannot be undone"
        )
    try:
        small.save(target)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}") from None
    print(f"{target}: {small!r}, {small.nbytes / model.nbytes:.2f} of the bytes of {source}")
    return DONE


def sample(arguments: Any) -> int:
    model = load_language_model(arguments.model, arguments.precision)
    settings = (arguments.temperature, arguments.top_k, arguments.top_p, arguments.seed)
    start = time.perf_counter()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            draw = model.iter_sample if arguments.stream else lambda *given: iter([model.sample(*given)])
            pieces = draw(arguments.n, arguments.prompt, *settings)
    except ValueError as error:
        raise UserError(str(error)) from None
    for warning in caught:
        print(f"rnncore: {warning.message}", file=sys.stderr)
    separator = " " if model.level == "word" and arguments.prompt else ""
    print(arguments.prompt + separator, end="", flush=True)
    drawn = 0
    for piece in pieces:
        print(piece, end="", flush=True)
        drawn += len(model.vocabulary.encode(piece))
    print(flush=True)
    seconds = time.perf_counter() - start
    print(f"{max(drawn, 1) / seconds:,.0f} {model.level}s a second", file=sys.stderr)
    return DONE


def score(arguments: Any) -> int:
    model = load_language_model(arguments.model, arguments.precision)
    text = read_text(arguments.file, arguments.encoding)
    tokens = len(model.vocabulary.encode(text))
    nats = math.log(model.perplexity(text))
    unknown = int((model.vocabulary.encode(text) == model.vocabulary.unk_id).sum())
    print(f"{arguments.file}: {tokens:,} {model.level}s, {unknown:,} of them unknown to the model")
    print(describe_loss(nats, model, len(text) / tokens))
    return DONE


def bench(arguments: Any) -> int:
    from ..bench.command import main

    return main(["--short", *arguments.rest])


def info(arguments: Any) -> int:
    if arguments.model is None:
        rnncore.show_config()
    else:
        describe_model(load(arguments.model))
    return DONE


def describe_model(model: Any) -> None:
    """Print the class, the settings that differ from the default, the sizes and the training of a model."""
    default = type(model)().get_params()
    settings = {name: value for name, value in model.get_params().items() if value != default[name]}
    print(f"{model!r}")
    print(f"settings     {', '.join(f'{name}={value!r}' for name, value in settings.items()) or 'the defaults'}")
    parameters = {f"{name}.{key}": p for name, layer in model.layers.items() for key, p in layer.arrays().items()}
    numbers = sum(math.prod(p.shape) for p in parameters.values())
    print(f"parameters   {numbers:,} numbers in {model.precision}, {model.nbytes:,} bytes")
    for name, p in parameters.items():
        print(f"  {name:<24} {p.shape}")
    if model.vocabulary is not None:
        print(f"vocabulary   {len(model.vocabulary):,} {model.vocabulary.level}s")
    if getattr(model, "classes_", None) is not None:
        print(f"classes      {', '.join(map(str, model.classes_))}")
    print(f"trained      {len(model.history)} epochs")
    for record in model.history:
        held_out = "" if record["held_out"] is None else f", held-out {record['held_out']:.3f}"
        print(f"  epoch {record['epoch']:<3} loss {record['loss']:.3f}{held_out}, {record['seconds']:.1f} s")
