"""layer.quantize: bfloat16 has the bits of rounded weights, int8 is what the reference with Int8Matrix computes."""

import copy
import pickle

import numpy as np
import pytest
from support.compare import assert_equal_bits
from support.isas import DEFAULT, OWN
from support.layers import D, N, T, each_cell, every_dtype, every_layer, join, make_layer, make_state, split

import rnncore as rc
from rnncore import _engine, reference
from rnncore.engine.quantization import quantize, round_to_bfloat16

PRECISIONS = ("bfloat16", "int8")
SIZES = [(1, 1), (1, 3), (T, 1), (T, N), (40, 9)]
each_precision = pytest.mark.parametrize("precision", PRECISIONS)


def wide_layer(rng, kind, H=64, **options):
    """A layer whose hidden units fill panels, so that threads can share them."""
    layer = make_layer(rng, kind, "float32", **options)
    wide = type(layer)(D, H, **{name: layer.variant.options[name] for name in type(layer).cell.options}, **options)
    for value in wide.params.values():
        value[...] = rng.normal(scale=H**-0.5, size=value.shape)
    return wide


def rounded(layer):
    """The layer with its matrices rounded to bfloat16."""
    other = copy.deepcopy(layer)
    for name, value in other.params.items():
        if name.startswith("W"):
            value[...] = round_to_bfloat16(value.astype("f8"))
    return other


def assert_same(layer, actual, wanted):
    assert_equal_bits(actual[0], wanted[0])
    for own, other in zip(split(layer, actual[1]), split(layer, wanted[1]), strict=True):
        assert_equal_bits(own, other)


def reference_call(layer, x, state, lengths, x_scale=0.0):
    """A layer of one cell in int8, by the reference."""
    forward = getattr(reference, f"{layer.cell.name}_forward")
    weights = {name[:-2]: value for name, value in layer.params.items()}
    for name, scale in (("Wx", x_scale), ("Wh", 0.0)):
        if name in weights:
            weights[name] = reference.Int8Matrix.rounded(weights[name], scale)
    initial = {f"{letter}0": array[0] for letter, array in zip(layer.state_names, state, strict=True)}
    return forward(x, **weights, **initial, **layer.options(), lengths=lengths, training=False)[:2]


# ---- rounding -------------------------------------------------------------------------------------------------------


def test_bfloat16_rounds_to_the_nearest_with_ties_to_even():
    exact = [1 + k / 256 for k in range(9)] + [
        -(1 + 3 / 256),
        1 + 1 / 256 + 2**-40,
        3.396e38,
        3.397e38,
        1e39,
        1e-39,
        0.0,
        -0.0,
    ]
    wanted = [1, 1, 1 + 2 / 256, 1 + 4 / 256, 1 + 4 / 256, 1 + 4 / 256, 1 + 6 / 256, 1 + 8 / 256, 1 + 8 / 256]
    wanted += [-(1 + 4 / 256), 1 + 2 / 256, (2 - 2**-7) * 2.0**127, np.inf, np.inf, 0, 0, 0]
    np.testing.assert_array_equal(round_to_bfloat16(np.array(exact)), np.array(wanted, "f4"))
    found = round_to_bfloat16(np.array([np.nan, np.inf, -np.inf]))
    assert np.isnan(found[0])
    assert found[1:].tolist() == [np.inf, -np.inf]


def test_bfloat16_is_that_of_pytorch(rng):
    torch = pytest.importorskip("torch")
    floats = (rng.normal(size=100_000) * 10.0 ** rng.integers(-30, 30, size=100_000)).astype("f4")
    own = round_to_bfloat16(floats.astype("f8"))
    np.testing.assert_array_equal(own, torch.from_numpy(floats).to(torch.bfloat16).float().numpy())


def test_int8_of_very_large_weights():
    largest = np.finfo("f4").max
    layer = rc.RNN(2, 1, seed=0)
    layer.params["Wx_0"][...] = largest
    found = layer.quantize("int8").arrays()["Wx_0"]
    assert found.values.tolist() == [[127], [127]]
    assert np.isfinite(found.widen(np.dtype("f4"))).all()
    with pytest.raises(ValueError, match=r"W must be finite, in float32 too, to become int8; got 1e\+300"):
        quantize("W", np.array([[1e300]]), "int8")


