"""What the functions refuse: shapes, options, ids, lengths, resets, dtypes, caches."""

import numpy as np
import pytest
from support.compare import literally
from support.functions import CELLS, D, H, N, T, backward, every_cell, every_variant, floats_of, forward, problem
from support.problems import VARIANTS

import rnncore as rc
from rnncore import reference


def wanted_shapes(variant):
    """-> name -> (letters, shape) of every array that is checked as a whole."""
    variant = VARIANTS[variant]
    weights = {a.name: (variant.letters(a), variant.shape(a, D=D, H=H)) for a in variant.weights if a.name != "Wx"}
    return weights | {f"{state}0": ("(N, H)", (N, H)) for state in variant.cell.states}


OWN_MODEL = "(see 'A NumPy model of your own' in the documentation)"


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
            hint = f": pass {name}.T {OWN_MODEL}" if name == "Wh" and wrong == shape[::-1] else ""
            message = literally(f"{name} must be {letters} = {shape}; got {wrong}{hint}")
            with pytest.raises(ValueError, match=message):
                forward(cell, arguments, **{name: np.zeros(wrong)})


def test_transposed_weights_are_told_in_letters_and_numbers(rng):
    x, Wx, Wh, b = (rng.normal(size=s) for s in [(2, 1, 3), (3, 512), (128, 512), (512,)])
    message = literally(f"Wh must be (H, 4H) = (128, 512); got (512, 128): pass Wh.T {OWN_MODEL}")
    with pytest.raises(ValueError, match=message):
        rc.lstm_forward(x, Wx, Wh.T, b)
    message = literally(f"Wx must be (D, 4H) with D = 3 as in x; got (512, 3): pass Wx.T {OWN_MODEL}")
    with pytest.raises(ValueError, match=message):
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
            ValueError,
            match=literally(
                f"gate_order must be the letters i f g o in some order, g for the candidate (c~); got {wrong!r}"
            ),
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
