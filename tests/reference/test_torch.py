"""The reference against PyTorch in float64: an implementation that shares nothing with it."""

import numpy as np
import pytest

from rnncore import reference

torch = pytest.importorskip("torch")

# Both compute in float64 what has scale 1..10; only the order of sums differs.
TOL = 1e-11

T, N, D, H = 6, 3, 2, 4


def close(got, want):
    np.testing.assert_allclose(got, want.detach().numpy(), rtol=0, atol=TOL, equal_nan=False)


@pytest.fixture(params=range(5))
def rng(request):
    return np.random.default_rng(request.param)


def pair(rng, kind, **options):
    """A torch layer, and its weights as (Wx, Wh, b_ih, b_hh)."""
    layer = getattr(torch.nn, kind)(D, H, **options).double()
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.from_numpy(rng.normal(scale=0.7, size=p.shape)))
    Wx, Wh, b_ih, b_hh = (p.detach().numpy() for p in layer.parameters())
    return layer, Wx.T, Wh.T, b_ih, b_hh


def leaf(rng, *shape):
    return torch.from_numpy(rng.normal(size=shape)).requires_grad_()


def array(tensor):
    return tensor.detach().numpy()


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_rnn(rng, activation):
    layer, Wx, Wh, b_ih, b_hh = pair(rng, "RNN", nonlinearity=activation)
    x, h0 = leaf(rng, T, N, D), leaf(rng, 1, N, H)
    y, y_n = layer(x, h0)
    dy, dy_n = rng.normal(size=y.shape), rng.normal(size=(N, H))
    torch.autograd.backward([y, y_n], [torch.from_numpy(dy), torch.from_numpy(dy_n[None])])

    h, h_n, cache = reference.rnn_forward(array(x), Wx, Wh, b_ih + b_hh, array(h0)[0], activation=activation)
    close(h, y)
    close(h_n, y_n[0])
    g = reference.rnn_backward(dy, cache, dy_n)
    close(g.dx, x.grad)
    close(g.dh0, h0.grad[0])
    close(g.dWx, layer.weight_ih_l0.grad.T)
    close(g.dWh, layer.weight_hh_l0.grad.T)
    close(g.db, layer.bias_ih_l0.grad)


def test_gru(rng):
    layer, Wx, Wh, b_ih, b_hh = pair(rng, "GRU")  # blocks r z n
    x, h0 = leaf(rng, T, N, D), leaf(rng, 1, N, H)
    y, y_n = layer(x, h0)
    dy, dy_n = rng.normal(size=y.shape), rng.normal(size=(N, H))
    torch.autograd.backward([y, y_n], [torch.from_numpy(dy), torch.from_numpy(dy_n[None])])

    b = b_ih + np.where(np.arange(3 * H) < 2 * H, b_hh, 0)
    h, h_n, cache = reference.gru_forward(
        array(x), Wx, Wh, b, array(h0)[0], form="reset_after", update="old", bhn=b_hh[2 * H :]
    )
    close(h, y)
    close(h_n, y_n[0])
    g = reference.gru_backward(dy, cache, dy_n)
    close(g.dx, x.grad)
    close(g.dh0, h0.grad[0])
    close(g.dWx, layer.weight_ih_l0.grad.T)
    close(g.dWh, layer.weight_hh_l0.grad.T)
    close(g.db, layer.bias_ih_l0.grad)
    close(g.dbhn, layer.bias_hh_l0.grad[2 * H :])


@pytest.mark.parametrize("reverse", [False, True])
def test_lstm_with_lengths(rng, reverse):
    layer, Wx, Wh, b_ih, b_hh = pair(rng, "LSTM")  # blocks i f g o
    x, h0, c0 = leaf(rng, T, N, D), leaf(rng, 1, N, H), leaf(rng, 1, N, H)
    lengths = np.array([T, 2, 4])
    # PyTorch has no single reversed direction: reverse the valid part of every row, before and after.
    t = np.arange(T)[:, None]
    order = np.where(t < lengths, lengths - 1 - t, t) if reverse else np.broadcast_to(t, (T, N))
    order, row = torch.from_numpy(order.copy()), torch.arange(N)
    packed = torch.nn.utils.rnn.pack_padded_sequence(x[order, row], torch.from_numpy(lengths), enforce_sorted=False)
    y, (y_n, s_n) = layer(packed, (h0, c0))
    y = torch.nn.utils.rnn.pad_packed_sequence(y, total_length=T)[0][order, row]
    dy, dy_n, ds_n = rng.normal(size=y.shape), rng.normal(size=(N, H)), rng.normal(size=(N, H))
    torch.autograd.backward([y, y_n, s_n], [torch.from_numpy(d) for d in (dy, dy_n[None], ds_n[None])])

    h, (h_n, c_n), cache = reference.lstm_forward(
        array(x), Wx, Wh, b_ih + b_hh, array(h0)[0], array(c0)[0], lengths=lengths, reverse=reverse
    )
    close(h, y)
    close(h_n, y_n[0])
    close(c_n, s_n[0])
    g = reference.lstm_backward(dy, cache, dy_n, ds_n)
    close(g.dx, x.grad)
    close(g.dh0, h0.grad[0])
    close(g.dc0, c0.grad[0])
    close(g.dWx, layer.weight_ih_l0.grad.T)
    close(g.dWh, layer.weight_hh_l0.grad.T)
    close(g.db, layer.bias_ih_l0.grad)
