"""What the drop-ins say to wrong shapes, keys and dtypes: the name, what was wanted, what came. Integers are right."""

import re

import numpy as np
import pytest
from support.layouts import set_shape

from rnncore.compat import coursera, cs231n, dinosaurus, dlfs2, min_char_rnn


def draw(rng, shapes):
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


RNN = {"Wax": (5, 3), "Waa": (5, 5), "Wya": (2, 5), "ba": (5, 1), "by": (2, 1)}
LSTM = {f"W{g}": (5, 8) for g in "fico"} | {f"b{g}": (5, 1) for g in "fico"} | {"Wy": (2, 5), "by": (2, 1)}
DINOSAURUS = {"Wax": (5, 3), "Waa": (5, 5), "Wya": (3, 5), "b": (5, 1), "by": (3, 1)}
CHAR_RNN = {"hprev": (5, 1), "Wxh": (5, 3), "Whh": (5, 5), "Why": (3, 5), "bh": (5, 1), "by": (3, 1)}
CHAR_LSTM = {"hprev": (5, 1), "cprev": (5, 1)}
CHAR_LSTM |= {k + g: shape for g in ("f", "i", "cc", "o") for k, shape in (("W", (5, 8)), ("b", (5, 1)))}
CHAR_LSTM |= {"Wy": (3, 5), "by": (3, 1)}
CHAR_GRU = {"hprev": (5, 1), "Wy": (3, 5), "Wh": (5, 3), "Wr": (5, 3), "Wz": (5, 3), "Uh": (5, 5), "Ur": (5, 5)}
CHAR_GRU |= {"Uz": (5, 5), "by": (3, 1), "bh": (5, 1), "br": (5, 1), "bz": (5, 1)}

# Shapes of what a function takes by name, and the call.
FUNCTIONS = {
    "coursera.rnn_forward": (RNN, lambda rng, p: coursera.rnn_forward(rng.normal(size=(3, 4, 7)), np.zeros((5, 4)), p)),
    "coursera.rnn_cell_forward": (RNN, lambda rng, p: coursera.rnn_cell_forward(np.zeros((3, 4)), np.zeros((5, 4)), p)),
    "coursera.lstm_forward": (LSTM, lambda rng, p: coursera.lstm_forward(np.zeros((3, 4, 7)), np.zeros((5, 4)), p)),
    "coursera.lstm_cell_forward": (
        LSTM,
        lambda rng, p: coursera.lstm_cell_forward(np.zeros((3, 4)), *np.zeros((2, 5, 4)), p),
    ),
    "dinosaurus.optimize": (DINOSAURUS, lambda rng, p: dinosaurus.optimize([None, 1], [1, 0], np.zeros((5, 1)), p)),
    "dinosaurus.rnn_forward": (
        DINOSAURUS,
        lambda rng, p: dinosaurus.rnn_forward([None, 1], [1, 0], np.zeros((5, 1)), p, vocab_size=3),
    ),
    "char_rnn_loss": (CHAR_RNN, lambda rng, p: min_char_rnn.char_rnn_loss([0, 1], [1, 2], *p.values())),
    "char_lstm_loss": (CHAR_LSTM, lambda rng, p: min_char_rnn.char_lstm_loss([0, 1], [1, 2], *p.values())),
    "char_gru_loss": (CHAR_GRU, lambda rng, p: min_char_rnn.char_gru_loss([0, 1], [1, 2], *p.values())),
}
every_function = pytest.mark.parametrize("name", FUNCTIONS)


