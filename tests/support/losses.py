"""The losses written down plainly, and targets for them."""

import numpy as np
import pytest
from support.compare import TOLERANCE

import rnncore as rc

T, N, V = 4, 3, 5
every_dtype = pytest.mark.parametrize("dtype", TOLERANCE)
every_reduction = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
every_loss = pytest.mark.parametrize("kind", ["softmax", "sigmoid"])


def plain_softmax(logits, targets):
    """-> losses (...) and gradients (..., V), one position after the other."""
    losses, gradients = np.zeros(targets.shape), np.zeros(logits.shape)
    for index in np.ndindex(targets.shape):
        y = np.array(logits[index], "float64")
        p = np.exp(y - y.max())
        p /= p.sum()
        losses[index] = -np.log(p[targets[index]])
        p[targets[index]] -= 1
        gradients[index] = p
    return losses, gradients


def plain_sigmoid(logits, targets):
    y, t = np.asarray(logits, "float64"), np.asarray(targets, "float64")
    p = 1 / (1 + np.exp(-y))
    return -(t * np.log(p) + (1 - t) * np.log(1 - p)).sum(axis=-1), p - t


FUNCTIONS = {
    "softmax": (rc.softmax_cross_entropy, plain_softmax),
    "sigmoid": (rc.sigmoid_cross_entropy, plain_sigmoid),
}


def make_targets(rng, kind, shape, dtype="float64"):
    """Targets for logits of a shape: ids, or probabilities with plenty of 0 and 1."""
    if kind == "softmax":
        return rng.integers(shape[-1], size=shape[:-1])
    return np.clip(rng.uniform(-0.5, 1.5, size=shape), 0, 1).astype(dtype)
