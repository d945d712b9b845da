"""Conditional random fields against brute force over all tag sequences, the reference and numeric gradients."""

import itertools

import numpy as np
import pytest
from support.compare import TOLERANCE
from support.gradcheck import check_gradients
from support.losses import every_dtype, every_reduction

import rnncore as rc
from rnncore import reference

both = pytest.mark.parametrize("module", [rc, reference], ids=["engine", "reference"])


def random_problem(rng, T, N, K, dtype="float64"):
    lengths = rng.integers(T + 1, size=N)
    tags = np.where(np.arange(T)[:, None] < lengths, rng.integers(K, size=(T, N)), -9)
    return rng.normal(size=(T, N, K)).astype(dtype), rng.normal(size=(K, K)).astype(dtype), tags, lengths


def score(y, A, tags):
    return sum(y[t, k] for t, k in enumerate(tags)) + sum(A[i, j] for i, j in itertools.pairwise(tags))


@both
@pytest.mark.parametrize("T", [1, 2, 5])
def test_equals_the_sum_over_all_tags(rng, module, T):
    K = 3
    y, A = rng.normal(size=(T, K)), rng.normal(size=(K, K))
    A[0, 1] = -np.inf
    every = list(itertools.product(range(K), repeat=T))
    scores = np.array([score(y, A, tags) for tags in every])
    p = np.exp(scores) / np.exp(scores).sum()
    wanted = every[int(np.argsort(p)[-2])]  # not the best
    loss, dy, dA = module.crf_loss(y[:, None], A, np.array(wanted)[:, None])
    np.testing.assert_allclose(loss, -np.log(p[every.index(wanted)]), rtol=1e-12)
    marginals = np.zeros((T, K))
    pairs = np.zeros((K, K))
    for tags, share in zip(every, p, strict=True):
        marginals[np.arange(T), tags] += share
        np.add.at(pairs, (tags[:-1], tags[1:]), share)
    found = module.crf_marginals(y[:, None], A)[:, 0]
    np.testing.assert_allclose(found, marginals, atol=1e-12)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)
    marginals[np.arange(T), wanted] -= 1
    np.add.at(pairs, (wanted[:-1], wanted[1:]), -1)
    np.testing.assert_allclose(dy[:, 0], marginals, atol=1e-12)
    np.testing.assert_allclose(dA, pairs, atol=1e-12)
    assert module.viterbi(y[:, None], A)[:, 0].tolist() == list(every[int(scores.argmax())])


@pytest.mark.parametrize("isa", rc.available_isas())
@every_dtype
@every_reduction
def test_equals_the_reference(rng, restore_isa, isa, dtype, reduction):
    rc.use_isa(isa)
    for T, N, K in [(1, 2, 1), (6, 5, 3), (30, 4, 9), (50, 3, 40)]:
        y, A, tags, lengths = random_problem(rng, T, N, K, dtype)
        options = {"weights": rng.uniform(0.5, 2, size=N), "reduction": reduction}
        found = rc.crf_loss(y, A, tags, lengths, **options)
        wanted = reference.crf_loss(y, A, tags, lengths, **options)
        for name, a, b in zip(("loss", "demissions", "dtransitions"), found, wanted, strict=True):
            np.testing.assert_allclose(
                a, b, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * np.abs(b).max(initial=1), err_msg=name
            )
        assert found[1].dtype == found[2].dtype == dtype
        padded = np.arange(T)[:, None] >= lengths
        np.testing.assert_array_equal(found[1][padded], 0)
        np.testing.assert_array_equal(rc.crf_loss(y, A, tags, lengths, **options, training=False)[0], found[0])
        marginals = rc.crf_marginals(y, A, lengths)
        np.testing.assert_allclose(marginals, reference.crf_marginals(y, A, lengths), atol=TOLERANCE[dtype])
        np.testing.assert_allclose(marginals.sum(axis=2), ~padded, atol=TOLERANCE[dtype])
        # Both add in float64 or in the dtype of the emissions: only a tie could differ.
        np.testing.assert_array_equal(rc.viterbi(y, A, lengths), reference.viterbi(y, A, lengths))


@both
@every_reduction
def test_numeric_gradients(rng, module, reduction):
    y, A, tags, lengths = random_problem(rng, 6, 4, 3)
    options = {"reduction": reduction, "weights": [0.5, 2.0, 0.0, 1.0]}
    _, dy, dA = module.crf_loss(y, A, tags, lengths, **options)

    def f(emissions, transitions):
        return [module.crf_loss(emissions, transitions, tags, lengths, **options)[0]]

    cotangent = np.ones(4) if reduction == "none" else 1.0
    given = {"emissions": y, "transitions": A}
    check_gradients(f, given, [cotangent], {"emissions": dy, "transitions": dA})


@pytest.mark.parametrize("isa", rc.available_isas())
@every_dtype
def test_extreme_values(rng, restore_isa, isa, dtype):
    """The only path that is allowed is worse by 10,000 nats a step than those that are not."""
    rc.use_isa(isa)
    T, K = 500, 4
    y = np.full((T, 1, K), 1e4, dtype)
    y[:, :, 2] = -1e4
    A = np.full((K, K), -np.inf, dtype)
    A[2, 2] = A[2, 1] = 0
    tags = np.full((T, 1), 2)
    loss, dy, dA = rc.crf_loss(y, A, tags)
    # The last tag alone may be 1.
    np.testing.assert_allclose(loss, 2e4, rtol=1e-6)
    assert np.isfinite(dy).all()
    assert np.isfinite(dA).all()
    np.testing.assert_allclose(dA[2], [0, 1, -1, 0], atol=1e-6)
    assert rc.viterbi(y, A)[:, 0].tolist() == [2] * (T - 1) + [1]


