import copy
import math
import pickle
from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from support.optimizers import updated

from rnncore.engine import native
from rnncore.optim import SGD, Adagrad, Adam, RMSProp, clip_by_global_norm, clip_by_value

SHAPES = {"W": (5, 3), "b": (4,), "scale": (), "p": (2, 3, 4), "none": (0, 2), "empty": (3, 0)}

# name -> (class, arguments, name in torch.optim, the same arguments there)
CASES = {
    "sgd": (SGD, {"learning_rate": 0.03}, "SGD", {"lr": 0.03}),
    "momentum": (SGD, {"learning_rate": 0.03, "momentum": 0.8}, "SGD", {"lr": 0.03, "momentum": 0.8}),
    "rmsprop": (
        RMSProp,
        {"learning_rate": 0.02, "decay": 0.7, "epsilon": 1e-2},
        "RMSprop",
        {"lr": 0.02, "alpha": 0.7, "eps": 1e-2},
    ),
    "adagrad": (Adagrad, {"learning_rate": 0.05, "epsilon": 1e-2}, "Adagrad", {"lr": 0.05, "eps": 1e-2}),
    "adam": (
        Adam,
        {"learning_rate": 0.04, "beta1": 0.8, "beta2": 0.95, "epsilon": 1e-2},
        "Adam",
        {"lr": 0.04, "betas": (0.8, 0.95), "eps": 1e-2},
    ),
    "sgd-defaults": (SGD, {}, "SGD", {"lr": 0.01}),
    "rmsprop-defaults": (RMSProp, {}, "RMSprop", {"lr": 1e-3, "alpha": 0.9, "eps": 1e-8}),
    "adagrad-defaults": (Adagrad, {}, "Adagrad", {"lr": 1e-2, "eps": 1e-8}),
    "adam-defaults": (Adam, {}, "Adam", {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8}),
}
CLASSES = (SGD, RMSProp, Adagrad, Adam)

# Six updates of a few roundings each.
TOLERANCE = {np.float32: 5e-6, np.float64: 1e-12}


def draw(rng, dtype=np.float64):
    """Arrays whose elements differ in size by several powers of ten."""
    return {
        name: np.asarray(rng.normal(size=shape) * 10.0 ** rng.integers(-3, 2, size=shape), dtype)
        for name, shape in SHAPES.items()
    }


# Optimisers


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES)
def test_steps_follow_the_equations(rng, case, dtype):
    params = draw(rng, dtype)
    identity = dict(params)
    expected = {name: p.astype(float) for name, p in params.items()}
    memory = {name: [{} for _ in range(p.size)] for name, p in params.items()}
    optimizer = CASES[case][0](params, **CASES[case][1])
    for t in range(1, 7):
        if t == 4:
            optimizer.learning_rate *= 0.3
        grads = draw(rng, dtype)
        kept = copy.deepcopy(grads)
        optimizer.step(grads)
        assert optimizer.iterations == t
        for name in SHAPES:
            assert_array_equal(grads[name], kept[name])
            flat = [
                updated(*CASES[case][:2], p, float(g), memory[name][i], t, optimizer.learning_rate)
                for i, (p, g) in enumerate(zip(expected[name].flat, grads[name].flat, strict=True))
            ]
            expected[name] = np.reshape(flat, SHAPES[name])
            assert params[name] is identity[name] is optimizer.params[name]
            assert params[name].dtype == dtype
            assert_allclose(params[name], expected[name], rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES)
def test_parameters_need_not_be_dense(rng, case, dtype):
    kind, options = CASES[case][:2]
    dense = {"W": rng.normal(size=(5, 33)).astype(dtype), "b": rng.normal(size=40).astype(dtype)}
    views = {"W": np.zeros((33, 5), dtype).T, "b": np.zeros(80, dtype)[::-2]}
    for name, view in views.items():
        view[...] = dense[name]
    one, other = kind(dense, **options), kind(views, **options)
    for _ in range(3):
        grads = {name: rng.normal(size=p.shape).astype(dtype) for name, p in dense.items()}
        one.step(grads)
        other.step({name: np.asfortranarray(g) for name, g in grads.items()})
    for name, view in views.items():
        assert_array_equal(view, dense[name])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES)
