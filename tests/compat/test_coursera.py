"""The course's functions against the loops in NumPy, central differences and the numbers that the course prints."""

import copy

import numpy as np
import pytest
from originals import coursera as plain
from originals import dinosaurus as plain_dino
from support.gradcheck import check_gradients

from rnncore.compat import coursera, dinosaurus

SIZES = [(3, 5, 2, 10, 7), (1, 1, 1, 1, 1), (4, 1, 3, 2, 5), (2, 6, 4, 1, 3), (7, 9, 5, 3, 1)]  # n_x n_a n_y m T
GATES = "fico"


def close(actual, wanted):
    if isinstance(wanted, dict):
        assert set(actual) == set(wanted)
        for key in wanted:
            np.testing.assert_allclose(actual[key], wanted[key], rtol=1e-10, atol=1e-10, err_msg=key, strict=True)
    else:
        np.testing.assert_allclose(actual, wanted, rtol=1e-10, atol=1e-10, strict=True)


class RNN:
    forward, backward = coursera.rnn_forward, coursera.rnn_backward
    plain_forward, plain_backward = plain.rnn_forward, plain.rnn_backward
    a_prev = 1  # its place in the tuple of a step

    @staticmethod
    def parameters(rng, n_x, n_a, n_y):
        shapes = {"Wax": (n_a, n_x), "Waa": (n_a, n_a), "Wya": (n_y, n_a), "ba": (n_a, 1), "by": (n_y, 1)}
        return {key: rng.normal(size=shape) for key, shape in shapes.items()}


class LSTM:
    forward, backward = coursera.lstm_forward, coursera.lstm_backward
    plain_forward, plain_backward = plain.lstm_forward, plain.lstm_backward
    a_prev = 2

    @staticmethod
    def parameters(rng, n_x, n_a, n_y):
        p = {f"W{g}": rng.normal(size=(n_a, n_a + n_x)) for g in GATES}
        p |= {f"b{g}": rng.normal(size=(n_a, 1)) for g in GATES}
        return p | {"Wy": rng.normal(size=(n_y, n_a)), "by": rng.normal(size=(n_y, 1))}


CELLS = [RNN, LSTM]


def problem(cell, sizes, seed=0):
    n_x, n_a, n_y, m, T = sizes
    rng = np.random.default_rng(seed)
    parameters = cell.parameters(rng, n_x, n_a, n_y)
    return rng.normal(size=(n_x, m, T)), rng.normal(size=(n_a, m)), parameters, rng.normal(size=(n_a, m, T))


# ---- step by step ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("sizes", SIZES)
def test_sequences(cell, sizes):
    forward, backward = cell.forward, cell.backward
    x, a0, parameters, da = problem(cell, sizes)
    *outputs, caches = forward(x, a0, parameters)
    *wanted, known = cell.plain_forward(x, a0, parameters)
    for output, value in zip(outputs, wanted, strict=True):
        close(output, value)
    assert type(caches) is tuple
    assert caches[1] is x
    assert isinstance(caches[0], list)
    assert len(caches[0]) == len(known[0])
    for t, (step, other) in enumerate(zip(caches[0], known[0], strict=True)):
        assert len(step) == len(other)
        assert step[-1] is parameters
        for value, wanted in zip(step[:-1], other[:-1], strict=True):
            close(value, wanted)
        assert np.shares_memory(step[-2], x)
        assert step[cell.a_prev] is (a0 if t == 0 else caches[0][t - 1][0])
    for T in range(1, sizes[-1] + 1):
        close(backward(da[:, :, :T], caches), cell.plain_backward(da[:, :, :T], known))
    if cell is LSTM:
        close(backward(da, caches, carry=False), cell.plain_backward(da, known, carry=False))


