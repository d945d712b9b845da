"""Weights gate by gate: joined, split, and joined again."""

import numpy as np
import pytest

import rnncore as rc
from rnncore.engine.cells import CELLS

D, H = 3, 2
CELL = {"lstm": "ifgo", "gru": "rzn", "simplified": "zn", "mingru": "zn", "rnn": "h"}
RUN = {
    "lstm": rc.lstm_forward,
    "gru": rc.gru_forward,
    "simplified": lambda *a, **o: rc.gru_forward(*a, form="simplified", **o),
    "mingru": lambda x, Wx, Wh, b: rc.mingru_forward(x, Wx, b),
    "rnn": rc.rnn_forward,
}


def of_gates(cell, dtype="float64", columns=False):
    rng = np.random.default_rng(0)
    letters = CELL[cell][::-1]  # any order will do
    Wx, Wh, b = ({gate: rng.normal(size=shape).astype(dtype) for gate in letters} for shape in [(D, H), (H, H), (H,)])
    if columns:
        Wx, Wh = ({gate: array.T for gate, array in matrices.items()} for matrices in (Wx, Wh))
    return Wx, None if cell == "mingru" else Wh, b


@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64", ">f8"])
@pytest.mark.parametrize("cell", CELL)
def test_joined(cell, dtype, columns):
    given = of_gates(cell, dtype, columns)
    joined = rc.join_gates(*given, columns=columns)
    for array, blocks in zip(joined, given, strict=True):
        if blocks is None:
            assert array is None
            continue
        wanted = [blocks[gate].T if columns else blocks[gate] for gate in CELL[cell]]
        np.testing.assert_array_equal(array, np.concatenate(wanted, axis=-1))
        assert array.dtype == np.dtype(dtype).newbyteorder("=")
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert not any(np.shares_memory(array, block) for block in blocks.values())
    RUN[cell](np.ones((4, 1, D), np.dtype(dtype).newbyteorder("=")), *joined)


@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("cell", CELL)
def test_split_gives_views(cell, columns):
    joined = rc.join_gates(*of_gates(cell))
    parts = rc.split_gates(*joined, columns=columns)
    for array, blocks, shape in zip(joined, parts, [(D, H), (H, H), (H,)], strict=True):
        if array is None:
            assert blocks is None
            continue
        assert list(blocks) == list(CELL[cell])
        for k, block in enumerate(blocks.values()):
            assert block.shape == (shape if not columns else shape[::-1] if len(shape) == 2 else (H, 1))
            block += k  # in place, through the dict
            block[...] = k
        np.testing.assert_array_equal(array, np.broadcast_to(np.repeat(np.arange(len(blocks)), H), array.shape))
    again = rc.join_gates(*parts, columns=columns)
    for one, other in zip(joined, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_gate_order():
    given = of_gates("lstm")
    plain, other = rc.join_gates(*given), rc.join_gates(*given, gate_order="ogif")
    x = np.random.default_rng(1).normal(size=(4, 2, D))
    h, _, cache = rc.lstm_forward(x, *plain)
    found, _, other_cache = rc.lstm_forward(x, *other, gate_order="ogif")
    np.testing.assert_array_equal(found, h)
    grads, other_grads = rc.lstm_backward(h, cache), rc.lstm_backward(h, other_cache)
    parts = rc.split_gates(grads.dWx, grads.dWh, grads.db)
    other_parts = rc.split_gates(other_grads.dWx, other_grads.dWh, other_grads.db, gate_order="ogif")
    for one, another in zip(parts, other_parts, strict=True):
        assert one.keys() == another.keys() == set("ifgo")
        for gate, gradient in one.items():
            # The sum over the gates in dh' goes in the order of the blocks.
            np.testing.assert_allclose(gradient, another[gate], rtol=1e-12, atol=1e-15)


def test_dtypes_promote():
    Wx, Wh, b = of_gates("gru", "float32")
    b["z"] = b["z"].astype("float64")
    assert [array.dtype for array in rc.join_gates(Wx, Wh, b)] == [np.float64] * 3


def test_every_cell_of_the_table_can_be_joined():
    assert {cell.gates for cell in CELLS.values()} <= set(CELL.values())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda Wx, Wh, b: Wx.pop("i"), ValueError, r"Wx must have the gates of one cell \(h, .*\); got o g f"),
        (lambda Wx, Wh, b: b.pop("i"), ValueError, "b must have the gates of one cell .*; got o g f"),
        (lambda Wx, Wh, b: Wh.update(c=Wh.pop("g")), ValueError, "Wh must have the gates .*; got o f i c"),
        (lambda Wx, Wh, b: Wx.clear(), ValueError, "Wx must have the gates .*; got none"),
        (lambda Wx, Wh, b: Wx.update(i=np.ones(2)), ValueError, r"Wx of i must be \(D, H\); got \(2,\)"),
        (
            lambda Wx, Wh, b: Wx.update(f=np.ones((2, 3))),
            ValueError,
            r"Wx of f must be \(D, H\) = \(3, 2\); got \(2, 3\)",
        ),
        (
            lambda Wx, Wh, b: Wh.update(o=np.ones((3, 2))),
            ValueError,
            r"Wh of o must be \(H, H\) = \(2, 2\); got \(3, 2\)",
        ),
        (lambda Wx, Wh, b: b.update(g=np.ones((2, 1))), ValueError, r"b of g must be \(H,\) = \(2,\); got \(2, 1\)"),
        (lambda Wx, Wh, b: b.update(g=np.ones(2, int)), TypeError, "b of g must be an array of float32 or float64"),
    ],
)
def test_join_refuses(change, error, message):
    given = of_gates("lstm")
    change(*given)
    with pytest.raises(error, match=f"^{message}"):
        rc.join_gates(*given)


