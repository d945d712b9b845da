"""The command line: rnncore train | sample | score | bench | info."""

from __future__ import annotations

import argparse
import copy
import importlib.util
import math
import os
import platform
import statistics
import sys
import time
from contextlib import nullcontext
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

import rnncore

from . import _engine, checks, functional, reference
from .engine.cells import CELLS
from .files import interrupts_later, is_stream, replacing
from .models.training import Bar

INTERRUPTED = 130  # what shells expect of a program that Ctrl-C ended
LOSS_CURVE = "rnncore loss curve"  # title in the metadata of our pictures, by which they are known again


class UserError(Exception):
    """Something the user can put right: one line, exit code 2."""


# ---- texts ------------------------------------------------------------------------------------------------------


def read_text(path: str | PathLike[str], encoding: str) -> str:
    try:
        text = Path(path).read_text(encoding=encoding)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        where = f"{error.reason} at byte {error.start}"
        raise UserError(f"{path} is not {encoding} text: {where}; see --encoding") from None
    except UnicodeError as error:
        raise UserError(f"{path} is not {encoding} text: {error}; see --encoding") from None
    except LookupError:
        raise UserError(f"--encoding: {encoding!r} is not an encoding that Python knows") from None
    if not text.strip():
        raise UserError(f"{path} holds no text")
    return text


