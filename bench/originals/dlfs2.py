"""Deep Learning from Scratch 2, ``common/time_layers.py``: xs (N, T, D), a new cell object for every step.

Gate blocks are f g i o for the LSTM and z r h for the GRU. ``hs`` and ``dxs`` have the dtype of the weights; in the
book they are always float32.
"""

import numpy as np

from . import sigmoid


class Layer:
    def __init__(self, Wx, Wh, b):
        self.params = [Wx, Wh, b]
        self.grads = [np.zeros_like(Wx), np.zeros_like(Wh), np.zeros_like(b)]
        self.cache = None

    def _write(self, *grads):
        for kept, grad in zip(self.grads, grads, strict=True):
            kept[...] = grad


class RNN(Layer):
    def forward(self, x, h_prev):
        Wx, Wh, b = self.params
        h_next = np.tanh(np.dot(x, Wx) + np.dot(h_prev, Wh) + b)
        self.cache = x, h_prev, h_next
        return h_next

    def backward(self, dh_next):
        Wx, Wh, _ = self.params
        x, h_prev, h_next = self.cache
        da = dh_next * (1 - h_next**2)
        self._write(np.dot(x.T, da), np.dot(h_prev.T, da), np.sum(da, axis=0))
        return np.dot(da, Wx.T), np.dot(da, Wh.T)


class LSTM(Layer):
    def forward(self, x, h_prev, c_prev):
        Wx, Wh, b = self.params
        H = len(Wh)
        a = np.dot(x, Wx) + np.dot(h_prev, Wh) + b
        f, g = sigmoid(a[:, :H]), np.tanh(a[:, H : 2 * H])
        i, o = sigmoid(a[:, 2 * H : 3 * H]), sigmoid(a[:, 3 * H :])
        c_next = f * c_prev + g * i
        self.cache = x, h_prev, c_prev, i, f, g, o, c_next
        return o * np.tanh(c_next), c_next

    def backward(self, dh_next, dc_next):
        Wx, Wh, _ = self.params
        x, h_prev, c_prev, i, f, g, o, c_next = self.cache
        q = np.tanh(c_next)
        dc = dc_next + dh_next * o * (1 - q**2)
        df, dg = dc * c_prev * f * (1 - f), dc * i * (1 - g**2)
        di, do = dc * g * i * (1 - i), dh_next * q * o * (1 - o)
        da = np.hstack((df, dg, di, do))
        self._write(np.dot(x.T, da), np.dot(h_prev.T, da), np.sum(da, axis=0))
        return np.dot(da, Wx.T), np.dot(da, Wh.T), dc * f


class GRU(Layer):
    def _blocks(self):
        H = len(self.params[1])
        return [[p[..., k * H : (k + 1) * H] for k in range(3)] for p in self.params]

    def forward(self, x, h_prev):
        (Xz, Xr, Xh), (Hz, Hr, Hh), (bz, br, bh) = self._blocks()
        z = sigmoid(np.dot(x, Xz) + np.dot(h_prev, Hz) + bz)
        r = sigmoid(np.dot(x, Xr) + np.dot(h_prev, Hr) + br)
        n = np.tanh(np.dot(x, Xh) + np.dot(r * h_prev, Hh) + bh)
        self.cache = x, h_prev, z, r, n
        return (1 - z) * h_prev + z * n

    def backward(self, dh_next):
        (Xz, Xr, Xh), (Hz, Hr, Hh), _ = self._blocks()
        x, h_prev, z, r, n = self.cache
        dn = dh_next * z * (1 - n**2)
        drh = np.dot(dn, Hh.T)
        dr = drh * h_prev * r * (1 - r)
        dz = dh_next * (n - h_prev) * z * (1 - z)
        self._write(
            np.hstack((np.dot(x.T, dz), np.dot(x.T, dr), np.dot(x.T, dn))),
            np.hstack((np.dot(h_prev.T, dz), np.dot(h_prev.T, dr), np.dot((r * h_prev).T, dn))),
            np.hstack((np.sum(dz, axis=0), np.sum(dr, axis=0), np.sum(dn, axis=0))),
        )
        dh_prev = dh_next * (1 - z) + drh * r + np.dot(dz, Hz.T) + np.dot(dr, Hr.T)
        return np.dot(dz, Xz.T) + np.dot(dr, Xr.T) + np.dot(dn, Xh.T), dh_prev


class TimeRNN(Layer):
    cell, states = RNN, ("h",)

    def __init__(self, Wx, Wh, b, stateful=False):
        super().__init__(Wx, Wh, b)
        self.layers, self.dh, self.stateful = None, None, stateful
        self.reset_state()

    def forward(self, xs):
        (N, T, _), (Wx, Wh, _) = xs.shape, self.params
        self.layers, hs = [], np.empty((N, T, len(Wh)), Wx.dtype)
        for name in self.states:
            if not self.stateful or getattr(self, name) is None:
                setattr(self, name, np.zeros((N, len(Wh)), Wx.dtype))
        for t in range(T):
            layer = self.cell(*self.params)
            self._step(layer, xs[:, t, :])
            hs[:, t, :] = self.h
            self.layers.append(layer)
        return hs

    def _step(self, layer, x):
        self.h = layer.forward(x, self.h)

    def backward(self, dhs):
        (N, T, _), Wx = dhs.shape, self.params[0]
        dxs = np.empty((N, T, len(Wx)), Wx.dtype)
        carried, grads = [0] * len(self.states), [0, 0, 0]
        for t in reversed(range(T)):
            layer = self.layers[t]
            dxs[:, t, :], *carried = layer.backward(dhs[:, t, :] + carried[0], *carried[1:])
            for k, grad in enumerate(layer.grads):
                grads[k] += grad
        self._write(*grads)
        self.dh = carried[0]
        return dxs

    def set_state(self, *states):
        self.reset_state()
        for name, state in zip(self.states, states, strict=False):
            setattr(self, name, state)

    def reset_state(self):
        for name in self.states:
            setattr(self, name, None)


class TimeGRU(TimeRNN):
    cell = GRU


class TimeLSTM(TimeRNN):
    cell, states = LSTM, ("h", "c")

    def _step(self, layer, x):
        self.h, self.c = layer.forward(x, self.h, self.c)
