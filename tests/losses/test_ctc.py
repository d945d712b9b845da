"""Connectionist temporal classification against brute force, the reference, PyTorch and numeric gradients."""

import inspect
import itertools

import numpy as np
import pytest
from support.compare import TOLERANCE
from support.gradcheck import check_gradients
from support.losses import every_dtype, every_reduction

import rnncore as rc
from rnncore import reference

both = pytest.mark.parametrize("ctc_loss", [rc.ctc_loss, reference.ctc_loss], ids=["engine", "reference"])


def merged(path, blank):
    """A path without repetitions, then without blanks."""
    return [symbol for symbol, _ in itertools.groupby(path) if symbol != blank]


def brute_force(y, labels, blank):
    """-log of the sum over all V**T paths."""
    p = np.exp(y) / np.exp(y).sum(axis=1, keepdims=True)
    paths = itertools.product(range(y.shape[1]), repeat=len(y))
    right = [path for path in paths if merged(path, blank) == list(labels)]
    return -np.log(sum(np.prod(p[np.arange(len(y)), list(path)]) for path in right))


def random_problem(rng, T, N, V, *, dtype="float64", scale=2.0):
    """-> logits, targets, lengths and blank; labels that fit, with repetitions, and some that fill their frames."""
    blank, lengths = int(rng.integers(V)), rng.integers(T + 1, size=N)
    symbols = np.delete(np.arange(V), blank)
    targets = []
    for frames in lengths:
        labels = rng.choice(symbols, size=rng.integers(frames + 1))
        while len(labels) + (labels[1:] == labels[:-1]).sum() > frames:
            labels = labels[:-1]
        targets.append(labels)
    return rng.normal(scale=scale, size=(T, N, V)).astype(dtype), targets, lengths, blank


# ---- values --------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("labels", [[], [1], [1, 2], [2, 2], [1, 2, 1], [1, 1, 2], [2, 1, 2, 1]], ids=str)
@pytest.mark.parametrize("blank", [0, 3])
def test_equals_the_sum_over_all_paths(rng, ctc_loss, labels, blank):
    y = rng.normal(size=(4, 4))
    if len(labels) == 4:
        wanted = -np.log(np.prod([np.exp(y[t, label]) / np.exp(y[t]).sum() for t, label in enumerate(labels)]))
    else:
        wanted = brute_force(y, labels, blank)
    loss, _ = ctc_loss(y[:, None], [np.array(labels, int)], blank=blank)
    np.testing.assert_allclose(loss, wanted, rtol=1e-12)


