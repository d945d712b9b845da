"""What the functions promise around the equations: errors, layouts, dtypes, and the meaning of every edge."""

import concurrent.futures
import multiprocessing
import os
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
from layouts import assert_near
from problems import TOLERANCE, VARIANTS, assert_same, make_cotangents, make_problem, run

import rnncore as rc
from rnncore import _engine, functional, reference
from rnncore.engine import calls, cells, native

T, N, D, H = 7, 3, 4, 5

# One of each cell, together with every argument that there is.
CELLS = ["rnn-tanh", "gru-reset_after-old", "lstm-peephole-current-tanh", "mingru-positive"]
# One of each path through the code of a cell.
PATHS = [
    "rnn-relu",
    "gru-reset_before-new",
    "gru-reset_after-old",
    "gru-simplified-new",
    "lstm-plain-current-tanh",
    "lstm-peephole-current-tanh",
    "lstm-peephole-previous-identity",
    "mingru-positive",
]
DTYPES = list(TOLERANCE)

every_cell = pytest.mark.parametrize("variant", CELLS)
every_path = pytest.mark.parametrize("variant", PATHS)
every_variant = pytest.mark.parametrize("variant", VARIANTS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
both_directions = pytest.mark.parametrize("reverse", [False, True])


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def restore_threads():
    before = rc.get_num_threads()
    yield
    rc.set_num_threads(before)
    _engine.set_cost_rule()


def literally(text):
    return f"^{re.escape(text)}$"


def problem(rng, variant, dtype="float64", T=T, N=N, D=D, H=H, **options):
    """-> cell, arguments, cotangents"""
    cell, arguments = make_problem(rng, variant, T, N, D, H, dtype, **options)
    return cell, arguments, make_cotangents(rng, cell, T, N, H, dtype)


def forward(cell, arguments, **changes):
    return getattr(rc, f"{cell}_forward")(**{**arguments, **changes})


def backward(cell, cache, cotangents, **changes):
    return getattr(rc, f"{cell}_backward")(cache=cache, **{**cotangents, **changes})


def final_states(cell, state):
    """What a forward function returns second, as a list [h_n] or [h_n, c_n]."""
    return list(state) if cell == "lstm" else [state]


def floats_of(arguments):
    """The names of the arguments that are floating arrays."""
    return [name for name, a in arguments.items() if isinstance(a, np.ndarray) and a.dtype.kind == "f"]


def cast(arguments, dtype):
    floats = floats_of(arguments)
    return {name: a.astype(dtype) if name in floats else a for name, a in arguments.items()}


def assert_identical(actual, expected):
    """The same bits; NaN equals NaN."""
    assert actual.keys() == expected.keys()
    for name, wanted in expected.items():
        if wanted is None:
            assert actual[name] is None, name
        else:
            assert actual[name].dtype == wanted.dtype, name
            np.testing.assert_array_equal(actual[name], wanted, err_msg=name)


# ---- errors: name, wanted, got -----------------------------------------------------------------------------


def wanted_shapes(variant):
    """-> name -> (letters, shape) of every array that is checked as a whole."""
    variant = VARIANTS[variant]
    weights = {a.name: (variant.letters(a), variant.shape(a, D=D, H=H)) for a in variant.weights if a.name != "Wx"}
    return weights | {f"{state}0": ("(N, H)", (N, H)) for state in variant.cell.states}


def misshapen(shape):
    """Shapes close to `shape`: each axis one longer, one axis more, one less, a 1 that would broadcast."""
    for axis, size in enumerate(shape):
        yield (*shape[:axis], size + 1, *shape[axis + 1 :])
        yield (*shape[:axis], 1, *shape[axis + 1 :])
    yield (1, *shape)
    yield (*shape, 1)
    yield shape[1:]
    if len(shape) > 1 and shape != shape[::-1]:
        yield shape[::-1]


@pytest.mark.parametrize("variant", VARIANTS)
def test_wrong_shapes_of_weights_and_states(rng, variant):
    cell, arguments, _ = problem(rng, variant)
    for name, (letters, shape) in wanted_shapes(variant).items():
        for wrong in misshapen(shape):
            message = literally(f"{name} must be {letters} = {shape}; got {wrong}")
            with pytest.raises(ValueError, match=message):
                forward(cell, arguments, **{name: np.zeros(wrong)})


def test_transposed_weights_are_told_in_letters_and_numbers(rng):
    x, Wx, Wh, b = (rng.normal(size=s) for s in [(2, 1, 3), (3, 512), (128, 512), (512,)])
    message = literally("Wh must be (H, 4H) = (128, 512); got (512, 128)")
    with pytest.raises(ValueError, match=message):
        rc.lstm_forward(x, Wx, Wh.T, b)
    with pytest.raises(ValueError, match=literally("Wx must be (D, 4H) with D = 3 as in x; got (512, 3)")):
        rc.lstm_forward(x, Wx.T, Wh, b)


@every_variant
def test_wrong_shapes_of_wx(rng, variant):
    cell, arguments, _ = problem(rng, variant)
    G = len(VARIANTS[variant].gates)
    blocks = f"{G}H" if G > 1 else "H"
    wrong_shapes = [(D + 1, G * H), (1, G * H), (G * H,), (1, D, G * H), (D, G * H, 1), ()]
    if G > 1:
        wrong_shapes.append((D, G * H + 1))
    for wrong in wrong_shapes:
        message = literally(f"Wx must be (D, {blocks}) with D = {D} as in x; got {wrong}")
        with pytest.raises(ValueError, match=message):
            forward(cell, arguments, Wx=np.zeros(wrong))
    with pytest.raises(ValueError, match=literally(f"Wx must be (D, {blocks}); got {(G * H,)}")):
        forward(cell, arguments, Wx=np.zeros(G * H), x=np.zeros((T, N), int))


@every_cell
def test_wrong_shapes_of_x(rng, variant):
    cell, arguments, _ = problem(rng, variant)
    for wrong in [(), (T,), (T, N), (T, N, D, 1)]:
        message = literally(f"x must be (T, N, D), or (T, N) of integer ids; got shape {wrong}")
        with pytest.raises(ValueError, match=message):
            forward(cell, arguments, x=np.zeros(wrong))
    with pytest.raises(ValueError, match=f"^Wx must be .* with D = {D + 1} as in x; got"):
        forward(cell, arguments, x=np.zeros((T, N, D + 1)))
    # time and batch swapped: the states tell
    with pytest.raises(ValueError, match=literally(f"h0 must be (N, H) = {(T, H)}; got {(N, H)}")):
        forward(cell, arguments, x=np.zeros((N, T, D)))


@every_cell
def test_required_arrays_may_not_be_none(rng, variant):
    cell, arguments, _ = problem(rng, variant)
    required = [w.name for w in VARIANTS[variant].weights if not (w.optional or w.when)]
    for name in ("x", *required):
        with pytest.raises(TypeError, match=f"^{name} must be an array"):
            forward(cell, arguments, **{name: None})


@pytest.mark.parametrize(
    ("cell", "option", "choices"),
    [
        ("rnn", "activation", "'tanh', 'relu', 'identity'"),
        ("gru", "form", "'reset_before', 'reset_after', 'simplified'"),
        ("gru", "update", "'new', 'old'"),
        ("gru", "gate_order", "'rzn', 'zrn'"),
        ("lstm", "peephole_output", "'current', 'previous'"),
        ("lstm", "output_activation", "'tanh', 'identity'"),
    ],
)
def test_unknown_options(rng, cell, option, choices):
    variant = {"rnn": "rnn-tanh", "gru": "gru-reset_before-new", "lstm": "lstm-plain-current-tanh"}[cell]
    _, arguments, _ = problem(rng, variant)
    for wrong in ("sigmoid", "TANH", "", None, 0):
        with pytest.raises(ValueError, match=literally(f"{option} must be one of {choices}; got {wrong!r}")):
            forward(cell, arguments, **{option: wrong})


def test_unknown_gate_orders_of_an_lstm(rng):
    cell, arguments, _ = problem(rng, "lstm-plain-current-tanh")
    for wrong in ("ifg", "iifg", "ifgoo", "IFGO", "", None, 0):
        with pytest.raises(
            ValueError, match=literally(f"gate_order must be the letters i f g o in some order; got {wrong!r}")
        ):
            forward(cell, arguments, gate_order=wrong)


@pytest.mark.parametrize("form", ["reset_before", "simplified"])
def test_bhn_belongs_to_reset_after(rng, form):
    cell, arguments, _ = problem(rng, f"gru-{form}-new")
    with pytest.raises(ValueError, match=literally(f"bhn belongs to form='reset_after'; got form='{form}'")):
        forward(cell, arguments, bhn=np.zeros(H))


@every_cell
def test_wrong_ids(rng, variant):
    cell, arguments, _ = problem(rng, variant, ids=True)
    for wrong in (-1, D, D + 1, np.int64(2) ** 62, np.uint64(2**63 + 1)):
        ids = np.array(arguments["x"], np.asarray(wrong).dtype)
        ids[T - 1, N - 1] = wrong
        message = literally(f"ids in x must lie in [0, D) = [0, {D}); got {wrong}")
        with pytest.raises(ValueError, match=message):
            forward(cell, arguments, x=ids)
    for shape in [(), (T,), (T, N, 1), (T, N, D)]:
        message = literally(f"x of integers holds ids and must be (T, N); got shape {shape}")
        with pytest.raises(ValueError, match=message):
            forward(cell, arguments, x=np.zeros(shape, int))
    message = literally(f"x must be (T, N, D), or (T, N) of integer ids; got shape {(T, N)}")
    with pytest.raises(ValueError, match=message):
        forward(cell, arguments, x=arguments["x"].astype("float64"))
    message = literally("x must be an array of float32 or float64; got dtype bool")
    with pytest.raises(TypeError, match=message):
        forward(cell, arguments, x=arguments["x"] > 1)


@every_cell
def test_wrong_lengths(rng, variant):
    cell, arguments, _ = problem(rng, variant)
    for wrong in (-1, T + 1, 2**40, -(2**63)):
        message = literally(f"lengths must lie in [0, T] = [0, {T}]; got {wrong}")
        with pytest.raises(ValueError, match=message):
            forward(cell, arguments, lengths=[T, wrong, 2])
    message = literally(f"lengths must lie in [0, T] = [0, {T}]; got {2**63 + 5}")
    with pytest.raises(ValueError, match=message):
        forward(cell, arguments, lengths=np.array([T, 2**63 + 5, 2], np.uint64))
    for wrong in ([3.0, 2.0, 1.0], [3, 2, np.nan], [3, np.inf, 1]):
        with pytest.raises(TypeError, match=literally("lengths must be integers; got dtype float64")):
            forward(cell, arguments, lengths=wrong)
    with pytest.raises(TypeError, match=literally("lengths must be integers; got dtype bool")):
        forward(cell, arguments, lengths=[True, False, True])
    for shape in [(), (N + 1,), (N - 1,), (1,), (N, 1), (1, N)]:
        with pytest.raises(ValueError, match=literally(f"lengths must be (N,) = {(N,)}; got {shape}")):
            forward(cell, arguments, lengths=np.ones(shape, int))


@every_cell
def test_wrong_resets(rng, variant):
    cell, arguments, _ = problem(rng, variant)
    for dtype in ("int64", "uint8", "float64", "object"):
        with pytest.raises(TypeError, match=literally(f"resets must be bool; got dtype {dtype}")):
            forward(cell, arguments, resets=np.zeros((T, N), dtype))
    for shape in [(), (N,), (T,), (N, T), (T, 1), (T, N, 1), (T + 1, N)]:
        with pytest.raises(ValueError, match=literally(f"resets must be (T, N) = {(T, N)}; got {shape}")):
            forward(cell, arguments, resets=np.zeros(shape, bool))


@pytest.mark.parametrize("dtype", ["int64", "int8", "bool", "object", "complex128", "longdouble", "U3"])
@every_cell
def test_wrong_dtypes_of_arrays(rng, variant, dtype):
    cell, arguments, cotangents = problem(rng, variant)
    if np.dtype(dtype) == np.float64:
        pytest.skip("longdouble is float64 on this platform")
    message = "{} must be an array of float32 or float64; got dtype " + str(np.zeros(1, dtype).dtype)
    for name in floats_of(arguments):
        if name == "x" and np.dtype(dtype).kind == "i":
            continue
        with pytest.raises(TypeError, match=literally(message.format(name))):
            forward(cell, arguments, **{name: np.zeros(arguments[name].shape, dtype)})
    _, _, cache = forward(cell, arguments)
    for name, d in cotangents.items():
        with pytest.raises(TypeError, match=literally(message.format(name))):
            backward(cell, cache, cotangents, **{name: np.zeros(d.shape, dtype)})


@pytest.mark.parametrize("ragged", [False, True])
@every_variant
def test_wrong_shapes_of_cotangents(rng, variant, ragged):
    cell, arguments, cotangents = problem(rng, variant, lengths=ragged)
    _, _, cache = forward(cell, arguments)
    for name, d in cotangents.items():
        letters = "(T, N, H)" if name == "dh" else "(N, H)"
        for wrong in misshapen(d.shape):
            message = literally(f"{name} must be {letters} = {d.shape}; got {wrong}")
            with pytest.raises(ValueError, match=message):
                backward(cell, cache, cotangents, **{name: np.zeros(wrong)})


def test_wrong_caches(rng):
    runs = {cell: problem(rng, variant) for variant in CELLS for cell in [VARIANTS[variant].cell.name]}
    caches = {cell: forward(cell, arguments)[2] for cell, (_, arguments, _) in runs.items()}
    for cell, (_, arguments, cotangents) in runs.items():
        _, _, inference = forward(cell, arguments, training=False)
        _, _, foreign = getattr(reference, f"{cell}_forward")(**arguments)
        others = [cache for other, cache in caches.items() if other != cell]
        for wrong in [inference, foreign, *others, "cache", arguments["x"]]:
            message = f"^cache must come from {cell}_forward with training=True; got "
            with pytest.raises(TypeError, match=message):
                backward(cell, wrong, cotangents)
    with pytest.raises(TypeError, match="got None$"):
        rc.lstm_backward(None, None)
    with pytest.raises(TypeError, match=r"got <gru cache: T=7 N=3 D=4 H=5 float64>$"):
        rc.rnn_backward(None, caches["gru"])


# ---- layouts -----------------------------------------------------------------------------------------------


def strided(a, axis):
    """Every second entry along an axis of an array twice as long; NaN (True, 99) in the gaps."""
    shape = list(a.shape)
    shape[axis] *= 2
    gap = {"f": np.nan, "b": True, "i": 99}[a.dtype.kind]
    buffer = np.full(shape, gap, a.dtype)
    view = buffer[tuple(slice(None, None, 2) if k == axis % a.ndim else slice(None) for k in range(a.ndim))]
    view[...] = a
    return view


def negative(a, axis):
    return np.flip(np.ascontiguousarray(np.flip(a, axis)), axis)


def misaligned(a):
    buffer = bytearray(a.nbytes + 1)
    view = np.frombuffer(buffer, a.dtype, offset=1).reshape(a.shape)
    view[...] = a
    assert not view.flags.aligned or a.itemsize == 1
    return view


def read_only(a):
    copy = a.copy()
    copy.flags.writeable = False
    return copy


LAYOUTS = {
    "read-only": read_only,
    "strided last axis": lambda a: strided(a, -1),
    "strided first axis": lambda a: strided(a, 0),
    "Fortran order": lambda a: np.copy(a, order="F"),
    "negative first axis": lambda a: negative(a, 0),
    "negative last axis": lambda a: negative(a, -1),
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder("S")),
    "misaligned": misaligned,
    "swapped axes": lambda a: np.swapaxes(np.ascontiguousarray(np.swapaxes(a, 0, -1)), 0, -1),
    "ndarray subclass": lambda a: np.ma.masked_array(a.copy()),
}


