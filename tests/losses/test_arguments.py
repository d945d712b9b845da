"""Dtypes, layouts and outputs of the losses, and what they refuse."""

import numpy as np
import pytest
from support.compare import TOLERANCE, assert_near, literally
from support.losses import FUNCTIONS, N, T, V, every_dtype, every_loss, every_reduction, make_targets, plain_softmax

import rnncore as rc
from rnncore.engine import native

# ---- dtypes and layouts --------------------------------------------------------------------------------------------


@every_loss
def test_float16_is_computed_in_float32(rng, kind):
    function, _ = FUNCTIONS[kind]
    logits = rng.normal(size=(T, N, V)).astype("float16")
    targets = make_targets(rng, kind, logits.shape)
    loss, dlogits = function(logits, targets)
    expected, wanted_gradient = function(logits.astype("float32"), targets)
    assert dlogits.dtype == np.float32
    np.testing.assert_array_equal(loss, expected)
    np.testing.assert_array_equal(dlogits, wanted_gradient)


@pytest.mark.parametrize("dtype", ["bool", "int64", "uint8", "float16", "float32", "float64"])
def test_dtypes_of_sigmoid_targets(rng, dtype):
    logits = rng.normal(size=(T, N, V)).astype("float32")
    targets = rng.integers(2, size=(T, N, V)).astype(dtype)
    loss, dlogits = rc.sigmoid_cross_entropy(logits, targets)
    expected, wanted_gradient = rc.sigmoid_cross_entropy(logits, targets.astype("float32"))
    np.testing.assert_array_equal(loss, expected)
    np.testing.assert_array_equal(dlogits, wanted_gradient)
    assert dlogits.dtype == np.float32


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", ">i8", "uint64"])
def test_dtypes_of_softmax_targets(rng, dtype):
    logits, targets = rng.normal(size=(T, N, V)), rng.integers(V, size=(T, N))
    loss, dlogits = rc.softmax_cross_entropy(logits, targets.astype(dtype))
    expected, wanted_gradient = rc.softmax_cross_entropy(logits, targets)
    np.testing.assert_array_equal(loss, expected)
    np.testing.assert_array_equal(dlogits, wanted_gradient)


