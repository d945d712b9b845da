"""Identities and edges of the reference: resets, padding, empty sizes, dtypes, errors."""

import doctest
import inspect
import itertools

import numpy as np
import pytest
from support import gradcheck
from support.reference import (
    TOL,
    D,
    H,
    N,
    T,
    backward,
    close,
    every_cell,
    every_run,
    forward,
    make_arguments,
    make_cotangents,
    make_run,
    use_ids,
)

from rnncore import reference
from rnncore.reference import gru, lstm, rnn


@every_cell
def test_reset_equals_cutting_there(rng, cell, options):
    arguments = make_arguments(rng, cell, options)
    resets = np.zeros((T, N), bool)
    resets[2] = True
    [h, *states], cache = forward(cell, **arguments, **options, resets=resets)
    first = {**arguments, "x": arguments["x"][:2]}
    rest = {name: a for name, a in arguments.items() if name not in ("h0", "c0")} | {"x": arguments["x"][2:]}
    [h_first, *_], cache_first = forward(cell, **first, **options)
    [h_rest, *states_rest], cache_rest = forward(cell, **rest, **options)
    close(h, np.concatenate([h_first, h_rest]))
    close(states, states_rest)
    dh, *dstates = make_cotangents(rng, [h, *states])
    whole = backward(cell, [dh, *dstates], cache)
    one = backward(cell, [dh[:2]], cache_first)
    two = backward(cell, [dh[2:], *dstates], cache_rest)
    close(whole["x"], np.concatenate([one["x"], two["x"]]))
    close(whole["h0"], one["h0"])
    for name in {"Wx", "Wh"} & arguments.keys():
        close(whole[name], one[name] + two[name])


@every_cell
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("ids", [False, True])
def test_padding_does_not_matter(rng, cell, options, reverse, ids):
    arguments = make_arguments(rng, cell, options)
    lengths = np.array([T - 2, 0, T])
    padding = np.arange(T)[:, None] >= lengths
    resets = rng.random((T, N)) < 0.3
    if ids:
        arguments["x"] = rng.integers(0, D, size=(T, N))
    dirty = arguments["x"].copy()
    dirty[padding] = 10**9 if ids else np.nan
    more_resets = resets | padding
    settings = {**options, "lengths": lengths, "reverse": reverse}

    want, cache_clean = forward(cell, **arguments, **settings, resets=resets)
    got, cache = forward(cell, **{**arguments, "x": dirty}, **settings, resets=more_resets)
    for y, w in zip(got, want, strict=True):
        np.testing.assert_array_equal(y, w)
    for kept in ("h", "gates", "c"):
        if hasattr(cache, kept):
            np.testing.assert_array_equal(getattr(cache, kept)[padding], 0)
    np.testing.assert_array_equal(got[0][padding], 0)

    cotangents = make_cotangents(rng, want)
    dirty_cotangents = [cotangents[0].copy(), *cotangents[1:]]
    dirty_cotangents[0][padding] = np.nan
    gradients = backward(cell, cotangents, cache_clean)
    for name, g in backward(cell, dirty_cotangents, cache).items():
        np.testing.assert_array_equal(g, gradients[name], err_msg=name)
    # The row of length 0 gives its states, and its gradients, straight back.
    for k, name in enumerate(["h0", "c0"][: len(want) - 1], start=1):
        np.testing.assert_array_equal(got[k][1], arguments[name][1])
        np.testing.assert_array_equal(gradients[name][1], cotangents[k][1])


@every_cell
@pytest.mark.parametrize(
    "sizes", [{"T": 0}, {"N": 0}, {"D": 0}, {"T": 0, "N": 0}, {"H": 0}, {"T": 1, "N": 1, "D": 1, "H": 1}]
)
@pytest.mark.parametrize("ragged", [False, True])
def test_empty_sizes(rng, cell, options, sizes, ragged):
    sizes = {"T": T, "N": N, "D": D, "H": H, **sizes}
    arguments = make_arguments(rng, cell, options, **sizes)
    settings = {}
    if ragged:
        settings = {
            "lengths": np.full(sizes["N"], sizes["T"]),
            "resets": np.zeros((sizes["T"], sizes["N"]), bool),
            "reverse": True,
        }
    [h, *states], cache = forward(cell, **arguments, **options, **settings)
    assert h.shape == (sizes["T"], sizes["N"], sizes["H"])
    initial = [arguments[name] for name in ("h0", "c0") if name in arguments]
    for s, s0 in zip(states, initial, strict=True):
        assert s.shape == (sizes["N"], sizes["H"])
        assert not np.shares_memory(s, s0)
        if sizes["T"] == 0:
            np.testing.assert_array_equal(s, s0)
    cotangents = make_cotangents(rng, [h, *states])
    gradients = backward(cell, cotangents, cache)
    assert {name: g.shape for name, g in gradients.items()} == {name: a.shape for name, a in arguments.items()}
    if sizes["T"] == 0:
        for name, cotangent in zip(("h0", "c0"), cotangents[1:], strict=False):
            np.testing.assert_array_equal(gradients[name], cotangent)
    if sizes["D"] == 0:
        x = np.full((sizes["T"], sizes["N"], 1), 5.0)  # D=0 is D=1 with a weight of zero
        same = {**arguments, "x": x, "Wx": np.zeros((1, arguments["Wx"].shape[1]))}
        close(h, forward(cell, **same, **options, **settings)[0][0])


