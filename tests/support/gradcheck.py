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

    gradient = np.empty(np.shape(arguments[name]))
    for index in np.ndindex(gradient.shape):
        direction = np.zeros(gradient.shape)
        direction[index] = 1
        gradient[index] = derivative_along(f, arguments, name, direction, cotangents, eps)
    return gradient


def derivative_along(f, arguments, name, direction, cotangents, eps=EPS):
    """Differentiate the sum of :func:`numeric_gradient` along one direction of one argument."""

    def loss(value):
        outputs = f(**{**arguments, name: value})
        return sum(np.sum(c * y) for c, y in zip(cotangents, outputs, strict=True))

    step = eps * direction
    return (loss(arguments[name] + step) - loss(arguments[name] - step)) / (2 * eps)


def check_gradients(f, arguments, cotangents, gradients, eps=EPS, rtol=RTOL, atol=ATOL, directions=None):
    """Assert that ``gradients``, a dict with a gradient for every argument, are those of ``f``.

    The other parameters are those of :func:`numeric_gradient`. Inputs that have no gradient (ids, lengths,
    options) belong into the closure of ``f``. By default every entry is checked, with two calls of ``f`` each. With
    ``directions`` larger arguments are checked along that many random directions: a wrong entry shows in each of them.
    """
    assert set(gradients) == set(arguments), "one gradient for every argument"
    rng = np.random.default_rng(len(arguments))
    for name, argument in arguments.items():
        gradient = np.asarray(gradients[name])
        assert gradient.shape == np.shape(argument), f"shape of the gradient of {name}"
        assert np.isfinite(gradient).all(), f"gradient of {name}"
        if directions is None or gradient.size <= directions:
            numeric = numeric_gradient(f, arguments, name, cotangents, eps)
            largest = np.abs(numeric).max(initial=0)
        else:
            vectors = rng.normal(size=(directions, *gradient.shape))
            vectors /= np.sqrt((vectors**2).sum(axis=tuple(range(1, vectors.ndim)), keepdims=True))
            numeric = [derivative_along(f, arguments, name, vector, cotangents, eps) for vector in vectors]
            largest = np.abs(gradient).max()
            gradient = [np.vdot(gradient, vector) for vector in vectors]
        np.testing.assert_allclose(gradient, numeric, rtol=0, atol=rtol * largest + atol, err_msg=f"gradient of {name}")