@pytest.mark.parametrize("cell", CELLS)
def test_caches_by_hand(cell):
    forward, backward = cell.forward, cell.backward
    x, a0, parameters, da = problem(cell, SIZES[0])
    *_, caches = forward(x, a0, parameters)
    *_, known = cell.plain_forward(x, a0, parameters)
    carries = [{}, {"carry": False}] if cell is LSTM else [{}]
    steps = caches[0]
    broken = [steps[4], steps[1], steps[1]]
    other_dict = [*steps[:2], (*steps[2][:-1], cell.parameters(np.random.default_rng(9), 3, 5, 2))]
    for made in (list(steps), steps[2:5], known[0], copy.deepcopy(steps), copy.copy(steps), broken, other_dict):
        for options in carries:
            d = da[:, :, : len(made)]
            close(backward(d, (made, x), **options), cell.plain_backward(d, (made, x), **options))
    steps[1] = steps[3]
    close(backward(da, caches), cell.plain_backward(da, caches))


@pytest.mark.parametrize("cell", CELLS)
def test_backward_reads_what_is_there(cell):
    forward, backward = cell.forward, cell.backward
    x, a0, parameters, da = problem(cell, SIZES[0])
    outputs = forward(x, a0, parameters)
    caches = outputs[-1]
    outputs[0][...] = 7  # the caller's own
    for key in parameters:
        parameters[key] *= 0.9
    x *= 0.7
    caches[0][3][0][...] *= 0.5
    close(backward(da, caches), cell.plain_backward(da, caches))
    parameters["by"] = parameters["by"][:, 0]
    next(iter(parameters.values()))[...] = 0
    close(backward(da, caches), cell.plain_backward(da, caches))


@pytest.mark.parametrize("cell", CELLS)
def test_strided_inputs_and_float32(cell):
    forward, backward = cell.forward, cell.backward
    x, a0, parameters, da = problem(cell, SIZES[0])
    *wanted, caches = forward(x, a0, parameters)
    gradients = backward(da, caches)

    def odd(a):
        a = np.repeat(np.repeat(a, 2, axis=0), 2, axis=1)[::2, ::2][::-1, ::-1].copy(order="F")[::-1, ::-1]
        a.flags.writeable = False
        return a

    *outputs, caches = forward(odd(x), odd(a0), {key: odd(value) for key, value in parameters.items()})
    for output, value in zip(outputs, wanted, strict=True):
        np.testing.assert_array_equal(output, value)
    close(backward(odd(da), caches), gradients)
    single = {key: value.astype(np.float32) for key, value in parameters.items()}
    *outputs, caches = forward(x.astype(np.float32), a0.astype(np.float32), single)
    assert {o.dtype for o in outputs} | {g.dtype for g in backward(da.astype("f4"), caches).values()} == {
        np.dtype("f8")
    }
    for output, value in zip(outputs, wanted, strict=True):
        np.testing.assert_allclose(output, value, atol=1e-5)


def test_cells():
    for sizes in SIZES:
        x, a0, parameters, da = problem(RNN, sizes)
        xt = x[:, :, 0]
        *outputs, cache = coursera.rnn_cell_forward(xt, a0, parameters)
        *wanted, known = plain.rnn_cell_forward(xt, a0, parameters)
        for output, value in zip(outputs, wanted, strict=True):
            close(output, value)
        assert [a is b for a, b in zip(cache, (outputs[0], a0, xt, parameters), strict=True)] == [True] * 4
        close(coursera.rnn_cell_backward(da[:, :, 0], cache), plain.rnn_cell_backward(da[:, :, 0], known))

        x, a0, parameters, da = problem(LSTM, sizes)
        xt, c0 = x[:, :, 0], np.cos(a0)
        *outputs, cache = coursera.lstm_cell_forward(xt, a0, c0, parameters)
        *wanted, known = plain.lstm_cell_forward(xt, a0, c0, parameters)
        for output, value in zip([*outputs, *cache[:-1]], [*wanted, *known[:-1]], strict=True):
            close(output, value)
        assert [cache[k] is v for k, v in ((2, a0), (3, c0), (8, xt), (9, parameters))] == [True] * 4
        g = coursera.lstm_cell_backward(da[:, :, 0], c0, cache)
        close(g, plain.lstm_cell_backward(da[:, :, 0], c0, known))


