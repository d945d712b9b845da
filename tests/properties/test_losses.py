"""Losses of steps and of whole sequences."""

from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from support.compare import TOLERANCE, assert_equal_bits, assert_identical, assert_same
from support.layouts import LAYOUTS
from support.losses import FUNCTIONS, make_targets
from support.machines import Machine
from support.strategies import dtypes, layouts, machines, more, seeds, sizes

import rnncore as rc
from rnncore import reference

REDUCTIONS = ("mean", "sum", "none")
reductions = st.sampled_from(REDUCTIONS)
everywhere = machines(rc.available_isas())


def assert_near(got, wanted, dtype):
    assert_same({"": np.asarray(got)}, {"": np.asarray(wanted)}, TOLERANCE[dtype])


def reduce(losses, gradients, weights, reduction):
    """The documented meaning of weights and a reduction; a weight is 0 where a step or sequence does not count."""
    counts = weights != 0
    losses = np.where(counts, losses, 0) * weights
    shape = weights.shape + (1,) * (gradients.ndim - weights.ndim)
    gradients = np.where(counts.reshape(shape), gradients, 0) * weights.reshape(shape)
    if reduction == "none":
        return losses, gradients
    scale = 1 / (weights.sum() or 1) if reduction == "mean" else 1.0
    return losses.sum() * scale, gradients * scale


# ---- of steps -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StepsCall:
    """A call of a loss of steps."""

    kind: str
    dtype: str
    T: int
    N: int
    V: int
    lengths: bool
    weights: bool
    reduction: str
    seed: int

    @property
    def rng(self):
        return np.random.default_rng([self.seed, 1])

    def arguments(self):
        """logits, targets, lengths, weights"""
        rng, shape = np.random.default_rng(self.seed), (self.T, self.N, self.V)
        logits = rng.normal(scale=3, size=shape).astype(self.dtype)
        lengths = rng.integers(self.T + 1, size=self.N) if self.lengths else None
        weights = rng.uniform(0, 3, shape[:2]) * (rng.random(shape[:2]) < 0.8) if self.weights else None
        return logits, make_targets(rng, self.kind, shape, self.dtype), lengths, weights

    def run(self, logits, targets, lengths, weights, **options):
        return FUNCTIONS[self.kind][0](
            logits, targets, lengths, **{"weights": weights, "reduction": self.reduction} | options
        )

    def counts(self, lengths, weights):
        """The weight of every step, 0 beyond the lengths."""
        valid = np.arange(self.T)[:, None] < (np.full(self.N, self.T) if lengths is None else lengths)
        return valid * (1.0 if weights is None else weights)


@st.composite
def steps_calls(draw, **fixed):
    fields = {"kind": st.sampled_from(list(FUNCTIONS)), "dtype": dtypes, "T": sizes(most=17), "N": sizes(most=17)}
    fields |= {"V": sizes(1), "lengths": st.booleans(), "weights": st.booleans(), "reduction": reductions}
    fields |= {"seed": seeds} | {name: st.just(value) for name, value in fixed.items()}
    return StepsCall(**{name: draw(strategy) for name, strategy in fields.items()})


@given(steps_calls(), everywhere, layouts)
def test_losses_of_steps_equal_the_formula(call, machine, layout):
    logits, targets, lengths, weights = call.arguments()
    plain = FUNCTIONS[call.kind][1](logits, targets)
    loss, dlogits = reduce(*plain, call.counts(lengths, weights), call.reduction)
    if layout:
        logits, targets = (LAYOUTS[layout](a) for a in (logits, targets))
    with machine:
        got_loss, got_dlogits = call.run(logits, targets, lengths, weights)
    assert_near(got_loss, loss, call.dtype)
    assert_near(got_dlogits, dlogits, call.dtype)
    assert got_dlogits.dtype == call.dtype


@given(steps_calls(reduction="none"), machines(), st.sampled_from([np.nan, np.inf, 1e30]))
def test_losses_of_steps_in_any_batch_on_any_threads_with_any_padding(call, machine, garbage):
    logits, targets, lengths, weights = call.arguments()
    with Machine(machine.isa):
        losses, dlogits = call.run(logits, targets, lengths, weights)
    rows = call.rng.permutation(call.N)[: call.rng.integers(call.N + 1)]
    idle = call.counts(lengths, weights) == 0
    logits[idle], targets[idle] = garbage, -7
    with machine:
        for result, wanted in zip(call.run(logits, targets, lengths, weights), (losses, dlogits), strict=True):
            assert_equal_bits(result, wanted)
        some = logits[:, rows], targets[:, rows], *(None if a is None else a[..., rows] for a in (lengths, weights))
        for result, wanted in zip(call.run(*some), (losses[:, rows], dlogits[:, rows]), strict=True):
            assert_equal_bits(result, wanted)


