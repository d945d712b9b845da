"""Dinosaurus Island, the character model of the deep learning course (course 5, week 1), on the engine.

The functions of ``utils.py`` and the notebook, with the same names and dict keys. ``optimize`` makes one native call
each for the forward pass, the output layer and the backward pass. Parameters are updated in place; NumPy's global
generator is seeded as in the course.

Where the functions differ from some copies of the originals:

* ``softmax`` subtracts the maximum of each column, not of the whole matrix, so it never computes 0/0.
* ``clip`` does not modify the caller's arrays, as in notebooks since 2021; earlier ones clip in place.
* ``optimize`` clips at 5; one copy reads a global.
* Ids outside the vocabulary raise ValueError; in the originals, negative ids count from the end.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import functional
from .._types import Array
from .layout import clean_ids, row, sized, sized_values, transposed
from .min_char_rnn import rnn_step

__all__ = [
    "clip",
    "get_initial_loss",
    "get_sample",
    "initialize_parameters",
    "model",
    "optimize",
    "print_sample",
    "rnn_backward",
    "rnn_forward",
    "rnn_step_backward",
    "rnn_step_forward",
    "sample",
    "smooth",
    "softmax",
    "update_parameters",
]

_KEYS = "dWax", "dWaa", "dWya", "db", "dby"
_AXES = {"Wax": ("n_a", "n_x"), "Waa": ("n_a", "n_a"), "Wya": ("n_y", "n_a"), "b": ("n_a", "1"), "by": ("n_y", "1")}


# ---- utils.py -------------------------------------------------------------------------------------------------------


def softmax(x: Array) -> Array:
    """Softmax over the first axis of x, (n,) or (n, m)."""
    e = np.array(x, np.result_type(x, np.float16))  # first, so that what is too large for memory is refused
    np.exp(np.subtract(e, np.max(e, axis=0), out=e), out=e)
    return e / e.sum(axis=0)


def smooth(loss: float, cur_loss: float) -> float:
    """Update the running average of the loss."""
    return loss * 0.999 + cur_loss * 0.001


def get_initial_loss(vocab_size: int, seq_length: int) -> float:
    """Loss of uniform predictions for ``seq_length`` characters.

    Examples
    --------
    >>> round(float(get_initial_loss(27, 7)), 4)
    23.0709
    """
    return -np.log(1.0 / vocab_size) * seq_length


def get_sample(sample_ix: list[int], ix_to_char: dict[int, str]) -> str:
    """Convert ids to text and capitalise its first letter.

    Examples
    --------
    >>> get_sample([1, 0], {0: "b", 1: "a"})
    'Ab'
    """
    text = "".join(ix_to_char[ix] for ix in sample_ix)
    return text[:1].upper() + text[1:]


def print_sample(sample_ix: Any, ix_to_char: Any) -> None:
    """Print :func:`get_sample`."""
    print(get_sample(sample_ix, ix_to_char), end="")


def initialize_parameters(n_a: int, n_x: int, n_y: int) -> dict[str, Array]:
    """Seed NumPy with 1; return a dict of Wax (n_a, n_x), Waa (n_a, n_a), Wya (n_y, n_a), b (n_a, 1), by (n_y, 1)."""
    np.random.seed(1)  # noqa: NPY002
    shapes = {"Wax": (n_a, n_x), "Waa": (n_a, n_a), "Wya": (n_y, n_a)}
    parameters = {key: np.random.randn(*shape) * 0.01 for key, shape in shapes.items()}  # noqa: NPY002
    return {**parameters, "b": np.zeros((n_a, 1)), "by": np.zeros((n_y, 1))}


def rnn_step_forward(parameters: dict[str, Array], a_prev: Array, x: Array) -> tuple[Array, Array]:
    """a_prev (n_a, 1), x (n_x, 1) -> a_next (n_a, 1), probabilities (n_y, 1)."""
    a_next = np.tanh(parameters["Wax"] @ x + parameters["Waa"] @ a_prev + parameters["b"])
    return a_next, softmax(parameters["Wya"] @ a_next + parameters["by"])


def rnn_step_backward(
    dy: Array, gradients: dict[str, Array], parameters: dict[str, Array], x: Array, a: Array, a_prev: Array
) -> dict[str, Array]:
    """Add the gradients of one step to ``gradients`` in place, and store da_next for the step before in it."""
    draw = (1 - a * a) * (parameters["Wya"].T @ dy + gradients["da_next"])
    gradients["dWya"] += dy @ a.T
    gradients["dby"] += dy
    gradients["db"] += draw
    gradients["dWax"] += draw @ x.T
    gradients["dWaa"] += draw @ a_prev.T
    gradients["da_next"] = parameters["Waa"].T @ draw
    return gradients


def update_parameters(parameters: dict[str, Array], gradients: dict[str, Array], lr: float) -> dict[str, Array]:
    """Take one step of gradient descent on the arrays in ``parameters``, in place; return the same dict."""
    for key in _KEYS:
        parameters[key[1:]] += -lr * gradients[key]
    return parameters


def rnn_forward(
    X: list[Any], Y: list[int], a0: Array, parameters: dict[str, Array], vocab_size: int = 27
) -> tuple[float, tuple[dict[int, Array], ...]]:
    """Compute the summed cross-entropy of a text.

    Parameters
    ----------
    X : list of T ints or None
        Ids; None is the zero vector.
    Y : list of T ints
        Ids of the next characters.
    a0 : array (n_a, 1)
    parameters : dict
    vocab_size : int

    Returns
    -------
    loss : float64
    cache : tuple of dicts (y_hat, a, x)
        Columns, keyed by step; a[-1] is a copy of a0.
    """
    Wax, Waa, Wya, b, by, a = _sized(parameters, "a0", a0)
    n_x = Wax.shape[1]
    if vocab_size != n_x:
        raise ValueError(f"vocab_size must be the number of columns of Wax, {n_x}; got {vocab_size}")
    ids = _ids(X, n_x)
    targets, T = clean_ids("Y", Y, len(by)), len(ids)
    h, _, _ = functional.rnn_forward(ids[:, None], _table(Wax), transposed(Waa), row(b), row(a)[None], training=False)
    y_hat = softmax(Wya @ h.reshape(T, -1).T + by)
    x = np.zeros((T, vocab_size + 1, 1))
    x[np.arange(T), ids] = 1
    a = {-1: np.copy(a0)} | dict(enumerate(h.transpose(0, 2, 1)))
    loss = -np.log(y_hat[targets[:T], np.arange(T)]).sum()
    return loss, (dict(enumerate(y_hat.T[:, :, None])), a, dict(enumerate(x[:, :-1])))


def rnn_backward(
    X: list[Any],
    Y: list[int],
    parameters: dict[str, Array],
    cache: tuple[dict[int, Array], dict[int, Array], dict[int, Array]],
) -> tuple[dict[str, Array], dict[int, Array]]:
    """Gradients of :func:`rnn_forward`, from its cache.

    -> dict of dWax, dWaa, dWya, db, dby and da_next (n_a, 1), the gradient of a0; the dict a of the cache
    """
    y_hat, a, x = cache
    T = len(X)
    Wya, Waa = (np.asarray(parameters[key], np.float64) for key in ("Wya", "Waa"))
    n_y, n_a = Wya.shape
    dy = np.zeros((T, n_y))
    h, before = np.zeros((T, n_a)), np.zeros((T, n_a))
    one_hot = np.zeros((T, np.shape(parameters["Wax"])[1]))
    for t in range(T):
        dy[t], h[t], before[t], one_hot[t] = (column[:, 0] for column in (y_hat[t], a[t], a[t - 1], x[t]))
    dy[np.arange(T), clean_ids("Y", Y, n_y)[:T]] -= 1
    draw, carried, dh = np.empty((T, n_a)), np.zeros(n_a), dy @ Wya
    for t in reversed(range(T)):
        draw[t] = (1 - h[t] * h[t]) * (dh[t] + carried)
        carried = draw[t] @ Waa
    gradients = {
        "dWax": draw.T @ one_hot,
        "dWaa": draw.T @ before,
        "dWya": dy.T @ h,
        "db": draw.sum(axis=0)[:, None],
        "dby": dy.sum(axis=0)[:, None],
        "da_next": carried[:, None],
    }
    return gradients, a


# ---- the notebook ---------------------------------------------------------------------------------------------------


def clip(gradients: dict[str, Array], maxValue: int) -> dict[str, Array]:
    """Return a new dict of dWax, dWaa, dWya, db, dby with every entry clipped to [-maxValue, maxValue]."""
    return {key: np.clip(gradients[key], -maxValue, maxValue) for key in _KEYS}


def sample(parameters: dict[str, Array], char_to_ix: dict[str, int], seed: int) -> list[int]:
    """Sample ids from the model up to a newline, at most 50 and then a newline; seeds NumPy at every step."""
    Wax, Waa, Wya, b, by = (parameters[key] for key in ("Wax", "Waa", "Wya", "b", "by"))
    vocab_size, a = len(by), np.zeros((np.shape(Waa)[0], 1))
    indices: list[int] = []
    newline, inputs = char_to_ix["\n"], 0
    while len(indices) < 50 and not (indices and indices[-1] == newline):
        a = np.tanh(inputs + Waa @ a + b)
        # The original adds its step counter to the seed and increments both.
        np.random.seed(2 * len(indices) + seed)  # noqa: NPY002
        indices.append(np.random.choice(vocab_size, p=softmax(Wya @ a + by).ravel()))  # noqa: NPY002
        inputs = Wax[:, indices[-1]][:, None]
    if len(indices) == 50:
        indices.append(newline)
    return indices


def optimize(
    X: list[Any], Y: list[int], a_prev: Array, parameters: dict[str, Array], learning_rate: float = 0.01
) -> tuple[float, dict[str, Array], Array]:
    """Train one step on one text: forward, backward, clip the gradients to +-5, update the parameters in place.

    Parameters
    ----------
    X, Y : lists of T ints
        As for :func:`rnn_forward`; X may have None.
    a_prev : array (n_a, 1)
    parameters : dict
    learning_rate : float

    Returns
    -------
    loss : float64
    gradients : dict
        dWax, dWaa, dWya, db, dby, clipped.
    a : ndarray (n_a, 1)
        The last state.

    Examples
    --------
    >>> parameters = initialize_parameters(5, 27, 27)
    >>> loss, gradients, a = optimize([None, 3, 1], [3, 1, 0], np.zeros((5, 1)), parameters)
    >>> round(float(loss), 3), gradients["dWax"].shape
    (9.888, (5, 27))
    """
    Wax, *weights, a_prev = _sized(parameters, "a_prev", a_prev)
    loss, (dtable, dWaa, dWya, db, dby), a = rnn_step(_ids(X, Wax.shape[1]), Y, a_prev, _table(Wax), *weights)
    gradients = {"dWax": dtable[:-1].T, "dWaa": dWaa, "dWya": dWya, "db": db, "dby": dby}
    update_parameters(parameters, gradients, learning_rate)
    return loss, gradients, a


def model(
    data: Any,
    ix_to_char: dict[int, str],
    char_to_ix: dict[str, int],
    num_iterations: int = 35000,
    n_a: int = 50,
    dino_names: int = 7,
    vocab_size: int = 27,
    verbose: bool = False,
) -> dict[str, Array] | tuple[dict[str, Array], str]:
    """Train on one name after another and print samples; the state carries over from name to name.

    Parameters
    ----------
    data : list of str, or str
        Names, as in notebooks since 2021; or the text of ``dinos.txt``, one name per line, as in earlier ones.
    ix_to_char, char_to_ix : dicts
    num_iterations, n_a, dino_names, vocab_size : int
        Number of steps, state size, samples to print at a time, vocabulary size.
    verbose : bool
        Print the training example at some steps.

    Returns
    -------
    parameters : dict
    last_dino_name : str
        The last sample; returned only if data is a list.
    """
    old = isinstance(data, str)
    names = [name.strip() for name in (data.lower().splitlines() if old else data)]
    parameters = initialize_parameters(n_a, vocab_size, vocab_size)
    loss, last_dino_name = get_initial_loss(vocab_size, dino_names), "abc"
    np.random.seed(0)  # noqa: NPY002
    np.random.shuffle(names)  # noqa: NPY002
    newline, a_prev = char_to_ix["\n"], np.zeros((n_a, 1))
    for j in range(num_iterations):
        name = names[j % len(names)]
        ids = [char_to_ix[char] for char in name]
        X, Y = [None, *ids], [*ids, newline]
        cur_loss, _, a_prev = optimize(X, Y, a_prev, parameters, learning_rate=0.01)
        if verbose and j in (0, len(names) - 1, len(names)):
            print(f"j = {j}, name = {name}\nX = {X}\nY = {Y}")
        loss = smooth(loss, cur_loss)
        if j % (2000 if old else 1000) == 0:
            print(f"Iteration: {j}, Loss: {loss:f}\n")
            for seed in range(dino_names):
                last_dino_name = get_sample(sample(parameters, char_to_ix, seed), ix_to_char)
                print(last_dino_name.replace("\n", ""))
            print("\n")
    return parameters if old else (parameters, last_dino_name)


def _sized(parameters: dict[str, Array], name: str, state: Array) -> tuple[Array, ...]:
    """Check shapes; return Wax, Waa, Wya, b, by and the state (n_a, 1)."""
    sizes: dict[str, int] = {}
    return *sized_values(parameters, _AXES, sizes), sized(name, state, ("n_a", "1"), sizes)


def _ids(X: list[Any], n_x: int) -> Array:
    """Return int64 ids (T,): the rows of :func:`_table`."""
    known = [0 if ix is None else ix for ix in X]
    ids = clean_ids("X", known, n_x) if known else np.zeros(0, np.int64)
    for t, ix in enumerate(X):
        if ix is None:
            ids[t] = n_x
    return ids


def _table(Wax: Array) -> Array:
    """Wax (n_a, n_x) -> (n_x + 1, n_a): its columns as rows, then a row of zeros for None."""
    table = np.zeros((Wax.shape[1] + 1, len(Wax)))
    table[:-1] = Wax.T
    return table