def test_numeric_gradients():
    for cell in CELLS:
        forward, backward = cell.forward, cell.backward
        x, a0, parameters, da = problem(cell, (2, 3, 2, 2, 5))
        keys = backward(da, forward(x, a0, parameters)[-1])
        used = {key: value for key, value in parameters.items() if f"d{key}" in keys}

        def f(x, a0, *, forward=forward, parameters=parameters, **used):
            return (forward(x, a0, {**parameters, **used})[0][:, :, :3],)

        gradients = backward(da[:, :, :3], forward(x, a0, parameters)[-1])
        gradients["dx"] = np.concatenate([gradients["dx"], np.zeros((2, 2, 2))], axis=2)
        gradients = {key[1:]: value for key, value in gradients.items()}
        check_gradients(f, {"x": x, "a0": a0, **used}, [da[:, :, :3]], gradients)


def test_edges():
    x, a0, parameters, da = problem(LSTM, SIZES[0])
    *_, caches = coursera.lstm_forward(x, a0, parameters)
    zero = coursera.lstm_backward(da[:, :, :0], caches)
    assert zero["dx"].shape == (3, 10, 0)
    assert not any(gradient.any() for gradient in zero.values())
    with pytest.raises(ValueError, match="8 steps"):
        coursera.lstm_backward(np.ones((5, 10, 8)), caches)
    for wrong in (np.ones((5, 8)), np.ones((4, 4))):
        caches[0][0][-1]["Wf"] = wrong.T
        with pytest.raises(ValueError):
            coursera.lstm_backward(da, caches)
    parameters = {**parameters, "Wf": parameters["Wi"], "by": np.array([[0.0], [-800.0]])}
    _, y, _, _ = coursera.lstm_forward(x, a0, parameters)
    assert np.isfinite(y).all()


@pytest.mark.parametrize("module", [coursera, plain])
def test_known_rnn(module):
    rng = np.random.RandomState(1)
    x, a0 = rng.randn(3, 10, 4), rng.randn(5, 10)
    shapes = {"Wax": (5, 3), "Waa": (5, 5), "Wya": (2, 5), "ba": (5, 1), "by": (2, 1)}
    parameters = {key: rng.randn(*shape) for key, shape in shapes.items()}
    *_, caches = module.rnn_forward(x, a0, parameters)
    gradients = module.rnn_backward(rng.randn(5, 10, 4), caches)
    np.testing.assert_allclose(gradients["dx"][1][2], [-2.07101689, -0.59255627, 0.02466855, 0.01483317], atol=1e-8)
    np.testing.assert_allclose(gradients["da0"][2][3], -0.314942375, atol=1e-9)


@pytest.mark.parametrize("module", [coursera, plain])
def test_known_lstm(module):
    rng = np.random.RandomState(1)
    x, a0 = rng.randn(3, 10, 7), rng.randn(5, 10)
    parameters = {}
    for gate in "fioc":
        parameters[f"W{gate}"] = rng.randn(5, 8)
        parameters[f"b{gate}"] = rng.randn(5, 1)
    parameters |= {"Wy": np.zeros((2, 5)), "by": np.zeros((2, 1))}
    *_, caches = module.lstm_forward(x, a0, parameters)
    da = rng.randn(5, 10, 4)
    true, single = module.lstm_backward(da, caches), module.lstm_backward(da, caches, carry=False)
    np.testing.assert_allclose(true["dx"][1][2], [0.00218254, 0.28205375, -0.48292508, -0.43281115], atol=1e-8)
    np.testing.assert_allclose(single["dx"][1][2], [-0.00173313, 0.08287442, -0.30545663, -0.43281115], atol=1e-8)
    np.testing.assert_allclose([true["da0"][2][3], single["da0"][2][3]], [0.31277, -0.0959], atol=2e-5)
    np.testing.assert_allclose([true["dWf"][3][1], single["dWf"][3][1]], [-0.08098, -0.0698], atol=2e-5)
    biases = "dbi", "dbc", "dbo"
    np.testing.assert_allclose([true[key][4, 0] for key in biases], [-0.50848, -0.42511, -0.17958], atol=1e-5)
    np.testing.assert_allclose([single[key][4, 0] for key in biases], [-0.15399, -0.29691, -0.29798], atol=1e-5)


