"""Building an RNN step by step, course 5, week 1: x (n_x, m, T), a (n_a, m, T), a dict of parameters, visible caches.

Weights of the LSTM act on the column [a_prev; xt]. What is returned for a sequence is float64. ``lstm_backward``
propagates through time; ``carry=False`` sums the gradients of single steps, as the notebooks before 2021.
"""

import numpy as np

from . import sigmoid, softmax

# ---- RNN ------------------------------------------------------------------------------------------------------------


def rnn_cell_forward(xt, a_prev, parameters):
    Wax, Waa, ba = parameters["Wax"], parameters["Waa"], parameters["ba"]
    a_next = np.tanh(np.dot(Wax, xt) + np.dot(Waa, a_prev) + ba)
    yt_pred = softmax(np.dot(parameters["Wya"], a_next) + parameters["by"])
    return a_next, yt_pred, (a_next, a_prev, xt, parameters)


def rnn_forward(x, a0, parameters):
    _, m, T_x = x.shape
    n_y, n_a = parameters["Wya"].shape
    a, y_pred, caches = np.zeros((n_a, m, T_x)), np.zeros((n_y, m, T_x)), []
    a_next = a0
    for t in range(T_x):
        a_next, yt_pred, cache = rnn_cell_forward(x[:, :, t], a_next, parameters)
        a[:, :, t] = a_next
        y_pred[:, :, t] = yt_pred
        caches.append(cache)
    return a, y_pred, (caches, x)


def rnn_cell_backward(da_next, cache):
    a_next, a_prev, xt, parameters = cache
    dz = (1 - a_next**2) * da_next
    return {
        "dxt": np.dot(parameters["Wax"].T, dz),
        "da_prev": np.dot(parameters["Waa"].T, dz),
        "dWax": np.dot(dz, xt.T),
        "dWaa": np.dot(dz, a_prev.T),
        "dba": np.sum(dz, axis=1, keepdims=True),
    }


def rnn_backward(da, caches):
    caches, x = caches
    (n_a, m, T_x), n_x = da.shape, x.shape[0]
    dx, da_carried = np.zeros((n_x, m, T_x)), np.zeros((n_a, m))
    dWax, dWaa, dba = np.zeros((n_a, n_x)), np.zeros((n_a, n_a)), np.zeros((n_a, 1))
    for t in reversed(range(T_x)):
        gradients = rnn_cell_backward(da[:, :, t] + da_carried, caches[t])
        da_carried = gradients["da_prev"]
        dx[:, :, t] = gradients["dxt"]
        dWax += gradients["dWax"]
        dWaa += gradients["dWaa"]
        dba += gradients["dba"]
    return {"dx": dx, "da0": da_carried, "dWax": dWax, "dWaa": dWaa, "dba": dba}


# ---- LSTM -----------------------------------------------------------------------------------------------------------


def lstm_cell_forward(xt, a_prev, c_prev, parameters):
    concat = np.concatenate((a_prev, xt), axis=0)
    ft = sigmoid(np.dot(parameters["Wf"], concat) + parameters["bf"])
    it = sigmoid(np.dot(parameters["Wi"], concat) + parameters["bi"])
    cct = np.tanh(np.dot(parameters["Wc"], concat) + parameters["bc"])
    c_next = ft * c_prev + it * cct
    ot = sigmoid(np.dot(parameters["Wo"], concat) + parameters["bo"])
    a_next = ot * np.tanh(c_next)
    yt_pred = softmax(np.dot(parameters["Wy"], a_next) + parameters["by"])
    return a_next, c_next, yt_pred, (a_next, c_next, a_prev, c_prev, ft, it, cct, ot, xt, parameters)


def lstm_forward(x, a0, parameters):
    _, m, T_x = x.shape
    n_y, n_a = parameters["Wy"].shape
    a, c, y, caches = np.zeros((n_a, m, T_x)), np.zeros((n_a, m, T_x)), np.zeros((n_y, m, T_x)), []
    a_next, c_next = a0, np.zeros((n_a, m))
    for t in range(T_x):
        a_next, c_next, yt, cache = lstm_cell_forward(x[:, :, t], a_next, c_next, parameters)
        a[:, :, t] = a_next
        c[:, :, t] = c_next
        y[:, :, t] = yt
        caches.append(cache)
    return a, y, c, (caches, x)


def lstm_cell_backward(da_next, dc_next, cache):
    a_next, c_next, a_prev, c_prev, ft, it, cct, ot, xt, parameters = cache
    n_a = a_next.shape[0]
    tanh_c = np.tanh(c_next)
    dc = dc_next + da_next * ot * (1 - tanh_c**2)
    dot = da_next * tanh_c * ot * (1 - ot)
    dcct = dc * it * (1 - cct**2)
    dit = dc * cct * it * (1 - it)
    dft = dc * c_prev * ft * (1 - ft)
    dconcat = (
        np.dot(parameters["Wf"].T, dft)
        + np.dot(parameters["Wi"].T, dit)
        + np.dot(parameters["Wc"].T, dcct)
        + np.dot(parameters["Wo"].T, dot)
    )
    concat = np.concatenate((a_prev, xt), axis=0)
    return {
        "dxt": dconcat[n_a:],
        "da_prev": dconcat[:n_a],
        "dc_prev": dc * ft,
        "dWf": np.dot(dft, concat.T),
        "dbf": np.sum(dft, axis=1, keepdims=True),
        "dWi": np.dot(dit, concat.T),
        "dbi": np.sum(dit, axis=1, keepdims=True),
        "dWc": np.dot(dcct, concat.T),
        "dbc": np.sum(dcct, axis=1, keepdims=True),
        "dWo": np.dot(dot, concat.T),
        "dbo": np.sum(dot, axis=1, keepdims=True),
    }


def lstm_backward(da, caches, carry=True):
    caches, x = caches
    (n_a, m, T_x), n_x = da.shape, x.shape[0]
    dx, da_carried, dc_carried = np.zeros((n_x, m, T_x)), np.zeros((n_a, m)), np.zeros((n_a, m))
    total = {f"dW{gate}": np.zeros((n_a, n_a + n_x)) for gate in "fico"}
    total |= {f"db{gate}": np.zeros((n_a, 1)) for gate in "fico"}
    for t in reversed(range(T_x)):
        da_next, dc_next = (da[:, :, t] + da_carried, dc_carried) if carry else (da[:, :, t], np.zeros((n_a, m)))
        gradients = lstm_cell_backward(da_next, dc_next, caches[t])
        da_carried, dc_carried = gradients["da_prev"], gradients["dc_prev"]
        dx[:, :, t] = gradients["dxt"]
        for key in total:
            total[key] += gradients[key]
    return {"dx": dx, "da0": da_carried, **total}