def default_text() -> Any:
    """Return the help topics of Python: 600,000 characters of English text that every CPython has."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name].strip() for name in sorted(topics)) + "\n"


def split(text: str, share: float, level: str) -> tuple[str, str]:
    """Return the training text and the held-out text, the last `share` of the whole."""
    cut = round(len(text) * (1 - share))
    if level == "word":
        # Not within a word.
        cut = max(text.rfind("\n", 0, cut), text.rfind(" ", 0, cut)) + 1 or cut
    return text[:cut], text[cut:]


# ---- train ------------------------------------------------------------------------------------------------------


def step_speedup(model: Any, steps: int, rounds: int = 3) -> float:
    """Seconds of one training step with the reference's recurrent layer over seconds with the engine's, in turn.

    steps is the length of the chunk; embedding, output layer and loss are the same in both.
    """
    model = copy.deepcopy(model)
    ids = np.random.default_rng(0).integers(len(model.vocabulary), size=(steps + 1, model.batch_size))
    seconds: dict[Any, list[float]] = {reference: [], functional: []}
    for _ in range(rounds + 1):
        for backend, times in seconds.items():
            model.layers["recurrent"].backend = backend
            start = time.perf_counter()
            model.loss_and_gradients(ids[:-1], ids[1:])
            times.append(time.perf_counter() - start)
    # The first round only warms up.
    return statistics.median(seconds[reference][1:]) / statistics.median(seconds[functional][1:])


class Report:
    """Follows a training run: progress bar, a line and a sample each epoch, the losses for the curve."""

    def __init__(self, model: Any, arguments: Any, training: str, held_out: str) -> None:
        self.model, self.arguments = model, arguments
        self.training, self.held_out_text = training, held_out
        self.losses: list[float] = []
        self.held_out: list[tuple[int, float]] = []
        self.start = time.perf_counter()
        # No bar where the output is a file.
        self.bar = Bar(disable=None) if importlib.util.find_spec("tqdm") is not None else None
        self.late = False

    def __call__(self, progress: Any) -> bool:
        self.losses.append(progress.loss)
        if progress.update == 1:
            self.begin(progress)
        seconds = time.perf_counter() - self.start
        if self.bar is not None:
            self.bar(progress)
        if progress.held_out is not None:
            self.held_out.append((progress.update, progress.held_out))
            self.epoch(progress)
        self.late = bool(self.arguments.minutes) and seconds > 60 * self.arguments.minutes
        return self.late

    def begin(self, progress: Any) -> None:
        vocabulary = self.model.vocabulary
        parameters = sum(p.size for p in self.model.params.values())
        self.say(
            f"{self.model.num_layers} x {self.model.hidden_size} {self.model.cell.upper()}, "
            f"{len(vocabulary):,} {vocabulary.level}s, {parameters:,} parameters; "
            f"{progress.updates:,} updates of {self.model.batch_size} x {self.model.chunk_length} tokens"
        )
        tokens = len(vocabulary.encode(self.training))
        speedup = step_speedup(self.model, max(1, min(self.model.chunk_length, tokens // self.model.batch_size)))
        self.say(f"with the NumPy reference in the engine's place, a training step takes {speedup:.1f} times as long\n")
        self.start = time.perf_counter()

    def epoch(self, progress: Any) -> None:
        record = self.model.history[-1]
        rate = record["tokens"] / record["seconds"]
        self.say(
            f"epoch {progress.epoch}/{self.model.epochs}: training loss {record['loss']:.3f}, "
            f"held-out {self.describe(progress.held_out)}; "
            f"{rate:,.0f} tokens/s"
        )
        text = self.model.sample(self.arguments.sample, temperature=0.8, seed=progress.epoch)
        self.say("    " + text.strip().replace("\n", "\n    ") + "\n")

    def describe(self, nats: float) -> str:
        tokens = len(self.model.vocabulary.encode(self.held_out_text))
        return describe_loss(nats, self.model, len(self.held_out_text) / tokens)

    def say(self, text: str) -> None:
        if self.bar is not None:
            self.bar.write(text)
        else:
            print(text, flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def describe_loss(nats: float, model: Any, characters_per_token: float) -> str:
    bits = nats / math.log(2) / characters_per_token
    if model.level == "char":
        return f"{nats:.3f} nats = {bits:.3f} bits a character"
    return f"{nats:.3f} nats a word (perplexity {math.exp(min(nats, 700)):,.1f}), {bits:.3f} bits a character"


def check_output(arguments: Any) -> tuple[Path, Path | None]:
    """Return the paths of the model and the loss curve, if there is to be one; UserError if they cannot be written."""
    output = Path(arguments.output)
    picture = None if is_stream(output) else output.with_suffix(".png")
    folder = os.path.dirname(os.path.realpath(output))  # of the file itself, where output is a link to one
    if picture is None:
        if not os.access(output, os.W_OK):
            raise UserError(f"cannot write {output}: Permission denied")
    elif os.path.isdir(output):
        raise UserError(f"cannot write {output}: Is a directory")
    elif not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise UserError(f"cannot write {output}: {folder} must be a directory that can be written to")
    if picture == output:
        raise UserError(f"cannot write the model to {output}: the loss curve goes there")
    for file in (arguments.file, arguments.held_out_file):
        if file is not None and output.exists() and Path(file).exists() and output.samefile(file):
            raise UserError(f"cannot write the model to {output}: it is a text that is read")
    return output, picture


def make_model(arguments: Any) -> Any:
    try:
        model = rnncore.LanguageModel(
            arguments.level,
            arguments.cell,
            arguments.hidden,
            arguments.layers,
            embedding_size=arguments.embedding,
            dropout=arguments.dropout,
            recurrent_dropout=arguments.recurrent_dropout,
            max_vocabulary=arguments.vocabulary,
            epochs=arguments.epochs,
            batch_size=arguments.batch,
            chunk_length=arguments.chunk,
            learning_rate=arguments.learning_rate,
            learning_rate_decay=arguments.decay,
            clip_norm=arguments.clip,
            patience=arguments.patience,
            dtype=arguments.dtype,
            random_state=arguments.seed,
        )
        model.check_settings()
    except ValueError as error:
        raise UserError(str(error)) from None
    return model


def read_texts(arguments: Any) -> tuple[str, str, str]:
    """Return the name of the text, the training text and the held-out text."""
    if arguments.file is None:
        name, text = "Python's help topics", default_text()
    else:
        name, text = arguments.file, read_text(arguments.file, arguments.encoding)
    if arguments.held_out_file is not None:
        training, held_out = text, read_text(arguments.held_out_file, arguments.encoding)
    else:
        training, held_out = split(text, arguments.held_out, arguments.level)
    counts = [len(part) if arguments.level == "char" else len(part.split()) for part in (training, held_out)]
    if counts[0] < 2 * arguments.batch or counts[1] < 1:
        raise UserError(
            f"{name} is too short: {counts[0]} training and {counts[1]} held-out tokens; "
            f"--batch {arguments.batch} needs at least {2 * arguments.batch} and 1"
        )
    return name, training, held_out


def train(arguments: Any) -> int:
    output, picture = check_output(arguments)
    model = make_model(arguments)
    name, training, held_out = read_texts(arguments)
    print(f"{name}: {len(training):,} characters to train on, {len(held_out):,} held out", flush=True)
    report = Report(model, arguments, training, held_out)
    try:
        model.fit(training, held_out, callback=report)
    finally:
        # Whatever ends the training, what was learned is kept. Only the reader of a FIFO may be long in coming.
        with nullcontext() if is_stream(output) else interrupts_later():
            report.close()
            if report.losses:
                try:
                    model.save(output)
                except OSError as error:
                    raise UserError(f"cannot write {output}: {error.strerror}") from None
                begin = "\n" if model.interrupted else ""  # after the ^C of the terminal
                print(f"{begin}model: {output}   (rnncore sample {output})", flush=True)
    if not report.losses:
        raise KeyboardInterrupt
    if model.interrupted:
        kept = "the model of the best epoch" if report.held_out else "the model so far"
        print(f"interrupted after {len(report.losses)} updates: keeping {kept}")
    elif report.late:
        print(f"stopped after {arguments.minutes:g} minutes; ", end="", flush=True)
        print(f"held-out {report.describe(math.log(model.perplexity(held_out)))}")
    elif arguments.patience is not None:
        best = min(model.history, key=lambda record: record["held_out"])
        print(f"keeping the model of epoch {best['epoch']}, held-out {report.describe(best['held_out'])}")
    if picture is not None and importlib.util.find_spec("matplotlib") is not None:
        draw_loss_curve(report, picture)
    return INTERRUPTED if model.interrupted else 0


def draw_loss_curve(report: Report, picture: Path) -> None:
    """Write the loss curve beside the model, or say why not; it replaces nothing but an earlier loss curve."""
    from .plots import loss_curve

    try:
        if picture.exists() and not is_loss_curve(picture):
            print(f"rnncore: no loss curve: {picture} is something else, and stays as it is", file=sys.stderr)
            return
        figure = loss_curve(report.losses, report.held_out).figure
        with replacing(picture) as file:
            figure.savefig(file, format="png", dpi=120, metadata={"Title": LOSS_CURVE})
        print(f"loss curve: {picture}")
    except OSError as error:
        print(f"rnncore: no loss curve: cannot write {picture}: {error.strerror}", file=sys.stderr)


def is_loss_curve(path: Path) -> bool:
    """Tell whether :func:`draw_loss_curve` wrote this file."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        start = file.read(1000)
    return start.startswith(b"\x89PNG\r\n\x1a\n") and f"tEXtTitle\0{LOSS_CURVE}".encode() in start


