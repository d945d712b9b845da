"""karpathy's ``min-char-rnn.py``, its LSTM and GRU descendants, his batched LSTM with its GRU fork; all float64.

``lossFun`` of a script reads the weights from globals; here they are arguments, as in the drop-in. Scripts work on
columns (V, 1) and dicts by step, inputs one-hot. Their softmax does not subtract the maximum, but for that of the GRU.
"""

import numpy as np

from . import sigmoid, softmax

# ---- one text at a time, by characters ------------------------------------------------------------------------------


def one_hot(ix, V):
    x = np.zeros((V, 1))
    x[ix] = 1
    return x


def probabilities(y):
    return np.exp(y) / np.sum(np.exp(y))


def char_rnn_loss(inputs, targets, hprev, Wxh, Whh, Why, bh, by):
    """``lossFun`` of min-char-rnn: gradients clipped to +-5."""
    xs, hs, ps, loss = {}, {-1: np.copy(hprev)}, {}, 0
    for t in range(len(inputs)):
        xs[t] = one_hot(inputs[t], len(by))
        hs[t] = np.tanh(np.dot(Wxh, xs[t]) + np.dot(Whh, hs[t - 1]) + bh)
        ps[t] = probabilities(np.dot(Why, hs[t]) + by)
        loss += -np.log(ps[t][targets[t], 0])
    dWxh, dWhh, dWhy = np.zeros_like(Wxh), np.zeros_like(Whh), np.zeros_like(Why)
    dbh, dby, dhnext = np.zeros_like(bh), np.zeros_like(by), np.zeros_like(hs[-1])
    for t in reversed(range(len(inputs))):
        dy = np.copy(ps[t])
        dy[targets[t]] -= 1
        dWhy += np.dot(dy, hs[t].T)
        dby += dy
        da = (1 - hs[t] * hs[t]) * (np.dot(Why.T, dy) + dhnext)
        dbh += da
        dWxh += np.dot(da, xs[t].T)
        dWhh += np.dot(da, hs[t - 1].T)
        dhnext = np.dot(Whh.T, da)
    for gradient in (dWxh, dWhh, dWhy, dbh, dby):
        np.clip(gradient, -5, 5, out=gradient)
    return loss, dWxh, dWhh, dWhy, dbh, dby, hs[len(inputs) - 1]


def stable_sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def char_lstm_loss(inputs, targets, hprev, cprev, Wf, bf, Wi, bi, Wcc, bcc, Wo, bo, Wy, by):
    """``lossFun`` of eliben's min-char-lstm: weights act on [x; h], gradients clipped to +-5."""
    V = len(by)
    zs, fs, is_, ccs, os, ps, loss = {}, {}, {}, {}, {}, {}, 0
    hs, cs = {-1: np.copy(hprev)}, {-1: np.copy(cprev)}
    for t in range(len(inputs)):
        zs[t] = np.vstack((one_hot(inputs[t], V), hs[t - 1]))
        fs[t] = stable_sigmoid(np.dot(Wf, zs[t]) + bf)
        is_[t] = stable_sigmoid(np.dot(Wi, zs[t]) + bi)
        ccs[t] = np.tanh(np.dot(Wcc, zs[t]) + bcc)
        cs[t] = fs[t] * cs[t - 1] + is_[t] * ccs[t]
        os[t] = stable_sigmoid(np.dot(Wo, zs[t]) + bo)
        hs[t] = os[t] * np.tanh(cs[t])
        ps[t] = probabilities(np.dot(Wy, hs[t]) + by)
        loss += -np.log(ps[t][targets[t], 0])
    gradients = [np.zeros_like(weight) for weight in (Wf, bf, Wi, bi, Wcc, bcc, Wo, bo, Wy, by)]
    dWf, dbf, dWi, dbi, dWcc, dbcc, dWo, dbo, dWy, dby = gradients
    dhnext, dcnext = np.zeros_like(hs[-1]), np.zeros_like(cs[-1])
    for t in reversed(range(len(inputs))):
        dy = np.copy(ps[t])
        dy[targets[t]] -= 1
        dWy += np.dot(dy, hs[t].T)
        dby += dy
        dh = np.dot(Wy.T, dy) + dhnext
        tanh_c = np.tanh(cs[t])
        dc = dcnext + dh * os[t] * (1 - tanh_c**2)
        do = dh * tanh_c * os[t] * (1 - os[t])
        dcc = dc * is_[t] * (1 - ccs[t] ** 2)
        di = dc * ccs[t] * is_[t] * (1 - is_[t])
        df = dc * cs[t - 1] * fs[t] * (1 - fs[t])
        for dW, db, da in ((dWf, dbf, df), (dWi, dbi, di), (dWcc, dbcc, dcc), (dWo, dbo, do)):
            dW += np.dot(da, zs[t].T)
            db += da
        dz = np.dot(Wf.T, df) + np.dot(Wi.T, di) + np.dot(Wcc.T, dcc) + np.dot(Wo.T, do)
        dhnext, dcnext = dz[V:], dc * fs[t]
    for gradient in gradients:
        np.clip(gradient, -5, 5, out=gradient)
    return loss, *gradients, hs[len(inputs) - 1], cs[len(inputs) - 1]