@pytest.mark.parametrize("isa", rc.available_isas())
@every_dtype
@every_reduction
def test_equals_the_reference(rng, restore_isa, isa, dtype, reduction):
    rc.use_isa(isa)
    for T, N, V in [(1, 3, 2), (7, 5, 4), (40, 6, 9), (90, 3, 30), (25, 2, 70)]:
        y, targets, lengths, blank = random_problem(rng, T, N, V, dtype=dtype)
        weights = rng.uniform(0.5, 2, size=N)
        options = {"weights": weights, "reduction": reduction}
        loss, dlogits = rc.ctc_loss(y, targets, lengths, blank, **options)
        wanted, gradient = reference.ctc_loss(y, targets, lengths, blank, **options)
        np.testing.assert_allclose(loss, wanted, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
        np.testing.assert_allclose(dlogits, gradient, rtol=0, atol=TOLERANCE[dtype])
        assert dlogits.dtype == dtype
        np.testing.assert_array_equal(dlogits[np.arange(T)[:, None] >= lengths], 0)
        np.testing.assert_array_equal(rc.ctc_loss(y, targets, lengths, blank, **options, training=False)[0], loss)


def test_equals_pytorch(rng):
    torch = pytest.importorskip("torch")
    for T, N, V in [(20, 4, 5), (60, 8, 30)]:
        y, targets, lengths, blank = random_problem(rng, T, N, V)
        logits = torch.tensor(y, requires_grad=True)
        counts = torch.tensor([len(labels) for labels in targets])
        theirs = torch.nn.functional.ctc_loss(
            *(logits.log_softmax(2), torch.tensor(np.concatenate(targets)), torch.tensor(lengths), counts),
            blank=blank,
            reduction="sum",
        )
        theirs.backward()
        loss, dlogits = rc.ctc_loss(y, targets, lengths, blank, reduction="sum")
        np.testing.assert_allclose(loss, theirs.item(), rtol=1e-10)
        np.testing.assert_allclose(dlogits, logits.grad.numpy(), rtol=0, atol=1e-10)


@both
@every_reduction
def test_numeric_gradients(rng, ctc_loss, reduction):
    y, targets, lengths, blank = random_problem(rng, 9, 4, 4)
    options = {"reduction": reduction, "weights": [0.5, 2.0, 0.0, 1.0]}
    _, dlogits = ctc_loss(y, targets, lengths, blank, **options)

    def f(logits):
        return [ctc_loss(logits, targets, lengths, blank, **options)[0]]

    cotangent = np.ones(4) if reduction == "none" else 1.0
    check_gradients(f, {"logits": y}, [cotangent], {"logits": dlogits})


# ---- extreme values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("isa", rc.available_isas())
@every_dtype
def test_nothing_underflows(rng, restore_isa, isa, dtype):
    """2,000 frames, and logits that say the opposite of the labels: e**-20,000,000."""
    rc.use_isa(isa)
    T, V = 2000, 5
    labels = rng.integers(1, V, size=300)
    y = np.zeros((T, 1, V), dtype)
    y[:, :, 1:] = -1e4
    loss, dlogits = rc.ctc_loss(y, [labels])
    wanted, gradient = reference.ctc_loss(y, [labels])
    np.testing.assert_allclose(loss, wanted, rtol=1e-6 if dtype == "float32" else 1e-12)
    # The reference adds logarithms of -3,000,000: they are good to 1e-10 of that.
    np.testing.assert_allclose(dlogits, gradient, rtol=0, atol=1e-4)
    assert loss > 2.9e6


@both
def test_infinite_logits(ctc_loss):
    y = np.zeros((3, 1, 3))
    y[0, 0, 0] = y[2, 0, 2] = -np.inf
    with np.errstate(invalid="ignore"):
        loss, dlogits = ctc_loss(y, [[1]])
    # 1 1 1, 1 1 0, 1 0 0 of 2 x 3 x 2 paths, which end in 0 or 1
    np.testing.assert_allclose(loss, np.log(12 / 3), rtol=1e-12)
    assert np.isfinite(dlogits).all()
    y[:, 0, 1] = -np.inf
    with np.errstate(invalid="ignore"):
        assert ctc_loss(y, [[1]])[0] == np.inf
        loss, dlogits = ctc_loss(y, [[1]], zero_infinity=True)
    assert loss == 0
    np.testing.assert_array_equal(dlogits, 0)


def test_a_repeated_label_needs_the_blank(restore_isa):
    """Without a blank there is no path: a skip that is forbidden adds nothing, however small all others are."""
    y = np.zeros((4, 1, 3))
    for lowest in (-np.inf, -1e13, -1e4):
        y[:, :, 0] = lowest
        for isa in rc.available_isas():
            rc.use_isa(isa)
            loss, dlogits = rc.ctc_loss(y, [[1, 1]])
            if lowest == -np.inf:
                assert loss == np.inf
                assert np.isnan(dlogits).all()
                assert rc.ctc_loss(y, [[1, 1]], zero_infinity=True)[0] == 0
            else:
                wanted, gradient = reference.ctc_loss(y, [[1, 1]])
                np.testing.assert_allclose(loss, wanted, rtol=1e-12)
                # A path among numbers of 1e13 is good to a thousandth.
                np.testing.assert_allclose(dlogits, gradient, atol=1e-12 if lowest == -1e4 else 1e-2)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@every_dtype
def test_a_wrong_value_stays_in_its_row(rng, dtype, wrong):
    y, targets, lengths = rng.normal(size=(6, 3, 4)).astype(dtype), [[1], [2, 3], [3]], [6, 5, 6]
    wanted, gradient = rc.ctc_loss(y, targets, lengths, reduction="none")
    y[5, 1] = wrong  # padding
    y[2, 0, 1] = wrong
    losses, dlogits = rc.ctc_loss(y, targets, lengths, reduction="none")
    assert np.isnan(losses[0])
    assert np.isnan(dlogits[:, 0]).all()
    np.testing.assert_array_equal(losses[1:], wanted[1:])
    np.testing.assert_array_equal(dlogits[:, 1:], gradient[:, 1:])


# ---- bits ----------------------------------------------------------------------------------------------------------


@every_dtype
def test_a_sequence_has_the_same_bits_in_any_batch_and_on_any_threads(rng, dtype, restore_threads):
    y, targets, lengths, blank = random_problem(rng, 300, 16, 40, dtype=dtype)
    rc.set_num_threads(1)
    losses, dlogits = rc.ctc_loss(y, targets, lengths, blank, reduction="none")
    rc.set_num_threads(3)
    again = rc.ctc_loss(y, targets, lengths, blank, reduction="none")
    np.testing.assert_array_equal(again[0], losses)
    np.testing.assert_array_equal(again[1], dlogits)
    for n in range(16):
        alone = rc.ctc_loss(y[: lengths[n], n : n + 1], targets[n : n + 1], blank=blank, reduction="none")
        assert alone[0][0] == losses[n]
        np.testing.assert_array_equal(alone[1][:, 0], dlogits[: lengths[n], n])


# ---- arguments -----------------------------------------------------------------------------------------------------


def test_nothing():
    for shape in [(0, 2, 3), (3, 0, 3), (0, 0, 1)]:
        loss, dlogits = rc.ctc_loss(np.zeros(shape), [[]] * shape[1])
        assert loss == 0
        assert dlogits.shape == shape
    assert rc.ctc_loss(np.zeros((4, 2, 3)), [[1], []], lengths=[4, 0])[0] > 0


def test_labels_that_do_not_fit():
    y = np.zeros((3, 2, 4))
    with pytest.raises(ValueError, match=r"targets\[1\] must fit in its 3 frames; its 3 labels need 4 \(zero_inf"):
        rc.ctc_loss(y, [[1, 2, 3], [1, 1, 2]])
    losses, dlogits = rc.ctc_loss(y, [[1, 2, 3], [1, 1, 2]], reduction="none", zero_infinity=True)
    assert losses[0] > 0
    assert losses[1] == 0
    np.testing.assert_array_equal(dlogits[:, 1], 0)
    assert np.abs(dlogits[:, 0]).max() > 0
    wanted = reference.ctc_loss(y, [[1, 2, 3], [1, 1, 2]], zero_infinity=True)
    np.testing.assert_allclose(losses.sum() / 2, wanted[0], rtol=1e-12)  # it counts in the mean, as in PyTorch
    np.testing.assert_allclose(rc.ctc_loss(y, [[1, 2, 3], [1, 1, 2]], zero_infinity=True)[1], wanted[1], atol=1e-12)
    # What has no weight need not fit.
    assert rc.ctc_loss(y, [[1, 2, 3], [1, 1, 2]], weights=[1, 0])[0] == losses[0]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"logits": np.zeros((3, 4))}, ValueError, r"logits must be \(T, N, V\); got \(3, 4\)"),
        ({"logits": np.zeros((3, 2, 4), int)}, TypeError, "logits must be an array of float32 or float64"),
        ({"targets": [[1]]}, ValueError, "targets must have one array of labels for each of N = 2 sequences; got 1"),
        ({"targets": 3}, TypeError, "targets must be a list of integer arrays; got int"),
        ({"targets": [[1], [0.5]]}, TypeError, r"targets\[1\] must be integer labels; got dtype float64"),
        ({"targets": [[1], [[2]]]}, ValueError, r"targets\[1\] must be \(L,\); got shape \(1, 1\)"),
        ({"targets": [[4], [1]]}, ValueError, r"targets\[0\] must lie in \[0, V\) = \[0, 4\); got 4"),
        ({"targets": [[1], [1, 0]]}, ValueError, r"targets\[1\] must not hold the blank, 0; got it at 1"),
        ({"blank": 4}, ValueError, r"blank must lie in \[0, V\) = \[0, 4\); got 4"),
        ({"blank": -1}, ValueError, "blank must be at least 0; got -1"),
        ({"lengths": [3, 4]}, ValueError, r"lengths must lie in \[0, T\] = \[0, 3\]; got 4"),
        ({"weights": [1, -1]}, ValueError, "weights must be finite and not negative; got -1.0"),
        ({"weights": [1]}, ValueError, r"weights must be \(N,\) = \(2,\); got \(1,\)"),
        ({"weights": ["a", "b"]}, TypeError, "weights must be real numbers"),
        ({"reduction": "avg"}, ValueError, "reduction must be one of"),
    ],
)
def test_wrong_arguments(change, error, message):
    arguments = {"logits": np.zeros((3, 2, 4)), "targets": [[1], [2, 3]]} | change
    with pytest.raises(error, match=message):
        rc.ctc_loss(**arguments)


def test_the_reference_takes_the_same_arguments():
    for name in ("ctc_loss", "crf_loss", "crf_marginals", "viterbi"):
        theirs, ours = (inspect.signature(getattr(module, name)).parameters for module in (reference, rc))
        assert [(p.name, p.kind, p.default) for p in theirs.values()] == [
            (p.name, p.kind, p.default) for p in ours.values()
        ]
    loss, dlogits = reference.ctc_loss(np.zeros((3, 1, 3)), [[1, 2]], training=False)
    assert dlogits is None
    np.testing.assert_allclose(loss, reference.ctc_loss(np.zeros((3, 1, 3)), [[1, 2]])[0], rtol=0)
