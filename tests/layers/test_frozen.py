"""layer.freeze() and rc.freeze: the bits of what they were made from, and no packing a call."""

import copy
import pickle
import threading
import weakref

import numpy as np
import pytest
from support.compare import assert_equal_bits
from support.functions import every_variant, final_states, forward, problem
from support.isas import DEFAULT, OWN
from support.layers import D, H, N, T, each_cell, every_dtype, every_layer, join, make_layer, make_state, split

import rnncore as rc
from rnncore import _engine

SIZES = [(1, 1), (1, 3), (T, 1), (T, N), (40, 9)]


def assert_same_bits(layer, actual, wanted):
    assert_equal_bits(actual[0], wanted[0])
    for own, other in zip(split(layer, actual[1]), split(layer, wanted[1]), strict=True):
        assert_equal_bits(own, other)


@every_layer
@every_dtype
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 3])
def test_has_the_bits_of_the_layer(rng, kind, dtype, bidirectional, num_layers):
    layer = make_layer(rng, kind, dtype, bidirectional=bidirectional, num_layers=num_layers)
    frozen = layer.freeze()
    for steps, rows in SIZES:
        x = rng.normal(size=(steps, rows, D)).astype(dtype)
        state = tuple(array.astype(dtype) for array in make_state(rng, layer, rows))
        for given in (None, join(layer, state)):
            assert_same_bits(layer, frozen(x, given), layer(x, given))
        lengths = rng.integers(steps + 1, size=rows)
        assert_same_bits(layer, frozen(x, join(layer, state), lengths), layer(x, join(layer, state), lengths))
    ids = rng.integers(D, size=(T, N))
    assert_same_bits(layer, frozen(ids), layer(ids))


@each_cell
@pytest.mark.parametrize("isa", OWN)
def test_threads_and_instruction_sets(rng, kind, isa):
    """Members of a group do not read the packed weights; the others do. Both have the same bits."""
    layer = make_layer(rng, kind, "float32")
    x = rng.normal(size=(9, 8, D)).astype("float32")
    before, widest = rc.get_num_threads(), OWN[-1]
    try:
        rc.use_isa(isa)
        frozen, wanted = layer.freeze(), layer(x)
        assert_same_bits(layer, frozen(x), wanted)
        rc.use_isa(widest)
        assert_same_bits(layer, frozen(x), wanted)  # it stays on the instruction set that it was packed for
        for rule in ({"rows": 1}, {"rows": 100, "products": 1, "units": 1}):
            _engine.set_cost_rule(flops=1, cores=64, **rule)
            rc.set_num_threads(3)
            assert_same_bits(layer, frozen(x), wanted)
    finally:
        rc.use_isa(DEFAULT)
        _engine.set_cost_rule()
        rc.set_num_threads(before)


@each_cell
def test_arguments_that_need_conversion(rng, kind):
    layer = make_layer(rng, kind, "float32", num_layers=2)
    frozen, state = layer.freeze(), make_state(rng, layer)
    x = rng.normal(size=(T, N, D))
    wanted = layer(x, join(layer, state))
    strided = np.repeat(x, 2, axis=2)[..., ::2]
    for given in (x, x.astype("f4"), x.astype(">f8"), strided, x.tolist()):
        assert_same_bits(layer, frozen(given, join(layer, state)), wanted)
    assert frozen(np.zeros((0, N, D)))[0].shape == (0, N, H)
    assert frozen(np.zeros((T, 0, D)))[0].shape == (T, 0, H)


def test_batch_first(rng):
    layer = make_layer(rng, "lstm-peephole-current-tanh", batch_first=True, bidirectional=True)
    x = rng.normal(size=(N, T, D))
    assert_same_bits(layer, layer.freeze()(x), layer(x))


@each_cell
def test_later_changes_do_not_reach_it(rng, kind):
    layer = make_layer(rng, kind)
    frozen, x = layer.freeze(), rng.normal(size=(T, N, D))
    before = frozen(x)
    for value in layer.params.values():
        value += 1
    assert_same_bits(layer, frozen(x), before)
    assert np.abs(layer(x)[0] - before[0]).max() > 1e-3


@each_cell
def test_copies_and_pickles(rng, kind):
    layer = make_layer(rng, kind, num_layers=2, bidirectional=True)
    frozen, x = layer.freeze(), rng.normal(size=(T, N, D))
    for other in (copy.copy(frozen), copy.deepcopy(frozen), pickle.loads(pickle.dumps(frozen)), frozen.freeze()):
        assert_same_bits(layer, other(x), layer(x))
        assert repr(other) == repr(frozen)


def test_memory_is_returned_with_the_last_reference():
    frozen = rc.LSTM(D, H, seed=0).freeze()
    alive = weakref.ref(frozen)
    del frozen
    assert alive() is None


