"""Dinosaurus Island, course 5, week 1: one name at a time, columns (V, 1), dicts of arrays, caches as dicts by step.

``clip`` works in place, as in most editions; from 2021 on it copies everything first.
"""

import numpy as np

from . import softmax


def rnn_step_forward(parameters, a_prev, x):
    a_next = np.tanh(np.dot(parameters["Wax"], x) + np.dot(parameters["Waa"], a_prev) + parameters["b"])
    return a_next, softmax(np.dot(parameters["Wya"], a_next) + parameters["by"])


def rnn_step_backward(dy, gradients, parameters, x, a, a_prev):
    gradients["dWya"] += np.dot(dy, a.T)
    gradients["dby"] += dy
    da = np.dot(parameters["Wya"].T, dy) + gradients["da_next"]
    draw = (1 - a * a) * da
    gradients["db"] += draw
    gradients["dWax"] += np.dot(draw, x.T)
    gradients["dWaa"] += np.dot(draw, a_prev.T)
    gradients["da_next"] = np.dot(parameters["Waa"].T, draw)
    return gradients


def rnn_forward(X, Y, a0, parameters, vocab_size=27):
    x, a, y_hat, loss = {}, {-1: np.copy(a0)}, {}, 0
    for t in range(len(X)):
        x[t] = np.zeros((vocab_size, 1))
        if X[t] is not None:
            x[t][X[t]] = 1
        a[t], y_hat[t] = rnn_step_forward(parameters, a[t - 1], x[t])
        loss -= np.log(y_hat[t][Y[t], 0])
    return loss, (y_hat, a, x)


def rnn_backward(X, Y, parameters, cache):
    y_hat, a, x = cache
    gradients = {f"d{key}": np.zeros_like(parameters[key]) for key in ("Wax", "Waa", "Wya", "b", "by")}
    gradients["da_next"] = np.zeros_like(a[0])
    for t in reversed(range(len(X))):
        dy = np.copy(y_hat[t])
        dy[Y[t]] -= 1
        gradients = rnn_step_backward(dy, gradients, parameters, x[t], a[t], a[t - 1])
    return gradients, a


def clip(gradients, maxValue):
    clipped = {key: gradients[key] for key in ("dWax", "dWaa", "dWya", "db", "dby")}
    for gradient in clipped.values():
        np.clip(gradient, -maxValue, maxValue, out=gradient)
    return clipped


def update_parameters(parameters, gradients, lr):
    for key in ("Wax", "Waa", "Wya", "b", "by"):
        parameters[key] += -lr * gradients[f"d{key}"]
    return parameters


def optimize(X, Y, a_prev, parameters, learning_rate=0.01):
    loss, cache = rnn_forward(X, Y, a_prev, parameters)
    gradients, a = rnn_backward(X, Y, parameters, cache)
    gradients = clip(gradients, 5)
    update_parameters(parameters, gradients, learning_rate)
    return loss, gradients, a[len(X) - 1]
