"""The modules of rnncore.interop.torch beside those of torch.nn, with the same parameters, in one process.

    python bench/torch_modules.py [--dtype float32 float64] [--threads 1] [--seconds 0.5]

For the shapes of rnncore/bench/workloads.py: milliseconds of inference and of training, forward and backward with
gradients of the input and of all parameters; medians over interleaved rounds, the ratio is torch.nn over rnncore.
Then a batch of lengths T/4 .. T as a PackedSequence, beside torch.nn and beside the same batch padded. Both must give
the same before they are timed.
"""

import argparse
import datetime
import statistics

import numpy as np
import torch

import rnncore as rc
from rnncore.bench.workloads import SHAPES
from rnncore.config import processor
from rnncore.interop import torch as interop
from rnncore.testing import interleaved_medians

#: Of results, relative to their scale.
TOLERANCE = {"float32": 1e-4, "float64": 1e-10}


def modules(kind, D, H, dtype):
    """-> those of torch.nn and rnncore, with the same parameters"""
    torch.manual_seed(0)
    theirs = getattr(torch.nn, kind)(D, H, dtype=getattr(torch, dtype))
    ours = getattr(interop, kind)(D, H, dtype=getattr(torch, dtype))
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def inference(module, x):
    def call():
        with torch.inference_mode():
            return [output_of(module(x))]

    return call


def training(module, leaf, x, dy):
    """leaf: the tensor whose gradient is wanted, x: that, or a PackedSequence of it."""

    def call():
        leaf.grad = None
        module.zero_grad()
        output_of(module(x)).backward(dy)
        return [leaf.grad, *(p.grad for p in module.parameters())]

    return call


def output_of(result):
    y, _ = result
    return y.data if isinstance(y, torch.nn.utils.rnn.PackedSequence) else y


def compare(calls, dtype):
    for found, wanted in zip(*(call() for call in reversed(calls)), strict=True):
        scale = max(1, wanted.abs().max().item())
        np.testing.assert_allclose(found.detach() / scale, wanted.detach() / scale, rtol=0, atol=TOLERANCE[dtype])


def row(kind, shape, dtype, seconds):
    T, N, D, H = shape
    x, dy = (torch.randn(T, N, width, dtype=getattr(torch, dtype)) for width in (D, H))
    leaf, pair, columns = x.clone().requires_grad_(), modules(kind, D, H, dtype), []
    for calls in ([inference(m, x) for m in pair], [training(m, leaf, leaf, dy) for m in pair]):
        compare(calls, dtype)
        theirs, ours = interleaved_medians(calls, seconds)
        columns += [f"{1e3 * theirs:,.3f}", f"{1e3 * ours:,.3f}", f"{theirs / ours:.2f}"]
    return columns


def packed_row(kind, shape, seconds):
    """Training: torch.nn packed, rnncore packed, rnncore padded; the ratios."""
    T, N, D, H = shape
    lengths = torch.randint(T // 4, T + 1, (N,), generator=torch.Generator().manual_seed(0))
    padded = torch.randn(T, N, D).requires_grad_()
    packed = torch.nn.utils.rnn.pack_padded_sequence(padded, lengths, enforce_sorted=False)
    leaf = packed.data.detach().requires_grad_()
    packed = torch.nn.utils.rnn.PackedSequence(leaf, *packed[1:])
    theirs, ours = modules(kind, D, H, "float32")
    dy = torch.randn(len(leaf), H)
    calls = [training(theirs, leaf, packed, dy), training(ours, leaf, packed, dy)]
    compare(calls, "float32")
    slow, fast = interleaved_medians(calls, seconds)
    packed_again, whole = interleaved_medians([calls[1], training(ours, padded, padded, torch.randn(T, N, H))], seconds)
    return [
        *(f"{1e3 * time:,.3f}" for time in (slow, fast, whole)),
        f"{slow / fast:.2f}",
        f"{whole / packed_again:.2f}",
    ]


def table(head, rows):
    """-> the rows, printed as they come"""
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|", flush=True)
    done = []
    for columns in rows:
        print(f"| {' | '.join(columns)} |", flush=True)
        done.append(columns)
    print()
    return done


def summary(rows):
    """Geometric mean and worst of the ratios of each kind, in inference and in training."""
    for kind in dict.fromkeys(row[0] for row in rows):
        ratios = [[float(row[column]) for row in rows if row[0] == kind] for column in (4, 7)]
        figures = (f"{statistics.geometric_mean(of_one):.2f}, {min(of_one):.2f}" for of_one in ratios)
        print(f"{kind}: geometric mean and worst of inference {', of training '.join(figures)}")
    print()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", nargs="+", choices=TOLERANCE, default=["float32", "float64"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.5, help="for each call of each row")
    arguments = parser.parse_args()
    rc.set_num_threads(arguments.threads)
    torch.set_num_threads(arguments.threads)
    print(f"{datetime.date.today()}, {processor()}, threads: {arguments.threads}, PyTorch {torch.__version__}\n")
    kinds = ("LSTM", "GRU", "RNN")
    for dtype in arguments.dtype:
        timed = ("inference: torch.nn", "rnncore", "ratio", "training: torch.nn", "rnncore", "ratio")
        rows = table(
            (dtype, "T N D H", *timed),
            (
                (kind, " ".join(map(str, shape)), *row(kind, shape, dtype, arguments.seconds))
                for kind in kinds
                for shape in SHAPES
            ),
        )
        summary(rows)
    table(
        (
            "PackedSequence",
            "T N D H",
            "torch.nn",
            "rnncore",
            "rnncore, padded",
            "torch.nn / rnncore",
            "padded / packed",
        ),
        (
            (kind, " ".join(map(str, shape)), *packed_row(kind, shape, arguments.seconds))
            for kind in kinds
            for shape in SHAPES
            if shape[0] > 1 and 8 <= shape[1] < 64
        ),
    )


if __name__ == "__main__":
    main()