def whole_memory(a):
    """The bytes of the array that owns the memory that `a` looks at, gaps included."""
    while isinstance(a.base, np.ndarray):
        a = a.base
    return a.tobytes()


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@every_dtype
@every_cell
def test_layouts_give_the_same_and_are_not_written(rng, variant, dtype, layout, ragged):
    cell, arguments, cotangents = problem(rng, variant, dtype, lengths=ragged, resets=ragged)
    expected = run(rc, cell, arguments, cotangents)

    laid_out = {name: LAYOUTS[layout](a) if isinstance(a, np.ndarray) else a for name, a in arguments.items()}
    cotangents = {name: LAYOUTS[layout](d) for name, d in cotangents.items()}
    arrays = [a for a in (*laid_out.values(), *cotangents.values()) if isinstance(a, np.ndarray)]
    before = [whole_memory(a) for a in arrays]
    assert_identical(run(rc, cell, laid_out, cotangents), expected)
    assert [whole_memory(a) for a in arrays] == before


@pytest.mark.parametrize("threads", [1, 3])
@every_dtype
@every_path
@pytest.mark.parametrize(("T", "N", "D", "H"), [(1, 1, 7, 20), (5, 1, 33, 70), (40, 9, 70, 33), (3, 2, 130, 100)])
def test_weights_by_columns_give_the_same_bits(rng, variant, dtype, threads, T, N, D, H, restore_threads):
    """And their gradients lie as they do, new ones and those that are added to."""
    cell, arguments, cotangents = problem(rng, variant, dtype, T, N, D, H, lengths=T > 5)
    expected = run(rc, cell, arguments, cotangents)
    matrices = [name for name in ("Wx", "Wh") if name in arguments]
    by_columns = arguments | {name: np.asfortranarray(arguments[name]) for name in matrices}
    if threads > 1:
        _engine.set_cost_rule(flops=1, rows=2, products=1, units=16)
        rc.set_num_threads(threads)
    actual = run(rc, cell, by_columns, cotangents)
    assert_identical(actual, expected)
    assert all(actual[f"d{name}"].flags.f_contiguous for name in matrices)
    np.testing.assert_array_equal(forward(cell, by_columns, training=False)[0], expected["h"])
    sums = {f"d{name}": np.full_like(by_columns[name], 3) for name in (*matrices, "b")}
    together = {name: array.copy(order="K") for name, array in sums.items()}
    _, _, cache = forward(cell, by_columns)
    (gradients,) = calls.backward_side_by_side(cells.CELLS[cell], [{"cache": cache, **cotangents}], [together])
    np.testing.assert_array_equal(gradients.dx, expected["dx"])
    for name, array in together.items():
        assert_near([array], [sums[name] + expected[name]], dtype)