# ---- sample, score, bench, info ---------------------------------------------------------------------------------


def load(path: str | PathLike[str]) -> Any:
    try:
        model = rnncore.load(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(str(error)) from None
    if not isinstance(model, rnncore.LanguageModel):
        raise UserError(f"{path} holds a {type(model).__name__}; this command takes a LanguageModel")
    return model


def sample(arguments: Any) -> int:
    model = load(arguments.model)
    start = time.perf_counter()
    try:
        text = model.sample(
            arguments.n,
            arguments.prompt,
            arguments.temperature,
            arguments.top_k,
            arguments.top_p,
            arguments.seed,
        )
    except ValueError as error:
        raise UserError(str(error)) from None
    seconds = time.perf_counter() - start
    separator = " " if model.level == "word" and arguments.prompt else ""
    print(arguments.prompt + separator + text)
    tokens = max(len(model.vocabulary.encode(text)), 1)
    print(f"{tokens / seconds:,.0f} {model.level}s a second", file=sys.stderr)
    return 0


def score(arguments: Any) -> int:
    model = load(arguments.model)
    text = read_text(arguments.file, arguments.encoding)
    tokens = len(model.vocabulary.encode(text))
    nats = math.log(model.perplexity(text))
    unknown = int((model.vocabulary.encode(text) == model.vocabulary.unk_id).sum())
    print(f"{arguments.file}: {tokens:,} {model.level}s, {unknown:,} of them unknown to the model")
    print(describe_loss(nats, model, len(text) / tokens))
    return 0


def compare(arguments: Any) -> Any:
    from .bench.command import main

    return main(["--short", *arguments.rest])


def info(arguments: Any) -> int:
    print(f"rnncore {rnncore.__version__}")
    print(f"Python {platform.python_version()}, NumPy {np.__version__}")
    print(f"machine: {platform.machine()}, {os.cpu_count()} cores; at most {rnncore.get_num_threads()} threads in use")
    isas = (f"{isa} (in use)" if isa == _engine.current_isa() else isa for isa in rnncore.available_isas())
    print(f"instruction sets: {', '.join(isas)}")
    for extra in ("tqdm", "matplotlib"):
        found = "installed" if importlib.util.find_spec(extra) else 'not installed: pip install "rnncore[cli]"'
        print(f"{extra}: {found}")
    return 0


# ---- arguments --------------------------------------------------------------------------------------------------


def argument_type(convert: Any, rule: Any) -> Any:
    """Return a type of argparse that converts a text and checks the value with a rule of :mod:`rnncore.checks`."""

    def parse(text: Any) -> Any:
        try:
            value = convert(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"invalid {convert.__name__} value: {text!r}") from None
        try:
            return rule("", value)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error).strip()) from None

    return parse


