"""Weights gate by gate: joined into the arrays that the functions take, and split into views of such arrays."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from . import checks
from ._types import Array
from .engine.arrays import as_floating, check_shape
from .engine.cells import CELLS, describe_order

__all__ = ["join_gates", "split_gates"]

#: The letters of the gates by their number, in the default order of the functions: h, z n, r z n, i f g o.
_LETTERS: dict[int, str] = {}
for _cell in CELLS.values():
    for _missing in ("", *_cell.missing_gates.values()):
        _letters = "".join(letter for letter in _cell.gates if letter not in _missing)
        _LETTERS.setdefault(len(_letters), _letters)


def join_gates(
    Wx: Mapping[str, ArrayLike],
    Wh: Mapping[str, ArrayLike] | None,
    b: Mapping[str, ArrayLike],
    *,
    columns: bool = False,
    gate_order: str | None = None,
) -> tuple[Array, Array | None, Array]:
    """Join the weights of single gates into the arrays that the functions take: once, for every call that follows.

    Parameters
    ----------
    Wx, Wh, b : dict of str to array
        By gate, in any order: (D, H), (H, H) and (H,). The gates are ``i f g o`` of an LSTM (g is the candidate),
        ``r z n`` of a GRU (n is the candidate), ``z n`` of a simplified GRU, ``h`` of a simple RNN. A minGRU has
        ``z n``, and None for ``Wh``.
    columns : bool, default False
        The matrices multiply columns, ``W @ x``: they are (H, D) and (H, H), and the biases (H,) or (H, 1).
    gate_order : str, optional
        Order of the blocks in the result; default that of the functions.

    Returns
    -------
    Wx : ndarray (D, G*H)
    Wh : ndarray (H, G*H) or None
    b : ndarray (G*H,)
        Fresh C-contiguous arrays, whose dtype is the common one.

    Raises
    ------
    ValueError
        The gates are those of no cell or not the same in all dicts, or a shape does not fit.
    TypeError
        An array does not hold floats.

    See Also
    --------
    split_gates

    Examples
    --------
    >>> import numpy as np, rnncore as rc
    >>> rng = np.random.default_rng(0)
    >>> W = {gate: rng.normal(size=(3 + 5, 5)) for gate in "ifgo"}  # multiplies [x, h]
    >>> weights = rc.join_gates(
    ...     {gate: W[gate][:3] for gate in W}, {gate: W[gate][3:] for gate in W}, dict.fromkeys(W, np.zeros(5))
    ... )
    >>> h, state, cache = rc.lstm_forward(np.ones((7, 2, 3)), *weights)
    >>> h.shape, weights[0].shape
    ((7, 2, 5), (3, 20))
    """
    columns = checks.flag("columns", columns)
    given = {"Wx": Wx, "b": b} if Wh is None else {"Wx": Wx, "Wh": Wh, "b": b}
    for name, blocks in given.items():
        if not isinstance(blocks, Mapping):
            raise TypeError(f"{name} must be a dict of gate to array; got {type(blocks).__name__}")
    letters = _LETTERS.get(len(Wx), "")
    for name, blocks in given.items():
        if not letters or blocks.keys() != set(letters):
            known = ", ".join(" ".join(letters) for letters in _LETTERS.values())
            raise ValueError(
                f"{name} must have the gates of one cell ({known}); got {' '.join(map(str, blocks)) or 'none'}"
            )
    order = _order(gate_order, letters)
    clean = {name: [as_floating(f"{name} of {gate}", blocks[gate]) for gate in order] for name, blocks in given.items()}
    if columns:
        clean["b"] = [b[:, 0] if b.ndim == 2 and b.shape[1] == 1 else b for b in clean["b"]]
    first = clean["Wx"][0].shape
    if len(first) != 2:
        raise ValueError(f"Wx of {order[0]} must be {'(H, D)' if columns else '(D, H)'}; got {first}")
    H = first[0 if columns else 1]
    wanted = {
        "Wx": ("(H, D)" if columns else "(D, H)", first),
        "Wh": ("(H, H)", (H, H)),
        "b": ("(H,)", (H,)),
    }
    for name, arrays in clean.items():
        for gate, array in zip(order, arrays, strict=True):
            check_shape(f"{name} of {gate}", array, *wanted[name])
    dtype = np.result_type(*(array for arrays in clean.values() for array in arrays))
    joined = {name: join_blocks(arrays, dtype, columns=columns) for name, arrays in clean.items()}
    return joined["Wx"], joined.get("Wh"), joined["b"]


def split_gates(
    Wx: Array, Wh: Array | None, b: Array, *, columns: bool = False, gate_order: str | None = None
) -> tuple[dict[str, Array], dict[str, Array] | None, dict[str, Array]]:
    """Split weights, or their gradients, into those of each gate: views, so that writing to one writes to the other.

    Parameters
    ----------
    Wx : ndarray (D, G*H)
    Wh : ndarray (H, G*H), or None of a minGRU
    b : ndarray (G*H,)
    columns : bool, default False
        Return matrices that multiply columns, (H, D) and (H, H), and biases (H, 1).
    gate_order : str, optional
        Order of the blocks in the arrays; default that of the functions.

    Returns
    -------
    Wx, Wh, b : dict of str to ndarray
        Views by gate, as :func:`join_gates` takes them.

    Raises
    ------
    ValueError
        A shape does not fit, or ``gate_order`` has other letters.
    TypeError
        An argument is no ndarray, so that views of it would be of no use.

    See Also
    --------
    join_gates

    Examples
    --------
    >>> import numpy as np, rnncore as rc
    >>> Wx, Wh, b = np.zeros((3, 8)), np.zeros((2, 8)), np.zeros(8)
    >>> _, _, biases = rc.split_gates(Wx, Wh, b)
    >>> biases["f"] += 1  # the forget gate starts open
    >>> b.tolist()
    [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    """
    columns = checks.flag("columns", columns)
    given = {"Wx": Wx, "b": b} if Wh is None else {"Wx": Wx, "Wh": Wh, "b": b}
    for name, array in given.items():
        if not isinstance(array, np.ndarray):
            raise TypeError(f"{name} must be an ndarray; got {type(array).__name__}")
        if array.ndim != 2 - (name == "b"):
            raise ValueError(
                f"{name} must be {'(G*H,)' if name == 'b' else 'a matrix (D or H, G*H)'}; got {array.shape}"
            )
    H = len(b) // 2 if Wh is None else len(Wh)
    G = len(b) // H if H else 0
    if G not in _LETTERS or len(b) != G * H or (Wh is None and G != 2):
        got = f"b {b.shape}" + ("" if Wh is None else f" and Wh {Wh.shape}")
        raise ValueError(f"b must be (G*H,) with {', '.join(map(str, sorted(_LETTERS)))} gates of H = {H}; got {got}")
    for name, shape in {"Wx": (len(Wx), len(b)), "Wh": (H, len(b))}.items():
        if name in given:
            check_shape(name, given[name], f"({'D' if name == 'Wx' else 'H'}, G*H)", shape)
    order = _order(gate_order, _LETTERS[G])
    blocks = {
        name: dict(zip(order, split_blocks(array, G, columns=columns), strict=True)) for name, array in given.items()
    }
    return blocks["Wx"], blocks.get("Wh"), blocks["b"]


def _order(gate_order: str | None, letters: str) -> str:
    if gate_order is None:
        return letters
    if not isinstance(gate_order, str) or sorted(gate_order) != sorted(letters):
        raise ValueError(f"gate_order must be {describe_order(letters)}; got {gate_order!r}")
    return gate_order


def join_blocks(blocks: list[Array], dtype: DTypeLike, *, columns: bool) -> Array:
    """Blocks (K, H), or (H, K) that multiply columns, or (H,), of all gates -> C-contiguous (K, G*H), or (G*H,)."""
    rows = [block.T if columns else block for block in blocks]
    joined = np.empty((*rows[0].shape[:-1], len(rows) * rows[0].shape[-1]), dtype)
    return np.concatenate(rows, axis=-1, out=joined)


def split_blocks(array: Array, G: int, *, columns: bool) -> list[Array]:
    """The inverse of :func:`join_blocks`, as views; for columns a bias becomes (H, 1)."""
    H = array.shape[-1] // G
    blocks = [array[..., k * H : (k + 1) * H] for k in range(G)]
    if not columns:
        return blocks
    return [block.T if block.ndim == 2 else block[:, None] for block in blocks]