# ---- tokens that come packed -------------------------------------------------------------------------------


@both_directions
@every_dtype
@every_path
@pytest.mark.parametrize("checkpoint", [None, 3])
def test_packed_tokens_equal_a_ragged_batch(rng, variant, dtype, reverse, checkpoint):
    cell, arguments, cotangents = problem(rng, variant, dtype, T=9, N=5, reverse=reverse)
    arguments |= {"lengths": np.array([9, 7, 7, 2, 1]), "checkpoint": checkpoint}
    h, state, cache = forward(cell, arguments)
    gradients = backward(cell, cache, cotangents)._asdict()

    running = np.arange(9)[:, None] < arguments["lengths"]
    packed = functional.PackedTokens(arguments["x"][running], running.sum(axis=1))
    options = arguments | {"x": packed, "lengths": None}
    for training in (False, True):
        h_packed, state_packed, cache = forward(cell, options, training=training)
        np.testing.assert_array_equal(h_packed, h[running])
        for got, wanted in zip(final_states(cell, state_packed), final_states(cell, state), strict=True):
            np.testing.assert_array_equal(got, wanted)
    if checkpoint is None:
        np.testing.assert_array_equal(cache.h, h[running])
    actual = backward(cell, cache, cotangents, dh=cotangents["dh"][running])._asdict()
    assert_identical(actual, gradients | {"dx": gradients["dx"][running]})


def test_wrong_packed_tokens(rng):
    cell, arguments, cotangents = problem(rng, "gru-reset_before-new")
    tokens = rng.normal(size=(6, D))
    for rows, message in [
        ([2, 3, 1], "rows must fall, be at least 1 and add up to the number of tokens, 6; got [2 3 1]"),
        ([3, 2, 2], "rows must fall, be at least 1 and add up to the number of tokens, 6; got [3 2 2]"),
        ([3, 3, 0], "rows must fall, be at least 1 and add up to the number of tokens, 6; got [3 3 0]"),
        (
            [2**62] * 4,
            f"rows must fall, be at least 1 and add up to the number of tokens, 6; got {np.array([2**62] * 4)}",
        ),
    ]:
        with pytest.raises(ValueError, match=literally(message)):
            forward(cell, arguments, x=functional.PackedTokens(tokens, np.array(rows)))
    with pytest.raises(TypeError, match="rows"):
        forward(cell, arguments, x=functional.PackedTokens(tokens, np.array([3.0, 3.0])))
    packed = functional.PackedTokens(tokens, np.array([3, 2, 1]))
    with pytest.raises(ValueError, match="lengths and resets"):
        forward(cell, arguments, x=packed, lengths=[3, 2, 1])
    with pytest.raises(ValueError, match=literally(f"Wx must be (D, 3H) with D = {D} as in x; got {(D + 1, 3 * H)}")):
        forward(cell, arguments, x=packed, Wx=np.zeros((D + 1, 3 * H)))
    _, _, cache = forward(cell, arguments, x=packed)
    with pytest.raises(ValueError, match=literally(f"dh must be (L, H) = {(6, H)}; got {(T, N, H)}")):
        backward(cell, cache, cotangents)


@pytest.mark.parametrize("layout", LAYOUTS)
@every_cell
def test_layouts_of_ids(rng, variant, layout):
    cell, arguments, cotangents = problem(rng, variant, ids=True, lengths=True)
    expected = run(rc, cell, arguments, cotangents)
    ids = LAYOUTS[layout](arguments["x"])
    before = whole_memory(ids)
    assert_identical(run(rc, cell, arguments | {"x": ids}, cotangents), expected)
    assert whole_memory(ids) == before


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", ">i4", "uint64"])
@every_cell
def test_integer_dtypes_of_ids_and_lengths(rng, variant, dtype):
    cell, arguments, cotangents = problem(rng, variant, ids=True, lengths=True)
    expected = run(rc, cell, arguments, cotangents)
    small = {name: arguments[name].astype(dtype) for name in ("x", "lengths")}
    assert_identical(run(rc, cell, arguments | small, cotangents), expected)


