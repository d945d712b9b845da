"""Stacked, bidirectional, ragged layers against torch.nn: outputs, final states and every gradient."""

import numpy as np
import pytest
from support.compare import TOLERANCE

import rnncore as rc

torch = pytest.importorskip("torch")

T, N, D, H = 7, 4, 3, 5

KINDS = {
    "RNN-tanh": (rc.RNN, {}, torch.nn.RNN, {}),
    "RNN-relu": (rc.RNN, {"activation": "relu"}, torch.nn.RNN, {"nonlinearity": "relu"}),
    "GRU": (rc.GRU, {"form": "reset_after", "update": "old"}, torch.nn.GRU, {}),
    "LSTM": (rc.LSTM, {}, torch.nn.LSTM, {}),
}


def numpy(tensor):
    return tensor.detach().numpy()


def suffixes(layer):
    """-> (suffix here, suffix in torch) of every cell."""
    for k in range(layer.num_layers):
        yield f"_{k}", f"_l{k}"
        if layer.bidirectional:
            yield f"_{k}_reverse", f"_l{k}_reverse"


def copy_weights(layer, module):
    """torch keeps weights transposed and two biases; only those of a GRU's candidate do not add up.

    Gate blocks are the same: LSTM i f g o, GRU r z n.
    """
    theirs = {name: numpy(p) for name, p in module.named_parameters()}
    for ours, other in suffixes(layer):
        b_ih, b_hh = theirs["bias_ih" + other], theirs["bias_hh" + other]
        layer.params["Wx" + ours][...] = theirs["weight_ih" + other].T
        layer.params["Wh" + ours][...] = theirs["weight_hh" + other].T
        layer.params["b" + ours][...] = b_ih + b_hh
        if isinstance(layer, rc.GRU):
            layer.params["b" + ours][2 * H :] = b_ih[2 * H :]
            layer.params["bhn" + ours][...] = b_hh[2 * H :]


def gradients_as_in_torch(layer):
    """-> dict of torch's parameter names -> our gradients."""
    gradients = {}
    for ours, other in suffixes(layer):
        db = layer.grads["b" + ours]
        gradients["weight_ih" + other] = layer.grads["Wx" + ours].T
        gradients["weight_hh" + other] = layer.grads["Wh" + ours].T
        gradients["bias_ih" + other] = gradients["bias_hh" + other] = db
        if isinstance(layer, rc.GRU):
            gradients["bias_hh" + other] = np.concatenate([db[: 2 * H], layer.grads["bhn" + ours]])
    return gradients


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("lengths", [None, [3, 7, 1, 4], [2, 6, 6, 5]], ids=["full", "ragged", "short"])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("num_layers, bidirectional", [(1, False), (3, False), (1, True), (2, True)])
@pytest.mark.parametrize("kind", KINDS)
def test_layers_equal_torch(rng, kind, num_layers, bidirectional, batch_first, lengths, dtype):
    ours, our_options, theirs, their_options = KINDS[kind]
    common = {"num_layers": num_layers, "bidirectional": bidirectional, "batch_first": batch_first}
    layer = ours(D, H, dtype=dtype, seed=0, **common, **our_options)
    module = theirs(D, H, dtype=getattr(torch, dtype), **common, **their_options)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.from_numpy(rng.normal(scale=0.5, size=p.shape)))
    copy_weights(layer, module)

    def leaf(*shape):
        return torch.from_numpy(rng.normal(size=shape).astype(dtype)).requires_grad_()

    x = leaf(N, T, D) if batch_first else leaf(T, N, D)
    cells = num_layers * (1 + bidirectional)
    initial = [leaf(cells, N, H) for _ in layer.state_names]
    is_lstm = kind == "LSTM"
    given = x
    if lengths is not None:
        given = torch.nn.utils.rnn.pack_padded_sequence(
            x, torch.tensor(lengths), batch_first=batch_first, enforce_sorted=False
        )
    expected_y, final = module(given, tuple(initial) if is_lstm else initial[0])
    if lengths is not None:
        pad = torch.nn.utils.rnn.pad_packed_sequence
        expected_y, _ = pad(expected_y, batch_first=batch_first, total_length=T)
    expected_final = final if is_lstm else (final,)
    dy, *dfinal = (rng.normal(size=o.shape).astype(dtype) for o in (expected_y, *expected_final))
    cotangents = [torch.from_numpy(np.array(d)) for d in (dy, *dfinal)]
    torch.autograd.backward([expected_y, *expected_final], cotangents)

    states = tuple(numpy(s) for s in initial)
    y, final, cache = layer.forward(numpy(x), states if is_lstm else states[0], lengths)
    y_inference, final_inference = layer(numpy(x), states if is_lstm else states[0], lengths)
    dx, dinitial = layer.backward(dy, cache, tuple(dfinal) if is_lstm else dfinal[0])

    def close(name, got, wanted):
        wanted = numpy(wanted)
        assert got.shape == wanted.shape, name
        assert got.dtype == wanted.dtype, name
        atol = TOLERANCE[dtype] * np.abs(wanted).max(initial=1)
        np.testing.assert_allclose(got, wanted, rtol=0, atol=atol, equal_nan=False, err_msg=name)

    close("y", y, expected_y)
    close("y", y_inference, expected_y)
    close("dx", dx, x.grad)
    results = [s if is_lstm else (s,) for s in (final, final_inference, dinitial)]
    for k, name in enumerate(layer.state_names):
        close(f"{name}_n", results[0][k], expected_final[k])
        close(f"{name}_n", results[1][k], expected_final[k])
        close(f"d{name}0", results[2][k], initial[k].grad)
    gradients = gradients_as_in_torch(layer)
    assert gradients.keys() == dict(module.named_parameters()).keys()
    for name, p in module.named_parameters():
        close(name, gradients[name], p.grad)