def test_join_refuses_other_arguments():
    Wx, Wh, b = of_gates("lstm")
    with pytest.raises(TypeError, match="^Wh must be a dict of gate to array; got list"):
        rc.join_gates(Wx, list(Wh.values()), b)
    with pytest.raises(
        ValueError, match="^gate_order must be the letters i f g o in some order, g for the candidate .*ifco"
    ):
        rc.join_gates(Wx, Wh, b, gate_order="ifco")
    with pytest.raises(ValueError, match=r"^Wx of f must be \(H, D\) = \(3, 2\); got \(2, 3\)"):
        rc.join_gates(Wx | {"f": np.ones((2, 3))}, Wh, b, columns=True)


def test_split_refuses():
    Wx, Wh, b = rc.join_gates(*of_gates("lstm"))
    for arguments, error, message in [
        ((Wx, Wh, b.tolist()), TypeError, "b must be an ndarray; got list"),
        ((Wx, Wh, b[:, None]), ValueError, r"b must be \(G\*H,\); got \(8, 1\)"),
        ((Wx[0], Wh, b), ValueError, r"Wx must be a matrix \(D or H, G\*H\); got \(8,\)"),
        ((Wx, Wh, b[:-1]), ValueError, r"b must be \(G\*H,\) with 1, 2, 3, 4 gates of H = 2; got b \(7,\) and Wh"),
        ((Wx, None, b[:7]), ValueError, r"b must be \(G\*H,\) .* gates of H = 3; got b \(7,\)"),
        ((Wx, Wh[:0], b), ValueError, r"b must be \(G\*H,\) .* gates of H = 0"),
        ((Wx[:, 1:], Wh, b), ValueError, r"Wx must be \(D, G\*H\) = \(3, 8\); got \(3, 7\)"),
        ((Wx, Wh[:, 1:], b), ValueError, r"Wh must be \(H, G\*H\) = \(2, 8\); got \(2, 7\)"),
    ]:
        with pytest.raises(error, match=f"^{message}"):
            rc.split_gates(*arguments)
    with pytest.raises(
        ValueError, match="^gate_order must be the letters i f g o in some order, g for the candidate .*fg"
    ):
        rc.split_gates(Wx, Wh, b, gate_order="fg")