def test_int8_has_the_largest_of_a_column_as_127(rng):
    W = rng.normal(size=(30, 7))
    W[:, 2] = 0
    found = quantize("W", W, "int8")
    assert np.abs(found.values).max(axis=0).tolist() == [127, 127, 0, 127, 127, 127, 127]
    np.testing.assert_allclose(found.widen(np.dtype("f8")), W, rtol=0, atol=0.501 * found.scales.max())
    assert found.values.tolist() == reference.Int8Matrix.rounded(W).values.tolist()


# ---- what it computes -----------------------------------------------------------------------------------------------


@every_layer
@every_dtype
@pytest.mark.parametrize(("bidirectional", "num_layers"), [(False, 1), (True, 1), (False, 3), (True, 2)])
def test_bfloat16_has_the_bits_of_the_layer_with_rounded_weights(rng, kind, dtype, bidirectional, num_layers):
    layer = make_layer(rng, kind, dtype, bidirectional=bidirectional, num_layers=num_layers)
    small, wanted = layer.quantize("bfloat16"), rounded(layer)
    for steps, rows in SIZES:
        x = rng.normal(size=(steps, rows, D)).astype(dtype)
        state = join(layer, tuple(array.astype(dtype) for array in make_state(rng, layer, rows)))
        assert_same(layer, small(x), wanted(x))
        assert_same(layer, small(x, state), wanted(x, state))
        lengths = rng.integers(steps + 1, size=rows)
        assert_same(layer, small(x, state, lengths), wanted(x, state, lengths))
        ids = rng.integers(D, size=(steps, rows))
        assert_same(layer, small(ids, state, lengths), wanted(ids, state, lengths))


@every_layer
@pytest.mark.parametrize("isa", OWN)
def test_int8_is_that_of_the_reference(rng, kind, isa):
    """In float64 a value is rounded the other way only where it is as close to a tie as the errors are large."""
    try:
        rc.use_isa(isa)
        layer = make_layer(rng, kind)
        small = layer.quantize("int8")
        for steps, rows in SIZES:
            x, state = rng.normal(size=(steps, rows, D)), make_state(rng, layer, rows)
            lengths = rng.integers(steps + 1, size=rows)
            for given in (x, rng.integers(D, size=(steps, rows))):
                h, final = reference_call(layer, given, state, lengths)
                y, ends = small(given, join(layer, state), lengths)
                np.testing.assert_allclose(y, h, rtol=0, atol=1e-11)
                wanted = final if isinstance(final, tuple) else (final,)
                for end, other in zip(split(layer, ends), wanted, strict=True):
                    np.testing.assert_allclose(end[0], other, rtol=0, atol=1e-11)
    finally:
        rc.use_isa(DEFAULT)


@each_cell
@every_dtype
def test_int8_is_close_to_the_layer(rng, kind, dtype):
    layer = type(make_layer(rng, kind))(64, 64, num_layers=2, dtype=dtype, seed=2)
    x = rng.normal(size=(30, 3, 64)).astype(dtype)
    wanted = layer(x)[0]
    assert np.linalg.norm(layer.quantize("int8")(x)[0] - wanted) < 0.04 * np.linalg.norm(wanted)


@each_cell
def test_calibration_sets_the_scale_of_inputs(rng, kind):
    """What exceeds the largest input of the calibration is cut off; states have a scale of their own in any case."""
    layer = make_layer(rng, kind)
    x = rng.normal(size=(T, N, D))
    small, largest = layer.quantize("int8", calibration=x), np.abs(x).max()
    state = make_state(rng, layer)
    for given in (x, 3 * x):
        h, _ = reference_call(layer, given, state, None, largest / 127)
        np.testing.assert_allclose(small(given, join(layer, state))[0], h, rtol=0, atol=1e-11)
    assert small.x_scales == (largest / 127,)
    deep = make_layer(rng, kind, num_layers=2)
    below = make_layer(rng, kind)
    for name, value in below.params.items():
        value[...] = deep.params[name]
    ids = rng.integers(D, size=(T, N))
    assert deep.quantize("int8", ids).x_scales == (0.0, np.abs(below(ids)[0]).max() / 127)
    assert deep.quantize("int8", x.astype("f4")).x_scales[0] == np.abs(x.astype("f4")).max().astype("f8") / 127
    again = pickle.loads(pickle.dumps(small))
    assert_same(layer, again(2 * x), small(2 * x))
    assert layer.freeze().quantize("int8", x).x_scales == small.x_scales


# ---- the same bits --------------------------------------------------------------------------------------------------