@every_dtype
@every_cell
def test_memory_mapped_arrays(rng, variant, dtype, tmp_path):
    cell, arguments, cotangents = problem(rng, variant, dtype, lengths=True)
    expected = run(rc, cell, arguments, cotangents)

    def mapped(name, a):
        if not isinstance(a, np.ndarray):
            return a
        a.tofile(tmp_path / name)
        return np.memmap(tmp_path / name, a.dtype, "r", shape=a.shape)

    arguments = {name: mapped(name, a) for name, a in arguments.items()}
    cotangents = {name: mapped(name, d) for name, d in cotangents.items()}
    actual = run(rc, cell, arguments, cotangents)
    assert_identical(actual, expected)
    assert not any(isinstance(a, np.memmap) for a in actual.values())


@pytest.mark.parametrize("ids", [False, True])
@every_cell
def test_lists(rng, variant, ids):
    cell, arguments, cotangents = problem(rng, variant, ids=ids, lengths=True, resets=True)
    expected = run(rc, cell, arguments, cotangents)
    lists = {name: a.tolist() if isinstance(a, np.ndarray) else a for name, a in arguments.items()}
    cotangents = {name: d.tolist() for name, d in cotangents.items()}
    assert_identical(run(rc, cell, lists, cotangents), expected)


@pytest.mark.parametrize("ragged", [False, True])
@every_dtype
@every_cell
def test_arrays_with_strides_of_zero(rng, variant, dtype, ragged):
    """np.broadcast_to along the first or the last axis, as the gradient of a sum over time is."""
    cell, arguments, cotangents = problem(rng, variant, dtype, lengths=ragged)
    for axis in (0, -1):
        zero_strided = {
            name: np.broadcast_to(a.take([0], axis), a.shape)
            for name, a in (arguments | cotangents).items()
            if isinstance(a, np.ndarray) and a.dtype.kind == "f"
        }
        copies = {name: a.copy() for name, a in zero_strided.items()}

        def pick(a, given):
            return {name: a.get(name, value) for name, value in given.items()}

        expected = run(rc, cell, pick(copies, arguments), pick(copies, cotangents))
        actual = run(rc, cell, pick(zero_strided, arguments), pick(zero_strided, cotangents))
        assert_identical(actual, expected)
        for name, a in zero_strided.items():
            np.testing.assert_array_equal(a, copies[name])


# ---- dtypes ------------------------------------------------------------------------------------------------


@every_variant
def test_float16_is_computed_in_float32(rng, variant):
    cell, arguments, cotangents = problem(rng, variant, "float16", lengths=True)
    actual = run(rc, cell, arguments, cotangents)
    expected = run(rc, cell, cast(arguments, "float32"), cast(cotangents, "float32"))
    assert_identical(actual, expected)
    assert actual["h"].dtype == np.float32


@every_variant
def test_mixed_dtypes_promote(rng, variant):
    """One float64 argument among float32 or float16 ones, whichever it is, and all is float64."""
    cell, arguments, cotangents = problem(rng, variant, "float32")
    for name in floats_of(arguments):
        for others in ("float32", "float16"):
            mixed = cast(arguments, others)
            mixed[name] = arguments[name].astype("float64")
            expected = run(rc, cell, cast(mixed, "float64"), cast(cotangents, "float64"))
            actual = run(rc, cell, mixed, cotangents)
            assert_identical(actual, expected)
            assert actual["h"].dtype == np.float64
        mixed = cast(arguments, "float16")
        mixed[name] = arguments[name].astype("float32")
        expected = run(rc, cell, cast(mixed, "float32"), cotangents)
        assert_identical(run(rc, cell, mixed, cotangents), expected)


@every_dtype
@every_cell
def test_ids_do_not_promote(rng, variant, dtype):
    cell, arguments, cotangents = problem(rng, variant, dtype, ids=True)
    for integer in ("uint8", "int64"):
        results = run(rc, cell, arguments | {"x": arguments["x"].astype(integer)}, cotangents)
        assert {a.dtype for a in results.values() if a is not None} == {np.dtype(dtype)}


@every_dtype
@every_cell
def test_cotangents_take_the_dtype_of_the_forward_pass(rng, variant, dtype):
    for ragged in (False, True):
        cell, arguments, _ = problem(rng, variant, dtype, lengths=ragged)
        for other in ("float16", "float32", "float64"):
            cotangents = make_cotangents(rng, cell, T, N, H, other)
            actual = run(rc, cell, arguments, cotangents)
            assert_identical(actual, run(rc, cell, arguments, cast(cotangents, dtype)))
            assert {a.dtype for a in actual.values() if a is not None} == {np.dtype(dtype)}


# ---- states ------------------------------------------------------------------------------------------------


@every_dtype
@every_variant
def test_what_is_not_given_is_zero(rng, variant, dtype):
    cell, arguments, cotangents = problem(rng, variant, dtype, lengths=True)
    states = [name for name in ("h0", "c0", "bhn") if name in arguments]
    zeros = {name: np.zeros_like(arguments[name]) for name in states}
    for absent in [[name] for name in states] + [states]:
        without = {name: a for name, a in arguments.items() if name not in absent}
        expected = run(rc, cell, arguments | {name: zeros[name] for name in absent}, cotangents)
        assert_identical(run(rc, cell, without, cotangents), expected)
        assert_identical(run(rc, cell, without | dict.fromkeys(absent), cotangents), expected)
    for name in cotangents:
        expected = run(rc, cell, arguments, cotangents | {name: np.zeros_like(cotangents[name])})
        assert_identical(run(rc, cell, arguments, cotangents | {name: None}), expected)


def in_chunks(cell, arguments, cotangents, cuts, reverse):
    """`run`, but piece by piece: the state goes along, its gradient comes back."""
    spans = [slice(*pair) for pair in zip([0, *cuts], [*cuts, T], strict=True)]
    states = {name: arguments[name] for name in ("h0", "c0") if name in arguments}
    h, gates, dx, caches = {}, {}, {}, {}
    for span in spans[::-1] if reverse else spans:
        part = {"x": arguments["x"][span]} | states
        if "lengths" in arguments:
            part["lengths"] = np.clip(arguments["lengths"] - span.start, 0, span.stop - span.start)
        if "resets" in arguments:
            part["resets"] = arguments["resets"][span]
        h[span.start, span.stop], state, cache = forward(cell, arguments | part)
        caches[span.start, span.stop], gates[span.start, span.stop] = cache, cache.gates
        states = dict(zip(states, final_states(cell, state), strict=True))

    gradients = {}
    d_n = {name: d for name, d in cotangents.items() if name != "dh"}
    for span, cache in reversed(caches.items()):
        g = backward(cell, cache, {"dh": cotangents["dh"][slice(*span)], **d_n})._asdict()
        dx[span] = g.pop("dx")
        d_n = {f"d{s}_n": g.pop(f"d{s}0") for s in ("h", "c") if f"d{s}0" in g}
        for name, value in g.items():
            gradients[name] = value if value is None or name not in gradients else gradients[name] + value

    def in_time(pieces):
        pieces = [pieces[span] for span in sorted(pieces)]
        return None if pieces[0] is None else np.concatenate(pieces)

    result = {name.replace("_n", "0"): d for name, d in d_n.items()} | gradients
    result |= {"h": in_time(h), "gates": in_time(gates), "dx": in_time(dx)}
    return result | {f"{name[0]}_n": state for name, state in states.items()}


