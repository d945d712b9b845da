"""One call: which callable, its valid arguments, which of them are made hostile, and the judgement of what came out."""

import contextlib
import inspect
import os
import pickle
import random
import re
import resource
import sys
import threading
import time
import traceback
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np

import rnncore as rc
from rnncore import _engine

from . import surface, values
from .context import Context, quiet
from .recipes import RECEIVERS, RECIPES

PACKAGE = str(Path(rc.__file__).parent)
ALLOWED = (TypeError, ValueError, IndexError, MemoryError, OSError)

#: Other errors that are documented.
DOCUMENTED = {"testing.": AssertionError, "compat.": KeyError, "cli.main": SystemExit}

#: Numbers that are work which is asked for.
BOUNDED = {"epochs", "num_iterations", "n_jobs", "max_length", "n", "seconds", "timeout", "dino_names", "num_layers"}

#: Parameters with a default that a valid call needs all the same.
ALWAYS = {"seconds", "sources", "vocab_size", "num_iterations", "n_a", "dino_names", "epochs", "held_out", "n", "form"}

#: Messages that are right and name no argument.
REFUSALS = (
    # what this object cannot do, or this file is not
    "is quantized|cannot be (trained|quantized)|cannot go step by step|needs a model|no LSTM layer|damaged",
    "is no weight of|is no ONNX model|must have (keys|names) that start|belongs to an RNN",
    "the model has no parameters|is not a model file|not a safetensors file|backward needs a forward",
    "attributes of [A-Z]+ are|the graph has no|(RNN|GRU|LSTM) '|is not finite|must be finite|must fit in",
    "the sequences here are|calibration sets|two names of one setting|takes at least one",
    # what Python and NumPy say of the object that was given
    r"__len__\(\) should return|__bool__ should return|returned non-iterator|takes exactly",
    "maximum supported dimension|Cannot compare structured",
)

#: Plain NumPy in the notation of a notebook, which says what NumPy says.
PLAIN_NUMPY = ("compat.dinosaurus.", "compat.cs231n.sigmoid")
NUMPY_ERRORS = AttributeError, ArithmeticError, KeyError, Warning

#: How often a callable is chosen, by the beginning of its name; others 1.
WEIGHTS = {
    "cli.": 0.03,
    "plots.": 0.03,
    "testing.": 0.2,
    "lstm_": 4,
    "gru_": 4,
    "rnn_": 4,
    "mingru_": 4,
    "softmax": 4,
    "fused": 4,
    "ctc": 4,
    "crf": 4,
    "viterbi": 4,
    "freeze": 3,
    "FrozenCell": 3,
    "layers.": 2,
    "compare": 0.1,
    "use_isa": 0.3,
    "show_config": 0.02,
    "load": 0.1,
    "interop.": 0.7,
    "interop.safetensors": 0.05,
    "interop.onnx.from_onnx": 0.1,
}
MODEL_WEIGHT, RARE_WEIGHT, RARE = 0.3, 0.04, (".fit", ".save")
MODELS = ("EncoderDecoder", "LanguageModel", "Sequence", "Corpus")

#: Other words by which messages name an argument.
WORDS = {
    "x": ("ids",),
    "inputs": ("x", "ids"),
    "options": ("gate_order", "output_activation", "got an unexpected"),
    "state": ("h0", "c0", "h", "c"),
    "argv": ("",),
    "cache": ("ids", "caches"),
    "a0": ("a_prev",),
    "found": ("result",),
    "wanted": ("result",),
    "params": ("settings", "W", "b", "Wx", "Wh", "transitions"),
    "grads": ("dW", "db", "dWx", "dWh"),
    "texts": ("text",),
    "sources": ("x", "ids", "source"),
    "targets": ("tags",),
}

MEGABYTES, SECONDS = 300, 3.0


def weight_of(name):
    short = name.removeprefix("rnncore.")
    if short.startswith(MODELS):
        return RARE_WEIGHT if short.startswith("Corpus") or short.endswith(RARE) else MODEL_WEIGHT
    return max((len(begin), weight) for begin, weight in {"": 1, **WEIGHTS}.items() if short.startswith(begin))[1]