@given(steps_calls(kind="softmax"), machines())
def test_out_takes_the_gradient(call, machine):
    logits, targets, lengths, weights = call.arguments()
    with machine:
        loss, dlogits = call.run(logits, targets, lengths, weights)
        out = np.full_like(logits, np.nan)
        for given_out in (out, logits):
            again, result = call.run(logits, targets, lengths, weights, out=given_out)
            assert result is given_out
            assert_equal_bits(result, dlogits)
            assert_equal_bits(again, loss)


@given(steps_calls(weights=True), everywhere, st.integers(-20, 20))
def test_weights_are_proportions(call, machine, power):
    """A power of two changes no bit of a mean, and is a factor of the others."""
    logits, targets, lengths, weights = call.arguments()
    factor = 1.0 if call.reduction == "mean" else 2.0**power
    with machine:
        loss, dlogits = call.run(logits, targets, lengths, weights)
        scaled, scaled_dlogits = call.run(logits, targets, lengths, weights * 2.0**power)
    assert_equal_bits(scaled, loss * factor)
    # Except for what falls below the smallest numbers.
    np.testing.assert_allclose(scaled_dlogits, dlogits * factor, rtol=0, atol=1e-30)


@given(steps_calls(kind="softmax"), sizes(1), everywhere, st.sampled_from([np.nan, np.inf, 1e30]))
def test_fused_loss_is_that_of_the_output_layer(call, H, machine, garbage):
    _, targets, lengths, weights = call.arguments()
    rng = call.rng
    dense = rc.Dense(H, call.V, dtype=call.dtype, seed=0)
    dense.params["b"][...] = rng.normal(size=call.V)
    x = rng.normal(size=(call.T, call.N, H)).astype(call.dtype)
    options = {"weights": weights, "reduction": call.reduction}

    def fused():
        dense.zero_grad()
        loss, dx = rc.fused_softmax_cross_entropy(dense, x, targets, lengths, **options)
        alone, nothing = rc.fused_softmax_cross_entropy(dense, x, targets, lengths, **options, training=False)
        assert nothing is None
        assert_equal_bits(alone, loss)
        return {"loss": np.asarray(loss), "dx": dx} | {name: g.copy() for name, g in dense.grads.items()}

    with machine:
        logits, cache = dense.forward(x)
        dense.zero_grad()
        loss, dlogits = rc.softmax_cross_entropy(logits, targets, lengths, **options)
        expected = {"loss": np.asarray(loss), "dx": dense.backward(dlogits, cache)}
        expected |= {name: g.copy() for name, g in dense.grads.items()}
        actual = fused()
        idle = call.counts(lengths, weights) == 0
        x[idle], targets[idle] = garbage, -7
        assert_identical(fused(), actual)
    assert_same(actual, expected, TOLERANCE[call.dtype])


# ---- of sequences ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SequencesCall:
    """A call of ctc_loss, or of crf_loss and viterbi."""

    dtype: str
    T: int
    N: int
    V: int
    lengths: bool
    weights: bool
    reduction: str
    minus_infinity: bool
    seed: int

    @property
    def rng(self):
        return np.random.default_rng([self.seed, 1])

    def common(self):
        """rng, logits (T, N, V), lengths, weights"""
        rng = np.random.default_rng(self.seed)
        logits = rng.normal(scale=3, size=(self.T, self.N, self.V)).astype(self.dtype)
        lengths = rng.integers(self.T + 1, size=self.N) if self.lengths else None
        weights = rng.uniform(0, 3, self.N) * (rng.random(self.N) < 0.8) if self.weights else None
        return rng, logits, lengths, weights

    def ctc(self):
        """logits, targets, lengths, options"""
        rng, logits, lengths, weights = self.common()
        blank, left_out = int(rng.integers(self.V)), bool(rng.integers(2)) or self.minus_infinity
        others = np.delete(np.arange(self.V), blank)
        if self.minus_infinity:
            impossible = rng.random(logits.shape) < 0.3
            impossible[..., blank] = False
            logits[impossible] = -np.inf
        targets = []
        for frames in np.full(self.N, self.T) if lengths is None else lengths:
            labels = rng.choice(others, size=rng.integers(frames + 1 + left_out)) if len(others) else others
            while not left_out and len(labels) + (labels[1:] == labels[:-1]).sum() > frames:
                labels = labels[:-1]
            targets.append(labels)
        options = {"blank": blank, "weights": weights, "reduction": self.reduction, "zero_infinity": left_out}
        return logits, targets, lengths, options

    def crf(self):
        """emissions, transitions, tags, lengths, options"""
        rng, emissions, lengths, weights = self.common()
        tags = rng.integers(self.V, size=(self.T, self.N))
        transitions = rng.normal(scale=2, size=(self.V, self.V)).astype(self.dtype)
        if self.minus_infinity:
            forbidden = rng.random(transitions.shape) < 0.3
            forbidden[tags[:-1], tags[1:]] = False
            transitions[forbidden] = -np.inf
        return emissions, transitions, tags, lengths, {"weights": weights, "reduction": self.reduction}


