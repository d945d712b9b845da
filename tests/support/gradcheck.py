"""Central differences: the judge of every backward pass."""

import numpy as np

# In float64, the central difference of a function of scale 1 is off by about eps**2 (truncation) plus
# 1e-16 / eps (rounding): with eps = 1e-5 some 1e-10, and more where values or curvature are larger.
# A wrong term is off by parts of the gradient itself, so the margin of two or three orders hides none.
EPS = 1e-5
RTOL = 1e-7  # of the largest entry of the gradient
ATOL = 1e-8  # for gradients that are zero, or nearly


def numeric_gradient(f, arguments, name, cotangents, eps=EPS):
    """Differentiate sum_k <cotangents[k], f(**arguments)[k]> with respect to every entry of one argument.

    Parameters
    ----------
    f : callable
        Takes the arguments by name, returns a sequence of arrays.
    arguments : dict of name -> float64 array
        Not written.
    name : str
        The argument to differentiate by.
    cotangents : sequence of arrays
        One for each output, of its shape.
    eps : float
        Step to either side.

    Returns
    -------
    array of the shape of ``arguments[name]``

    Examples
    --------
    >>> import numpy as np
    >>> numeric_gradient(lambda x: [x**2], {"x": np.array([1.0, 3.0])}, "x", [np.array([1.0, 10.0])]).round(6)
    array([ 2., 60.])
    """

    def loss(value):
        outputs = f(**{**arguments, name: value})
        return sum(np.sum(c * y) for c, y in zip(cotangents, outputs, strict=True))

    value = np.array(arguments[name], dtype=np.float64)
    gradient = np.empty_like(value)
    for index in np.ndindex(value.shape):
        here = value[index]
        value[index] = here + eps
        up = loss(value)
        value[index] = here - eps
        down = loss(value)
        value[index] = here
        gradient[index] = (up - down) / (2 * eps)
    return gradient


def check_gradients(f, arguments, cotangents, gradients, eps=EPS, rtol=RTOL, atol=ATOL):
    """Assert that ``gradients``, a dict with a gradient for every argument, are those of ``f``.

    The other parameters are those of :func:`numeric_gradient`. Inputs that have no gradient (ids, lengths,
    options) belong into the closure of ``f``.
    """
    assert set(gradients) == set(arguments), "one gradient for every argument"
    for name in arguments:
        numeric = numeric_gradient(f, arguments, name, cotangents, eps)
        assert np.shape(gradients[name]) == numeric.shape, f"shape of the gradient of {name}"
        np.testing.assert_allclose(
            gradients[name],
            numeric,
            rtol=0,
            atol=rtol * np.abs(numeric).max(initial=0) + atol,
            equal_nan=False,
            err_msg=f"gradient of {name}",
        )