def test_a_clipped_step_is_a_step_of_clipped_gradients(rng, case, dtype):
    kind, options = CASES[case][:2]
    params, grads = draw(rng, dtype), draw(rng, dtype)
    for limit in (1e-3, 1e6):
        once, twice = copy.deepcopy(params), copy.deepcopy(params)
        clipped = copy.deepcopy(grads)
        wanted = clip_by_global_norm(clipped, limit)
        kind(twice, **options).step(clipped)
        assert kind(once, **options).step(grads, clip_norm=limit) == wanted
        for name in params:
            assert_allclose(once[name], twice[name], rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    assert kind(once, **options).step(grads) is None
    with pytest.raises(ValueError, match="clip_norm"):
        kind(once, **options).step(grads, clip_norm=0)


@pytest.mark.parametrize("case", CASES)
def test_steps_equal_torch(rng, case):
    torch = pytest.importorskip("torch")
    params = draw(rng)
    kind, options, torch_name, torch_options = CASES[case]
    theirs = {name: torch.tensor(p, dtype=torch.float64, requires_grad=True) for name, p in params.items()}
    optimizer = kind(params, **options)
    other = getattr(torch.optim, torch_name)(theirs.values(), **torch_options)
    for t in range(1, 9):
        if t == 5:
            optimizer.learning_rate *= 0.3
            other.param_groups[0]["lr"] *= 0.3
        grads = draw(rng)
        optimizer.step(grads)
        for name, tensor in theirs.items():
            tensor.grad = torch.tensor(grads[name], dtype=torch.float64)
        other.step()
        for name, tensor in theirs.items():
            assert_allclose(params[name], tensor.detach().numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", CLASSES)
def test_layout_of_the_arrays_does_not_matter(rng, kind):
    value, grads = rng.normal(size=(6, 5)), [rng.normal(size=(6, 5)) for _ in range(3)]
    layouts = {
        "c": value.copy(),
        "fortran": np.asfortranarray(value),
        "strided": np.repeat(np.repeat(value, 2, axis=0), 3, axis=1)[::2, ::3],
        "negative": value[::-1, ::-1].copy()[::-1, ::-1],
        "swapped": value.astype(value.dtype.newbyteorder()),
    }
    optimizer = kind(layouts)
    for g in grads:
        read_only = g.copy()
        read_only.flags.writeable = False
        optimizer.step(dict.fromkeys(layouts, g) | {"c": read_only, "fortran": np.asfortranarray(g)})
    assert np.abs(layouts["c"] - value).min() > 0
    for array in layouts.values():
        assert_array_equal(array, layouts["c"])


@pytest.mark.parametrize("kind", CLASSES)
def test_gradients_of_another_dtype(rng, kind):
    start = draw(rng, np.float32)
    ours, same = copy.deepcopy(start), copy.deepcopy(start)
    one, two = kind(ours), kind(same)
    for _ in range(3):
        grads = draw(rng, np.float32)
        one.step({name: g.astype(np.float64) for name, g in grads.items()})
        two.step(grads)
    for name in SHAPES:
        assert ours[name].dtype == np.float32
        assert_allclose(ours[name], same[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", CLASSES)
def test_a_step_that_runs_out_of_memory_changes_nothing(rng, kind, monkeypatch):
    """Also if it is the conversion of the last gradient that does not fit."""
    params, grads = draw(rng, np.float32), draw(rng, np.float64)
    optimizer = kind(params)
    optimizer.step(grads)
    before = copy.deepcopy((params, optimizer.state, optimizer.iterations))
    as_dense, last = native.as_dense, list(SHAPES)[3]

    def failing(array, dtype):
        if array.dtype == np.float64 and array.shape == SHAPES[last]:
            raise MemoryError
        return as_dense(array, dtype)

    monkeypatch.setattr(native, "as_dense", failing)
    with pytest.raises(MemoryError):
        optimizer.step(grads)
    for now, then in zip((params, *optimizer.state.values()), (before[0], *before[1].values()), strict=True):
        for name in SHAPES:
            assert_array_equal(now[name], then[name])
    assert optimizer.iterations == before[2]


@pytest.mark.parametrize("kind", CLASSES)
def test_a_copy_is_complete_and_independent(rng, kind):
    params, grads = draw(rng), draw(rng)
    optimizer = kind(params)
    optimizer.step(grads)
    copies = [copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))]
    before = copy.deepcopy(params)
    for other in copies:
        other.step(grads)
    for name in SHAPES:
        assert_array_equal(params[name], before[name])
    optimizer.step(grads)
    assert np.abs(params["W"] - before["W"]).min() > 0
    for other in copies:
        for name in SHAPES:
            assert_array_equal(other.params[name], params[name])


@pytest.mark.parametrize("kind", CLASSES)
def test_zero_gradient_changes_nothing(rng, kind):
    params = draw(rng)
    before = copy.deepcopy(params)
    kind(params).step({name: np.zeros_like(p) for name, p in params.items()})
    for name in SHAPES:
        assert_array_equal(params[name], before[name])


@pytest.mark.parametrize("kind", CLASSES)
def test_nothing_to_update(kind):
    for params in ({}, {"empty": np.zeros((3, 0))}):
        optimizer = kind(params)
        optimizer.step(params)
        assert optimizer.iterations == 1


@pytest.mark.parametrize("kind", CLASSES)
def test_minimum_of_a_bowl_is_found(rng, kind):
    target, x = rng.normal(size=(3, 4)), np.zeros((3, 4))
    optimizer = kind({"x": x}, learning_rate=0.2)
    for t in range(1, 1001):
        optimizer.learning_rate = 0.2 if kind in (SGD, Adagrad) else 0.2 * 0.99**t
        optimizer.step({"x": 2 * (x - target)})
    assert_allclose(x, target, atol=1e-3)


@pytest.mark.parametrize("kind", CLASSES)
def test_refused_gradients_change_nothing(rng, kind):
    params = {"W": rng.normal(size=(2, 3)), "b": rng.normal(size=3)}
    before = copy.deepcopy(params)
    optimizer = kind(params)
    good = {"W": np.ones((2, 3)), "b": np.ones(3)}
    shape_of_W = r"grads\['W'\] must be \(2, 3\) like params\['W'\]; got \(3, 2\)"
    dtype_of_b = r"grads\['b'\] must be real numbers; got dtype complex128"
    for error, match, grads in [
        (ValueError, r"missing \['b'\], extra \[\]", {"W": good["W"]}),
        (ValueError, r"missing \['b'\], extra \['bias'\]", {"W": good["W"], "bias": good["b"]}),
        (ValueError, r"missing \[\], extra \['c'\]", good | {"c": np.ones(1)}),
        (ValueError, shape_of_W, good | {"W": np.ones((3, 2))}),
        (ValueError, r"grads\['b'\] must be \(3,\) like params\['b'\]; got \(1,\)", good | {"b": np.ones(1)}),
        (TypeError, dtype_of_b, good | {"b": np.ones(3, complex)}),
        (TypeError, r"grads must be a dict of arrays; got list", list(good.values())),
    ]:
        with pytest.raises(error, match=match):
            optimizer.step(grads)
    assert optimizer.iterations == 0
    for name in params:
        assert_array_equal(params[name], before[name])


@pytest.mark.parametrize("kind", CLASSES)
def test_refused_parameters(kind):
    read_only = np.ones(2)
    read_only.flags.writeable = False
    for error, match, params in [
        (TypeError, r"params must be a dict of arrays; got ndarray", np.ones(2)),
        (TypeError, r"params\['W'\] must be a float32 or float64 array; got list", {"W": [1.0]}),
        (TypeError, r"params\['W'\] must be .*; got dtype int64", {"W": np.ones(2, "i8")}),
        (TypeError, r"params\['W'\] must be .*; got dtype float16", {"W": np.ones(2, "f2")}),
        (ValueError, r"params\['W'\] must be writeable", {"W": read_only}),
    ]:
        with pytest.raises(error, match=match):
            kind(params)


@pytest.mark.parametrize("rate", [0, -0.1, math.nan, math.inf])
@pytest.mark.parametrize("kind", CLASSES)
def test_refused_learning_rate(kind, rate):
    with pytest.raises(ValueError, match=f"learning_rate must be more than 0 and finite; got {rate}"):
        kind({"W": np.ones(2)}, learning_rate=rate)
    optimizer = kind({"W": np.ones(2)}, learning_rate=0.5)
    with pytest.raises(ValueError, match="learning_rate must be more than 0"):
        optimizer.learning_rate = rate
    assert optimizer.learning_rate == 0.5


@pytest.mark.parametrize(
    ("kind", "name", "wrong"),
    [
        (SGD, "momentum", 1.0),
        (SGD, "momentum", -0.1),
        (RMSProp, "decay", 1.0),
        (RMSProp, "decay", -0.5),
        (Adam, "beta1", 1.0),
        (Adam, "beta1", -0.1),
        (Adam, "beta2", 1.5),
        (Adam, "beta2", math.nan),
    ],
)
def test_refused_fractions(kind, name, wrong):
    with pytest.raises(ValueError, match=rf"{name} must be in \[0, 1\); got {wrong}"):
        kind({"W": np.ones(2)}, **{name: wrong})


@pytest.mark.parametrize("kind", [RMSProp, Adagrad, Adam])
def test_refused_epsilon(kind):
    with pytest.raises(ValueError, match="epsilon must be more than 0 and finite; got 0"):
        kind({"W": np.ones(2)}, epsilon=0)
    with pytest.raises(TypeError, match="epsilon must be a number; got NoneType"):
        kind({"W": np.ones(2)}, epsilon=None)


# Clipping


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clip_by_value(rng, dtype):
    grads = draw(rng, dtype)
    grads["b"][2] = np.nan
    grads["W"][1, 2] = -np.inf
    identity, before = dict(grads), copy.deepcopy(grads)
    assert clip_by_value(grads, 0.25) is None
    assert any((np.abs(before[name]) > 0.25).any() for name in SHAPES)
    for name in SHAPES:
        assert grads[name] is identity[name]
        assert grads[name].dtype == dtype
        x = before[name]
        assert_array_equal(grads[name], np.where(x > 0.25, 0.25, np.where(x < -0.25, -0.25, x)))


@pytest.mark.parametrize("container", [dict, list, iter])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clip_by_global_norm(rng, dtype, container):
    grads = draw(rng, dtype)
    grads["W"] = np.asfortranarray(grads["W"])
    grads["b"] = np.repeat(grads["b"], 2)[::2]
    identity, before = dict(grads), copy.deepcopy(grads)
    norm = math.sqrt(math.fsum(float(x) ** 2 for g in before.values() for x in g.flat))
    wanted = 0.37 * norm
    got = clip_by_global_norm(grads if container is dict else container(list(grads.values())), wanted)
    assert isinstance(got, float)
    assert_allclose(got, norm, rtol=1e-14)
    for name in SHAPES:
        assert grads[name] is identity[name]
        assert grads[name].dtype == dtype
        assert_allclose(grads[name], before[name].astype(float) * 0.37, rtol=3 * np.finfo(dtype).eps)


def test_clip_below_the_limit_keeps_every_bit(rng):
    grads = draw(rng)
    before = copy.deepcopy(grads)
    norm = clip_by_global_norm(grads, 1e9)
    assert 0 < norm < 1e9
    clip_by_global_norm(grads, norm)
    for name in SHAPES:
        assert_array_equal(grads[name], before[name])


def test_clip_passes_over_none(rng):
    a, b = rng.normal(size=3), rng.normal(size=(2, 2))
    norm = math.sqrt((a**2).sum() + (b**2).sum())
    clip_by_value([a, None], 10)
    assert_allclose(clip_by_global_norm((a, None, b), norm / 2), norm)
    assert_allclose(math.sqrt((a**2).sum() + (b**2).sum()), norm / 2)
    assert clip_by_global_norm([], 1) == 0


def test_norm_of_float32_does_not_overflow(rng):
    g = (rng.uniform(1, 3, size=1000) * 1e38).astype(np.float32)
    norm = math.sqrt(math.fsum(float(x) ** 2 for x in g))
    before = g.astype(float)
    assert_allclose(clip_by_global_norm([g], 1e-3), norm, rtol=1e-12)
    assert_allclose(g, before * (1e-3 / norm), rtol=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_norm_that_is_not_finite_leaves_the_gradients(rng, bad):
    grads = draw(rng, np.float32)
    grads["p"][1, 2, 3] = bad
    before = copy.deepcopy(grads)
    norm = clip_by_global_norm(grads, 1e-3)
    assert math.isnan(norm) if math.isnan(bad) else norm == math.inf
    for name in SHAPES:
        assert_array_equal(grads[name], before[name])


@pytest.mark.parametrize(("function", "name"), [(clip_by_value, "limit"), (clip_by_global_norm, "max_norm")])
def test_clipping_refuses(function, name):
    for wrong in (0, -1.5, math.nan):
        with pytest.raises(ValueError, match=f"{name} must be more than 0 and finite; got {wrong}"):
            function([np.ones(2)], wrong)
    with pytest.raises(TypeError, match=rf"{name} must be a number; got NoneType"):
        function([np.ones(2)], None)
    with pytest.raises(TypeError, match=r"grads must be a dict or an iterable of arrays; got ndarray"):
        function(np.ones(2), 1)
    with pytest.raises(TypeError, match=r"grads\['W'\] must be a floating-point array; got dtype int64"):
        function({"W": np.ones(2, "i8")}, 1)
    with pytest.raises(TypeError, match=r"grads\[1\] must be a floating-point array; got list"):
        function([np.ones(2), [1.0]], 1)
    read_only = np.ones(2)
    read_only.flags.writeable = False
    with pytest.raises(ValueError, match=r"grads\[0\] must be writeable"):
        function([read_only], 1)


# ---- steps that would not be finite ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("make", [SGD, partial(SGD, momentum=0.9), RMSProp, Adagrad, Adam])
def test_check_finite_refuses_a_step_and_changes_nothing(rng, make, dtype):
    largest = np.finfo(dtype).max
    params = {"W": rng.normal(size=(3, 4)).astype(dtype), "b": rng.normal(size=5).astype(dtype)}
    optimizer = make(params, learning_rate=0.1)
    good = {name: rng.normal(size=p.shape).astype(dtype) for name, p in params.items()}
    optimizer.step(good, check_finite=True)
    bad = {name: g.copy() for name, g in good.items()}
    cases = [(np.nan, 0.1, "its gradient is NaN"), (-np.inf, 0.1, "its gradient is infinite")]
    cases.append((1.0, 0.9 * float(largest), "the step is too large with learning_rate .*: it is infinite"))
    if not isinstance(optimizer, SGD):
        cases.append((0.9 * largest, 0.1, "the optimiser's v of it is infinite"))
    for value, rate, why in cases:
        bad["b"][2] = value
        params["b"][2] = -0.9 * largest if rate > 1 else 1
        optimizer.learning_rate = rate
        before = copy.deepcopy((params, optimizer.state, optimizer.iterations))
        with pytest.raises(ValueError, match=f"^parameter '.' would become infinite or NaN: {why}"):
            optimizer.step(bad, check_finite=True)
        after = (params, optimizer.state, optimizer.iterations)
        np.testing.assert_equal(after, before)


@pytest.mark.parametrize("clip_norm", [None, 1.0])
@pytest.mark.parametrize("scale", [1, 1e200])
def test_check_finite_changes_no_finite_step(rng, scale, clip_norm):
    """Nor does it refuse gradients whose norm overflows."""
    checked, unchecked = ({"W": np.ones(7)} for _ in range(2))
    for params, options in ((checked, {"check_finite": True}), (unchecked, {})):
        optimizer, rng = SGD(params, learning_rate=1e-3, momentum=0.5), np.random.default_rng(0)
        norms = [optimizer.step({"W": scale * rng.normal(size=7)}, clip_norm=clip_norm, **options) for _ in range(3)]
        assert (norms[0] is None) == (clip_norm is None)
    np.testing.assert_array_equal(checked["W"], unchecked["W"])