@st.composite
def sequences_calls(draw, **fixed):
    fields = {"dtype": dtypes, "T": sizes(most=33), "N": sizes(most=9), "V": sizes(1, most=33)}
    fields |= {"lengths": st.booleans(), "weights": st.booleans(), "reduction": reductions}
    fields |= {"minus_infinity": st.booleans(), "seed": seeds}
    fields |= {name: st.just(value) for name, value in fixed.items()}
    return SequencesCall(**{name: draw(strategy) for name, strategy in fields.items()})


def padding_of(array, lengths):
    return np.arange(len(array))[:, None] >= lengths


@given(sequences_calls(), everywhere, layouts)
def test_ctc_equals_reference(call, machine, layout):
    logits, targets, lengths, options = call.ctc()
    loss, dlogits = reference.ctc_loss(logits.astype("f8"), targets, lengths, **options)
    with machine:
        given_logits = LAYOUTS[layout](logits) if layout else logits
        got_loss, got_dlogits = rc.ctc_loss(given_logits, targets, lengths, **options)
        alone, nothing = rc.ctc_loss(given_logits, targets, lengths, **options, training=False)
    assert nothing is None
    assert_equal_bits(alone, got_loss)
    assert_near(got_loss, loss, call.dtype)
    assert_near(got_dlogits, dlogits, call.dtype)
    assert got_dlogits.dtype == call.dtype


@given(sequences_calls(reduction="none"), machines(), st.sampled_from([np.nan, np.inf, 1e30]))
def test_ctc_in_any_batch_on_any_threads_with_any_padding(call, machine, garbage):
    logits, targets, lengths, options = call.ctc()
    with Machine(machine.isa):
        losses, dlogits = rc.ctc_loss(logits, targets, lengths, **options)
    rows = call.rng.permutation(call.N)[: call.rng.integers(call.N + 1)]
    if lengths is not None:
        logits[padding_of(logits, lengths)] = garbage
    with machine:
        again, again_dlogits = rc.ctc_loss(logits, targets, lengths, **options)
        assert_equal_bits(again, losses)
        assert_equal_bits(again_dlogits, dlogits)
        some = logits[:, rows], [targets[n] for n in rows], None if lengths is None else lengths[rows]
        options["weights"] = None if options["weights"] is None else options["weights"][rows]
        again, again_dlogits = rc.ctc_loss(*some, **options)
        assert_equal_bits(again, losses[rows])
        assert_equal_bits(again_dlogits, dlogits[:, rows])


@more(2)
@given(sequences_calls(), everywhere, layouts)
def test_random_fields_equal_the_reference(call, machine, layout):
    emissions, transitions, tags, lengths, options = call.crf()
    exact = emissions.astype("f8"), transitions.astype("f8")
    expected = reference.crf_loss(*exact, tags, lengths, **options)
    marginals, best = reference.crf_marginals(*exact, lengths), reference.viterbi(*exact, lengths)
    if layout:
        emissions, transitions, tags = (LAYOUTS[layout](a) for a in (emissions, transitions, tags))
    with machine:
        actual = rc.crf_loss(emissions, transitions, tags, lengths, **options)
        assert_near(rc.crf_marginals(emissions, transitions, lengths), marginals, call.dtype)
        found = rc.viterbi(emissions, transitions, lengths)
    for got, wanted in zip(actual, expected, strict=True):
        assert_near(got, wanted, call.dtype)
    assert actual[1].dtype == actual[2].dtype == call.dtype
    np.testing.assert_array_equal(found, best)


@given(sequences_calls(reduction="none"), machines(), st.sampled_from([np.nan, np.inf, 1e30]))
def test_random_fields_in_any_batch_on_any_threads_with_any_padding(call, machine, garbage):
    emissions, transitions, tags, lengths, options = call.crf()

    def everything(emissions, tags, lengths, weights):
        losses, demissions, _ = rc.crf_loss(emissions, transitions, tags, lengths, weights=weights, reduction="none")
        of_steps = (
            demissions,
            rc.crf_marginals(emissions, transitions, lengths),
            rc.viterbi(emissions, transitions, lengths),
        )
        return [losses, *of_steps]

    with Machine(machine.isa):
        expected = everything(emissions, tags, lengths, options["weights"])
    rows = call.rng.permutation(call.N)[: call.rng.integers(call.N + 1)]
    if lengths is not None:
        idle = padding_of(emissions, lengths)
        emissions[idle], tags[idle] = garbage, -7
    with machine:
        for got, wanted in zip(everything(emissions, tags, lengths, options["weights"]), expected, strict=True):
            assert_equal_bits(got, wanted)
        per_row = (None if a is None else a[rows] for a in (lengths, options["weights"]))
        for got, wanted in zip(everything(emissions[:, rows], tags[:, rows], *per_row), expected, strict=True):
            assert_equal_bits(got, wanted[..., rows] if wanted.ndim < 3 else wanted[:, rows])
