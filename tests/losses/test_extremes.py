"""Losses of huge and infinite logits, against sums over all paths in numbers of any size."""

import itertools

import numpy as np
import pytest
from support.compare import TOLERANCE
from support.losses import every_dtype

import rnncore as rc

mpmath = pytest.importorskip("mpmath")

T, V = 3, 4
HUGE = 3e38  # near the largest float32
ROWS = {
    "10,000": [1e4, -1e4, 0.5, 1.0],
    "huge": [HUGE, -HUGE, 0.5, 1.0],
    "all very low": [-HUGE] * V,
    "all very high": [HUGE] * V,
    "-inf": [-np.inf, 0.3, 1.0, -np.inf],
    "one possible": [-np.inf, -np.inf, 2.0, -np.inf],
}
each_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)


def over_all_paths(y, keeps, score=lambda path: 0):
    """-> -log P that a path is kept, and d/dy, where weights of paths are exp(sum y_t(path_t) + score(path))."""
    with mpmath.workprec(400):
        total = kept = mpmath.mpf(0)
        all_at, kept_at = (np.full(y.shape, mpmath.mpf(0), object) for _ in range(2))
        for path in itertools.product(range(V), repeat=len(y)):
            weight = mpmath.exp(mpmath.fsum([mpmath.mpf(float(y[t, v])) for t, v in enumerate(path)] + [score(path)]))
            steps = np.arange(len(y)), path
            total, all_at[steps] = total + weight, all_at[steps] + weight
            if keeps(path):
                kept, kept_at[steps] = kept + weight, kept_at[steps] + weight
        loss = float(mpmath.log(total / kept)) if kept else np.inf
        gradient = all_at / total - kept_at / kept if kept else np.full(y.shape, np.nan)
        return loss, gradient.astype(float)


def check(found, wanted, dtype):
    (loss, gradient), (wanted_loss, wanted_gradient) = found, wanted
    np.testing.assert_allclose(loss, wanted_loss, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    np.testing.assert_allclose(gradient, wanted_gradient, rtol=0, atol=TOLERANCE[dtype])


def check_beside_huge(loss, gradients, wanted, dtype):
    """Beside sums of size 1e38 other logits have no digits, so that a path of several counts alone."""
    np.testing.assert_allclose(loss, wanted, rtol=TOLERANCE[dtype], atol=10)
    for gradient in gradients:
        assert np.abs(gradient).max() < 10


@each_row
@every_dtype
@pytest.mark.parametrize("target", range(V))
def test_softmax(row, dtype, target):
    y = np.array([row], dtype)
    wanted, gradient = over_all_paths(y, lambda path: path == (target,))
    if wanted == np.inf:  # the limit of a falling logit
        p = np.exp(y[0] - y[0].max())
        gradient = p / p.sum() - np.eye(V)[[target]]
    check(rc.softmax_cross_entropy(y, [target]), (wanted, gradient), dtype)


@each_row
@every_dtype
@pytest.mark.parametrize("target", range(V))
def test_fused_softmax(row, dtype, target):
    """The logits are the bias of the layer; its gradient is that of the logits."""
    dense = rc.Dense(2, V, dtype=dtype, seed=0)
    dense.params["b"][...] = row
    loss, dx = rc.fused_softmax_cross_entropy(dense, np.zeros((1, 2), dtype), [target])
    wanted, gradient = rc.softmax_cross_entropy(np.array([row], dtype), [target])
    check((loss, dense.grads["b"]), (wanted, gradient[0]), dtype)
    np.testing.assert_allclose(dx, gradient @ dense.params["W"].T, atol=TOLERANCE[dtype])


def collapsed(path):
    return [symbol for symbol, _ in itertools.groupby(path) if symbol]


@each_row
@every_dtype
@pytest.mark.parametrize("labels", [[], [2], [3, 1], [2, 2]])
def test_ctc(row, dtype, labels):
    y = np.array([row, row[::-1], row], dtype)
    loss, dlogits = rc.ctc_loss(y[:, None], [labels])
    wanted = over_all_paths(y, lambda path: collapsed(path) == labels)
    if row is ROWS["huge"] and labels:
        check_beside_huge(loss, [dlogits], wanted[0], dtype)
    else:
        check((loss, dlogits[:, 0]), wanted, dtype)


@each_row
@every_dtype
@pytest.mark.parametrize("tags", [[0, 2, 3], [2, 1, 2]])
def test_crf(rng, row, dtype, tags):
    y = np.array([row, row[::-1], row], dtype)
    A = rng.normal(size=(V, V)).astype(dtype)
    A[1, 1] = -np.inf
    score = lambda path: mpmath.fsum(mpmath.mpf(float(A[pair])) for pair in itertools.pairwise(path))  # noqa: E731
    loss, dy, dA = rc.crf_loss(y[:, None], A, np.array(tags)[:, None])
    wanted = over_all_paths(y, lambda path: list(path) == tags, score)
    if row is ROWS["huge"]:
        check_beside_huge(loss, [dy, dA], wanted[0], dtype)
    else:
        check((loss, dy[:, 0]), wanted, dtype)


@every_dtype
def test_huge_transitions(dtype):
    """Finite, although the path has no digits beside them."""
    A = np.full((V, V), HUGE, dtype)
    A[0, 1] = -HUGE
    loss, dy, dA = rc.crf_loss(np.zeros((T, 1, V), dtype), A, [[1], [2], [3]])
    for array in (loss, dy, dA):
        assert np.isfinite(array).all()
    assert rc.crf_loss(np.zeros((T, 1, V), dtype), A, [[2], [0], [1]])[0] > HUGE
    assert 1 not in rc.viterbi(np.zeros((T, 1, V), dtype), A)[1:]


@pytest.mark.parametrize("row", [[np.inf, 0, 1, 2], [np.nan, 0, 1, 2], [0, 1, 2, np.nan], [-np.inf] * V])
@every_dtype
def test_without_probabilities_everything_is_nan(rng, row, dtype):
    """Of +inf, NaN, and -inf everywhere; in this sequence only."""
    y = rng.normal(size=(T, 2, V)).astype(dtype)
    y[1, 0] = row
    tags, A = rng.integers(1, V, size=(T, 2)), np.zeros((V, V))
    for losses, gradient in (
        rc.softmax_cross_entropy(y, tags, reduction="none"),
        rc.ctc_loss(y, [[2], [3]], reduction="none"),
        rc.crf_loss(y, A, tags, reduction="none")[:2],
    ):
        per_step = losses.ndim == 2
        assert np.isnan(losses[1, 0] if per_step else losses[0])
        assert np.isnan(gradient[1, 0] if per_step else gradient[:, 0]).all()
        assert np.isfinite(losses[:, 1] if per_step else losses[1]).all()
        assert np.isfinite(gradient[:, 1]).all()
    np.testing.assert_array_equal(rc.viterbi(y, A)[:, 1], rc.viterbi(y[:, 1:], A)[:, 0])
    assert ((rc.viterbi(y, A) >= 0) & (rc.viterbi(y, A) < V)).all()
