"""Attention of one sequence, written down plainly in float64."""

import numpy as np


def plain(attention, h, m):
    """Context and weights of one sequence, h (T, H), m (S, E)."""
    p = {name: value.astype(np.float64) for name, value in attention.params.items()}
    if attention.score == "multiplicative":
        scores = h @ p["W"] @ m.T
    else:
        scores = np.tanh((h @ p["Wq"])[:, None] + (m @ p["Wk"] + p["b"])[None]) @ p["v"]
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    return weights @ m, weights


def plain_backward(attention, h, m, dcontext):
    """Gradients of the queries h (T, H), of the memory m (S, E) and of the parameters, by name."""
    p = {name: value.astype(np.float64) for name, value in attention.params.items()}
    _, weights = plain(attention, h, m)
    dweights = dcontext @ m.T
    dscores = weights * (dweights - (dweights * weights).sum(axis=1, keepdims=True))
    dm = weights.T @ dcontext
    if attention.score == "multiplicative":
        return {
            "queries": dscores @ m @ p["W"].T,
            "memory": dm + dscores.T @ h @ p["W"],
            "W": h.T @ dscores @ m,
        }
    u = np.tanh((h @ p["Wq"])[:, None] + (m @ p["Wk"] + p["b"])[None])  # (T, S, A)
    da = dscores[..., None] * p["v"] * (1 - u * u)
    dq, dk = da.sum(axis=1), da.sum(axis=0)
    return {
        "queries": dq @ p["Wq"].T,
        "memory": dm + dk @ p["Wk"].T,
        "Wq": h.T @ dq,
        "Wk": m.T @ dk,
        "b": dk.sum(axis=0),
        "v": np.einsum("ts,tsa->a", dscores, u),
    }
