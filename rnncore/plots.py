"""Plots with matplotlib (an extra); every function draws on the given Axes, or a new one, and returns it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from . import checks
from ._types import Array
from .engine.arrays import as_array

__all__ = ["alignment", "attention", "beam", "gates", "gradient_flow", "history", "loss_curve"]

# Visible replacements of white space in labels.
_VISIBLE = str.maketrans({" ": "␣", "\n": "↵", "\t": "⇥"})

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def _numbers(name: str, values: Any) -> Array:
    array = as_array(name, values)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold real numbers; got dtype {array.dtype}")
    return array.astype(np.float64)


def _axes(ax: Axes | None, width: float = 7, height: float = 4) -> Axes:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    if ax is not None:
        checks.instance("ax", ax, Axes, "Axes of matplotlib")
    return Figure(figsize=(width, height), layout="constrained").add_subplot() if ax is None else ax


def loss_curve(
    losses: Sequence[float],
    held_out: Sequence[tuple[int, float]] = (),
    ax: Axes | None = None,
    *,
    saved: int | None = None,
) -> Axes:
    """Plot the training loss of every update and the held-out loss of every epoch.

    Parameters
    ----------
    losses : sequence of float
        Nats per token, one value per update.
    held_out : sequence of (int, float)
        Update after which it was measured, nats per token.
    ax : matplotlib Axes, optional
    saved : int, optional
        Update whose parameters were kept; marked by a vertical line.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ModuleNotFoundError
        matplotlib is not installed: ``pip install matplotlib``.
    """
    ax, held_out = _axes(ax), checks.sequence("held_out", held_out)
    losses = _numbers("losses", losses)
    if losses.ndim != 1:
        raise ValueError(f"losses must be (updates,); got {losses.shape}")
    updates = np.arange(1, len(losses) + 1)
    ax.plot(updates, losses, color="0.8", linewidth=0.8, label="training, each update")
    window = max(1, len(losses) // 50)
    if window > 1:
        # The mean stands at the middle of its updates: at their end it would lie above a falling loss.
        smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
        middle = updates[: len(smooth)] + (window - 1) / 2
        ax.plot(middle, smooth, color="C0", label=f"training, mean of {window} updates")
    for n, point in enumerate(held_out):
        if len(checks.sequence(f"held_out[{n}]", point)) != 2:
            raise ValueError(f"held_out[{n}] must be the update and the loss; got {point!r}")
    if held_out:
        ax.plot(*zip(*held_out, strict=True), "o-", color="C1", label="held-out, each epoch")
    if saved is not None:
        saved = checks.integer("saved", saved, least=0)
        ax.axvline(saved, color="C2", linestyle="--", label=f"saved: update {saved:,}")
    ax.set_xlabel("updates")
    ax.set_ylabel("loss (nats a token)")
    ax.grid(alpha=0.3)
    ax.legend()
    return ax


def history(records: Sequence[Mapping[str, Any]], ax: Axes | None = None) -> Axes:
    """Plot the training and held-out loss by epoch.

    Parameters
    ----------
    records : sequence of dict
        A model's ``history``: ``epoch``, ``loss`` and, where it was measured, ``held_out``; None is skipped.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        ``records`` is empty.
    ModuleNotFoundError
        matplotlib is not installed: ``pip install matplotlib``.

    Examples
    --------
    >>> ax = history([{"epoch": 1, "loss": 2.5, "held_out": 2.6}, {"epoch": 2, "loss": 1.9, "held_out": 2.2}])
    """
    records = [
        checks.instance(f"records[{n}]", record, Mapping, "a dict")
        for n, record in enumerate(checks.sequence("records", records))
    ]
    for n, record in enumerate(records):
        if "epoch" not in record:
            raise ValueError(f"records[{n}] must have the key 'epoch'; got {', '.join(map(str, record)) or 'none'}")
    if not records:
        raise ValueError("records must hold at least one epoch; got none")
    from matplotlib.ticker import MaxNLocator

    ax = _axes(ax)
    for name, label, color in (("loss", "training", "C0"), ("held_out", "held-out", "C1")):
        points = [(record["epoch"], record[name]) for record in records if record.get(name) is not None]
        if points:
            ax.plot(*zip(*points, strict=True), "o-", color=color, markersize=4, label=label)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("epoch")
    ax.set_ylabel("loss")
    ax.grid(alpha=0.3)
    ax.legend()
    return ax


def gradient_flow(norms: Mapping[str, ArrayLike], ax: Axes | None = None) -> Axes:
    """Plot the norm of the gradient at each step, on a logarithmic scale.

    Parameters
    ----------
    norms : dict of str -> array (T,)
        Rows of :func:`rnncore.gradient_flow`, by label. Zeros leave a gap.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        There is nothing to draw, or an array is not (T,).
    ModuleNotFoundError
        matplotlib is not installed: ``pip install matplotlib``.

    Examples
    --------
    >>> ax = gradient_flow({"RNN": 0.5 ** np.arange(20)[::-1], "LSTM": 0.9 ** np.arange(20)[::-1]})
    """
    checks.instance("norms", norms, Mapping, "a dict of arrays")
    if not norms:
        raise ValueError("norms must hold at least one array; got none")
    arrays = {label: _numbers(f"norms[{label!r}]", values) for label, values in norms.items()}
    for label, values in arrays.items():
        if values.ndim != 1 or not values.size:
            raise ValueError(f"norms[{label!r}] must be (T,) with T at least 1; got {values.shape}")
    ax = _axes(ax)
    for label, values in arrays.items():
        ax.plot(np.where(values > 0, values, np.nan), ".-", markersize=4, linewidth=1.5, label=str(label))
    if any((values > 0).any() for values in arrays.values()):
        ax.set_yscale("log")
    ax.set_xlabel("step t")
    ax.set_ylabel("norm of dL/dh at step t")
    ax.grid(alpha=0.3)
    ax.legend()
    return ax


def gates(
    activations: ArrayLike,
    tokens: Sequence[str],
    ax: Axes | None = None,
    *,
    units: Sequence[int] | None = None,
    title: str | None = None,
) -> Axes:
    """Draw a heat map of a gate or a state over a text: a row per unit, a column per token.

    The colour range is [0, 1] if all values lie in it; otherwise it is symmetric about 0, at least [-1, 1]. After
    Karpathy, Johnson and Fei-Fei 2015, "Visualizing and understanding recurrent networks".

    Parameters
    ----------
    activations : array (T, H)
        For example one row of the batch and one gate block of ``cache.gates``.
    tokens : sequence of str
        T labels.
    ax : matplotlib Axes, optional
    units : sequence of int, optional
        The units to draw, in this order; default: all.
    title : str, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        A shape is wrong, there is nothing to draw, or a unit is not in [0, H).
    ModuleNotFoundError
        matplotlib is not installed: ``pip install matplotlib``.

    Examples
    --------
    >>> ax = gates(np.random.default_rng(0).random((11, 8)), "hello world", units=[2, 3, 5], title="forget gate")
    """
    values, tokens = _numbers("activations", activations), list(checks.sequence("tokens", tokens))
    if values.ndim != 2 or not values.size:
        raise ValueError(f"activations must be (T, H), both at least 1; got {values.shape}")
    T, H = values.shape
    if len(tokens) != T:
        raise ValueError(f"tokens must be T = {T} as in activations; got {len(tokens)}")
    units = range(H) if units is None else checks.sequence("units", units)
    units = [checks.integer("units", unit, least=-1) for unit in units]
    if not units or not all(0 <= unit < H for unit in units):
        raise ValueError(f"units must be one or more in [0, H) = [0, {H}); got {units}")
    values = values[:, units].T
    labels = [str(token).translate(_VISIBLE) for token in tokens]
    own = ax is None
    ax = _axes(ax, np.clip(1.5 + 0.2 * T, 5, 16), np.clip(1.2 + 0.16 * len(units), 2.4, 9))
    if np.nanmin(values) >= 0 and np.nanmax(values) <= 1:
        colors = {"cmap": "viridis", "vmin": 0, "vmax": 1}
    else:
        limit = max(1, np.nanmax(np.abs(values)))
        colors = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
    image = ax.imshow(values, aspect="auto", interpolation="nearest", **colors)
    ax.figure.colorbar(image, ax=ax, pad=0.01 if own else 0.05)
    # Column width in points; labels that are wider are rotated, and need only the height of a line.
    width = ax.get_window_extent().width * 72 / ax.figure.dpi / T
    letters = max(map(len, labels))
    level = letters == 1 or 7 * letters < width
    size = np.clip(width / 1.25, 3, 10)
    ax.set_xticks(range(T), labels, rotation=0 if level else 90, fontsize=size, parse_math=False)
    every = -(-len(units) // 20)
    ax.set_yticks(range(0, len(units), every), units[::every], fontsize=8)
    ax.tick_params(length=0)
    ax.set_ylabel("unit")
    if title is not None:
        ax.set_title(title)
    return ax


def beam(
    steps: Sequence[Sequence[tuple[int, str, float, bool]]],
    ax: Axes | None = None,
    *,
    best: tuple[int, int] | None = None,
) -> Axes:
    """Draw the tree of a beam search: a column per step, the most probable hypothesis on top.

    Parameters
    ----------
    steps : sequence of sequences of (parent, token, log_prob, kept)
        The hypotheses of each step: position in the step before of the hypothesis that it extends (-1 in the first
        step), the token added, total log-probability so far, and whether the search kept it. Others are drawn faint.
    ax : matplotlib Axes, optional
    best : (int, int), optional
        Step and position of the hypothesis whose path is highlighted; it may be finished before the last step.
        Default: the most probable kept one of the last step.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        There is no step, a step is empty, or a parent or ``best`` does not exist.
    ModuleNotFoundError
        matplotlib is not installed: ``pip install matplotlib``.

    Examples
    --------
    >>> first = [(-1, "a", -0.4, True), (-1, "the", -1.2, True)]
    >>> second = [(0, "cat", -1.5, True), (1, "cat", -1.4, True), (0, "dog", -2.3, False)]
    >>> ax = beam([first, second])
    """
    steps = [list(checks.sequence(f"steps[{t}]", step)) for t, step in enumerate(checks.sequence("steps", steps))]
    if not steps or not all(steps):
        raise ValueError(f"steps must be one or more, none empty; got sizes {[len(step) for step in steps]}")
    for t, step in enumerate(steps):
        allowed = range(len(steps[t - 1])) if t else [-1]
        for parent, *_ in step:
            if parent not in allowed:
                wanted = f"in [0, {len(allowed)})" if t else "-1"
                raise ValueError(f"parents in steps[{t}] must be {wanted}; got {parent}")
    nodes = [(t, k) for t, step in enumerate(steps) for k in range(len(step))]
    parents = {(t, k): (t - 1, steps[t][k][0]) for t, k in nodes}
    if best is None:
        _, k = max(((bool(kept), log_prob), k) for k, (_, _, log_prob, kept) in enumerate(steps[-1]))
        best = len(steps) - 1, k
    elif (
        best := tuple(checks.integer("best", place, least=0) for place in checks.sequence("best", best))
    ) not in parents:
        raise ValueError(f"best must be the step and the position of a hypothesis; got {best!r}")
    path, node = set(), tuple(best)
    while node in parents:
        path.add(node)
        node = parents[node]

    places = {(-1, -1): (0, 0)}
    for t, step in enumerate(steps):
        ranked = sorted(range(len(step)), key=lambda k: -step[k][2])
        places |= {(t, k): (t + 1, rank) for rank, k in enumerate(ranked)}
    rows = max(map(len, steps))
    ax = _axes(ax, np.clip(1.1 * len(steps) + 1.2, 4, 30), np.clip(0.6 * rows + 0.9, 2, 30))
    ax.plot(0, 0, "o", color="C1", markersize=8)
    along = np.linspace(0, 1, 25)
    rise = along**2 * (3 - 2 * along)  # level at both ends, to stay clear of the numbers below the nodes
    for t, k in nodes:
        _, token, log_prob, kept = steps[t][k]
        (x, y), chosen = places[t, k], (t, k) in path
        color = "C1" if chosen else "0.45" if kept else "0.8"
        (x0, y0), width = places[parents[t, k]], 2.5 if chosen else 1
        style = "-" if kept or chosen else ":"
        ax.plot(x0 + (x - x0) * along, y0 + (y - y0) * rise, style, color=color, linewidth=width, zorder=1 + chosen)
        label = token.translate(_VISIBLE)
        ax.annotate(
            label if len(label) <= 10 else label[:9] + "…",
            (x, y),
            ha="center",
            va="center",
            fontsize=9,
            fontweight="bold" if chosen else "normal",
            color="black" if kept or chosen else "0.55",
            bbox={"boxstyle": "round,pad=0.3", "facecolor": "white", "edgecolor": color, "linewidth": width},
            parse_math=False,
            zorder=4,
        )
        ax.annotate(
            f"{log_prob:.2f}",
            (x, y),
            (0, -10),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=6.5,
            color="0.3" if kept or chosen else "0.6",
            bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"},
            zorder=3,
        )
    ax.set_xlim(-0.3, len(steps) + 0.6)
    ax.set_ylim(rows - 0.3, -0.6)
    ax.set_xticks(range(1, len(steps) + 1))
    ax.set_yticks([])
    ax.set_xlabel("step")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def alignment(
    probabilities: ArrayLike, classes: Sequence[Any], spans: Sequence[tuple[Any, int, int]], ax: Axes | None = None
) -> Axes:
    """Draw the probability of every label in every frame, and which frames gave which label.

    Parameters
    ----------
    probabilities : array (T, 1 + C)
        Of the blank and the labels: one of ``model.predict_proba(X)`` of a :class:`rnncore.SequenceTranscriber`.
    classes : sequence of C labels
        ``model.classes_``.
    spans : list of (label, begin, end)
        ``model.alignment(x)``.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ModuleNotFoundError
        matplotlib is not installed: ``pip install matplotlib``.
    """
    p, classes = _numbers("probabilities", probabilities), checks.sequence("classes", classes)
    if p.ndim != 2 or p.shape[1] != 1 + len(classes):
        raise ValueError(f"probabilities must be (T, 1 + classes) = (T, {1 + len(classes)}); got {p.shape}")
    spans = [checks.sequence(f"spans[{n}]", span) for n, span in enumerate(checks.sequence("spans", spans))]
    for n, span in enumerate(spans):
        if len(span) != 3:
            raise ValueError(f"spans[{n}] must be label, begin and end; got {span!r}")
        checks.integer(f"begin of spans[{n}]", span[1], least=0)
        checks.integer(f"end of spans[{n}]", span[2], least=0)
    names = ["blank", *(str(label).translate(_VISIBLE) for label in classes)]
    ax = _axes(ax, max(5.0, 2 + 0.04 * len(p)), 1.5 + 0.2 * len(names))
    extent = (-0.5, max(len(p), 1) - 0.5, len(names) - 0.5, -0.5)
    image = ax.imshow(100 * p.T, aspect="auto", cmap="Blues", vmin=0, vmax=100, interpolation="nearest", extent=extent)
    ax.figure.colorbar(image, ax=ax, pad=0.02, label="probability (percent)")
    ax.set_yticks(range(len(names)), names, fontsize=8, parse_math=False)
    for label, begin, end in spans:
        ax.axvspan(begin - 0.5, end - 0.5, color="C1", alpha=0.25, linewidth=0)
        name = str(label).translate(_VISIBLE)
        ax.text((begin + end - 1) / 2, -0.6, name, ha="center", va="bottom", fontsize=9, parse_math=False)
    ax.set_xlabel("frames")
    return ax


def attention(weights: ArrayLike, source: Sequence[Any], target: Sequence[Any], ax: Axes | None = None) -> Axes:
    """Draw which steps of a source each step of a target looked at.

    Parameters
    ----------
    weights : array (T, S)
        ``model.attention_weights(x, y)`` of a :class:`rnncore.EncoderDecoder`.
    source, target : sequences of S and of T or T - 1 tokens
        Without a name the last row is that of the end.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ModuleNotFoundError
        matplotlib is not installed: ``pip install matplotlib``.
    ValueError
        There are not as many tokens as rows and columns.
    """
    w = _numbers("weights", weights)
    source, target = checks.sequence("source", source), checks.sequence("target", target)
    rows, columns = ([str(token).translate(_VISIBLE) for token in tokens] for tokens in (target, source))
    if w.ndim == 2 and len(rows) == len(w) - 1:
        rows.append("<eos>")
    if w.shape != (len(rows), len(columns)):
        raise ValueError(
            f"weights must be (tokens of the target, of the source) = {len(rows), len(columns)}; got {w.shape}"
        )
    ax = _axes(ax, 2.5 + 0.35 * len(columns), 1.5 + 0.3 * len(rows))
    extent = (-0.5, max(len(columns), 1) - 0.5, max(len(rows), 1) - 0.5, -0.5)
    image = ax.imshow(w, aspect="auto", cmap="Blues", vmin=0, vmax=1, extent=extent)
    ax.figure.colorbar(image, ax=ax, pad=0.02, label="weight")
    ax.set_xticks(
        range(len(columns)), columns, rotation=90 if max(map(len, columns), default=0) > 2 else 0, parse_math=False
    )
    ax.set_yticks(range(len(rows)), rows, parse_math=False)
    ax.set_xlabel("source")
    ax.set_ylabel("target")
    return ax
