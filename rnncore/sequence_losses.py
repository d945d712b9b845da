"""Losses of whole sequences of labels: connectionist temporal classification, and conditional random fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike

from . import checks
from ._types import Array
from .engine import native
from .engine.arrays import as_array, as_dense, as_floating, as_ids, as_lengths, check_shape, converted, working_dtype
from .losses import Reduction

__all__ = ["crf_loss", "crf_marginals", "ctc_loss", "viterbi"]


def ctc_loss(
    logits: ArrayLike,
    targets: Sequence[ArrayLike],
    lengths: ArrayLike | None = None,
    blank: int = 0,
    *,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
    zero_infinity: bool = False,
    training: bool = True,
) -> tuple[Any, Array | None]:
    """``-log P(labels | logits)`` of labels whose place in the frames is unknown, and its gradient.

    Connectionist temporal classification (Graves, Fernández, Gomez and Schmidhuber 2006): each frame has a label or the
    blank; repeated labels merge, and blanks go. The probability of the labels is the sum over all such paths. Computed
    in float64 with exponents of any size, so that nothing underflows.

    Parameters
    ----------
    logits : float array (T, N, V)
    targets : list of N integer arrays (L,)
        Labels of each sequence, in [0, V) without ``blank``. L may be 0.
    lengths : integer array (N,), optional
        Frames t >= lengths[n] count for nothing.
    blank : int, default 0
        The label of a frame without one.
    weights : array (N,), optional
        How much each sequence counts, finite and >= 0; all the same if None. One of weight 0 is as good as absent.
    reduction : {"mean", "sum", "none"}
        "mean" is ``sum(weights * loss) / sum(weights)``, 0 if there is nothing, "sum" is ``sum(weights * loss)``. With
        "none" ``weights * loss`` of every sequence comes back, and the gradient is that of their sum.
    zero_infinity : bool, default False
        True: sequences whose labels do not fit in their frames have loss and gradient 0, and so have those whose
        probability is 0 because logits are -inf.
    training : bool, default True
        False computes the loss only.

    Returns
    -------
    loss : float (nats), or float64 array (N,) for "none"
        inf where logits of -inf leave no path; NaN for a sequence with NaN, inf, or a frame of -inf alone.
    dlogits : ndarray like logits, or None
        Gradient of the loss; 0 at padded frames, NaN for a sequence whose loss is inf or NaN.

    Raises
    ------
    ValueError, TypeError
        A shape, dtype, label, length, weight or reduction is wrong, or labels do not fit in their frames: L labels need
        L frames, and one more for each that equals the one before. The message names the row.

    Examples
    --------
    Four frames, the labels 1 2 and the blank 0; all symbols are as likely, 15 of 81 paths give the labels, log(81/15):

    >>> import numpy as np
    >>> loss, dlogits = ctc_loss(np.zeros((4, 1, 3)), [[1, 2]])
    >>> round(loss, 4), dlogits.shape
    (1.6864, (4, 1, 3))
    """
    logits = as_floating("logits", logits)
    if logits.ndim != 3:
        raise ValueError(f"logits must be (T, N, V); got {logits.shape}")
    T, N, V = logits.shape
    logits = as_dense(logits, working_dtype(logits))
    blank = checks.integer("blank", blank, least=0)
    zero_infinity, training = checks.flag("zero_infinity", zero_infinity), checks.flag("training", training)
    if V <= blank:
        raise ValueError(f"blank must lie in [0, V) = [0, {V}); got {blank}")
    frames = np.full(N, T, np.int64) if lengths is None else as_lengths(lengths, T, N)
    counts, scale = sequence_weights(N, weights, reduction)
    labels = _clean_labels(targets, N, V, blank)
    for n, row in enumerate(labels):
        needed = len(row) + int((row[1:] == row[:-1]).sum())
        if needed > frames[n] and counts[n] and not zero_infinity:
            raise ValueError(
                f"targets[{n}] must fit in its {frames[n]} frames; its {len(row)} labels need {needed} "
                "(zero_infinity=True leaves such sequences out)"
            )
    frames = np.where(counts != 0, frames, 0)
    labels = [row if count else row[:0] for row, count in zip(labels, counts, strict=True)]
    losses, dlogits = native.ctc(logits, frames, labels, blank, counts * scale, training)
    if zero_infinity and np.isposinf(losses).any():
        if dlogits is not None:
            dlogits[:, np.isposinf(losses)] = 0
        losses[np.isposinf(losses)] = 0
    losses *= counts
    return (losses if reduction == "none" else float(losses.sum() * scale)), dlogits


def crf_loss(
    emissions: ArrayLike,
    transitions: ArrayLike,
    tags: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
    training: bool = True,
) -> tuple[Any, Array | None, Array | None]:
    """``-log P(tags | emissions)`` of a linear-chain conditional random field, and its gradients.

    The score of tags is ``sum_t emissions[t, tag_t] + sum_t transitions[tag_{t-1}, tag_t]``, P its exponential over the
    sum of those of all tag sequences (Lafferty, McCallum and Pereira 2001; on top of recurrent networks Lample et al.
    2016). Forward-backward in float64 with exponents of any size, so that nothing underflows.

    Parameters
    ----------
    emissions : float array (T, N, K)
    transitions : float array (K, K)
        Score of going from the tag of the row to that of the column; -inf forbids it.
    tags : integer array (T, N)
        In [0, K) at valid steps.
    lengths : integer array (N,), optional
        Steps t >= lengths[n] count for nothing: what stands in ``emissions`` and ``tags`` there does not matter.
    weights : array (N,), optional
        How much each sequence counts, finite and >= 0; all the same if None.
    reduction : {"mean", "sum", "none"}
        "mean" is ``sum(weights * loss) / sum(weights)`` over the sequences, 0 if there is nothing, "sum" is
        ``sum(weights * loss)``. With "none" ``weights * loss`` of every sequence comes back, and the gradients are
        those of their sum.
    training : bool, default True
        False computes the loss only.

    Returns
    -------
    loss : float (nats), or float64 array (N,) for "none"
        inf for tags that are forbidden, NaN for NaN, inf or a step of -inf alone; the gradients are NaN then.
    demissions : ndarray like emissions, or None
        0 at padded steps.
    dtransitions : ndarray (K, K), or None
        0 where a transition is forbidden.

    Raises
    ------
    ValueError, TypeError
        A shape, dtype, tag, length, weight or reduction is wrong.

    Examples
    --------
    >>> import numpy as np
    >>> loss, demissions, dtransitions = crf_loss(np.zeros((2, 1, 3)), np.zeros((3, 3)), [[0], [2]])
    >>> round(loss, 4), np.round(demissions[0, 0], 3).tolist()  # log 9
    (2.1972, [-0.667, 0.333, 0.333])
    """
    training = checks.flag("training", training)
    emissions, transitions, frames = _clean_crf(emissions, transitions, lengths)
    T, N, K = emissions.shape
    counts, scale = sequence_weights(N, weights, reduction)
    given = as_array("tags", tags)
    if given.dtype.kind not in "iu":
        raise TypeError(f"tags must be integers; got dtype {given.dtype}")
    if given.shape != (T, N):
        raise ValueError(f"tags must be (T, N) = {(T, N)}; got {given.shape}")
    frames = np.where(counts != 0, frames, 0)
    valid = np.arange(T)[:, None] < frames
    clean = as_ids(np.where(valid, given, 0), max(K, 1), "tags", "K")
    work = transitions.astype(np.float64)
    losses, demissions, dtransitions = native.crf(emissions, frames, work, clean, counts * scale, training)
    losses *= counts
    loss = losses if reduction == "none" else float(losses.sum() * scale)
    return loss, demissions, converted(dtransitions, transitions.dtype) if training else None


def crf_marginals(emissions: ArrayLike, transitions: ArrayLike, lengths: ArrayLike | None = None) -> Array:
    """Return the probability of every tag at every step of a linear-chain conditional random field.

    Parameters
    ----------
    emissions, transitions, lengths
        As in :func:`crf_loss`.

    Returns
    -------
    ndarray (T, N, K)
        Sums to 1 over the tags; 0 at padded steps.

    Raises
    ------
    ValueError, TypeError
        A shape, dtype or length is wrong.

    Examples
    --------
    The second tag cannot follow the first:

    >>> import numpy as np
    >>> p = crf_marginals(np.zeros((2, 1, 2)), np.array([[0.0, -np.inf], [0.0, 0.0]]))
    >>> np.round(p[:, 0], 3).tolist()
    [[0.333, 0.667], [0.667, 0.333]]
    """
    emissions, transitions, frames = _clean_crf(emissions, transitions, lengths)
    weights = np.ones(emissions.shape[1])
    _, marginals, _ = native.crf(emissions, frames, transitions.astype(np.float64), None, weights, True)
    return marginals


def viterbi(emissions: ArrayLike, transitions: ArrayLike, lengths: ArrayLike | None = None) -> Array:
    """Return the tags of the highest score in a linear-chain conditional random field (Viterbi 1967).

    Parameters
    ----------
    emissions, transitions, lengths
        As in :func:`crf_loss`.

    Returns
    -------
    ndarray of int64 (T, N)
        Of equal scores that of the lowest tags, from the end on; 0 at padded steps. The tags of a sequence with NaN or
        inf are in [0, K), and no others are affected.

    Raises
    ------
    ValueError, TypeError
        A shape, dtype or length is wrong.

    Examples
    --------
    >>> import numpy as np
    >>> emissions = np.array([[[0.0, 1.0]], [[3.0, 0.0]], [[0.0, 1.0]]])
    >>> viterbi(emissions, np.zeros((2, 2)))[:, 0].tolist()
    [1, 0, 1]
    >>> viterbi(emissions, np.array([[0.0, -5.0], [-5.0, 0.0]]))[:, 0].tolist()
    [0, 0, 0]
    """
    emissions, transitions, frames = _clean_crf(emissions, transitions, lengths)
    return native.viterbi(emissions, frames, transitions.astype(np.float64))


def _clean_crf(emissions: ArrayLike, transitions: ArrayLike, lengths: ArrayLike | None) -> tuple[Array, Array, Array]:
    """Return dense emissions (T, N, K) and transitions (K, K) of one dtype, and lengths (N,)."""
    emissions, transitions = as_floating("emissions", emissions), as_floating("transitions", transitions)
    if emissions.ndim != 3:
        raise ValueError(f"emissions must be (T, N, K); got {emissions.shape}")
    T, N, K = emissions.shape
    check_shape("transitions", transitions, "(K, K)", (K, K))
    dtype = working_dtype(emissions, transitions)
    frames = np.full(N, T, np.int64) if lengths is None else as_lengths(lengths, T, N)
    return as_dense(emissions, dtype), as_dense(transitions, dtype), frames


# ---- arguments --------------------------------------------------------------------------------------------------


def sequence_weights(N: int, weights: ArrayLike | None, reduction: str) -> tuple[Array, float]:
    """Return the float64 weights (N,) of sequences, and the factor of loss and gradient."""
    checks.choice("reduction", reduction, get_args(Reduction))
    array = np.ones(N) if weights is None else as_array("weights", weights)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"weights must be real numbers; got dtype {array.dtype}")
    if array.shape != (N,):
        raise ValueError(f"weights must be (N,) = ({N},); got {array.shape}")
    array = array.astype(np.float64, order="C")
    wrong = ~((array >= 0) & (array < np.inf))
    if wrong.any():
        raise ValueError(f"weights must be finite and not negative; got {array[wrong][0]}")
    if reduction != "mean":
        return array, 1.0
    array = array / (array.max(initial=0) or 1)  # a mean asks for ratios only; the sum is now >= 1 or 0, and finite
    return array, 1 / max(float(array.sum()), 1)


def _clean_labels(targets: Sequence[ArrayLike], N: int, V: int, blank: int) -> list[Array]:
    """Return N arrays of int64 labels."""
    if isinstance(targets, str):
        raise TypeError("targets must be a list of integer arrays; got str")
    targets = checks.sequence("targets", targets, "a list of integer arrays")
    if len(targets) != N:
        raise ValueError(f"targets must have one array of labels for each of N = {N} sequences; got {len(targets)}")
    labels = []
    for n, given in enumerate(targets):
        name = f"targets[{n}]"
        row = as_array(name, given)
        if row.size and row.dtype.kind not in "iu":
            raise TypeError(f"{name} must be integer labels; got dtype {row.dtype}")
        if row.ndim != 1:
            raise ValueError(f"{name} must be (L,); got shape {row.shape}")
        row = as_ids(row.astype(np.int64) if not row.size else row, V, name, "V")
        if (row == blank).any():
            raise ValueError(f"{name} must not hold the blank, {blank}; got it at {int(np.argmax(row == blank))}")
        labels.append(row)
    return labels