@every_function
def test_wrong_shapes_and_dtypes_of_weights(rng, name):
    shapes, call = FUNCTIONS[name]
    call(rng, draw(rng, shapes))
    for key, (rows, columns) in shapes.items():
        for wrong in ((rows + 2, columns), (rows, columns + 2), (rows,), (rows, columns, 1), ()):
            if name.startswith("dinosaurus") and key == "Wax" and wrong == (rows, columns + 2):
                continue  # as many inputs as one likes
            with pytest.raises(ValueError, match=r" must be \(.*\) = \(.*\); got \(") as error:
                call(rng, draw(rng, shapes | {key: wrong}))
            # Where one says that another is wrong, it is one that shares a side.
            assert re.match(r"(hprev|cprev|W|U|b|a_prev|a0|c_prev|x)", str(error.value))
        for wrong in ("complex128", "object", "U1"):
            parameters = draw(rng, shapes)
            parameters[key] = parameters[key].astype(wrong)
            with pytest.raises(TypeError, match=f"^{key} must hold real numbers; got dtype "):
                call(rng, parameters)


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if not name.startswith("char")])
def test_missing_keys(rng, name):
    shapes, call = FUNCTIONS[name]
    for key in shapes:
        others = {k: v for k, v in draw(rng, shapes).items() if k != key}
        with pytest.raises(KeyError, match=rf"parameters must have '{key}' \(.*\); its keys are {', '.join(others)}"):
            call(rng, others)


def test_both_shapes_are_told(rng):
    parameters = draw(rng, RNN)
    x, a0 = rng.normal(size=(3, 4, 7)), np.zeros((5, 4))
    for arguments, message in [
        ((x, a0.T, parameters), "a0 must be (n_a, m) = (5, 4); got (4, 5)"),
        ((x[0], a0, parameters), "x must be (n_x, m, T_x) = (n_x, m, T_x); got (4, 7)"),
        ((x[:2], a0, parameters), "Wax must be (n_a, n_x) = (n_a, 2); got (5, 3)"),
        ((x, a0, parameters | {"ba": np.zeros(5)}), "ba must be (n_a, 1) = (5, 1); got (5,)"),
    ]:
        with pytest.raises(ValueError, match=re.escape(message)):
            coursera.rnn_forward(*arguments)
    *_, caches = coursera.rnn_forward(x, a0, parameters)
    with pytest.raises(ValueError, match=re.escape("da must be (n_a, m, T) = (5, 4, T); got (4, 5, 7)")):
        coursera.rnn_backward(np.zeros((4, 5, 7)), caches)
    with pytest.raises(ValueError, match=re.escape("da_next must be (n_a, m) = (5, 4); got (5, 3)")):
        coursera.rnn_cell_backward(np.zeros((5, 3)), caches[0][0])
    with pytest.raises(ValueError, match=re.escape("Wf must be (n_a, n_a + n_x) = (5, 8); got (5, 9)")):
        coursera.lstm_forward(x, a0, draw(rng, LSTM) | {"Wf": np.zeros((5, 9))})
    with pytest.raises(
        ValueError, match=re.escape("W must be (n_a, n_a + n_x) = (5, 7); got (5, 8)").replace("W", "Wi")
    ):
        coursera.lstm_forward(x[:2], a0, draw(rng, LSTM))
    Hout, _, _, cache = min_char_rnn.LSTM.forward(np.zeros((7, 2, 3)), np.zeros((9, 20)))
    with pytest.raises(ValueError, match=re.escape("dHout_in must be (T, N, H) = (7, 2, 5); got (2, 7, 5)")):
        min_char_rnn.LSTM.backward(np.swapaxes(Hout, 0, 1), cache)


@pytest.mark.parametrize(("shapes", "wrong"), [(RNN, "Waa"), (LSTM, "Wf")])
def test_parameters_that_change_before_the_backward_pass(rng, shapes, wrong):
    forward, backward = (
        (coursera.rnn_forward, coursera.rnn_backward)
        if shapes is RNN
        else (coursera.lstm_forward, coursera.lstm_backward)
    )
    parameters = draw(rng, shapes)
    a, *_, caches = forward(rng.normal(size=(3, 4, 7)), np.zeros((5, 4)), parameters)
    parameters[wrong] = parameters[wrong][:, :-1]
    with pytest.raises(ValueError, match=rf"^{wrong} must be \(n_a, .*\) = \(5, \d\); got \(5, \d\)"):
        backward(a, caches)
    del parameters[wrong]
    with pytest.raises(KeyError, match=f"parameters must have '{wrong}'"):
        backward(a, caches)