count = argument_type(int, partial(checks.integer, least=1))
positive = argument_type(float, checks.positive)
proper_share = argument_type(float, checks.proper_share)


def make_parser() -> Any:
    parser = argparse.ArgumentParser(prog="rnncore", description="Recurrent networks on the CPU: language models.")
    parser.add_argument("--version", action="version", version=f"rnncore {rnncore.__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    defaults = argparse.ArgumentDefaultsHelpFormatter

    p = commands.add_parser("train", help="train a language model on a text file", formatter_class=defaults)
    p.add_argument("file", nargs="?", help="a text file; without one, Python's own help topics")
    p.add_argument("-o", "--output", default="model.npz", help="model file; the loss curve goes beside it")
    p.add_argument("--level", choices=["char", "word"], default="char", help="what a token is")
    p.add_argument("--cell", choices=CELLS, default="lstm", help="recurrent cell")
    p.add_argument("--hidden", type=count, default=256, help="hidden size")
    p.add_argument("--layers", type=count, default=1, help="layers")
    p.add_argument(
        "--embedding",
        type=int,
        help="embedding size; if not given 64 for characters, --hidden for words; 0 for one-hot",
    )
    p.add_argument("--dropout", type=float, default=0.0, help="after the embedding and after each layer")
    p.add_argument("--recurrent-dropout", type=float, default=0.0, help="of hidden units, the same at all steps")
    p.add_argument("--vocabulary", type=count, help="largest vocabulary; 10000 for words")
    p.add_argument("--epochs", type=count, default=6, help="passes over the text")
    p.add_argument("--minutes", type=positive, help="stop after so many minutes")
    p.add_argument("--batch", type=count, default=32, help="streams side by side")
    p.add_argument("--chunk", type=count, default=64, help="steps that gradients go back")
    p.add_argument("--learning-rate", type=positive, default=2e-3, help="of Adam")
    p.add_argument("--decay", type=positive, default=1.0, help="factor of the learning rate after each epoch")
    p.add_argument("--patience", type=count, help="stop after so many epochs without a better held-out loss")
    p.add_argument("--clip", type=positive, default=5.0, help="largest norm of the gradients")
    p.add_argument("--held-out", type=proper_share, default=0.1, help="share of the text, its end, that is held out")
    p.add_argument("--held-out-file", help="a text file that is held out, instead of a share of the other")
    p.add_argument("--sample", type=count, default=200, help="tokens of the sample after each epoch")
    p.add_argument("--dtype", choices=["float32", "float64"], default="float32", help="type of all numbers")
    p.add_argument("--seed", type=int, default=0, help="of the initial parameters and dropout")
    p.add_argument("--encoding", default="utf-8-sig", help="encoding of the file")
    p.set_defaults(run=train)

    p = commands.add_parser("sample", help="draw text from a model", formatter_class=defaults)
    p.add_argument("model", help="a model file of rnncore train")
    p.add_argument("-n", type=count, default=500, help="tokens")
    p.add_argument("--prompt", default="", help="text to go on from")
    p.add_argument("--temperature", type=float, default=0.8, help="below 1 more careful, 0 always the likeliest")
    p.add_argument("--top-k", type=count, help="draw among the k likeliest")
    p.add_argument("--top-p", type=float, help="draw among the likeliest that reach this probability")
    p.add_argument("--seed", type=int, help="for the same text again")
    p.set_defaults(run=sample)

    p = commands.add_parser("score", help="how well a model predicts a text", formatter_class=defaults)
    p.add_argument("model", help="a model file of rnncore train")
    p.add_argument("file", help="a text file")
    p.add_argument("--encoding", default="utf-8-sig", help="encoding of the file")
    p.set_defaults(run=score)

    p = commands.add_parser("bench", add_help=False, help="the engine beside NumPy, PyTorch and ONNX Runtime, briefly")
    p.set_defaults(run=compare)

    p = commands.add_parser("info", help="versions, threads and instruction sets")
    p.set_defaults(run=info)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = make_parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest and arguments.command != "bench":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    arguments.rest = rest  # bench has options of its own
    for stream in (sys.stdout, sys.stderr):
        # A character that the terminal cannot show must not end a training run.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        return arguments.run(arguments)
    except UserError as error:
        print(f"rnncore: error: {error}", file=sys.stderr)
        return 2
    except MemoryError as error:
        print(f"rnncore: error: not enough memory: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("rnncore: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of the output has gone (head, less): nothing to say, and nobody to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