@pytest.mark.parametrize("edges", ["plain", "lengths", "lengths resets", "ids lengths"])
@both_directions
@every_variant
def test_chunks_that_carry_the_state_equal_one_call(rng, variant, reverse, edges):
    options = dict.fromkeys(edges.replace("plain", "").split(), True)
    cell, arguments, cotangents = problem(rng, variant, reverse=reverse, **options)
    expected = run(rc, cell, arguments, cotangents)
    for cuts in ([1], [3, 4], [1, 2, 3, 4, 5, 6], [0, 5, 5]):
        actual = in_chunks(cell, arguments, cotangents, cuts, reverse)
        assert_same(actual, expected, TOLERANCE["float64"], f"{cuts=}")


@both_directions
@every_path
def test_resets_equal_cutting_the_sequence(rng, variant, reverse):
    """Every row alone, in pieces between its resets that start from zero."""
    cell, arguments, cotangents = problem(rng, variant, resets=True, reverse=reverse)
    resets = arguments.pop("resets")
    resets[:, 0] = [False, False, True, True, False, False, False]
    resets[:, 1] = [True, False, False, False, False, False, True]
    resets[:, 2] = False
    actual = run(rc, cell, arguments | {"resets": resets}, cotangents)

    expected = {name: np.zeros_like(a) for name, a in actual.items() if a is not None}
    states = cells.CELLS[cell].states
    for n in range(N):
        # A reset before t starts a piece at t, or in reverse ends one behind t.
        cuts = sorted({t + reverse for t in np.flatnonzero(resets[:, n])} | {0, T})
        spans = [slice(*pair) for pair in zip(cuts[:-1], cuts[1:], strict=True)]
        for span in spans:
            first_step = span.stop - 1 if reverse else span.start
            is_first = first_step == (T - 1 if reverse else 0)
            is_last = span.start == 0 if reverse else span.stop == T
            from_start = is_first and not resets[first_step, n]
            part = {"x": arguments["x"][span, n : n + 1]}
            part |= {s + "0": arguments[s + "0"][n : n + 1] if from_start else None for s in states}
            d = {f"d{s}_n": cotangents[f"d{s}_n"][n : n + 1] if is_last else None for s in states}
            got = run(rc, cell, arguments | part, {"dh": cotangents["dh"][span, n : n + 1], **d})
            for name in ("h", "gates", "dx"):
                expected[name][span, n] = got[name][:, 0]
            for name in set(expected) - {"h", "gates", "dx", "h_n", "c_n", "dh0", "dc0"}:
                expected[name] += got[name]
            for s in states:
                if is_last:
                    expected[s + "_n"][n] = got[s + "_n"][0]
                if from_start:
                    expected[f"d{s}0"][n] = got[f"d{s}0"][0]
    actual = {name: a for name, a in actual.items() if a is not None}
    assert_same(actual, expected, TOLERANCE["float64"])


@every_path
def test_resets_nowhere_and_everywhere(rng, variant):
    cell, arguments, cotangents = problem(rng, variant)
    nowhere = np.zeros((T, N), bool)
    expected = run(rc, cell, arguments, cotangents)
    assert_same(run(rc, cell, arguments | {"resets": nowhere}, cotangents), expected, TOLERANCE["float64"])

    actual = run(rc, cell, arguments | {"resets": ~nowhere}, cotangents)
    single = arguments | {"x": arguments["x"].reshape(1, T * N, D), "h0": None}
    if cell == "lstm":
        single["c0"] = None
    h, _, _ = forward(cell, single)
    np.testing.assert_allclose(actual["h"], h.reshape(T, N, H), rtol=0, atol=TOLERANCE["float64"])
    np.testing.assert_array_equal(actual["dh0"], np.zeros((N, H)))
    if "Wh" in arguments:
        np.testing.assert_array_equal(actual["dWh"], np.zeros_like(arguments["Wh"]))


@both_directions
@every_variant
def test_length_zero_hands_the_state_through(rng, variant, reverse):
    cell, arguments, cotangents = problem(rng, variant, reverse=reverse)
    for lengths in ([0, 4, 7], [4, 0, 0], [0, 0, 0]):
        empty = np.flatnonzero(np.array(lengths) == 0)
        results = run(rc, cell, arguments | {"lengths": lengths}, cotangents)
        for s in ("h", "c") if cell == "lstm" else ("h",):
            np.testing.assert_array_equal(results[f"{s}_n"][empty], arguments[f"{s}0"][empty])
            np.testing.assert_array_equal(results[f"d{s}0"][empty], cotangents[f"d{s}_n"][empty])
        for name in ("h", "gates", "dx"):
            np.testing.assert_array_equal(results[name][:, empty], 0, err_msg=name)
    for name in ("dWx", "dWh", "db", "dbhn", "dpeephole"):  # of the last: no row runs at all
        if results.get(name) is not None:
            np.testing.assert_array_equal(results[name], 0, err_msg=name)


@both_directions
@every_variant
def test_lengths_equal_shorter_sequences(rng, variant, reverse):
    """Every row alone and cut to its length."""
    cell, arguments, cotangents = problem(rng, variant, reverse=reverse)
    lengths = np.array([4, 7, 1])
    results = run(rc, cell, arguments | {"lengths": lengths}, cotangents)
    sums = {}
    for n, length in enumerate(lengths):
        row = {name: arguments[name][n : n + 1] for name in ("h0", "c0") if name in arguments}
        row["x"] = arguments["x"][:length, n : n + 1]
        d = {name: d[:length, n : n + 1] if name == "dh" else d[n : n + 1] for name, d in cotangents.items()}
        for name, wanted in run(rc, cell, arguments | row, d).items():
            if wanted is None:
                continue
            if name in ("h", "gates", "dx"):
                got = results[name][:length, n : n + 1]
                np.testing.assert_array_equal(results[name][length:, n], 0, err_msg=f"{name} in the padding")
            elif name in ("h_n", "c_n", "dh0", "dc0"):
                got = results[name][n : n + 1]
            else:
                sums[name] = sums.get(name, 0) + wanted
                continue
            assert_same({name: got}, {name: wanted}, TOLERANCE["float64"], f"{n=}")
    assert_same({name: results[name] for name in sums}, sums, TOLERANCE["float64"])


# ---- the batch ---------------------------------------------------------------------------------------------

ROW_AXIS = {"x": 1, "resets": 1, "h": 1, "gates": 1, "dh": 1, "dx": 1}
ROW_AXIS |= dict.fromkeys(["h0", "c0", "lengths", "h_n", "c_n", "dh_n", "dc_n", "dh0", "dc0"], 0)


def take_rows(arrays, rows):
    return {
        name: np.take(a, rows, ROW_AXIS[name]) if name in ROW_AXIS and a is not None else a
        for name, a in arrays.items()
    }


@pytest.mark.parametrize("edges", ["plain", "lengths", "lengths resets reverse", "ids lengths"])
@every_dtype
@every_variant
def test_permuting_the_batch_permutes_the_results(rng, variant, dtype, edges):
    options = dict.fromkeys(edges.replace("plain", "").split(), True)
    cell, arguments, cotangents = problem(rng, variant, dtype, N=6, **options)
    order = np.array([3, 0, 5, 1, 4, 2])
    expected = take_rows(run(rc, cell, arguments, cotangents), order)
    actual = run(rc, cell, take_rows(arguments, order), take_rows(cotangents, order))
    assert_same(actual, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf, 1e30])
@both_directions
@every_dtype
@every_path
def test_what_stands_in_the_padding_changes_nothing(rng, variant, dtype, reverse, garbage):
    """In x, in the gradient of the output and in resets: not a bit."""
    cell, arguments, cotangents = problem(rng, variant, dtype, lengths=True, resets=True, reverse=reverse)
    expected = run(rc, cell, arguments, cotangents)
    padding = np.arange(T)[:, None] >= arguments["lengths"]
    assert padding.any()
    arguments["x"][padding] = garbage
    cotangents["dh"][padding] = garbage
    arguments["resets"][padding] ^= True
    assert_identical(run(rc, cell, arguments, cotangents), expected)