@every_cell
@pytest.mark.parametrize("ids", [False, True])
def test_dtypes(rng, cell, options, ids):
    arguments = make_arguments(rng, cell, options)
    if ids:
        arguments["x"] = rng.integers(0, D, size=(T, N), dtype=np.uint8)

    def dtypes(**changed):
        given = {
            name: a if a.dtype.kind == "u" else a.astype(changed.get(name, changed["rest"]))
            for name, a in arguments.items()
        }
        outputs, cache = forward(cell, **given, **options)
        gradients = backward(cell, [y.astype(np.float64) for y in outputs], cache)
        return {a.dtype for a in (*outputs, *gradients.values(), cache.h, cache.gates)}

    single, double = {np.dtype(np.float32)}, {np.dtype(np.float64)}
    assert dtypes(rest=np.float32) == single
    assert dtypes(rest=np.float64) == double
    assert dtypes(rest=">f8") == double
    assert dtypes(rest=np.float16) == single
    assert dtypes(rest=np.float32, b=np.float16) == single
    for name in arguments:
        if not (ids and name == "x"):
            assert dtypes(rest=np.float32, **{name: np.float64}) == double, name


@every_cell
def test_float16_is_computed_in_float32(rng, cell, options):
    half = {name: a.astype(np.float16) for name, a in make_arguments(rng, cell, options).items()}
    got, _ = forward(cell, **half, **options)
    want, _ = forward(cell, **{name: a.astype(np.float32) for name, a in half.items()}, **options)
    for y, w in zip(got, want, strict=True):
        np.testing.assert_array_equal(y, w)


@every_cell
@every_run
def test_nothing_given_or_kept_is_written(rng, cell, options, run):
    arguments = make_arguments(rng, cell, options)
    settings = make_run(rng, run, cell)
    arguments |= use_ids(rng, run, arguments)
    before = {name: a.copy() for name, a in arguments.items()}
    for a in [*arguments.values(), *(v for v in settings.values() if isinstance(v, np.ndarray))]:
        a.flags.writeable = False
    outputs, cache = forward(cell, **arguments, **options, **settings)
    for kept in (cache.h, cache.gates, *([cache.c] if cell == "lstm" else [])):
        assert not kept.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            kept[...] = 0
    cotangents = make_cotangents(rng, outputs)
    for c in cotangents:
        c.flags.writeable = False
    first = backward(cell, cotangents, cache)
    for y in (*outputs, *first.values()):
        assert y.flags.writeable
        assert not any(np.shares_memory(y, a) for a in (*arguments.values(), *cotangents))
    saved = {name: g.copy() for name, g in first.items()}
    for y in (*outputs, *first.values()):  # results belong to the caller
        y[...] = np.nan
    for name, g in backward(cell, cotangents, cache).items():
        np.testing.assert_array_equal(g, saved[name], err_msg=name)
    for name, a in arguments.items():
        np.testing.assert_array_equal(a, before[name], err_msg=name)


def test_large_values_neither_overflow_nor_warn():
    x = np.array([1e4, -1e4], np.float32).reshape(1, 2, 1)
    with np.errstate(all="raise", under="ignore"):
        _, _, cache = reference.lstm_forward(x, np.ones((1, 4), "f"), np.ones((1, 4), "f"), np.zeros(4, "f"))
    np.testing.assert_array_equal(cache.gates[0], [[1, 1, 1, 1], [0, 0, -1, 0]])


@every_cell
def test_nan_stays_in_its_row(rng, cell, options):
    arguments = make_arguments(rng, cell, options)
    want, _ = forward(cell, **arguments, **options)
    x = arguments["x"].copy()
    x[1, 2] = np.nan
    got, _ = forward(cell, **{**arguments, "x": x}, **options)
    np.testing.assert_array_equal(got[0][:, :2], want[0][:, :2])
    np.testing.assert_array_equal(got[0][0], want[0][0])
    assert np.isnan(got[0][1:, 2]).all()