def char_gru_loss(inputs, targets, hprev, Wy, Wh, Wr, Wz, Uh, Ur, Uz, by, bh, br, bz):
    """``lossFun`` of erikvdplas' GRU: h = z h' + (1-z) tanh(Wh x + Uh (r h') + bh), gradients not clipped."""
    xs, rs, zs, ns, hs, ps, loss = {}, {}, {}, {}, {-1: np.copy(hprev)}, {}, 0
    for t in range(len(inputs)):
        xs[t] = one_hot(inputs[t], len(by))
        rs[t] = sigmoid(np.dot(Wr, xs[t]) + np.dot(Ur, hs[t - 1]) + br)
        zs[t] = sigmoid(np.dot(Wz, xs[t]) + np.dot(Uz, hs[t - 1]) + bz)
        ns[t] = np.tanh(np.dot(Wh, xs[t]) + np.dot(Uh, rs[t] * hs[t - 1]) + bh)
        hs[t] = zs[t] * hs[t - 1] + (1 - zs[t]) * ns[t]
        ps[t] = softmax(np.dot(Wy, hs[t]) + by)
        loss += -np.log(ps[t][targets[t], 0])
    gradients = [np.zeros_like(weight) for weight in (Wy, Wh, Wr, Wz, Uh, Ur, Uz, by, bh, br, bz)]
    dWy, dWh, dWr, dWz, dUh, dUr, dUz, dby, dbh, dbr, dbz = gradients
    dhnext = np.zeros_like(hs[-1])
    for t in reversed(range(len(inputs))):
        dy = np.copy(ps[t])
        dy[targets[t]] -= 1
        dWy += np.dot(dy, hs[t].T)
        dby += dy
        dh = np.dot(Wy.T, dy) + dhnext
        dn = dh * (1 - zs[t]) * (1 - ns[t] ** 2)
        dWh += np.dot(dn, xs[t].T)
        dUh += np.dot(dn, (rs[t] * hs[t - 1]).T)
        dbh += dn
        drh = np.dot(Uh.T, dn)
        dr = drh * hs[t - 1] * rs[t] * (1 - rs[t])
        dWr += np.dot(dr, xs[t].T)
        dUr += np.dot(dr, hs[t - 1].T)
        dbr += dr
        dz = dh * (hs[t - 1] - ns[t]) * zs[t] * (1 - zs[t])
        dWz += np.dot(dz, xs[t].T)
        dUz += np.dot(dz, hs[t - 1].T)
        dbz += dz
        dhnext = dh * zs[t] + drh * rs[t] + np.dot(Ur.T, dr) + np.dot(Uz.T, dz)
    return loss, *gradients, hs[len(inputs) - 1]


# ---- batches, time first --------------------------------------------------------------------------------------------


def rows(X, W, gates):
    """Space for the input rows [1, x, h'] (n, b, 1 + I + d), ones and X in their place -> Hin, d"""
    n, b, I = X.shape  # noqa: E741
    Hin = np.zeros((n, b, len(W)))
    Hin[:, :, 0] = 1
    Hin[:, :, 1 : 1 + I] = X
    return Hin, W.shape[1] // gates