class Fuzzer:
    """Makes the call of an index: from the seed and the index alone."""

    def __init__(self, seed, directory):
        self.seed, self.directory = seed, Path(directory)
        self.targets = {name: target for name, target in surface.targets().items() if surface.is_called(target)}
        self.names = list(self.targets)
        self.weights = np.cumsum([weight_of(name) for name in self.names]).tolist()
        self.parameters = {name: target.parameters() for name, target in self.targets.items()}
        if count := os.environ.get("RNNCORE_TEST_THREADS"):  # as in conftest.py
            rc.set_num_threads(int(count))
            _engine.set_cost_rule(flops=1, rows=2, products=1, units=4, cores=64)
        self.isa, self.threads = _engine.get_isa(), rc.get_num_threads()
        self.out = quiet()

    def made(self, name, rng, is_hostile=True):
        """A call of one callable."""
        return Call(self.targets[name], self.parameters[name], Context(rng, self.directory), is_hostile)

    def call(self, index, shows=False):
        """Make the call, and return what came of it."""
        rng = random.Random(f"{self.seed}:{index}")
        name = rng.choices(self.names, cum_weights=self.weights)[0]
        made = self.made(name, rng)
        made.shows = shows
        before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        with warnings.catch_warnings(), contextlib.redirect_stdout(self.out), contextlib.redirect_stderr(self.out):
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", UserWarning)  # those that are documented
            outcome = made.run()
        took = time.process_time() - begin
        grew = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        if grew > MEGABYTES:
            outcome.findings.append(f"memory: {grew:.0f} MB")
        if took > SECONDS:
            outcome.findings.append(f"time: {took:.1f} s")
        if "set_num_threads" in name or "use_isa" in name:
            rc.set_num_threads(self.threads)
            rc.use_isa(self.isa)
        return outcome