LAYOUTS = {
    "Fortran order": np.asfortranarray,
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "negative strides": lambda a: np.flip(np.flip(a).copy()),
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder("S")),
    "misaligned": lambda a: np.frombuffer(b"!" + a.tobytes(), a.dtype, offset=1).reshape(a.shape),
    "batch first": lambda a: a.swapaxes(0, 1).copy().swapaxes(0, 1),
    "list": lambda a: a.tolist(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@every_loss
def test_layouts_give_the_same_and_are_not_written(rng, kind, layout):
    function, _ = FUNCTIONS[kind]
    logits = rng.normal(size=(T, N, V))
    targets = make_targets(rng, kind, logits.shape)
    expected, wanted_gradient = function(logits, targets, [3, 1, 4])
    laid_out = [LAYOUTS[layout](a) for a in (logits, targets)]
    for a in laid_out:
        if isinstance(a, np.ndarray):
            a.flags.writeable = False
    loss, dlogits = function(*laid_out, [3, 1, 4])
    np.testing.assert_array_equal(loss, expected)
    np.testing.assert_array_equal(dlogits, wanted_gradient)
    np.testing.assert_array_equal(laid_out[0], logits)
    assert dlogits.dtype == np.float64
    assert dlogits.dtype.isnative


@every_loss
def test_arguments_are_not_written(rng, kind):
    function, _ = FUNCTIONS[kind]
    logits = rng.normal(size=(T, N, V))
    targets = make_targets(rng, kind, logits.shape)
    copies = logits.copy(), targets.copy()
    _, dlogits = function(logits, targets, [3, 1, 4])
    np.testing.assert_array_equal(logits, copies[0])
    np.testing.assert_array_equal(targets, copies[1])
    assert not np.shares_memory(dlogits, logits)
    assert not np.shares_memory(dlogits, targets)


# ---- out -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [None, [2, 0, 4]], ids=str)
@every_reduction
@every_dtype
def test_out(rng, dtype, reduction, lengths):
    logits, targets = rng.normal(size=(T, N, V)).astype(dtype), rng.integers(V, size=(T, N))
    expected, wanted_gradient = rc.softmax_cross_entropy(logits, targets, lengths, reduction=reduction)
    before = logits.copy()
    out = np.full_like(logits, np.nan)
    loss, dlogits = rc.softmax_cross_entropy(logits, targets, lengths, reduction=reduction, out=out)
    assert dlogits is out
    np.testing.assert_array_equal(loss, expected)
    np.testing.assert_array_equal(out, wanted_gradient)
    np.testing.assert_array_equal(logits, before)

    loss, dlogits = rc.softmax_cross_entropy(logits, targets, lengths, reduction=reduction, out=logits)
    assert dlogits is logits
    np.testing.assert_array_equal(loss, expected)
    np.testing.assert_array_equal(logits, wanted_gradient)


def test_out_of_another_dtype(rng):
    logits, targets = rng.normal(size=(T, N, V)), rng.integers(V, size=(T, N))
    for given, wanted in (("float32", "float64"), ("float64", "float32"), ("float16", "float32")):
        out = np.empty((T, N, V), wanted)
        loss, dlogits = rc.softmax_cross_entropy(logits.astype(given), targets, out=out)
        expected, wanted_gradient = plain_softmax(logits.astype(given), targets)
        assert dlogits is out
        np.testing.assert_allclose(loss, expected.mean(), rtol=TOLERANCE[wanted])
        atol = TOLERANCE[wanted]
        np.testing.assert_allclose(dlogits, wanted_gradient / (T * N), rtol=0, atol=atol)


def test_wrong_out(rng):
    logits, targets = rng.normal(size=(T, N, V)), rng.integers(V, size=(T, N))
    for out in (
        np.empty((T, N, V + 1)),
        np.empty((T * N, V)),
        np.empty((1, T, N, V)),
        np.empty((T, N, V), "int64"),
        np.empty((T, N, V), "float16"),
        np.empty((T, N, V), ">f8"),
        np.empty((T, N, V), order="F"),
        np.empty((T, N, 2 * V))[..., ::2],
    ):
        before = logits.copy()
        message = f"out must be a C-contiguous float array of shape {(T, N, V)}; got {out.shape} {out.dtype}"
        with pytest.raises(ValueError, match=literally(message)):
            rc.softmax_cross_entropy(logits, targets, out=out)
        np.testing.assert_array_equal(logits, before)
    read_only = np.zeros((T, N, V))
    read_only.flags.writeable = False
    for given in (logits, read_only):
        with pytest.raises(ValueError, match="read-only"):
            rc.softmax_cross_entropy(given, targets, out=read_only)
    np.testing.assert_array_equal(read_only, 0)


def test_out_of_another_type(rng):
    logits, targets = rng.normal(size=(T, N, V)), rng.integers(V, size=(T, N))
    with pytest.raises((TypeError, ValueError), match="^out must be a C-contiguous float array of shape "):
        rc.softmax_cross_entropy(logits, targets, out=logits.tolist())


# ---- errors --------------------------------------------------------------------------------------------------------


@every_loss
def test_wrong_logits(rng, kind):
    function, _ = FUNCTIONS[kind]
    for dtype in ("int64", "bool", "complex128", "object", "longdouble"):
        if np.dtype(dtype) == np.float64:
            continue
        message = "logits must be an array of float32 or float64; got dtype "
        with pytest.raises(TypeError, match=f"^{message}"):
            function(np.zeros((T, N, V), dtype), make_targets(rng, kind, (T, N, V)))
    with pytest.raises(ValueError, match="^targets must have the shape of logits"):
        function(np.float64(3), np.int64(0))


def test_wrong_targets_of_softmax(rng):
    logits, targets = rng.normal(size=(T, N, V)), rng.integers(V, size=(T, N))
    for wrong in [(), (T,), (N, T), (T, 1), (T, N, 1), (T, N, V)]:
        message = f"targets must have the shape of logits without its last axis, {(T, N)}; got {wrong}"
        with pytest.raises(ValueError, match=literally(message)):
            rc.softmax_cross_entropy(logits, np.zeros(wrong, int))
    for dtype in ("float64", "bool", "object"):
        message = f"targets must be integer ids; got dtype {dtype}"
        with pytest.raises(TypeError, match=literally(message)):
            rc.softmax_cross_entropy(logits, targets.astype(dtype))
    for wrong in (-1, V, 2**62, -(2**63)):
        targets[2, 1] = wrong
        before = logits.copy()
        message = f"targets must lie in [0, V) = [0, {V}); got {wrong}"
        for lengths, out in ((None, None), ([0, 3, 0], None), (None, logits)):
            with pytest.raises(ValueError, match=literally(message)):
                rc.softmax_cross_entropy(logits, targets, lengths, out=out)
        np.testing.assert_array_equal(logits, before)
    message = f"targets must lie in [0, V) = [0, {V}); got {2**63 + 1}"
    with pytest.raises(ValueError, match=literally(message)):
        rc.softmax_cross_entropy(logits[0], np.array([0, 1, 2**63 + 1], np.uint64))
    with pytest.raises(ValueError, match=literally("targets must lie in [0, V) = [0, 0); got 0")):
        rc.softmax_cross_entropy(np.zeros((T, N, 0)), np.zeros((T, N), int))


def test_wrong_targets_of_sigmoid(rng):
    logits = rng.normal(size=(T, N, V))
    for wrong in [(), (T, N), (V,), (N, T, V), (T, N, 1), (1, T, N, V)]:
        message = f"targets must have the shape of logits, {(T, N, V)}; got {wrong}"
        with pytest.raises(ValueError, match=literally(message)):
            rc.sigmoid_cross_entropy(logits, np.zeros(wrong))
    for dtype in ("complex128", "object", "U1"):
        message = f"targets must be numbers in [0, 1]; got dtype {np.zeros(1, dtype).dtype}"
        with pytest.raises(TypeError, match=literally(message)):
            rc.sigmoid_cross_entropy(logits, np.zeros((T, N, V), dtype))
    for wrong in (-0.25, 1.5, np.nan, np.inf):
        targets = rng.uniform(size=(T, N, V))
        targets[2, 1, 3] = wrong
        for lengths in (None, [0, 3, 0]):
            with pytest.raises(ValueError, match=r"^targets must lie in \[0, 1\]"):
                rc.sigmoid_cross_entropy(logits, targets, lengths)


def test_sigmoid_tells_the_target_that_came(rng):
    targets = np.zeros((T, N, V))
    targets[2, 1, 3] = 1.5
    with pytest.raises(ValueError, match=literally("targets must lie in [0, 1]; got 1.5")):
        rc.sigmoid_cross_entropy(np.zeros((T, N, V)), targets)


@every_loss
def test_wrong_lengths_and_reductions(rng, kind):
    function, _ = FUNCTIONS[kind]
    logits = rng.normal(size=(T, N, V))
    targets = make_targets(rng, kind, logits.shape)
    for wrong in (-1, T + 1):
        message = f"lengths must lie in [0, T] = [0, {T}]; got {wrong}"
        with pytest.raises(ValueError, match=literally(message)):
            function(logits, targets, [1, wrong, 2])
    for shape in [(), (N + 1,), (T, N), (1,)]:
        with pytest.raises(ValueError, match=literally(f"lengths must be (N,) = {(N,)}; got {shape}")):
            function(logits, targets, np.ones(shape, int))
    with pytest.raises(TypeError, match=literally("lengths must be integers; got dtype float64")):
        function(logits, targets, [1.0, np.nan, 2.0])
    for shape in [(V,), (N, V), (2, T, N, V)]:
        message = f"lengths need logits of shape (T, N, V); got {len(shape)} axes"
        with pytest.raises(ValueError, match=literally(message)):
            function(np.zeros(shape), make_targets(rng, kind, shape), [1, 1, 1])
    for wrong in ("average", "", None, "Mean"):
        message = f"reduction must be one of 'mean', 'sum', 'none'; got {wrong!r}"
        with pytest.raises(ValueError, match=literally(message)):
            function(logits, targets, reduction=wrong)


# The output layer and its loss in one
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(9, 4, 5, 7), (1, 1, 3, 2), (0, 3, 4, 5), (30, 5, 6, 30_000)])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("ragged", [False, True])
def test_fused_loss_has_the_bits_of_its_parts(rng, dtype, shape, reduction, ragged):
    """Also where the logits come in several chunks, and where gradients of an earlier batch stand in the layer."""
    steps, rows, H, classes = shape
    x = rng.normal(size=(steps, rows, H)).astype(dtype)
    targets = rng.integers(classes, size=(steps, rows))
    lengths = rng.integers(steps + 1, size=rows) if ragged else None
    one, other = (rc.Dense(H, classes, dtype=dtype, seed=0) for _ in range(2))
    for layer in (one, other):
        layer.grads["b"][...] = 0.5
    y, cache = one.forward(x)
    loss, dy = rc.softmax_cross_entropy(y, targets, lengths, reduction=reduction)
    dx = one.backward(dy, cache)
    if ragged:
        x[np.arange(steps)[:, None] >= lengths] = np.nan
    fused_loss, fused_dx = rc.fused_softmax_cross_entropy(other, x, targets, lengths, reduction=reduction)
    np.testing.assert_array_equal(fused_loss, loss)
    np.testing.assert_array_equal(fused_dx, dx)
    for name, gradient in one.grads.items():
        np.testing.assert_array_equal(other.grads[name], gradient, err_msg=name)
    only, nothing = rc.fused_softmax_cross_entropy(other, x, targets, lengths, reduction=reduction, training=False)
    np.testing.assert_array_equal(only, loss)
    assert nothing is None