class LSTM:
    """Blocks i f o g, row 0 of the weights is the bias."""

    @staticmethod
    def forward(X, WLSTM, c0=None, h0=None):
        (n, b, I), (Hin, d) = X.shape, rows(X, WLSTM, 4)  # noqa: E741
        c0 = np.zeros((b, d)) if c0 is None else c0
        h0 = np.zeros((b, d)) if h0 is None else h0
        Hout, C, Ct = np.zeros((n, b, d)), np.zeros((n, b, d)), np.zeros((n, b, d))
        IFOG, IFOGf = np.zeros((n, b, 4 * d)), np.zeros((n, b, 4 * d))
        for t in range(n):
            Hin[t, :, 1 + I :] = Hout[t - 1] if t else h0
            IFOG[t] = Hin[t] @ WLSTM
            IFOGf[t, :, : 3 * d] = sigmoid(IFOG[t, :, : 3 * d])
            IFOGf[t, :, 3 * d :] = np.tanh(IFOG[t, :, 3 * d :])
            before = C[t - 1] if t else c0
            C[t] = IFOGf[t, :, :d] * IFOGf[t, :, 3 * d :] + IFOGf[t, :, d : 2 * d] * before
            Ct[t] = np.tanh(C[t])
            Hout[t] = IFOGf[t, :, 2 * d : 3 * d] * Ct[t]
        cache = {"WLSTM": WLSTM, "Hout": Hout, "IFOGf": IFOGf, "IFOG": IFOG, "C": C, "Ct": Ct, "Hin": Hin}
        return Hout, C[-1], Hout[-1], cache | {"c0": c0, "h0": h0}

    @staticmethod
    def backward(dHout_in, cache, dcn=None, dhn=None):
        WLSTM, IFOGf, C, Ct, Hin, c0 = (cache[key] for key in ("WLSTM", "IFOGf", "C", "Ct", "Hin", "c0"))
        n, b, d = dHout_in.shape
        I = len(WLSTM) - d - 1  # noqa: E741
        dHout, dC, dWLSTM = dHout_in.copy(), np.zeros((n, b, d)), np.zeros_like(WLSTM)
        dIFOG, dX = np.zeros((n, b, 4 * d)), np.zeros((n, b, I))
        dh0, dc0 = np.zeros((b, d)), np.zeros((b, d))
        if dcn is not None:
            dC[-1] += dcn
        if dhn is not None:
            dHout[-1] += dhn
        for t in reversed(range(n)):
            i, f, o, g = (IFOGf[t, :, k * d : (k + 1) * d] for k in range(4))
            dC[t] += (1 - Ct[t] ** 2) * (o * dHout[t])
            dIFOG[t, :, :d] = g * dC[t] * i * (1 - i)
            dIFOG[t, :, d : 2 * d] = (C[t - 1] if t else c0) * dC[t] * f * (1 - f)
            dIFOG[t, :, 2 * d : 3 * d] = Ct[t] * dHout[t] * o * (1 - o)
            dIFOG[t, :, 3 * d :] = i * dC[t] * (1 - g**2)
            dWLSTM += Hin[t].T @ dIFOG[t]
            dHin = dIFOG[t] @ WLSTM.T
            dX[t] = dHin[:, 1 : 1 + I]
            if t:
                dC[t - 1] += f * dC[t]
                dHout[t - 1] += dHin[:, 1 + I :]
            else:
                dc0 += f * dC[t]
                dh0 += dHin[:, 1 + I :]
        return dX, dWLSTM, dc0, dh0


class GRU:
    """Blocks z r c; reset before the product, h = (1-z) h' + z c."""

    @staticmethod
    def forward(X, WGRU, h0=None):
        (n, b, I), (Hin, d) = X.shape, rows(X, WGRU, 3)  # noqa: E741
        h0 = np.zeros((b, d)) if h0 is None else h0
        Hout, ZRC, Hres = np.zeros((n, b, d)), np.zeros((n, b, 3 * d)), Hin.copy()
        for t in range(n):
            before = Hout[t - 1] if t else h0
            Hin[t, :, 1 + I :] = before
            ZRC[t, :, : 2 * d] = sigmoid(Hin[t] @ WGRU[:, : 2 * d])
            z, r = ZRC[t, :, :d], ZRC[t, :, d : 2 * d]
            Hres[t, :, 1 + I :] = r * before
            ZRC[t, :, 2 * d :] = np.tanh(Hres[t] @ WGRU[:, 2 * d :])
            Hout[t] = (1 - z) * before + z * ZRC[t, :, 2 * d :]
        return Hout, Hout[-1], {"WGRU": WGRU, "Hout": Hout, "ZRC": ZRC, "Hin": Hin, "Hres": Hres, "h0": h0}

    @staticmethod
    def backward(dH, cache, dhn=None):
        WGRU, Hout, ZRC, Hin, Hres, h0 = (cache[key] for key in ("WGRU", "Hout", "ZRC", "Hin", "Hres", "h0"))
        n, b, d = dH.shape
        I = len(WGRU) - d - 1  # noqa: E741
        dHout, dWGRU, dX = dH.copy(), np.zeros_like(WGRU), np.zeros((n, b, I))
        dZR, dh0 = np.zeros((b, 2 * d)), np.zeros((b, d))
        if dhn is not None:
            dHout[-1] += dhn
        for t in reversed(range(n)):
            z, r, c = (ZRC[t, :, k * d : (k + 1) * d] for k in range(3))
            before = Hout[t - 1] if t else h0
            dc = dHout[t] * z * (1 - c**2)
            dWGRU[:, 2 * d :] += Hres[t].T @ dc
            dHres = dc @ WGRU[:, 2 * d :].T
            dZR[:, :d] = dHout[t] * (c - before) * z * (1 - z)
            dZR[:, d:] = dHres[:, 1 + I :] * before * r * (1 - r)
            dWGRU[:, : 2 * d] += Hin[t].T @ dZR
            dHin = dZR @ WGRU[:, : 2 * d].T
            dX[t] = dHres[:, 1 : 1 + I] + dHin[:, 1 : 1 + I]
            dbefore = dHout[t] * (1 - z) + dHres[:, 1 + I :] * r + dHin[:, 1 + I :]
            if t:
                dHout[t - 1] += dbefore
            else:
                dh0 += dbefore
        return dX, dWGRU, dh0