class Call:
    """A valid call, of which some arguments are then made hostile."""

    def __init__(self, target, parameters, context, is_hostile):
        self.is_hostile = is_hostile
        self.target, self.parameters, self.context = target, parameters, context
        self.name = target.name.removeprefix("rnncore.")
        self.rng = context.rng
        self.hostile = []  # of (argument, kind, name of the value)
        self.only_crashes, self.shows = False, False

    def run(self):
        outcome = SimpleNamespace(name=self.target.name, error=None, findings=[], hostile=[], where="")
        context = self.context
        if self.target.is_method:
            owner = self.name.rpartition(".")[0]
            context.receiver = RECEIVERS[owner](context)
        scenarios = RECIPES.get(self.name, [{}])
        recipe = self.rng.choice(scenarios)
        arguments = self.valid(recipe)
        if self.is_hostile:
            self.make_hostile(arguments, recipe)
        outcome.hostile = [f"{argument}: {name}" for argument, _, name in self.hostile]
        if self.shows:
            print(self.target.name, outcome.hostile, file=sys.__stdout__, flush=True)
        function = self.target.get(context.receiver)
        args, keywords = self.bind(arguments)
        try:
            with self.other_thread(arguments):
                result = function(*args, **keywords)
                if inspect.isgenerator(result):
                    for _, _ in zip(range(4), result, strict=False):
                        pass
            self.follow(result, arguments)
        except BaseException as error:
            outcome.error = type(error).__name__
            if not self.is_right(error):
                outcome.findings.append(self.describe(outcome, error))
        return outcome

    # ---- the valid call -----------------------------------------------------------------------------------------

    def valid(self, recipe):
        arguments = {}
        for name, parameter in self.parameters.items():
            optional = parameter.default is not parameter.empty or parameter.kind is parameter.VAR_KEYWORD
            optional = optional or parameter.kind is parameter.VAR_POSITIONAL
            if name in recipe and (not optional or name in ALWAYS or self.rng.random() < 0.35):
                arguments[name] = recipe[name](self.context)
            elif not optional:
                raise AssertionError(f"tests/fuzz/recipes.py has no valid value for {name} of {self.target.name}")
        return arguments

    def bind(self, arguments):
        args, keywords = [], {}
        for name, value in arguments.items():
            kind = self.parameters[name].kind
            if kind is inspect.Parameter.VAR_POSITIONAL:
                try:
                    args += value if isinstance(value, (list, tuple)) else [value]
                except Exception:
                    args.append(None)
            elif kind is inspect.Parameter.VAR_KEYWORD:
                if type(value) is dict:
                    keywords |= {str(key): item for key, item in value.items()}
                else:
                    keywords["hostile"] = value
            elif kind is inspect.Parameter.POSITIONAL_ONLY:
                args.append(value)
            else:
                keywords[name] = value
        return args, keywords

    # ---- made hostile -------------------------------------------------------------------------------------------

    def make_hostile(self, arguments, recipe):
        rng = self.rng
        candidates = list(self.parameters)
        for argument in rng.sample(candidates, min(rng.choice((0, 1, 1, 1, 1, 2, 3)), len(candidates))):
            if argument not in arguments and argument in recipe:
                arguments[argument] = recipe[argument](self.context)
            others = list(arguments.values())
            if argument in arguments and self.name != "cli.main":
                valid, bounded = arguments[argument], argument in BOUNDED
                kind, name, arguments[argument] = values.hostile(rng, valid, others, bounded=bounded)
            elif argument in arguments:
                kind, name = "value", "words"
            else:
                kind, name, arguments[argument] = values.anything(rng)
            self.hostile.append((argument, kind, name))
        receiver = self.context.receiver
        if receiver is not None and rng.random() < 0.2:
            self.make_parameters_hostile(receiver)
        if receiver is not None and rng.random() < 0.05:
            self.make_attribute_hostile(receiver)

    def make_parameters_hostile(self, receiver):
        layers = getattr(receiver, "layers", None)
        layer = self.rng.choice(list(layers.values())) if isinstance(layers, dict) and layers else receiver
        kept = self.rng.choice(("params", "grads"))
        table = getattr(layer, kept, None)
        if isinstance(table, dict) and table:
            key = self.rng.choice(list(table))
            kind, name, table[key] = values.hostile(self.rng, table[key], list(table.values()))
            self.hostile.append((f"{kept} {key} {key.split('_')[0]}", kind, name))
        elif isinstance(table, list) and table:
            place = self.rng.randrange(len(table))
            kind, name, table[place] = values.hostile(self.rng, table[place], table)
            self.hostile.append((kept, "shape", name))

    def make_attribute_hostile(self, receiver):
        """Public attributes that nobody should set: nothing may crash, whatever error there is."""
        names = [
            name
            for name, value in getattr(receiver, "__dict__", {}).items()
            if isinstance(value, (int, str, np.dtype)) and not name.startswith("_")
        ]
        if names:
            name = self.rng.choice(names)
            self.hostile.append((f"attribute {name}", "shape", "set"))
            with contextlib.suppress(AttributeError):
                setattr(receiver, name, values.hostile(self.rng, getattr(receiver, name), [], bounded=True)[2])
            self.only_crashes = True

    @contextlib.contextmanager
    def other_thread(self, arguments):
        """Half a percent of the calls: another thread changes an argument, back and forth, during the call."""
        arrays = [a for a in arguments.values() if type(a) is np.ndarray and a.flags.owndata and a.flags.writeable]
        if self.rng.random() > 0.005 or not arrays:
            yield
            return
        array = self.rng.choice(arrays)
        shape, stop = array.shape, threading.Event()
        self.hostile.append(("another thread", "shape", "changes"))

        def change():
            with contextlib.suppress(Exception):
                while not stop.is_set():
                    values.overwrite_values(array)
                    array.shape = (array.size,)
                    array.shape = shape

        thread = threading.Thread(target=change)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    # ---- afterwards ---------------------------------------------------------------------------------------------

    def follow(self, result, arguments):
        """The backward pass of a forward pass, its arguments changed in between; copies of what was called."""
        receiver = self.context.receiver
        if receiver is not None and self.rng.random() < 0.03 and not re.search("compat|[sS]tream", self.name):
            if not self.hostile:
                pickle.loads(pickle.dumps(receiver))
        if not self.name.endswith("forward") or not isinstance(result, tuple) or "compat" in self.name:
            return
        if result[-1] is None or not isinstance(result[0], np.ndarray):
            return
        if self.rng.random() < 0.5:
            for value in arguments.values():
                values.overwrite(value)
        self.hostile.append(("afterwards dy dh dcontext", "shape", "backward"))
        ones = np.ones_like(result[0])
        if receiver is not None:
            receiver.backward(ones, result[-1])
        else:
            getattr(rc, self.name.replace("forward", "backward"))(ones, result[-1])

    # ---- the judgement ------------------------------------------------------------------------------------------

    def is_right(self, error):
        if isinstance(error, values.HostileError) or (self.only_crashes and isinstance(error, Exception)):
            return True
        documented = tuple(kind for begin, kind in DOCUMENTED.items() if self.name.startswith(begin))
        if isinstance(error, SystemExit):
            return SystemExit in documented and error.code in (0, 2)
        if isinstance(error, ModuleNotFoundError) and "pip install" in str(error):
            return True
        if self.name.startswith(PLAIN_NUMPY) and isinstance(error, NUMPY_ERRORS):
            return True
        if not isinstance(error, (*ALLOWED, *documented)):
            return False
        return isinstance(error, (MemoryError, OSError, AssertionError)) or self.names_an_argument(str(error))

    def names_an_argument(self, message):
        """Whether a message names an argument that was made hostile, or one that a hostile shape does not fit."""
        opaque = any(argument in ("cache", "caches") for argument, _, _ in self.hostile)
        if opaque or re.search("|".join(REFUSALS), message) or self.name.startswith(PLAIN_NUMPY):
            return True
        if any(kind in ("shape", "layout") for _, kind, _ in self.hostile) or not self.hostile:
            if re.match(r"[\w\[\]' .]+ must ", message):
                return True
            accepted = [*self.parameters, *(argument for argument, _, _ in self.hostile)]
        else:
            accepted = [argument for argument, _, _ in self.hostile]
        accepted = [self.target.attribute.removesuffix("=") if name == "value" else name for name in accepted]
        words = {word for argument in accepted for word in (*argument.split(), *WORDS.get(argument, ()))}
        keys = {key for argument, _, name in self.hostile for key in re.findall(r"'(\w+)'", name)}
        words |= keys | {f"d{word}" for word in words} if "params" in words or "grads" in words else keys
        return any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)" if word else "", message) for word in words)

    def describe(self, outcome, error):
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(PACKAGE)]
        where = f"{Path(frames[-1].filename).relative_to(PACKAGE)}:{frames[-1].lineno}" if frames else "?"
        outcome.where = where
        text = f"{type(error).__name__}: {str(error)[:200]!r}"
        return f"{text} at {where}"