@each_cell
@pytest.mark.parametrize("precision", ["float32", *PRECISIONS])
@pytest.mark.parametrize("H", [64, 40, 192])
def test_threads_share_rows_and_units(rng, kind, precision, H):
    layer = wide_layer(rng, kind, H, num_layers=2)
    layer = layer.freeze() if precision == "float32" else layer.quantize(precision)
    x, ids = rng.normal(size=(9, 8, D)).astype("f4"), rng.integers(D, size=(9, 8))
    wanted = layer(x), layer(ids)
    before = rc.get_num_threads()
    try:
        for rule in ({"rows": 1}, {"rows": 3}, {"rows": 100, "products": 1, "units": 1}, {"rows": 4, "products": 1}):
            _engine.set_cost_rule(flops=1, cores=64, **rule)
            for threads in (2, 3, 5):
                rc.set_num_threads(threads)
                assert_same(layer, layer(x), wanted[0])
                assert_same(layer, layer(ids), wanted[1])
    finally:
        _engine.set_cost_rule()
        rc.set_num_threads(before)


@each_cell
@each_precision
def test_no_row_depends_on_others_padding_or_how_the_sequence_came(rng, kind, precision):
    layer = wide_layer(rng, kind, num_layers=2).quantize(precision)
    steps, rows = 20, 70
    x = rng.normal(size=(steps, rows, D)).astype("f4")
    lengths = rng.integers(steps + 1, size=rows)
    y, final = layer(x, lengths=lengths)
    order = rng.permutation(rows)
    assert_equal_bits(layer(x[:, order], lengths=lengths[order])[0], y[:, order])
    padded = np.where(np.arange(steps)[:, None, None] < lengths[:, None], x, np.nan).astype("f4")
    assert_same(layer, layer(padded, lengths=lengths), (y, final))
    whole, end = layer(x)
    assert_equal_bits(layer(x[:, 5:6])[0], whole[:, 5:6])
    first, state = layer(x[:7])
    second, state = layer(x[7:], state)
    assert_same(layer, (np.concatenate([first, second]), state), (whole, end))
    stream = layer.stream(rows)
    assert_equal_bits(np.stack([stream.step(x_t) for x_t in x]), whole)
    bad = x.copy()
    bad[3, 1] = np.nan
    with_nan = layer(bad)[0]
    others = np.arange(rows) != 1
    assert_equal_bits(with_nan[:, others], whole[:, others])
    assert np.isnan(with_nan[3:, 1]).all()


@each_cell
@each_precision
def test_instruction_sets_with_fused_multiply_adds_agree(rng, kind, precision):
    layer, x = wide_layer(rng, kind), rng.normal(size=(30, 5, D)).astype("f4")
    found = []
    try:
        for isa in [isa for isa in OWN if isa != "plain"]:
            rc.use_isa(isa)
            found.append(layer.quantize(precision)(x)[0])
    finally:
        rc.use_isa(DEFAULT)
    for other in found[1:]:
        assert_equal_bits(other, found[0])


# ---- use ------------------------------------------------------------------------------------------------------------


@each_cell
@each_precision
def test_copies_and_arguments(rng, kind, precision):
    layer = make_layer(rng, kind, "float32", num_layers=2, batch_first=True)
    small, x = layer.quantize(precision), rng.normal(size=(N, T, D))
    wanted = small(x)
    assert wanted[0].dtype == np.float32
    for other in (copy.copy(small), copy.deepcopy(small), pickle.loads(pickle.dumps(small)), small.freeze()):
        assert_same(layer, other(x), wanted)
        assert other.nbytes == small.nbytes
        assert other.precision == precision
    for given in (x.astype("f4"), x.astype(">f8"), np.repeat(x, 2, axis=2)[..., ::2], x.tolist()):
        assert_same(layer, small(given), wanted)
    for value in layer.params.values():
        value[...] = 9
    assert_same(layer, small(x), wanted)  # a copy
    assert repr(small).startswith(f"<{precision} {type(layer).__name__}(")
    assert small(np.zeros((0, T, D)))[0].shape[:2] == (0, T)


