"""Models in bfloat16 or int8: their layers, the arrays of their files, and what the rounding costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import checks
from .._types import Array
from ..engine.quantization import PRECISIONS, Quantized, is_quantized
from ..layers import Recurrent

if TYPE_CHECKING:
    from .base import Model

_SCALES, _X_SCALES = "/scales", "/x_scales"


def to_arrays(layers: dict[str, Any]) -> dict[str, Array]:
    """Return the parameters of quantized layers as arrays: ``layer.parameter``, and the scales of int8 beside it."""
    arrays: dict[str, Array] = {}
    for layer_name, layer in layers.items():
        for key, weight in layer.arrays().items():
            name = f"{layer_name}.{key}"
            if isinstance(weight, Quantized):
                arrays[name] = weight.values
                if weight.scales is not None:
                    arrays[name + _SCALES] = weight.scales
            else:
                arrays[name] = weight
        if any(getattr(layer, "x_scales", ())):
            arrays[layer_name + _X_SCALES] = np.array(layer.x_scales)
    return arrays


def from_arrays(layers: dict[str, Any], precision: str, arrays: dict[str, Array]) -> dict[str, Any]:
    """Return these layers with the parameters of :func:`to_arrays`; ValueError if they are not those of the layers."""
    checks.choice("precision", precision, PRECISIONS)
    left, result = dict(arrays), {}
    for layer_name, layer in layers.items():
        weights: dict[str, Any] = {}
        for key, like in layer.params.items():
            name = f"{layer_name}.{key}"
            value = _take(left, name)
            if is_quantized(key):
                scales = _take(left, name + _SCALES) if precision == "int8" else None
                _check_quantized(name, value, scales, like.shape)
                weights[key] = Quantized(value, scales)
            else:
                if value.shape != like.shape or value.dtype != like.dtype:
                    wanted = f"{like.shape} {like.dtype}"
                    raise ValueError(f"{name} must be {wanted}; got {value.shape} {value.dtype}")
                weights[key] = value
        if precision == "int8" and isinstance(layer, Recurrent) and layer_name + _X_SCALES in left:
            x_scales = left.pop(layer_name + _X_SCALES)
            _check_x_scales(layer_name, x_scales, layer)
            result[layer_name] = layer.with_weights(weights, x_scales.tolist())
        else:
            result[layer_name] = layer.with_weights(weights)
    if left:
        raise ValueError(f"the layers have no parameter {min(left)}")
    return result


def _take(arrays: dict[str, Array], name: str) -> Array:
    if name not in arrays:
        raise ValueError(f"the parameter {name} is missing")
    return arrays.pop(name)


def _check_quantized(name: str, values: Array, scales: Array | None, shape: tuple[int, ...]) -> None:
    dtype = np.dtype(np.uint16 if scales is None else np.int8)
    if values.shape != shape or values.dtype != dtype:
        raise ValueError(f"{name} must be {shape} {dtype}; got {values.shape} {values.dtype}")
    if scales is None:
        return
    if (values == -128).any():
        raise ValueError(f"{name} must lie in [-127, 127]; got -128")
    if scales.shape != shape[1:] or scales.dtype != np.float32 or not ((scales >= 0) & (127 * scales < np.inf)).all():
        raise ValueError(f"the scales of {name} must be {shape[1:]} finite float32, none below 0")


def _check_x_scales(name: str, scales: Array, layer: Recurrent) -> None:
    wanted = f"float64 in [0, {np.finfo(layer.dtype).max:g}] for each of {layer.num_layers} layers"
    if scales.shape != (layer.num_layers,) or scales.dtype != np.float64:
        raise ValueError(f"the scales of the inputs of {name} must be {wanted}; got {scales.shape} {scales.dtype}")
    if not ((scales >= 0) & (scales <= np.finfo(layer.dtype).max)).all():
        raise ValueError(f"the scales of the inputs of {name} must be {wanted}; got {scales}")


# ---- what it costs ----------------------------------------------------------------------------------------------


class Comparison(NamedTuple):
    """What :func:`compare` found. Printed as a table."""

    measure: str  # what the scores are
    precisions: tuple[str, str]
    scores: tuple[float, float]
    nbytes: tuple[int, int]  # of the parameters

    @property
    def difference(self) -> float:
        """The second score less the first."""
        return self.scores[1] - self.scores[0]

    def __str__(self) -> str:
        lines = [f"{'':<10} {self.measure:>24} {'bytes of parameters':>24}"]
        for precision, score, nbytes in zip(self.precisions, self.scores, self.nbytes, strict=True):
            lines.append(f"{precision:<10} {score:>24.4f} {nbytes:>24,}")
        lines.append(f"{'':<10} {self.difference:>+24.4f} {self.nbytes[1] / self.nbytes[0]:>24.2f}")
        return "\n".join(lines)


def compare(model: Model, other: Model, data: Any) -> Comparison:
    """Score two models on the same data, print both scores and sizes, and return them.

    Parameters
    ----------
    model, other : models of one class
        Such as a model and ``model.quantize("int8")``.
    data : what ``score`` of the models takes, or a tuple of its arguments
        Texts for a language model, ``(X, y)`` for others.

    Returns
    -------
    Comparison

    Raises
    ------
    TypeError
        The models are of two classes.
    ValueError
        ``score`` raises it.

    Examples
    --------
    >>> import rnncore as rc
    >>> text = "the cat sat on the mat. " * 40
    >>> model = rc.LanguageModel(hidden_size=32, epochs=20, batch_size=4, learning_rate=0.01, random_state=0)
    >>> model = model.fit(text)
    >>> found = rc.compare(model, model.quantize("int8"), text)  # doctest: +ELLIPSIS, +NORMALIZE_WHITESPACE
                 log-probability (nats)      bytes of parameters
    float32 ...
    >>> abs(found.difference) < 0.01
    True
    """
    if not callable(getattr(model, "score", None)):
        raise TypeError(f"model must be a model; got {type(model).__name__}")
    if type(model) is not type(other):
        raise TypeError(f"other must be a {type(model).__name__}, as model is; got {type(other).__name__}")
    arguments = data if isinstance(data, tuple) else (data,)
    if not arguments:
        raise ValueError("data must hold what score takes; got an empty tuple")
    with checks.named(X="data", texts="data", text="data"):
        first, second = (float(m.score(*arguments)) for m in (model, other))  # type: ignore[attr-defined]  # all have it
    precisions, nbytes = (model.precision, other.precision), (model.nbytes, other.nbytes)
    found = Comparison(model.score_name, precisions, (first, second), nbytes)
    print(found)
    return found