def test_fused_loss_checks_its_arguments(rng):
    dense = rc.Dense(3, 4, seed=0)
    x, targets = rng.normal(size=(5, 2, 3)), rng.integers(4, size=(5, 2))
    for arguments, message in (
        ((x[..., :2], targets), r"x must be \(..., input_size\) = \(..., 3\); got \(5, 2, 2\)"),
        ((x, targets[1:]), "targets must have the shape of x"),
        ((x, targets + 4), r"targets must lie in \[0, V\) = \[0, 4\)"),
        ((x, targets, [6, 1]), "lengths must lie in"),
    ):
        with pytest.raises(ValueError, match=message):
            rc.fused_softmax_cross_entropy(dense, *arguments)
    with pytest.raises(TypeError, match="targets must be integer ids"):
        rc.fused_softmax_cross_entropy(dense, x, targets * 1.0)
    small = dense.quantize("int8")
    assert rc.fused_softmax_cross_entropy(small, x, targets, training=False)[1] is None
    with pytest.raises(TypeError, match="^dense must be a Dense layer, which has gradients; got QuantizedDense"):
        rc.fused_softmax_cross_entropy(small, x, targets)
    assert not any(gradient.any() for gradient in dense.grads.values())


# ---- the functions under Dense and the fused loss: weights by columns ----------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("L", "D", "K"), [(1, 7, 20), (5, 33, 70), (90, 70, 33), (70, 20, 1100)])
def test_weights_by_columns_give_the_same_bits(L, D, K, dtype):
    rng = np.random.default_rng(3)
    x, W, b, dy = (rng.normal(size=shape).astype(dtype) for shape in [(L, D), (D, K), (K,), (L, K)])
    targets, weights = rng.integers(K, size=L), rng.random(L)
    results = []
    for order in "CF":
        given, dW = np.array(W, order=order), np.zeros_like(W, order=order)
        db = np.zeros_like(b)
        y = native.affine_forward(x, given, b)
        dx = native.affine_backward(x, given, dy, dW, db)
        losses, dx_loss = native.softmax_head(x, given, b, targets, weights, dW, db)
        results.append([y, dx, losses, dx_loss, dW, db])
    assert_near(results[0][:2], [x @ W + b, dy @ W.T], dtype)
    for by_rows, by_columns in zip(*results, strict=True):
        np.testing.assert_array_equal(by_columns, by_rows)