@pytest.mark.parametrize(
    ("cell", "argument", "choices"),
    [
        ("rnn", "activation", ["tanh", "relu", "identity"]),
        ("gru", "form", ["reset_before", "reset_after", "simplified"]),
        ("gru", "update", ["new", "old"]),
        ("gru", "gate_order", ["rzn", "zrn"]),
        ("lstm", "peephole_output", ["current", "previous"]),
        ("lstm", "output_activation", ["tanh", "identity"]),
    ],
)
@pytest.mark.parametrize("wrong", ["sigmoid", None, ""])
def test_unknown_option(rng, cell, argument, choices, wrong):
    arguments = make_arguments(rng, cell, {"form": "reset_before"})
    with pytest.raises(ValueError, match=argument) as caught:
        forward(cell, **arguments, **{argument: wrong})
    for word in (*choices, repr(wrong)):
        assert word in str(caught.value)


@pytest.mark.parametrize("wrong", ["ifg", "iifgo", "IFGO", "", None, ["i", "f", "g", "o"]])
def test_unknown_gate_order_of_an_lstm(rng, wrong):
    with pytest.raises(ValueError, match="gate_order must be the letters i f g o in some order; got "):
        forward("lstm", **make_arguments(rng, "lstm", {}), gate_order=wrong)


@pytest.mark.parametrize("form", ["reset_before", "simplified"])
def test_bhn_needs_reset_after(rng, form):
    arguments = make_arguments(rng, "gru", {"form": form})
    with pytest.raises(ValueError, match="bhn"):
        reference.gru_forward(**arguments, form=form, bhn=np.zeros(H))


@pytest.mark.parametrize(
    ("cell", "gates", "orders", "options"),
    [
        ("gru", "rzn", ["zrn"], {"form": "reset_before"}),
        ("gru", "rzn", ["zrn"], {"form": "reset_after", "update": "old"}),
        ("lstm", "ifgo", map("".join, itertools.permutations("ifgo")), {"peephole_output": "current"}),
    ],
)
def test_gate_order_is_the_order_of_the_blocks(rng, cell, gates, orders, options):
    arguments = make_arguments(rng, cell, options)
    outputs, cache = forward(cell, **arguments, **options)
    cotangents = make_cotangents(rng, outputs)
    gradients = backward(cell, cotangents, cache)

    for order in orders:

        def arranged(a, order=order):
            return np.concatenate([np.split(a, len(gates), axis=-1)[gates.index(gate)] for gate in order], axis=-1)

        weights = {name: arranged(arguments[name]) for name in ("Wx", "Wh", "b")}
        other_outputs, other = forward(cell, **(arguments | weights), **options, gate_order=order)
        close(other.gates, arranged(cache.gates), TOL)
        for got, wanted in zip(other_outputs, outputs, strict=True):
            close(got, wanted, TOL)
        for name, got in backward(cell, cotangents, other).items():
            close(got, arranged(gradients[name]) if name in weights else gradients[name], TOL)


def test_signatures():
    every = "lengths=None, resets=None, reverse=False, training=True, checkpoint=None"
    run = f"{every}, recurrent_mask=None"
    want = {
        "rnn_forward": f"(x, Wx, Wh, b, h0=None, *, activation='tanh', {run})",
        "mingru_forward": f"(x, Wx, b, h0=None, *, candidate='identity', {every})",
        "mingru_backward": "(dh, cache, dh_n=None)",
        "rnn_backward": "(dh, cache, dh_n=None)",
        "gru_forward": "(x, Wx, Wh, b, h0=None, *, form='reset_before', update='new', bhn=None, "
        f"gate_order='rzn', {run})",
        "gru_backward": "(dh, cache, dh_n=None)",
        "lstm_forward": "(x, Wx, Wh, b, h0=None, c0=None, *, peephole=None, peephole_output='current', "
        f"output_activation='tanh', gate_order='ifgo', {run})",
        "lstm_backward": "(dh, cache, dh_n=None, dc_n=None)",
    }
    for name, signature in want.items():
        found = inspect.signature(getattr(reference, name))
        plain = [parameter.replace(annotation=parameter.empty) for parameter in found.parameters.values()]
        assert str(found.replace(parameters=plain, return_annotation=found.empty)) == signature
    assert reference.RNNGradients._fields == ("dx", "dWx", "dWh", "db", "dh0")
    assert reference.GRUGradients._fields == ("dx", "dWx", "dWh", "db", "dh0", "dbhn")
    assert reference.LSTMGradients._fields == ("dx", "dWx", "dWh", "db", "dh0", "dc0", "dpeephole")


@pytest.mark.parametrize("module", [rnn, gru, lstm, gradcheck], ids=lambda m: m.__name__)
def test_docstring_examples(module):
    failed, attempted = doctest.testmod(module)
    assert attempted > 0
    assert failed == 0
