"""CS231n assignment 3, ``rnn_layers.py``, as most students solve it: x (N, T, D), h (N, T, H), gate blocks i f o g.

``buffers`` of the sequence functions is the dtype of the arrays that start as zeros: h, the first cell state, and the
gradients that are summed. float64, ``np.zeros`` without a dtype, is the most common: of the LSTM it makes everything
float64 from the first step on, whatever the inputs. Some solutions stay in the dtype of x.
"""

import numpy as np

# ---- RNN ------------------------------------------------------------------------------------------------------------


def rnn_step_forward(x, prev_h, Wx, Wh, b):
    next_h = np.tanh(x @ Wx + prev_h @ Wh + b)
    return next_h, (x, prev_h, Wx, Wh, next_h)


def rnn_step_backward(dnext_h, cache):
    x, prev_h, Wx, Wh, next_h = cache
    da = dnext_h * (1 - next_h**2)
    return da @ Wx.T, da @ Wh.T, x.T @ da, prev_h.T @ da, da.sum(axis=0)


def rnn_forward(x, h0, Wx, Wh, b, buffers=np.float64):
    N, T, _ = x.shape
    h, caches = np.zeros((N, T, len(Wh)), buffers), []
    prev_h = h0
    for t in range(T):
        prev_h, cache = rnn_step_forward(x[:, t, :], prev_h, Wx, Wh, b)
        h[:, t, :] = prev_h
        caches.append(cache)
    return h, caches


def rnn_backward(dh, cache, buffers=np.float64):
    N, T, H = dh.shape
    D = cache[0][0].shape[1]
    dx, dprev_h = np.zeros((N, T, D), buffers), np.zeros((N, H), buffers)
    dWx, dWh, db = np.zeros((D, H), buffers), np.zeros((H, H), buffers), np.zeros(H, buffers)
    for t in reversed(range(T)):
        dx[:, t, :], dprev_h, dWx_t, dWh_t, db_t = rnn_step_backward(dh[:, t, :] + dprev_h, cache[t])
        dWx += dWx_t
        dWh += dWh_t
        db += db_t
    return dx, dprev_h, dWx, dWh, db


# ---- LSTM -----------------------------------------------------------------------------------------------------------


def sigmoid(x):
    """In two branches, as the one that comes with the assignment: no exp of a large number."""
    positive, y = x >= 0, np.empty_like(x)
    y[positive] = 1 / (1 + np.exp(-x[positive]))
    e = np.exp(x[~positive])
    y[~positive] = e / (1 + e)
    return y


def lstm_step_forward(x, prev_h, prev_c, Wx, Wh, b):
    H = prev_h.shape[1]
    a = x @ Wx + prev_h @ Wh + b
    i, f, o = sigmoid(a[:, :H]), sigmoid(a[:, H : 2 * H]), sigmoid(a[:, 2 * H : 3 * H])
    g = np.tanh(a[:, 3 * H :])
    next_c = f * prev_c + i * g
    tanh_c = np.tanh(next_c)
    return o * tanh_c, next_c, (x, prev_h, prev_c, Wx, Wh, i, f, o, g, tanh_c)


def lstm_step_backward(dnext_h, dnext_c, cache):
    x, prev_h, prev_c, Wx, Wh, i, f, o, g, tanh_c = cache
    dc = dnext_c + dnext_h * o * (1 - tanh_c**2)
    da_i = dc * g * i * (1 - i)
    da_f = dc * prev_c * f * (1 - f)
    da_o = dnext_h * tanh_c * o * (1 - o)
    da_g = dc * i * (1 - g**2)
    da = np.hstack([da_i, da_f, da_o, da_g])
    return da @ Wx.T, da @ Wh.T, dc * f, x.T @ da, prev_h.T @ da, da.sum(axis=0)


def lstm_forward(x, h0, Wx, Wh, b, buffers=np.float64):
    N, T, _ = x.shape
    H = len(Wh)
    h, caches = np.zeros((N, T, H), buffers), []
    prev_h, prev_c = h0, np.zeros((N, H), buffers)
    for t in range(T):
        prev_h, prev_c, cache = lstm_step_forward(x[:, t, :], prev_h, prev_c, Wx, Wh, b)
        h[:, t, :] = prev_h
        caches.append(cache)
    return h, caches