@both
def test_of_equal_scores_the_lowest_tag(module):
    np.testing.assert_array_equal(module.viterbi(np.zeros((4, 1, 3)), np.zeros((3, 3))), 0)


def test_impossible_tags():
    A = np.zeros((2, 2))
    A[0, 1] = -np.inf
    loss, dy, dA = rc.crf_loss(np.zeros((2, 1, 2)), A, [[0], [1]])
    assert loss == np.inf
    assert np.isnan(dy).all()
    assert np.isnan(dA).all()
    _, _, dA = rc.crf_loss(np.zeros((2, 1, 2)), A, [[1], [1]])
    assert dA[0, 1] == 0
    losses, dy, _ = rc.crf_loss(np.zeros((2, 1, 2)), np.full((2, 2), -np.inf), [[0], [1]], reduction="none")
    assert np.isnan(losses).all()
    assert np.isnan(dy).all()


@pytest.mark.parametrize("size", [-1e13, 1e13])
def test_large_transitions(size):
    loss, dy, _ = rc.crf_loss(np.zeros((3, 1, 2)), np.full((2, 2), size), [[0], [1], [0]])
    np.testing.assert_allclose(loss, np.log(8), atol=0.02)  # differences of 1e13 are good to a hundredth
    np.testing.assert_allclose(dy, np.array([[[-0.5, 0.5]], [[0.5, -0.5]], [[-0.5, 0.5]]]), atol=0.02)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@every_dtype
def test_a_wrong_value_stays_in_its_row(rng, dtype, wrong):
    y, A, tags, _ = random_problem(rng, 5, 3, 4, dtype)
    tags, lengths = np.abs(tags) % 4, [5, 4, 5]
    wanted, gradient, _ = rc.crf_loss(y, A, tags, lengths, reduction="none")
    y[4, 1] = wrong  # padding
    y[2, 0, 1] = wrong
    losses, dy, _ = rc.crf_loss(y, A, tags, lengths, reduction="none")
    assert np.isnan(losses[0])
    assert np.isnan(dy[:, 0]).all()
    np.testing.assert_array_equal(losses[1:], wanted[1:])
    np.testing.assert_array_equal(dy[:, 1:], gradient[:, 1:])


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_a_sequence_of_weight_0_is_absent(rng, reduction):
    y, A, tags, lengths = random_problem(rng, 5, 3, 4, "float64")
    weights = np.array([0.5, 0.0, 2.0])
    wanted = rc.crf_loss(
        y[:, [0, 2]], A, tags[:, [0, 2]], lengths[[0, 2]], weights=weights[[0, 2]], reduction=reduction
    )
    y[:, 1], tags[:, 1] = np.nan, -9
    loss, dy, dA = rc.crf_loss(y, A, tags, lengths, weights=weights, reduction=reduction)
    np.testing.assert_array_equal(loss if reduction != "none" else loss[[0, 2]], wanted[0])
    np.testing.assert_array_equal(dy[:, [0, 2]], wanted[1])
    np.testing.assert_array_equal(dA, wanted[2])
    np.testing.assert_array_equal(dy[:, 1], 0)


def test_a_sequence_has_the_same_bits_in_any_batch(rng):
    y, A, tags, lengths = random_problem(rng, 20, 6, 7, "float32")
    losses, dy, _ = rc.crf_loss(y, A, tags, lengths, reduction="none")
    for n in range(6):
        steps = slice(lengths[n])
        alone = rc.crf_loss(y[steps, n : n + 1], A, tags[steps, n : n + 1], reduction="none")
        assert alone[0][0] == losses[n]
        np.testing.assert_array_equal(alone[1][:, 0], dy[steps, n])


def test_nothing():
    for shape in [(0, 2, 3), (3, 0, 3), (0, 0, 0)]:
        loss, dy, dA = rc.crf_loss(np.zeros(shape), np.zeros((shape[2],) * 2), np.zeros(shape[:2], int))
        assert loss == 0
        assert dy.shape == shape
        np.testing.assert_array_equal(dA, 0)
        assert rc.viterbi(np.zeros(shape), np.zeros((shape[2],) * 2)).shape == shape[:2]
        assert rc.crf_marginals(np.zeros(shape), np.zeros((shape[2],) * 2)).shape == shape


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"emissions": np.zeros((3, 2))}, ValueError, r"emissions must be \(T, N, K\); got \(3, 2\)"),
        ({"transitions": np.zeros((4, 3))}, ValueError, r"transitions must be \(K, K\) = \(4, 4\); got \(4, 3\)"),
        ({"transitions": np.zeros((4, 4), int)}, TypeError, "transitions must be an array of float32 or float64"),
        ({"tags": np.zeros((3, 2))}, TypeError, "tags must be integers; got dtype float64"),
        ({"tags": np.zeros((2, 3), int)}, ValueError, r"tags must be \(T, N\) = \(3, 2\); got \(2, 3\)"),
        ({"tags": np.full((3, 2), 4)}, ValueError, r"tags must lie in \[0, K\) = \[0, 4\); got 4"),
        ({"lengths": [3]}, ValueError, r"lengths must be \(N,\) = \(2,\); got \(1,\)"),
        ({"weights": [1, np.inf]}, ValueError, "weights must be finite"),
        ({"reduction": None}, ValueError, "reduction must be one of"),
    ],
)
def test_wrong_arguments(change, error, message):
    arguments = {"emissions": np.zeros((3, 2, 4)), "transitions": np.zeros((4, 4)), "tags": np.zeros((3, 2), int)}
    with pytest.raises(error, match=message):
        rc.crf_loss(**arguments | change)
