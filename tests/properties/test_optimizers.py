"""Optimisers and clipping."""

import copy
import pickle
from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from support.compare import assert_identical, assert_same
from support.optimizers import updated
from support.strategies import dtypes, laid_out, layouts, seeds

from rnncore.optim import SGD, Adagrad, Adam, RMSProp, clip_by_global_norm, clip_by_value

# A few updates of some roundings each; an element may be a hundred times smaller than the largest.
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}

shares = st.floats(0, 0.99)
epsilons = st.sampled_from([1e-8, 1e-3, 0.1])
OPTIONS = {
    SGD: {"momentum": shares},
    RMSProp: {"decay": shares, "epsilon": epsilons},
    Adagrad: {"epsilon": epsilons},
    Adam: {"beta1": shares, "beta2": shares, "epsilon": epsilons},
}


@dataclass(frozen=True)
class Run:
    """Some steps of an optimiser."""

    kind: type
    options: dict
    rates: list
    shapes: list
    dtype: str
    seed: int

    def params(self):
        rng = np.random.default_rng(self.seed)
        return {str(k): np.asarray(rng.normal(size=shape), self.dtype) for k, shape in enumerate(self.shapes)}

    def grads(self):
        """A dict for every step. No gradient is so small that epsilon alone decides."""
        rng = np.random.default_rng([self.seed, 1])

        def one(shape):
            return np.asarray(rng.choice([-1, 1], shape) * rng.uniform(0.03, 3, size=shape), self.dtype)

        return [{str(k): one(shape) for k, shape in enumerate(self.shapes)} for _ in self.rates]

    def make(self, params):
        return self.kind(params, **self.options)

    def steps(self, optimizer, grads, span=slice(None)):
        for rate, of_step in zip(self.rates[span], grads[span], strict=True):
            optimizer.learning_rate = rate
            optimizer.step(of_step)


@st.composite
def runs(draw):
    kind = draw(st.sampled_from(list(OPTIONS)))
    options = draw(st.fixed_dictionaries(OPTIONS[kind]))
    rates = draw(st.lists(st.floats(1e-4, 0.1), min_size=1, max_size=6))
    shapes = draw(st.lists(st.lists(st.integers(0, 40), max_size=2).map(tuple), max_size=4))
    return Run(kind, options, rates, shapes, draw(dtypes), draw(seeds))


@given(runs())
def test_steps_follow_the_equations(run):
    params = run.params()
    expected, memory = {name: p.astype("f8") for name, p in params.items()}, {name: {} for name in params}
    run.steps(run.make(params), run.grads())
    for t, (rate, grads) in enumerate(zip(run.rates, run.grads(), strict=True), 1):
        for name, g in grads.items():
            p = updated(run.kind, run.options, expected[name], g.astype("f8"), memory[name], t, rate)
            expected[name] = np.asarray(p)
    assert_same(params, expected, TOLERANCE[run.dtype])
    assert all(p.dtype == run.dtype for p in params.values())


@given(runs(), layouts | st.just("mixed"), st.integers(0, 6))
def test_layouts_of_gradients_parts_and_copies_change_no_bit(run, layout, cut):
    expected, grads = run.params(), run.grads()
    run.steps(run.make(expected), grads)

    params = run.params()
    flat = [{name: g for name, g in step.items() if g.ndim} for step in grads]
    placed = [g | laid_out(f, layout, run.seed) for g, f in zip(grads, flat, strict=True)]
    run.steps(run.make(params), placed)
    assert_identical(params, expected)

    params = run.params()
    for name in params:
        run.steps(run.make({name: params[name]}), [{name: g[name]} for g in grads])
    assert_identical(params, expected)

    optimizer = run.make(run.params())
    run.steps(optimizer, grads, slice(cut))
    for other in (pickle.loads(pickle.dumps(optimizer)), copy.deepcopy(optimizer)):
        run.steps(other, grads, slice(cut, None))
        assert_identical(other.params, expected)


@given(runs(), st.floats(1e-3, 1e3))
def test_clip_norm_makes_the_step_of_clipped_gradients(run, limit):
    expected, params = run.params(), run.params()
    optimizer, clipping = run.make(expected), run.make(params)
    for rate, grads in zip(run.rates, run.grads(), strict=True):
        optimizer.learning_rate = clipping.learning_rate = rate
        squares = sum((g.astype("f8") ** 2).sum() for g in grads.values())
        norm = clipping.step(grads, clip_norm=limit)
        np.testing.assert_allclose(norm, np.sqrt(squares), rtol=1e-12)
        clipped = {name: g.copy() for name, g in grads.items()}
        assert clip_by_global_norm(clipped, limit) == norm
        np.testing.assert_allclose(
            sum((g.astype("f8") ** 2).sum() for g in clipped.values()), min(norm, limit) ** 2, rtol=1e-5
        )
        optimizer.step(clipped)
    assert_same(params, expected, TOLERANCE[run.dtype])


@given(runs(), st.floats(1e-3, 10))
def test_clip_by_value_bounds_every_element(run, limit):
    for grads in run.grads():
        clipped = {name: g.copy() for name, g in grads.items()}
        clip_by_value(clipped, limit)
        bound = np.dtype(run.dtype).type(limit)
        assert_identical(clipped, {name: np.clip(g, -bound, bound) for name, g in grads.items()})