def test_streams(rng):
    layer = make_layer(rng, "gru-reset_after-old", "float32", num_layers=2)
    x = rng.normal(size=(T, N, D)).astype("f4")
    stream = layer.freeze().stream(N)
    assert_equal_bits([stream.step(x_t) for x_t in x], layer(x)[0])
    with pytest.raises(ValueError, match="bidirectional layer needs the whole sequence"):
        make_layer(rng, "gru-reset_after-old", bidirectional=True).freeze().stream()


def test_refuses_training(rng):
    frozen = make_layer(rng, "lstm-peephole-current-tanh").freeze()
    for method in (frozen.forward, frozen.backward):
        with pytest.raises(TypeError, match="frozen layers cannot be trained"):
            method(np.zeros((T, N, D)))
    for name in ("params", "grads"):
        with pytest.raises(AttributeError, match="frozen layers have no params or grads"):
            getattr(frozen, name)


def test_errors(rng):
    frozen = make_layer(rng, "lstm-peephole-current-tanh").freeze()
    with pytest.raises(ValueError, match=r"x must be \(T, N, input_size\) with input_size = 2; got \(5, 3, 4\)"):
        frozen(np.zeros((T, N, H)))
    with pytest.raises(TypeError, match=r"state of an LSTM must be a tuple \(h, c\); got ndarray"):
        frozen(np.zeros((T, N, D)), np.zeros((1, N, H)))
    with pytest.raises(ValueError, match=r"state c must be .* = \(1, 3, 4\); got \(1, 3, 5\)"):
        frozen(np.zeros((T, N, D)), (np.zeros((1, N, H)), np.zeros((1, N, H + 1))))


def test_several_threads_at_once(rng):
    layer = make_layer(rng, "lstm-peephole-current-tanh", "float32", bidirectional=True)
    frozen = layer.freeze()
    inputs = [rng.normal(size=(T, k % 3 + 1, D)).astype("f4") for k in range(8)]
    wanted = [layer(x) for x in inputs]
    wrong = []

    def work(x, right):
        for _ in range(200):
            if not np.array_equal(frozen(x)[0], right[0]):
                wrong.append(x)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(inputs, wanted, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# ---- one cell -------------------------------------------------------------------------------------------------------


def freeze(variant, arguments):
    """rc.freeze with the weights and options of a problem, and the arguments of the call that remain."""
    names = {"x", "h0", "c0", "lengths", "resets", "reverse", "checkpoint", "training"}
    weights = {name: value for name, value in arguments.items() if name not in names}
    weights.setdefault("Wh", None)
    return rc.freeze(variant, **weights), {name: arguments[name] for name in names & set(arguments)}


@every_variant
@pytest.mark.parametrize("edges", ["plain", "lengths", "resets", "reverse"])
@every_dtype
def test_cell_has_the_bits_of_the_function(rng, variant, edges, dtype):
    options = dict.fromkeys(edges.replace("plain", "").split(), True)
    cell, arguments, _ = problem(rng, variant, dtype, **options)
    wanted, state, _ = forward(cell, arguments | {"training": False})
    frozen, call = freeze(cell, arguments)
    for own in (frozen, pickle.loads(pickle.dumps(frozen))):
        given = {name: call[name] for name in ("lengths", "resets", "reverse") if name in call}
        initial = (call["h0"], call["c0"]) if "c0" in call else call["h0"]
        h, final = own(call["x"], initial, **given)
        assert_equal_bits(h, wanted)
        for actual, right in zip(final_states(cell, final), final_states(cell, state), strict=True):
            assert_equal_bits(actual, right)


def test_cell_errors():
    Wx, Wh, b = np.zeros((2, 12)), np.zeros((3, 12)), np.zeros(12)
    frozen = rc.freeze("lstm", Wx, Wh, b)
    for arguments, error, message in [
        (("lstn", Wx, Wh, b), ValueError, "cell must be one of"),
        (("lstm", Wx, Wh[:2], b), ValueError, r"Wh must be \(H, 4H\) = \(3, 12\); got \(2, 12\)"),
        (("mingru", Wx, Wh, b), ValueError, "Wh must be None"),
        (("lstm", Wx, None, b), TypeError, "Wh must be an array"),
    ]:
        with pytest.raises(error, match=message):
            rc.freeze(*arguments)
    with pytest.raises(ValueError, match="lstm has the options"):
        rc.freeze("lstm", Wx, Wh, b, activation="relu")
    with pytest.raises(ValueError, match="bhn must be None"):
        rc.freeze("lstm", Wx, Wh, b, bhn=np.zeros(3))
    with pytest.raises(TypeError, match=r"state of an LSTM must be a tuple \(h0, c0\); got ndarray"):
        frozen(np.zeros((1, 1, 2)), np.zeros((1, 3)))