@each_cell
def test_bytes(rng, kind):
    layer = wide_layer(rng, kind)
    sizes = {name: (value.size, value.shape[-1]) for name, value in layer.params.items()}
    matrices = sum(size for name, (size, _) in sizes.items() if name.startswith("W"))
    columns = sum(width for name, (_, width) in sizes.items() if name.startswith("W"))
    others = 4 * sum(size for name, (size, _) in sizes.items() if not name.startswith("W"))
    assert layer.nbytes == layer.freeze().nbytes == 4 * matrices + others
    assert layer.quantize("bfloat16").nbytes == 2 * matrices + others
    assert layer.quantize("int8").nbytes == matrices + 4 * columns + others


@each_precision
def test_what_cannot_be(rng, precision):
    layer = rc.LSTM(D, 5, seed=0)
    small = layer.quantize(precision)
    for call in (small.forward, small.backward, small.zero_grad):
        with pytest.raises(TypeError, match="cannot be trained"):
            call(np.zeros((T, N, D)))
    with pytest.raises(AttributeError, match="params"):
        small.params  # noqa: B018
    with pytest.raises(ValueError, match=f"those of this one are {precision}"):
        small.quantize("int8")
    with pytest.raises(ValueError, match="precision must be one of 'bfloat16', 'int8'; got 'float16'"):
        layer.quantize("float16")
    with pytest.raises(ValueError, match="bidirectional"):
        rc.LSTM(D, 5, bidirectional=True).quantize(precision).stream()
    with pytest.raises(ValueError, match="input_size = 2"):
        small(np.zeros((T, N, D + 1)))
    with pytest.raises(ValueError, match=r"ids in x must lie in \[0, D\)"):
        small(np.full((T, N), D))
    with pytest.raises(ValueError, match="lengths"):
        small(np.zeros((T, N, D)), lengths=[1])


def test_errors_of_rounding_and_calibration():
    layer = rc.LSTM(D, 5, seed=0)
    x = np.zeros((T, N, D))
    with pytest.raises(ValueError, match="calibration .* must be None for bfloat16"):
        layer.quantize("bfloat16", calibration=x)
    for wrong in (np.inf, np.nan):
        bad = x.copy()
        bad[1, 2, 0] = wrong
        with pytest.raises(ValueError, match="calibration must be finite"):
            layer.quantize("int8", calibration=bad)
    assert layer.quantize("int8", calibration=x + 1e-40).x_scales == (0.0,)  # no normal number
    with pytest.raises(ValueError, match="input_size = 2"):
        layer.quantize("int8", calibration=np.zeros((T, N, D + 1)))
    layer.params["Wh_0"][1, 2] = np.nan
    with pytest.raises(ValueError, match="Wh must be finite, in float32 too, to become int8; got nan"):
        layer.quantize("int8")
    assert np.isnan(layer.quantize("bfloat16")(x + 1)[0][1:]).any()
    with pytest.raises(ValueError, match="W must have at most 131072 rows in int8, for sums in 32 bits; got 131073"):
        rc.Dense((1 << 17) + 1, 1, seed=0).quantize("int8")


@pytest.mark.parametrize("extra", [0, 1])
def test_a_layer_too_wide_for_sums_takes_ids(rng, extra):
    """In int8 more than 131,072 products may not fit 32 bits, but a row that is looked up always does."""
    D = (1 << 17) + extra
    layer = rc.GRU(D, 3, form="reset_after", seed=0)
    ids = np.array([[0, D - 1], [D - 2, 70_000], [5, 131_071]])
    x = np.zeros((*ids.shape, D), "float32")
    np.put_along_axis(x, ids[..., None], 1, axis=-1)
    small = layer.quantize("int8")
    weights = {name: w.widen(layer.dtype) if name.startswith("W") else w for name, w in small.arrays().items()}
    exact = layer.with_weights(weights)
    parts = {name[:-2]: value for name, value in layer.params.items()}
    frozen = rc.freeze("gru", **parts, form="reset_after", precision="int8")
    y, _ = small(ids)
    np.testing.assert_allclose(y, exact(ids)[0], rtol=0, atol=0.02)  # states are rounded to 127 steps
    again = pickle.loads(pickle.dumps(small))
    assert_equal_bits(again(ids)[0], y)
    assert_equal_bits(frozen(ids)[0], y)
    stream = small.stream(2)
    assert_equal_bits(np.stack([stream.step(row) for row in ids]), y)
    stream.reset()
    calls = [
        lambda: small(x)[0],
        lambda: small(x, lengths=[3, 3])[0],
        lambda: frozen(x)[0],
        lambda: [stream.step(x[0])],
    ]
    for call in calls:
        if extra:
            with pytest.raises(ValueError, match=f"x must be ids, because int8 sums at most 131072 products; D is {D}"):
                call()
        else:
            found = call()
            np.testing.assert_allclose(found, y[: len(found)], rtol=0, atol=1e-5)
    assert (stream.state == 0).all() == bool(extra)