@every_path
def test_ids_in_the_padding_may_be_anything(rng, variant):
    cell, arguments, cotangents = problem(rng, variant, lengths=True, ids=True)
    expected = run(rc, cell, arguments, cotangents)
    padding = np.arange(T)[:, None] >= arguments["lengths"]
    for garbage in (-1, D, 2**62):
        arguments["x"][padding] = garbage
        assert_identical(run(rc, cell, arguments, cotangents), expected)


@pytest.mark.parametrize("edges", ["plain", "lengths", "reverse"])
@every_dtype
@every_variant
def test_nan_stays_in_its_row(rng, variant, dtype, edges):
    cell, arguments, cotangents = problem(rng, variant, dtype, N=5, reverse=edges == "reverse")
    if edges == "lengths":
        arguments["lengths"] = np.array([4, 6, 3, 7, 0])
    expected = run(rc, cell, arguments, cotangents)
    row, others = 1, [0, 2, 3, 4]
    per_row = [name for name in expected if name in ROW_AXIS and expected[name] is not None]
    for name in ("x", "h0", "c0", "dh"):
        if name not in arguments and name not in cotangents:
            continue
        given = arguments | cotangents
        given[name] = given[name].copy()
        given[name][(3, row) if ROW_AXIS[name] else row] = np.nan
        actual = run(rc, cell, {k: given[k] for k in arguments}, {k: given[k] for k in cotangents})
        assert_same(
            take_rows({k: actual[k] for k in per_row}, others),
            take_rows({k: expected[k] for k in per_row}, others),
            TOLERANCE[dtype],
            f"NaN in {name}",
        )
        if name == "dh":
            assert np.isnan(actual["dx"][3, row]).all() or variant == "rnn-relu"
            continue
        # It is seen from the step on where it came in, and not before it.
        length = arguments["lengths"][row] if "lengths" in arguments else T
        steps = np.arange(T)
        if name == "x":
            touched = steps <= 3 if edges == "reverse" else (steps >= 3) & (steps < length)
        else:
            touched = steps < length
        assert np.isnan(actual["h"][touched, row]).all()
        assert not np.isnan(actual["h"][~touched, row]).any()
        assert np.isnan(actual["h_n"][row]).all()


@every_path
def test_a_reset_ends_nan(rng, variant):
    cell, arguments, cotangents = problem(rng, variant)
    arguments["resets"] = np.zeros((T, N), bool)
    arguments["resets"][4] = True
    expected = run(rc, cell, arguments, cotangents)
    arguments["x"][2, 1] = np.nan
    actual = run(rc, cell, arguments, cotangents)
    for name in ("h", "gates", "dx"):
        np.testing.assert_allclose(actual[name][4:], expected[name][4:], rtol=0, atol=TOLERANCE["float64"])
    np.testing.assert_allclose(actual["h_n"], expected["h_n"], rtol=0, atol=TOLERANCE["float64"])
    assert np.isnan(actual["h"][2:4, 1]).all()


# ---- the same bits -----------------------------------------------------------------------------------------


@both_directions
@every_dtype
@every_path
@pytest.mark.parametrize(("N", "D", "H"), [(3, 4, 5), (9, 33, 70), (33, 20, 130)])
def test_a_row_does_not_depend_on_its_company(rng, variant, dtype, reverse, N, D, H):
    """Each row alone, and without its padding: the same states to the last bit."""
    cell, arguments, _ = problem(rng, variant, dtype, N=N, D=D, H=H, lengths=True, reverse=reverse)
    h, state, _ = forward(cell, arguments)
    for n, length in enumerate(arguments["lengths"]):
        row = take_rows(arguments, [n]) | {"lengths": None}
        row["x"] = row["x"][:length]
        h_row, state_row, _ = forward(cell, row)
        np.testing.assert_array_equal(h[:length, [n]], h_row, err_msg=f"{n=}")
        for got, wanted in zip(final_states(cell, state), final_states(cell, state_row), strict=True):
            np.testing.assert_array_equal(got[[n]], wanted, err_msg=f"{n=}")


@both_directions
@every_dtype
@every_path
@pytest.mark.parametrize(("N", "D", "H"), [(3, 4, 5), (9, 33, 70), (33, 20, 130)])
def test_chunks_give_the_same_bits(rng, variant, dtype, reverse, N, D, H):
    cell, arguments, cotangents = problem(rng, variant, dtype, N=N, D=D, H=H, lengths=True, reverse=reverse)
    expected = run(rc, cell, arguments, cotangents)
    for cuts in ([3, 4], [1, 2, 3, 4, 5, 6]):
        actual = in_chunks(cell, arguments, cotangents, cuts, reverse)
        for name in ("h", *(f"{state}_n" for state in cells.CELLS[cell].states)):
            if expected[name] is not None:
                np.testing.assert_array_equal(actual[name], expected[name], err_msg=f"{name} {cuts=}")


@every_dtype
@every_variant
def test_every_call_gives_the_same_bits(rng, variant, dtype):
    cell, arguments, cotangents = problem(rng, variant, dtype, lengths=True)
    expected = run(rc, cell, arguments, cotangents)
    assert_identical(run(rc, cell, arguments, cotangents), expected)
    _, _, cache = forward(cell, arguments)
    first = backward(cell, cache, cotangents)._asdict()
    backward(cell, cache, {name: 3 * d for name, d in cotangents.items()})
    assert_identical(backward(cell, cache, cotangents)._asdict(), first)
    assert_identical(first, {name: expected[name] for name in first})


@pytest.mark.parametrize("lengths", [False, True])
@every_dtype
@every_variant
def test_inference_keeps_nothing_and_gives_the_same(rng, variant, dtype, lengths):
    for reverse in (False, True):
        cell, arguments, _ = problem(rng, variant, dtype, lengths=lengths, resets=True, reverse=reverse)
        h, state, cache = forward(cell, arguments)
        h_inference, state_inference, nothing = forward(cell, arguments, training=False)
        assert cache is not None
        assert nothing is None
        tolerance = TOLERANCE[dtype] * max(1, np.abs(h).max())
        np.testing.assert_allclose(h_inference, h, rtol=0, atol=tolerance)
        for got, wanted in zip(final_states(cell, state_inference), final_states(cell, state), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance)


# ---- sizes of zero -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("edges", ["plain", "lengths", "lengths resets reverse"])
@pytest.mark.parametrize("zero", ["T", "N", "D", "H", "TN", "TD", "NH", "DH", "TNDH"])
@every_path
def test_sizes_of_zero(rng, variant, zero, edges):
    sizes = {"T": 4, "N": 3, "D": 2, "H": 5} | dict.fromkeys(zero, 0)
    options = dict.fromkeys(edges.replace("plain", "").split(), True)
    with np.errstate(divide="ignore"):  # the scale of no weights
        cell, arguments, cotangents = problem(rng, variant, **sizes, **options)
    expected = run(reference, cell, arguments, cotangents)
    actual = run(rc, cell, arguments, cotangents)
    assert {k: np.shape(a) for k, a in actual.items()} == {k: np.shape(a) for k, a in expected.items()}
    assert_same(actual, expected, TOLERANCE["float64"])


