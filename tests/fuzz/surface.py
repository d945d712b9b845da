"""What is public: the names in ``__all__`` of the public modules, and the methods of their classes, by inspection."""

import functools
import importlib
import inspect
from typing import NamedTuple

#: Beside rnncore itself. Not the reference, which is what tests compare with, and not the bridge to PyTorch: slow.
MODULES = (
    *("distributed", "metrics", "plots", "testing", "cli", "layers.stream"),
    *(f"compat.{name}" for name in ("coursera", "cs231n", "dinosaurus", "dlfs2", "min_char_rnn")),
    *(f"interop.{name}" for name in ("keras", "onnx", "safetensors", "state_dict")),
)

#: Classes that public functions return.
RESULTS = (
    "layers.simple.QuantizedDense",
    "layers.simple.QuantizedEmbedding",
    "layers.attention.QuantizedAttention",
    "models.transcriber.TranscriptionStream",
)


class Target(NamedTuple):
    """A public callable: of a module, of a class (a constructor or static method), or a method."""

    name: str  # "rnncore.LSTM.forward"
    owner: object  # the module, or the class
    attribute: str  # "__call__", "state=" for the setter of a property
    is_method: bool

    def get(self, receiver=None):
        """The callable, bound to an object if it is a method."""
        if self.attribute.endswith("="):
            return functools.partial(setattr, receiver, self.attribute[:-1])
        if self.attribute == "__init__":
            return self.owner
        return getattr(receiver if self.is_method else self.owner, self.attribute)

    def parameters(self):
        if self.attribute.endswith("="):
            return {"value": inspect.Parameter("value", inspect.Parameter.POSITIONAL_ONLY)}
        function = self.owner if self.attribute == "__init__" else getattr(self.owner, self.attribute)
        parameters = dict(inspect.signature(function).parameters)
        if self.is_method:
            parameters.pop("self", None)
        return parameters


def targets():
    """All public callables, by name."""
    found = {}
    for module in ("", *MODULES):
        name = f"rnncore.{module}".rstrip(".")
        try:
            place = importlib.import_module(name)
        except ModuleNotFoundError:  # an extra
            continue
        for public in place.__all__:
            _add(found, f"{name}.{public}", place, public)
    for path in RESULTS:
        module, _, attribute = path.rpartition(".")
        place = importlib.import_module(f"rnncore.{module}")
        if hasattr(place, attribute):
            _add(found, f"rnncore.{path}", place, attribute)
    return found


def _add(found, name, place, attribute):
    value = getattr(place, attribute)
    if inspect.isclass(value):
        found.update((target.name, target) for target in _of_class(name, value))
    elif callable(value):
        found[name] = Target(name, place, attribute, False)


def _of_class(name, cls):
    if "__init__" in vars(cls) or any("__init__" in vars(base) for base in cls.__mro__[1:-1]):
        yield Target(name, cls, "__init__", False)
    for attribute in dir(cls):
        if attribute.startswith("_") and attribute != "__call__":
            continue
        static = inspect.getattr_static(cls, attribute)
        if isinstance(static, property):
            if static.fset is not None:
                yield Target(f"{name}.{attribute}=", cls, f"{attribute}=", True)
        elif isinstance(static, (staticmethod, classmethod)):
            yield Target(f"{name}.{attribute}", cls, attribute, False)
        elif inspect.isfunction(static):
            yield Target(f"{name}.{attribute}", cls, attribute, True)


#: What is public by its name, and not called, with the reason.
NOT_CALLED = {
    **dict.fromkeys(
        ("Frozen", "FrozenCell", *(f"{name}" for name in RESULTS)),
        "made by freeze, quantize and stream from what they checked",
    ),
    "distributed.RankError": "an exception, which the package makes",
    **dict.fromkeys(
        ("with_weights", "adding_by_shards", "layer_input_size", "time_major_gradient", "weights", "split_state"),
        "between the modules of the package: their arguments are made there",
    ),
}


def is_called(target):
    short = target.name.removeprefix("rnncore.")
    if target.attribute == "__init__":
        return short not in NOT_CALLED
    return target.attribute not in NOT_CALLED or not target.parameters() or "compat" in short
