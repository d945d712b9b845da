"""``rnncore train``: a language model of a text file."""

from __future__ import annotations

import copy
import importlib.util
import itertools
import math
import os
import statistics
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import rnncore

from .. import functional, reference
from ..distributed import CommonError, Ranks
from ..files import is_stream, replacing
from ..interrupts import interrupts_later
from ..models.shards import SHARDS, check_shards
from ..models.training import Bar
from .commands import load_language_model
from .errors import DONE, INTERRUPTED, UserError
from .ranks import as_ranks, describe, find_comm, table, together
from .texts import count_characters, count_tokens, describe_loss, read_texts

MAY_CHANGE = ("epochs", "patience")  # settings, in a run that goes on
LOSS_CURVE = "rnncore loss curve"  # title in the metadata of our pictures, by which they are known again


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

    def __init__(self, model: Any, arguments: Any, training: Any, held_out: Any) -> None:
        self.model, self.arguments = model, arguments
        self.training, self.held_out_text = training, held_out
        self.characters_per_token: float | None = None  # of the held-out text
        self.losses: list[float] = model.losses  # those of a run that goes on
        ends = itertools.accumulate(record["updates"] for record in model.history)
        scored = [record["held_out"] for record in model.history]
        self.held_out = [(end, nats) for end, nats in zip(ends, scored, strict=True) if nats is not None]
        self.begun = False
        self.start = time.perf_counter()
        # No bar where the output is a file.
        self.bar = Bar(disable=None) if importlib.util.find_spec("tqdm") is not None else None
        self.late = False

    def __call__(self, progress: Any) -> bool:
        self.losses[progress.update - 1 :] = [progress.loss]
        if not self.begun:
            self.begun = True
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
        tokens = count_tokens(self.training, vocabulary)
        speedup = step_speedup(self.model, max(1, min(self.model.chunk_length, tokens // self.model.batch_size)))
        self.say(f"{speedup:.1f} times as fast a training step as with the NumPy reference in the engine's place\n")
        if progress.update > 1:
            self.say(f"going on after update {progress.update - 1:,}, in epoch {progress.epoch}\n")
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
        if not is_stream(self.arguments.output):
            self.save()

    def save(self) -> None:
        """Save the model while the training goes on: what kills the process then costs one epoch."""
        try:
            save(self.model, Path(self.arguments.output))
        except UserError as error:
            self.say(f"{error}; the training goes on")

    def saved_update(self) -> int:
        """Return the update whose parameters the model has."""
        if self.held_out and (self.model.interrupted or self.model.patience is not None):
            return min(self.held_out, key=lambda scored: scored[1])[0]
        return len(self.losses)

    def describe(self, nats: float) -> str:
        if self.characters_per_token is None:
            tokens = count_tokens(self.held_out_text, self.model.vocabulary)
            self.characters_per_token = count_characters(self.held_out_text) / tokens
        return describe_loss(nats, self.model, self.characters_per_token)

    def say(self, text: str) -> None:
        if self.bar is not None:
            self.bar.write(text)
        else:
            print(text, flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


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


def resume_model(arguments: Any) -> Any:
    """Return the model of the output file, with the settings of these arguments; UserError if they are others."""
    wanted = make_model(arguments).get_params()
    model = load_language_model(arguments.output)
    if not model.losses:
        raise UserError(f"--resume needs a file of rnncore train; {arguments.output} holds a model without its run")
    for name, value in model.get_params().items():
        if name not in MAY_CHANGE and value != wanted[name]:
            run = f"the run in {arguments.output} has {name} = {value!r}"
            raise UserError(f"--resume needs the same options: {run}; got {wanted[name]!r}")
    return model.set_params(**{name: wanted[name] for name in MAY_CHANGE})


def train(arguments: Any) -> int:
    comm = find_comm()
    with as_ranks(comm, arguments.timeout) as ranks:
        if arguments.ranks_check:
            text = table(ranks)
            if ranks.rank == 0:
                print(text)
            return DONE
        if ranks.size > 1:
            text = describe(ranks)
            if ranks.rank == 0:
                print(text, flush=True)
        run = together(ranks, lambda: prepare(arguments, ranks))
    if ranks.rank == 0:
        return Lead(run, arguments).train(comm)
    return fit(run, comm, arguments, silent=True)


class Prepared(NamedTuple):
    """What a run needs, checked."""

    output: Path
    picture: Path | None
    resume: bool
    model: Any
    name: str
    training: Any
    held_out: Any


def prepare(arguments: Any, ranks: Ranks) -> Prepared:
    output, picture = check_output(arguments)
    resume = arguments.resume and output.exists()
    model = resume_model(arguments) if resume else make_model(arguments)
    if ranks.size > 1 or arguments.shards is not None:
        try:
            check_shards(arguments.shards or SHARDS, ranks)
        except ValueError as error:
            raise UserError(str(error)) from None
    return Prepared(output, picture, resume, model, *read_texts(arguments))


def fit(run: Prepared, comm: Any, arguments: Any, callback: Any = None, *, silent: bool = False) -> int:
    """Train; -> exit code"""
    options = {"comm": comm, "shards": arguments.shards, "timeout": arguments.timeout}
    before = len(run.model.losses)
    try:
        run.model.fit(run.training, run.held_out, callback=callback, resume=run.resume, **options)
    except ValueError as error:
        if isinstance(error, CommonError):  # a parameter that became infinite
            raise UserError(str(error), silent=silent) from None
        if not run.resume or len(run.model.losses) > before:
            raise
        raise UserError(f"cannot go on with {run.output}: {error}", silent=silent) from None
    return INTERRUPTED if run.model.interrupted else DONE


class Lead:
    """The rank that reports and writes, or the only process."""

    def __init__(self, run: Prepared, arguments: Any) -> None:
        self.run, self.arguments = run, arguments
        self.report = Report(run.model, arguments, run.training, run.held_out)
        self.last: Path | None = None

    def train(self, comm: Any) -> int:
        run, report = self.run, self.report
        counts = [f"{count_characters(text):,}" for text in (run.training, run.held_out)]
        print(f"{run.name}: {counts[0]} characters to train on, {counts[1]} held out", flush=True)
        try:
            code = fit(run, comm, self.arguments, report)
        finally:
            # Whatever ends the training, what was learned is kept. Only the reader of a FIFO may be long in coming.
            with nullcontext() if is_stream(run.output) else interrupts_later():
                report.close()
                if report.begun:
                    self.save()
        if report.begun:
            self.say_how_it_ended()
            if run.picture is not None and importlib.util.find_spec("matplotlib") is not None:
                draw_loss_curve(report, run.picture)
            return code
        if run.model.interrupted:
            raise KeyboardInterrupt
        larger = "--patience" if len(run.model.history) < run.model.epochs else "--epochs"
        print(f"{run.output}: the run has ended, after {len(run.model.history)} epochs; a larger {larger} goes on")
        return DONE

    def save(self) -> None:
        model, output = self.run.model, self.run.output
        save(model, output)
        begin = "\n" if model.interrupted else ""  # after the ^C of the terminal
        print(f"{begin}model: {output}   (rnncore sample {output})", flush=True)
        if model.last_params is not None and self.run.picture is not None:
            self.last = save_last(model, output.with_suffix(".last.npz"))

    def say_how_it_ended(self) -> None:
        model, report, output = self.run.model, self.report, self.run.output
        if model.interrupted:
            updates, saved = len(report.losses), report.saved_update()
            print(f"interrupted after {updates:,} updates: {output} has the parameters of update {saved:,}", end="")
            print(", of the best epoch" if model.last_params is not None else "")
            if self.run.picture is not None:
                print("the same command with --resume goes on")
            if self.last is not None:
                print(f"{self.last} has those of update {updates:,}, the last   (rnncore sample {self.last})")
        elif report.late:
            print(f"stopped after {self.arguments.minutes:g} minutes; ", end="", flush=True)
            print(f"held-out {report.describe(math.log(model.perplexity(self.run.held_out)))}")
        elif self.arguments.patience is not None:
            best = min(model.history, key=lambda record: record["held_out"])
            print(f"keeping the model of epoch {best['epoch']}, held-out {report.describe(best['held_out'])}")


def save(model: Any, path: Path, *, training: bool = True) -> None:
    try:
        model.save(path, training=training)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None


def save_last(model: Any, path: Path) -> Path | None:
    """Save the parameters of the last update; return the path, or None if something else is there."""
    if path.exists():
        try:
            rnncore.load(path)
        except ValueError:
            print(
                f"rnncore: the last update is not saved: {path} is something else, and stays as it is", file=sys.stderr
            )
            return None
    best = {name: p.copy() for name, p in model.params.items()}
    for name, p in model.params.items():
        p[...] = model.last_params[name]
    try:
        save(model, path, training=False)
    finally:
        for name, p in model.params.items():
            p[...] = best[name]
    return path


def draw_loss_curve(report: Report, picture: Path) -> None:
    """Write the loss curve beside the model, or say why not; it replaces nothing but an earlier loss curve."""
    from ..plots import loss_curve

    try:
        if picture.exists() and not is_loss_curve(picture):
            print(f"rnncore: no loss curve: {picture} is something else, and stays as it is", file=sys.stderr)
            return
        figure = loss_curve(report.losses, report.held_out, saved=report.saved_update()).figure
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