@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (0, 0)])
@every_path
def test_no_ids(rng, variant, shape):
    sizes = {"T": shape[0], "N": shape[1]}
    cell, arguments, cotangents = problem(rng, variant, ids=True, **sizes)
    expected = run(reference, cell, arguments, cotangents)
    actual = run(rc, cell, arguments, cotangents)
    assert actual["dx"] is None
    assert_same(actual, expected, TOLERANCE["float64"])
    for name in set(actual) & {"dWx", "dWh", "db"}:
        np.testing.assert_array_equal(actual[name], 0)


# ---- the same computation, asked for in another way --------------------------------------------------------


@pytest.mark.parametrize("edges", ["plain", "lengths", "resets", "lengths resets"])
@every_variant
def test_reverse_equals_flipping(rng, variant, edges):
    options = dict.fromkeys(edges.replace("plain", "").split(), True)
    cell, arguments, cotangents = problem(rng, variant, **options)
    lengths = arguments.get("lengths", np.full(N, T))
    t = np.arange(T)[:, None]
    time = np.where(t < lengths, lengths - 1 - t, t)

    def flip(a):
        return a[time, np.arange(N)]

    flipped = arguments | {name: flip(arguments[name]) for name in ("x", "resets") if name in arguments}
    wanted = run(rc, cell, flipped, cotangents | {"dh": flip(cotangents["dh"])})
    wanted |= {name: flip(wanted[name]) for name in ("h", "gates", "dx")}
    actual = run(rc, cell, arguments | {"reverse": True}, cotangents)
    assert_same(actual, wanted, TOLERANCE["float64"])


@pytest.mark.parametrize("edges", ["plain", "lengths", "lengths resets reverse"])
@every_dtype
@every_variant
def test_ids_equal_one_hot_rows(rng, variant, dtype, edges):
    options = dict.fromkeys(edges.replace("plain", "").split(), True)
    cell, arguments, cotangents = problem(rng, variant, dtype, T=9, D=3, ids=True, **options)
    actual = run(rc, cell, arguments, cotangents)
    one_hot = np.eye(3, dtype=dtype)[arguments["x"]]
    expected = run(rc, cell, arguments | {"x": one_hot}, cotangents)
    assert actual["dx"] is None
    assert_same(actual, expected | {"dx": None}, TOLERANCE[dtype])


# ---- who owns what -----------------------------------------------------------------------------------------


@every_dtype
@every_cell
def test_weights_are_read_live(rng, variant, dtype):
    cell, arguments, cotangents = problem(rng, variant, dtype)
    before = run(rc, cell, arguments, cotangents)
    for name in set(floats_of(arguments)) - {"x"}:
        arguments[name][...] = rng.normal(size=arguments[name].shape)
        copies = {k: a.copy() if isinstance(a, np.ndarray) else a for k, a in arguments.items()}
        actual = run(rc, cell, arguments, cotangents)
        assert_identical(actual, run(rc, cell, copies, cotangents))
        assert np.abs(actual["h"] - before["h"]).max() > 1e-3, name
        before = actual


