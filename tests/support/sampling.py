"""Sampling by the book."""

import numpy as np


def draw(log_probs, uniform, temperature, top_k, top_p, banned):
    """Draw an id: sort, cut, renormalise."""
    weights = np.exp((log_probs - log_probs.max()) / temperature)
    weights[banned] = 0
    order = np.lexsort((np.arange(len(weights)), -weights))
    if top_k is None and top_p is None:
        order = np.arange(len(weights))
    kept = order[:top_k]
    if top_p is not None:
        reached = np.cumsum(weights[kept]) >= top_p * weights.sum()
        kept = kept[: np.argmax(reached) + 1] if reached.any() else kept
    cumulative = np.cumsum(weights[kept])
    return int(kept[np.searchsorted(cumulative, uniform * cumulative[-1], side="right")])