# ---- Dinosaurus Island ----------------------------------------------------------------------------------------------

LETTERS = "\nabcdefghijklmnopqrstuvwxyz"
TO_IX, TO_CHAR = {c: i for i, c in enumerate(LETTERS)}, dict(enumerate(LETTERS))


def dino_parameters(rng, n_a=6, V=27):
    shapes = {"Wax": (n_a, V), "Waa": (n_a, n_a), "Wya": (V, n_a), "b": (n_a, 1), "by": (V, 1)}
    return {key: rng.normal(size=shape) for key, shape in shapes.items()}


TEXTS = [([None, 3, 1, 4, 4], [3, 1, 4, 4, 0]), ([None], [0]), ([5, 26], [26, 0]), ([2, None, 2], [1, 2, 3])]


@pytest.mark.parametrize(("X", "Y"), TEXTS)
@pytest.mark.parametrize("n_a", [6, 1])
def test_dinosaurus(X, Y, n_a):
    rng = np.random.default_rng(0)
    parameters, a0 = dino_parameters(rng, n_a), rng.normal(size=(n_a, 1))
    loss, (y_hat, a, x) = plain_dino.rnn_forward(X, Y, a0, parameters)
    wanted, _ = plain_dino.rnn_backward(X, Y, parameters, (y_hat, a, x))
    result, cache = dinosaurus.rnn_forward(X, Y, a0, parameters)
    close(result, loss)
    for mine, known in zip(cache, (y_hat, a, x), strict=True):
        close(mine, known)
    assert cache[1][-1] is not a0
    gradients, states = dinosaurus.rnn_backward(X, Y, parameters, cache)
    assert states is cache[1]
    close(gradients, wanted)

    # step by step
    total, a_prev = {key: np.zeros_like(value) for key, value in wanted.items()}, a0
    for t in range(len(X)):
        a_prev, p_t = dinosaurus.rnn_step_forward(parameters, a_prev, x[t])
        close(a_prev, a[t])
        close(p_t, y_hat[t])
    for t in reversed(range(len(X))):
        dy = y_hat[t].copy()
        dy[Y[t]] -= 1
        assert dinosaurus.rnn_step_backward(dy, total, parameters, x[t], a[t], a[t - 1]) is total
    close(total, wanted)

    clipped = dinosaurus.clip(wanted, 5)
    kept, before = dict(parameters), {key: value.copy() for key, value in parameters.items()}
    loss_, gradients, last = dinosaurus.optimize(X, Y, a0, parameters, learning_rate=0.1)
    close(loss_, loss)
    close(gradients, clipped)
    close(last, a[len(X) - 1])
    assert all(parameters[key] is kept[key] for key in kept)
    close(parameters, {key: value - 0.1 * clipped[f"d{key}"] for key, value in before.items()})


def test_dinosaurus_numeric_gradients():
    rng = np.random.default_rng(1)
    (X, Y), parameters, a0 = TEXTS[0], dino_parameters(rng, 3), rng.normal(size=(3, 1))
    _, cache = dinosaurus.rnn_forward(X, Y, a0, parameters)
    gradients, _ = dinosaurus.rnn_backward(X, Y, parameters, cache)
    gradients = {key[1:]: value for key, value in gradients.items()}
    gradients["a0"] = gradients.pop("a_next")

    def f(a0, **parameters):
        return (np.array(dinosaurus.rnn_forward(X, Y, a0, parameters)[0]),)

    check_gradients(f, {"a0": a0, **parameters}, [np.array(1.0)], gradients)