@pytest.mark.parametrize("edges", ["plain", "lengths", "resets", "reverse"])
@every_path
def test_results_are_fresh(rng, variant, edges):
    """Whatever is written into results changes neither inputs nor any later result."""
    options = dict.fromkeys(edges.replace("plain", "").split(), True)
    cell, arguments, cotangents = problem(rng, variant, **options)
    inputs = [a for a in (*arguments.values(), *cotangents.values()) if isinstance(a, np.ndarray)]
    before = [a.copy() for a in inputs]
    h, state, cache = forward(cell, arguments)
    expected = backward(cell, cache, cotangents)._asdict()
    kept = {"h": cache.h.copy(), "gates": cache.gates.copy()}
    results = [h, *final_states(cell, state), *(g for g in expected.values() if g is not None)]
    copies = {name: None if g is None else g.copy() for name, g in expected.items()}

    for k, a in enumerate(results):
        assert type(a) is np.ndarray
        assert a.flags.writeable
        assert a.flags.c_contiguous
        for other in [*results[:k], *inputs, cache.h, cache.gates]:
            assert not np.shares_memory(a, other)
        a.fill(np.nan)
    assert_identical(backward(cell, cache, cotangents)._asdict(), copies)
    assert_identical({"h": cache.h, "gates": cache.gates}, kept)
    for a, b in zip(inputs, before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("lengths", [False, True])
@every_path
def test_a_buffer_of_states_may_be_used_again_before_backward(rng, variant, lengths):
    """state[...] = h_n, as one does between chunks: the cache has its own."""
    cell, arguments, cotangents = problem(rng, variant, lengths=lengths)
    expected = run(rc, cell, arguments, cotangents)
    _, state, cache = forward(cell, arguments)
    for name, s in zip(("h0", "c0"), final_states(cell, state), strict=False):
        arguments[name][...] = s
    actual = backward(cell, cache, cotangents)._asdict()
    assert_identical(actual, {name: expected[name] for name in actual})


def test_ids_that_are_overwritten_before_backward_do_not_crash(tmp_path):
    """Native code indexes by them without another check."""
    code = """
import numpy as np
import rnncore as rc

def quietly(f, *arguments):
    try:
        return f(*arguments)
    except (IndexError, ValueError):
        return None

ids = np.arange(6).reshape(3, 2)
h, h_n, cache = rc.rnn_forward(ids, np.ones((6, 5)), np.ones((5, 5)), np.ones(5))
embedding = rc.Embedding(6, 5)
y, embedding_cache = embedding.forward(ids)
ids[...] = 10**12
quietly(rc.rnn_backward, h, cache)
quietly(embedding.backward, y, embedding_cache)
print("alive")
"""
    result = in_new_python(tmp_path, code)
    assert result.stdout == "alive\n", (result.returncode, result.stderr)


@every_path
def test_states_are_fresh_where_nothing_runs(rng, variant):
    for sizes, lengths in (({"T": 0}, None), ({}, np.zeros(N, int))):
        cell, arguments, cotangents = problem(rng, variant, **sizes)
        _, state, cache = forward(cell, arguments, lengths=lengths)
        gradients = backward(cell, cache, cotangents)
        for name, s in zip(("h", "c"), final_states(cell, state), strict=False):
            assert not np.shares_memory(s, arguments[f"{name}0"])
            d = getattr(gradients, f"d{name}0")
            assert not np.shares_memory(d, cotangents[f"d{name}_n"])
            np.testing.assert_array_equal(s, arguments[f"{name}0"])
            np.testing.assert_array_equal(d, cotangents[f"d{name}_n"])


@pytest.mark.parametrize("edges", ["plain", "lengths", "lengths resets reverse"])
@every_dtype
@every_variant
def test_cache_shows_states_and_gates(rng, variant, dtype, edges):
    options = dict.fromkeys(edges.replace("plain", "").split(), True)
    cell, arguments, _ = problem(rng, variant, dtype, **options)
    h, _, cache = forward(cell, arguments)
    exact = cast(arguments, "float64")
    _, _, wanted = getattr(reference, f"{cell}_forward")(**exact)
    names = ["h", "gates", *(["c"] if cell == "lstm" else [])]
    shown = {name: getattr(cache, name) for name in names}
    assert_same(shown, {name: getattr(wanted, name) for name in names}, TOLERANCE[dtype])
    np.testing.assert_array_equal(cache.h, h)
    padding = np.arange(T)[:, None] >= arguments.get("lengths", np.full(N, T))
    for name, a in shown.items():
        assert a.dtype == dtype
        np.testing.assert_array_equal(a[padding], 0)
        with pytest.raises(ValueError, match="read-only"):
            a[0, 0, 0] = 1
        with pytest.raises(AttributeError):
            setattr(cache, name, a)
    if cell != "lstm":
        assert cache.c is None
    assert repr(cache) == f"<{cell} cache: T={T} N={N} D={D} H={H} {dtype}>"


def test_cached_gates_satisfy_the_equations(rng):
    """Without the reference: c and h follow from the gates, block by block in the documented order."""
    close = {"rtol": 0, "atol": TOLERANCE["float64"]}
    cell, arguments, _ = problem(rng, "lstm-plain-current-tanh")
    h, _, cache = forward(cell, arguments)
    i, f, g, o = np.split(cache.gates, 4, axis=2)
    c_before = np.concatenate([arguments["c0"][None], cache.c[:-1]])
    np.testing.assert_allclose(cache.c, f * c_before + i * g, **close)
    np.testing.assert_allclose(h, o * np.tanh(cache.c), **close)

    for update in ("new", "old"):
        for form, G in (("reset_before", 3), ("simplified", 2)):
            cell, arguments, _ = problem(rng, f"gru-{form}-{update}")
            h, _, cache = forward(cell, arguments)
            *_, z, n = np.split(cache.gates, G, axis=2)
            h_before = np.concatenate([arguments["h0"][None], h[:-1]])
            share = z if update == "new" else 1 - z
            np.testing.assert_allclose(h, share * n + (1 - share) * h_before, **close)


# ---- numbers -----------------------------------------------------------------------------------------------


@every_dtype
@pytest.mark.parametrize("variant", [v for v in VARIANTS if not v.startswith(("rnn-relu", "rnn-identity", "mingru"))])
def test_big_preactivations_saturate(rng, variant, dtype):
    """Gates at 0, 1 and -1: exp does not overflow, and nothing turns into NaN."""
    cell, arguments, cotangents = problem(rng, variant, dtype)
    for size in (1e4, 1e30):
        for name in ("x", "Wx", "b", "Wh"):
            scaled = arguments | {name: (arguments[name] * size).astype(dtype)}
            exact = run(reference, cell, cast(scaled, "float64"), cast(cotangents, "float64"))
            actual = run(rc, cell, scaled, cotangents)
            assert all(np.isfinite(a).all() for a in actual.values() if a is not None), name
            # Only what does not itself grow with the scale compares to one tolerance.
            shown = ["h", "gates", *(f"{state}_n" for state in cells.CELLS[cell].states)]
            assert_same({k: actual[k] for k in shown}, {k: exact[k] for k in shown}, TOLERANCE[dtype], name)
            assert np.abs(actual["gates"]).max() <= 1


@every_dtype
def test_infinite_biases_switch_gates_off_and_on(rng, dtype):
    cell, arguments, cotangents = problem(rng, "lstm-plain-current-tanh", dtype)
    b = arguments["b"]
    b[:H], b[H : 2 * H], b[2 * H : 3 * H] = -np.inf, np.inf, np.inf  # i = 0, f = 1, g = 1
    results = run(rc, cell, arguments, cotangents)
    np.testing.assert_array_equal(results["c_n"], arguments["c0"])
    expected = run(reference, cell, cast(arguments, "float64"), cast(cotangents, "float64"))
    assert_same(results, expected, TOLERANCE[dtype])


@every_dtype
@every_path
def test_tiny_values(rng, variant, dtype):
    """Subnormal numbers may count as zero, but as nothing else."""
    cell, arguments, cotangents = problem(rng, variant, dtype)
    tiny = np.finfo(dtype).tiny / 8
    arguments |= {name: np.full_like(arguments[name], tiny) for name in floats_of(arguments)}
    zero = {name: np.zeros_like(arguments[name]) for name in floats_of(arguments)}
    expected = run(rc, cell, arguments | zero, cotangents)
    assert_same(run(rc, cell, arguments, cotangents), expected, TOLERANCE[dtype])
    # The floating-point mode of the caller is as it was.
    assert np.array([tiny], dtype)[0] * np.array([1], dtype)[0] != 0


# ---- threads, processes, instruction sets ------------------------------------------------------------------


def mixed_problems(rng):
    problems = []
    for variant in PATHS:
        for dtype in DTYPES:
            options = {"lengths": len(problems) % 2 == 0, "reverse": len(problems) % 3 == 0}
            problems.append(problem(rng, variant, dtype, T=12, N=9, D=20, H=40, **options))
    return problems


def test_python_threads_may_call_at_once(rng):
    problems = mixed_problems(rng)
    expected = [run(rc, *p) for p in problems]
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        actual = list(pool.map(lambda p: run(rc, *p), problems * 6))
    for k, results in enumerate(actual):
        assert_identical(results, expected[k % len(problems)])


def test_one_cache_serves_many_threads(rng):
    cell, arguments, cotangents = problem(rng, "lstm-peephole-current-tanh", T=12, N=9, D=20, H=40, lengths=True)
    _, _, cache = forward(cell, arguments)
    expected = backward(cell, cache, cotangents)._asdict()
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        for results in pool.map(lambda _: backward(cell, cache, cotangents)._asdict(), range(60)):
            assert_identical(results, expected)


def _send_results(connection, problems):
    connection.send([run(rc, *p) for p in problems])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
def test_a_forked_child_computes_the_same(rng):
    problems = mixed_problems(rng)
    expected = [run(rc, *p) for p in problems]
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_send_results, args=(sender, problems))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: forking while threads exist
        child.start()
    try:
        sender.close()
        assert receiver.poll(60), "the child hangs"
        results = receiver.recv()
    finally:
        child.kill()
        child.join()
    for got, wanted in zip(results, expected, strict=True):
        assert_identical(got, wanted)
    for p, wanted in zip(problems, expected, strict=True):  # and so does the parent, still
        assert_identical(run(rc, *p), wanted)


def in_new_python(folder, code, **environment):
    """Run code in another folder, so that no folder called rnncore is imported for the package under test."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("name", _engine.available_isas())
def test_environment_chooses_the_instruction_set(name, tmp_path):
    code = "import rnncore; print(rnncore._engine.current_isa())"
    result = in_new_python(tmp_path, code, RNNCORE_ISA=name)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == name


@pytest.mark.parametrize("name", ["avx1024", "", "AVX2", "plain "])
def test_environment_with_an_unknown_instruction_set_fails_loudly(name, tmp_path):
    result = in_new_python(tmp_path, "import rnncore", RNNCORE_ISA=name)
    assert result.returncode != 0
    message = f"environment variable RNNCORE_ISA: name must be one of {rc.available_isas()}; got {name!r}"
    assert message in result.stderr


def test_use_isa():
    names = rc.available_isas()
    assert names[0] == "plain"
    before = _engine.current_isa()
    try:
        for name in names:
            rc.use_isa(name)
            assert _engine.current_isa() == name
        for wrong in ("avx1024", "", None, 1):
            with pytest.raises(ValueError, match=literally(f"name must be one of {names}; got {wrong!r}")):
                rc.use_isa(wrong)
            assert _engine.current_isa() == names[-1]
    finally:
        rc.use_isa(before)


@pytest.mark.parametrize("isa", rc.available_isas())
@every_dtype
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 5), (16, 3, 32), (33, 2, 17), (7, 1, 70), (0, 2, 3), (4, 0, 2)])
def test_time_first(rng, shape, dtype, isa):
    before = _engine.current_isa()
    rc.use_isa(isa)
    try:
        array = rng.normal(size=shape).astype(dtype)
        for given in (array, array[:, ::-1], np.asfortranarray(array), array.astype(array.dtype.newbyteorder("S"))):
            found = native.time_first(given)
            np.testing.assert_array_equal(found, given.transpose(2, 1, 0))
            assert found.dtype == dtype
            assert found.flags.c_contiguous
            assert not np.may_share_memory(found, given)
    finally:
        rc.use_isa(before)
