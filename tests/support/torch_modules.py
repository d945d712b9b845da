"""Pairs of a module of torch.nn and one on the engine with the same weights, and comparisons of what they compute."""

import torch
from support.compare import TOLERANCE

from rnncore.interop import torch as interop

T, N, D, H = 6, 5, 3, 4
LENGTHS = [4, 6, 1, 6, 3]

KINDS = {
    "RNN": ("RNN", {}),
    "RNN-relu": ("RNN", {"nonlinearity": "relu"}),
    "GRU": ("GRU", {}),
    "LSTM": ("LSTM", {}),
}


def pair(kind, dtype="float64", **options):
    """-> module of torch.nn, module of interop with the same random weights"""
    name, own = KINDS[kind]
    theirs = getattr(torch.nn, name)(D, H, dtype=getattr(torch, dtype), **own, **options)
    with torch.no_grad():
        for p in theirs.parameters():
            p.copy_(torch.randn_like(p) / 2)
    ours = getattr(interop, name)(D, H, dtype=getattr(torch, dtype), **own, **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def leaf(*shape, dtype="float64"):
    return torch.randn(*shape, dtype=getattr(torch, dtype)).requires_grad_()


def states_of(module, *shape, dtype="float64"):
    """-> leaves, and hx made of them"""
    leaves = [leaf(*shape, dtype=dtype) for _ in range(1 + isinstance(module, torch.nn.LSTM))]
    return leaves, tuple(leaves) if len(leaves) > 1 else leaves[0]


def flat(result):
    """-> output and final states as a list of tensors"""
    y, states = result
    y = y.data if isinstance(y, torch.nn.utils.rnn.PackedSequence) else y
    return [y, *(states if isinstance(states, tuple) else (states,))]


def close(got, wanted, what, tolerance=TOLERANCE["float64"]):
    assert got.shape == wanted.shape, what
    assert got.dtype == wanted.dtype, what
    assert (got - wanted).abs().max() <= tolerance * max(1, wanted.abs().max()), what


def outcome(module, x, leaves, hx, prepare=lambda x: x, parameters=None):
    """-> list of outputs, gradients of x, of the states and of the parameters, for cotangents of every output"""
    outputs = flat(module(prepare(x), hx))
    generator = torch.Generator().manual_seed(3)
    cotangents = [torch.randn(o.shape, dtype=o.dtype, generator=generator) for o in outputs]
    wanted = [x, *leaves, *(module.parameters() if parameters is None else parameters)]
    return [*outputs, *torch.autograd.grad(outputs, wanted, cotangents)]