def test_dinosaurus_refuses():
    rng = np.random.default_rng(1)
    parameters, a0 = dino_parameters(rng), np.zeros((6, 1))
    for X, Y in (([27], [0]), ([-1], [0]), ([0], [27]), ([0, 1], [0])):
        with pytest.raises(ValueError):
            dinosaurus.optimize(X, Y, a0, parameters)
    with pytest.raises(TypeError):
        dinosaurus.optimize([0.5], [0], a0, parameters)
    with pytest.raises(ValueError, match="vocab_size"):
        dinosaurus.rnn_forward([0], [0], a0, parameters, vocab_size=71)


@pytest.mark.parametrize("module", [dinosaurus, plain_dino])
def test_dinosaurus_known_answers(module):
    rng = np.random.RandomState(1)
    a_prev = rng.randn(100, 1)
    shapes = {"Wax": (100, 27), "Waa": (100, 100), "Wya": (27, 100), "b": (100, 1), "by": (27, 1)}
    parameters = {key: rng.randn(*shape) for key, shape in shapes.items()}
    X, Y = [12, 3, 5, 11, 22, 3], [4, 14, 11, 22, 25, 26]
    loss, gradients, _ = module.optimize(X, Y, a_prev, parameters)
    np.testing.assert_allclose(loss, 126.5039757, atol=1e-7)
    np.testing.assert_allclose(gradients["dWaa"][1, 2], 0.1947093, atol=1e-7)
    np.testing.assert_allclose(gradients["dWya"][1, 2], -0.007773876, atol=1e-9)


def test_dinosaurus_sample_known_answer():
    rng = np.random.RandomState(24)
    shapes = {"Wax": (100, 27), "Waa": (100, 100), "Wya": (27, 100), "b": (100, 1), "by": (27, 1)}
    parameters = {key: rng.randn(*shape) for key, shape in shapes.items()}
    indices = dinosaurus.sample(parameters, TO_IX, 0)
    assert indices[:6] == [23, 16, 26, 26, 24, 3]
    assert indices[-1] == 0
    assert len(indices) <= 51


def test_dinosaurus_small_functions():
    parameters = dinosaurus.initialize_parameters(4, 3, 2)
    np.random.seed(1)  # noqa: NPY002
    close(parameters["Wax"], np.random.randn(4, 3) * 0.01)  # noqa: NPY002
    close(parameters["Waa"], np.random.randn(4, 4) * 0.01)  # noqa: NPY002
    assert {key: value.shape for key, value in parameters.items()} == {
        "Wax": (4, 3),
        "Waa": (4, 4),
        "Wya": (2, 4),
        "b": (4, 1),
        "by": (2, 1),
    }
    close(dinosaurus.softmax(np.array([[1000.0, 0.0], [0.0, -1000.0]])), np.array([[1.0, 1.0], [0.0, 0.0]]))
    assert dinosaurus.smooth(10.0, 20.0) == pytest.approx(10.01)
    gradients = {f"d{key}": np.full((2, 2), 20.0) for key in ("Wax", "Waa", "Wya", "b", "by")} | {"da_next": None}
    clipped = dinosaurus.clip(gradients, 10)
    assert list(clipped) == ["dWax", "dWaa", "dWya", "db", "dby"]
    assert all((value == 10).all() for value in clipped.values())
    assert (gradients["db"] == 20).all()


def test_dinosaurus_model(capsys):
    names = ["aachenosaurus", "Bo", "coelurus", "trex", "x"]
    names = [name.lower() for name in names]
    parameters, last = dinosaurus.model(names, TO_CHAR, TO_IX, 30, n_a=8, dino_names=2)
    assert last.endswith("\n")
    assert "Iteration: 0, Loss:" in capsys.readouterr().out
    known, order, a = dinosaurus.initialize_parameters(8, 27, 27), list(names), np.zeros((8, 1))
    np.random.seed(0)  # noqa: NPY002
    np.random.shuffle(order)  # noqa: NPY002
    for j in range(30):
        ids = [TO_IX[c] for c in order[j % 5]]
        _, _, a = plain_dino.optimize([None, *ids], [*ids, 0], a, known)
    close(parameters, known)
    close(dinosaurus.model("\n".join(names), TO_CHAR, TO_IX, 30, n_a=8, dino_names=2), known)