def lstm_backward(dh, cache, buffers=np.float64):
    N, T, H = dh.shape
    D = cache[0][0].shape[1]
    dx, dprev_h, dprev_c = np.zeros((N, T, D), buffers), np.zeros((N, H), buffers), np.zeros((N, H), buffers)
    dWx, dWh, db = np.zeros((D, 4 * H), buffers), np.zeros((H, 4 * H), buffers), np.zeros(4 * H, buffers)
    for t in reversed(range(T)):
        step = lstm_step_backward(dh[:, t, :] + dprev_h, dprev_c, cache[t])
        dx[:, t, :], dprev_h, dprev_c, dWx_t, dWh_t, db_t = step
        dWx += dWx_t
        dWh += dWh_t
        db += db_t
    return dx, dprev_h, dWx, dWh, db


# ---- before and after -----------------------------------------------------------------------------------------------


def word_embedding_forward(x, W):
    return W[x], (x, W)


def word_embedding_backward(dout, cache):
    x, W = cache
    dW = np.zeros_like(W)
    np.add.at(dW, x, dout)
    return dW


def affine_forward(x, w, b):
    return x.reshape(len(x), -1) @ w + b, (x, w, b)


def affine_backward(dout, cache):
    x, w, _ = cache
    return (dout @ w.T).reshape(x.shape), x.reshape(len(x), -1).T @ dout, dout.sum(axis=0)


def temporal_affine_forward(x, w, b):
    N, T, D = x.shape
    out = (x.reshape(N * T, D) @ w).reshape(N, T, -1) + b
    return out, (x, w, b, out)


def temporal_affine_backward(dout, cache):
    x, w, _, _ = cache
    N, T, D = x.shape
    rows = dout.reshape(N * T, -1)
    dw = (rows.T @ x.reshape(N * T, D)).T
    return (rows @ w.T).reshape(N, T, D), dw, dout.sum(axis=(0, 1))


def temporal_softmax_loss(x, y, mask, verbose=False):
    N, T, V = x.shape
    rows, labels, weights = x.reshape(N * T, V), y.reshape(N * T), mask.reshape(N * T)
    chosen = np.arange(N * T), labels
    probs = np.exp(rows - np.max(rows, axis=1, keepdims=True))
    probs /= np.sum(probs, axis=1, keepdims=True)
    loss = -np.sum(weights * np.log(probs[chosen])) / N
    dx = probs.copy()
    dx[chosen] -= 1
    dx /= N
    dx *= weights[:, None]
    if verbose:
        print("dx_flat: ", dx.shape)
    return loss, dx.reshape(N, T, V)


# ---- classifiers/rnn.py ---------------------------------------------------------------------------------------------


def captioning_parameters(make, V, D, W, H, cell):
    """Parameters of CaptioningRNN, each ``make(*shape)``: V words as vectors of W, features of D."""
    K = {"rnn": H, "lstm": 4 * H}[cell]
    shapes = {"W_embed": (V, W), "W_proj": (D, H), "b_proj": (H,), "Wx": (W, K), "Wh": (H, K), "b": (K,)}
    return {name: make(*shape) for name, shape in (shapes | {"W_vocab": (H, V), "b_vocab": (V,)}).items()}


def captioning_loss(layers, cell, params, features, captions, **options):
    """CaptioningRNN.loss with the functions of some module ``layers``; <NULL> is word 0.

    features (N, D), captions (N, T + 1) -> loss, gradients by the names of the parameters
    """
    words_in, words_out, grads = captions[:, :-1], captions[:, 1:], {}
    forward, backward = getattr(layers, f"{cell}_forward"), getattr(layers, f"{cell}_backward")
    h0, projection = layers.affine_forward(features, params["W_proj"], params["b_proj"])
    words, embedding = layers.word_embedding_forward(words_in, params["W_embed"])
    h, recurrence = forward(words, h0, params["Wx"], params["Wh"], params["b"], **options)
    scores, vocabulary = layers.temporal_affine_forward(h, params["W_vocab"], params["b_vocab"])
    loss, dscores = layers.temporal_softmax_loss(scores, words_out, words_out != 0)
    dh, grads["W_vocab"], grads["b_vocab"] = layers.temporal_affine_backward(dscores, vocabulary)
    dwords, dh0, grads["Wx"], grads["Wh"], grads["b"] = backward(dh, recurrence, **options)
    grads["W_embed"] = layers.word_embedding_backward(dwords, embedding)
    _, grads["W_proj"], grads["b_proj"] = layers.affine_backward(dh0, projection)
    return loss, grads
