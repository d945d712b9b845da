"""The training loop: epochs of batches, callbacks, history, the best epoch."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from .. import checks
from .._types import Array
from ..optim import Optimizer


class Progress(NamedTuple):
    """The progress of a training run, passed to the callbacks of ``fit``."""

    epoch: int  # from 1; goes on where a warm start goes on
    update: int  # of all updates of this run, from 1
    updates: int  # that the whole run will make
    tokens: int  # steps of sequences trained on so far
    loss: float  # of this update, nats
    held_out: float | None  # mean loss, after the last update of an epoch with validation data
    epoch_ends: bool  # after the last update of an epoch
    record: dict[str, Any]  # of the epoch, as in ``history``
    optimizer: Optimizer  # its learning_rate may be changed


Callback = Callable[[Progress], bool | None]
Callbacks = Callback | Sequence[Callback]


Schedule = Literal["cosine", "plateau"] | Callable[[int, int], float] | None
PLATEAU_EPOCHS = 2


def check_schedule(name: str, value: Any) -> Any:
    """Return a schedule; ValueError for anything else."""
    return value if value is None or callable(value) else checks.choice(name, value, ("cosine", "plateau"))


# The models that are being trained.
_running: set[Any] = set()


def check_idle(model: Any) -> None:
    """Raise RuntimeError if the model is being trained: its layers must stay what the run trains."""
    if model in _running:
        raise RuntimeError("the model is being trained: a callback of fit cannot call its build or fit")


class Run:
    """One run of training. It writes the model's parameters, ``history``, ``interrupted`` and ``last_params``.

    callbacks: a list of functions of a :class:`Progress`.
    """

    def __init__(self, model: Any, optimizer: Any, callbacks: list[Any]) -> None:
        self.model, self.optimizer, self.callbacks = model, optimizer, callbacks
        self.update = self.tokens = self.epochs = 0
        self.best, self.best_update, self.since_best = math.inf, 0, 0
        self.best_params: dict[str, Array] | None = None

    def train(self, make_batches: Callable[..., Any], score: Callable[..., Any] | None) -> None:
        """make_batches() gives the batches of an epoch; score() the mean loss of held-out data, or is None."""
        model = self.model
        model.interrupted, model.last_params = False, None
        try:
            _running.add(model)
            for _ in range(model.epochs):
                stopped = self._train_epoch(make_batches(), score)
                self.optimizer.learning_rate *= model.learning_rate_decay
                if stopped or (model.patience is not None and self.since_best >= model.patience):
                    break
        except KeyboardInterrupt:
            model.interrupted = True
        finally:
            _running.discard(model)
            for callback in self.callbacks:
                if isinstance(callback, Bar):
                    callback.close()
        if self.best_params is not None and (model.interrupted or model.patience is not None):
            if model.interrupted and self.best_update < self.update:
                model.last_params = {name: p.copy() for name, p in model.params.items()}
            for name, p in model.params.items():
                p[...] = self.best_params[name]

    def _train_epoch(self, batches: list[Any], score: Any) -> bool:
        """Return whether a callback ended the training."""
        model, optimizer = self.model, self.optimizer
        epoch = model.history[-1]["epoch"] + 1 if model.history else 1
        record: dict[str, Any] = {"epoch": epoch, "loss": 0.0, "held_out": None, "tokens": 0, "seconds": 0.0}
        record["learning_rate"] = optimizer.learning_rate
        model.history.append(record)
        groups = [batches[k : k + model.accumulation] for k in range(0, len(batches), model.accumulation)]
        updates, total = self.update + len(groups) * (model.epochs - self.epochs), 0.0
        self.epochs += 1
        for number, group in enumerate(groups, 1):
            start = time.perf_counter()
            loss, weight, tokens = self._gradients(group)
            factor = self._factor(self.update + 1, updates)
            if number == 1:
                record["learning_rate"] *= factor
            self._step(factor)
            total += weight
            self.update += 1
            self.tokens += tokens
            record["tokens"] += tokens
            if weight:
                record["loss"] += (loss - record["loss"]) * weight / total
            record["seconds"] += time.perf_counter() - start
            ends = number == len(groups)
            if ends and score is not None:
                record["held_out"] = score()
                self._compare(record["held_out"])
            run = (epoch, self.update, updates, self.tokens)
            at = Progress(*run, loss, record["held_out"], ends, record, optimizer)
            # All of them hear of every update, whatever one of them says.
            if any([callback(at) for callback in self.callbacks]):
                return True
        return False

    def _step(self, factor: float) -> None:
        """Update the parameters, with the learning rate times a factor."""
        optimizer, rate = self.optimizer, self.optimizer.learning_rate
        if factor == 0:
            return
        try:
            optimizer.learning_rate = rate * factor
            optimizer.step(self.model.grads, clip_norm=self.model.clip_norm)
        finally:
            optimizer.learning_rate = rate

    def _factor(self, update: int, updates: int) -> float:
        """What multiplies the learning rate of an update."""
        schedule, warm_up = self.model.schedule, self.model.warm_up
        if update <= warm_up:
            return update / warm_up
        if schedule == "cosine":
            return (1 + math.cos(math.pi * min(1, (update - 1 - warm_up) / max(updates - warm_up, 1)))) / 2
        return checks.not_negative("the value of schedule", schedule(update, updates)) if callable(schedule) else 1.0

    def _gradients(self, batches: list[Any]) -> tuple[float, float, int]:
        """Leave the gradient of the mean loss of some batches in ``grads``; return it, its weight, and the steps."""
        model = self.model
        if len(batches) == 1:
            return model._update(batches[0])
        means = {name: np.zeros_like(grad) for name, grad in model.grads.items()}
        loss = total = 0.0
        steps = 0
        for batch in batches:
            mean, weight, tokens = model._update(batch)
            total, steps = total + weight, steps + tokens
            share = weight / total if total else 0.0  # of the mean so far
            loss += (mean - loss) * share
            for name, grad in model.grads.items():
                means[name] += (grad - means[name]) * grad.dtype.type(share)
        for name, grad in model.grads.items():
            grad[...] = means[name]
        return loss, total, steps

    def _compare(self, held_out: float) -> None:
        self.since_best += 1
        if self.model.schedule == "plateau" and held_out >= self.best and self.since_best % PLATEAU_EPOCHS == 0:
            self.optimizer.learning_rate /= 2
        if held_out < self.best:
            self.best, self.best_update, self.since_best = held_out, self.update, 0
            self.best_params = {name: p.copy() for name, p in self.model.params.items()}


def as_callbacks(callback: Callbacks | None, progress: bool) -> list[Any]:
    """Return a list of callbacks; TypeError unless ``callback`` is None, a function or a list of them."""
    callbacks = [] if callback is None else [callback] if callable(callback) else callback
    if not isinstance(callbacks, (list, tuple)) or not all(map(callable, callbacks)):
        raise TypeError(f"callback must be a function or a list of functions; got {callback!r}")
    return [*callbacks, Bar()] if progress else list(callbacks)


class Bar:
    """A callback that shows a progress bar of tqdm, with the mean loss of the last 50 updates.

    Parameters
    ----------
    disable : bool or None
        As tqdm has it: None shows no bar where the output is not a terminal.
    """

    def __init__(self, disable: bool | None = False) -> None:
        try:
            from tqdm import tqdm
        except ModuleNotFoundError:
            raise ModuleNotFoundError("progress=True needs tqdm: pip install tqdm") from None
        self._make, self._disable = tqdm, disable
        self._bar: Any = None
        self._start = time.perf_counter()
        self._losses: deque[float] = deque(maxlen=50)

    def __call__(self, progress: Progress) -> None:
        if self._bar is None:
            self._bar = self._make(total=progress.updates, unit="update", disable=self._disable, mininterval=0.5)
        rate = progress.tokens / (time.perf_counter() - self._start)
        held_out = "" if progress.held_out is None else f", held-out {progress.held_out:.3f}"
        self._losses.append(progress.loss)
        loss = sum(self._losses) / len(self._losses)
        text = f"epoch {progress.epoch}, loss {loss:.3f}{held_out}, {rate:,.0f} tokens/s"
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update()

    def write(self, text: str) -> None:
        """Print a line above the bar."""
        self._make.write(text)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()