def test_numbers_for_gradients(rng):
    *_, cache = coursera.lstm_cell_forward(rng.normal(size=(3, 4)), *np.zeros((2, 5, 4)), draw(rng, LSTM))
    da = rng.normal(size=(5, 4))
    found, wanted = (coursera.lstm_cell_backward(da, dc, cache) for dc in (0, np.zeros((5, 4))))
    for key, gradient in wanted.items():
        np.testing.assert_array_equal(found[key], gradient)


def test_integers_are_numbers(rng):
    x, h0, Wx, Wh, b = (rng.integers(-2, 3, size=s) for s in [(2, 7, 3), (2, 5), (3, 20), (5, 20), (20,)])
    exact = [array.astype(float) for array in (x, h0, Wx, Wh, b)]
    np.testing.assert_array_equal(cs231n.lstm_forward(x, h0, Wx, Wh, b)[0], cs231n.lstm_forward(*exact)[0])
    for found, wanted in zip(
        cs231n.lstm_step_forward(x[:, 0], h0, h0, Wx, Wh, b)[:2],
        cs231n.lstm_step_forward(exact[0][:, 0], exact[1], exact[1], *exact[2:])[:2],
        strict=True,
    ):
        np.testing.assert_array_equal(found, wanted)
    for module, arrays in ((cs231n.rnn_forward, (x, h0)), (cs231n.rnn_step_forward, (x[:, 0], h0))):
        found, _ = module(*arrays, Wx[:, :5], Wh[:, :5], b[:5])
        wanted, _ = module(*(a.astype(float) for a in (*arrays, Wx[:, :5], Wh[:, :5], b[:5])))
        np.testing.assert_array_equal(found, wanted)
    affine = dlfs2.TimeAffine(Wx, b)
    np.testing.assert_array_equal(affine.forward(x), x @ Wx + b)
    affine.backward(np.ones((2, 7, 20)))
    np.testing.assert_array_equal(affine.grads[1], np.full(20, 14))
    for dtype in (int, ">f8", "f2"):
        embedding = dlfs2.TimeEmbedding(np.arange(6).reshape(3, 2).astype(dtype))
        embedding.backward(np.ones_like(embedding.forward(np.array([[0, 2, 2]]))))
        np.testing.assert_array_equal(embedding.grads[0], [[1, 1], [0, 0], [2, 2]])


@pytest.mark.parametrize("layer", [min_char_rnn.LSTM, min_char_rnn.GRU])
def test_a_buffer_of_inputs_may_be_filled_again(rng, layer):
    X, W = rng.normal(size=(7, 2, 3)), rng.normal(size=(9, 20 if layer is min_char_rnn.LSTM else 15))
    Hout, *_, cache = layer.forward(X, W)
    wanted = layer.backward(Hout, cache)
    X[...] = 0
    for found, gradient in zip(layer.backward(Hout, cache), wanted, strict=True):
        np.testing.assert_array_equal(found, gradient)


def test_steps_of_the_course_keep_their_inputs(rng):
    parameters, a0, da = draw(rng, RNN), np.zeros((5, 4)), rng.normal(size=(5, 4, 7))
    x = rng.normal(size=(3, 4, 7))
    *_, caches = coursera.rnn_forward(x, a0, parameters)
    wanted = coursera.rnn_backward(da, caches)
    as_list = x.tolist()
    *_, caches_of_list = coursera.rnn_forward(as_list, a0, parameters)
    as_list[0][0][0] += 100
    assert caches_of_list[1] is as_list
    assert caches[1] is x
    set_shape(x, (4, 3, 7))
    for found in (coursera.rnn_backward(da, caches), coursera.rnn_backward(da, caches_of_list)):
        for key, gradient in wanted.items():
            np.testing.assert_array_equal(found[key], gradient)
