"""Pictures, with matplotlib (an extra); every function draws on a given Axes or a new one and returns it."""

import numpy as np

__all__ = ["loss_curve"]


def loss_curve(losses, held_out=(), ax=None):
    """Training loss of every update, and held-out loss of every epoch.

    Parameters
    ----------
    losses : sequence of float
        Nats a token, one an update.
    held_out : sequence of (int, float)
        Update after which it was measured, nats a token.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ModuleNotFoundError
        matplotlib is not installed: ``pip install "rnncore[cli]"``.
    """
    from matplotlib.figure import Figure

    ax = Figure(figsize=(7, 4), layout="constrained").add_subplot() if ax is None else ax
    losses = np.asarray(losses, np.float64)
    updates = np.arange(1, len(losses) + 1)
    ax.plot(updates, losses, color="0.8", linewidth=0.8, label="training, each update")
    window = max(1, len(losses) // 50)
    if window > 1:
        smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
        ax.plot(updates[window - 1 :], smooth, color="C0", label=f"training, mean of {window} updates")
    if held_out:
        ax.plot(*zip(*held_out, strict=True), "o-", color="C1", label="held-out, each epoch")
    ax.set_xlabel("updates")
    ax.set_ylabel("loss (nats a token)")
    ax.grid(alpha=0.3)
    ax.legend()
    return ax