@each_precision
@every_dtype
def test_dense_embedding_and_attention(rng, precision, dtype):
    dense, embedding = rc.Dense(7, 70, dtype=dtype, seed=0), rc.Embedding(11, 5, dtype=dtype, seed=0)
    dense.params["b"][...] = rng.normal(size=70)
    x, ids = rng.normal(size=(3, 9, 7)).astype(dtype), rng.integers(11, size=(2, 3))
    small, rows = dense.quantize(precision), embedding.quantize(precision)
    table = quantize("W", embedding.params["W"], precision).widen(embedding.dtype)
    np.testing.assert_array_equal(rows(ids), table[ids])
    if precision == "bfloat16":
        dense.params["W"][...] = quantize("W", dense.params["W"], precision).widen(dense.dtype)
        assert_equal_bits(small(x), dense(x))
    else:
        wanted = x.reshape(-1, 7) @ reference.Int8Matrix.rounded(dense.params["W"]) + dense.params["b"]
        np.testing.assert_allclose(small(x).reshape(-1, 70), wanted, rtol=0, atol=2e-6 if dtype == "float32" else 1e-14)
    for layer in (small, rows):
        again = pickle.loads(pickle.dumps(layer))
        given = x if layer is small else ids
        assert_equal_bits(again(given), layer(given))
        with pytest.raises(TypeError, match="cannot be trained"):
            layer.forward(given)
        assert layer.nbytes == sum(a.nbytes for a in layer.arrays().values())
        with pytest.raises(ValueError, match=f"those of this one are {precision}"):
            layer.quantize("int8")
    with pytest.raises(ValueError, match="read-only"):
        small.arrays()["b"][...] = 7
    attention = rc.Attention(4, 6, "additive", dtype=dtype, seed=0)
    memory, queries = rng.normal(size=(5, 2, 6)), rng.normal(size=(3, 2, 4))
    found, wanted = attention.quantize(precision)(queries, memory)[0], attention(queries, memory)[0]
    assert 0 < np.abs(found - wanted).max() < 0.02
    small = attention.quantize(precision)
    for call in (small.forward, small.backward, small.zero_grad):
        with pytest.raises(TypeError, match="cannot be trained"):
            call()
    with pytest.raises(ValueError, match=f"those of this one are {precision}"):
        small.quantize(precision)
    with pytest.raises(ValueError, match="read-only"):
        small.params["Wq"][...] = 0


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm", "mingru"])
@each_precision
def test_freeze_of_arrays(rng, kind, precision):
    layer = make_layer(
        rng,
        {"rnn": "rnn-relu", "gru": "gru-reset_after-old", "lstm": "lstm-plain-current-tanh"}.get(
            kind, "mingru-identity"
        ),
    )
    weights = {name[:-2]: value for name, value in layer.params.items()}
    frozen = rc.freeze(kind, **{"Wh": None, **weights}, **layer.options(), precision=precision)
    x = rng.normal(size=(T, N, D))
    small = layer.quantize(precision)
    assert_equal_bits(frozen(x)[0], small(x)[0])
    assert_equal_bits(pickle.loads(pickle.dumps(frozen))(x)[0], small(x)[0])
    assert repr(frozen).startswith(f"<frozen {precision} <{kind}")
    lengths = rng.integers(T + 1, size=N)
    assert_equal_bits(frozen(x, lengths=lengths)[0], small(x, lengths=lengths)[0])
    resets = rng.random((T, N)) < 0.3
    cut = np.flatnonzero(resets[:, 0])
    pieces = [small(piece[:, :1])[0] for piece in np.split(x, cut) if len(piece)]
    assert_equal_bits(frozen(x, resets=resets)[0][:, :1], np.concatenate(pieces))
    assert_equal_bits(frozen(x[::-1].copy(), reverse=True)[0][::-1], small(x)[0])
    with pytest.raises(ValueError, match="precision must be one of"):
        rc.freeze(kind, **{"Wh": None, **weights}, **layer.options(), precision="int4")
    with pytest.raises(ValueError, match="h0 must be"):
        frozen(x, lengths=lengths, state=np.zeros((N, 99)) if kind != "lstm" else (np.zeros((N, 99)), None))
