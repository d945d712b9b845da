"""Losses of whole sequences, forward and backward, beside PyTorch: python bench/sequence_losses.py [--threads 1]

CTC beside torch.nn.functional.ctc_loss after log_softmax; conditional random fields beside a loop over the steps in
PyTorch, as users write it. Calls take turns, medians count. Prints how far the losses are apart too. Needs torch.
"""

import argparse
import os

CTC = [(200, 32, 30, 20), (200, 32, 30, 50), (1000, 8, 30, 200), (100, 32, 5000, 20)]  # T, N, V, labels at most
CRF = [(50, 32, 9), (30, 16, 45)]  # T, N, K

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--seconds", type=float, default=1.0)
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--dtype", nargs="+", default=["float32", "float64"], choices=["float32", "float64"])


def ctc_calls(T, N, V, most, dtype):
    rng = np.random.default_rng(0)
    y = rng.normal(size=(T, N, V)).astype(dtype)
    targets = [rng.integers(1, V, size=rng.integers(most // 2, most + 1)) for _ in range(N)]
    logits, labels = torch.tensor(y, requires_grad=True), torch.tensor(np.concatenate(targets))
    frames, counts = torch.full((N,), T), torch.tensor([len(row) for row in targets])

    def theirs():
        logits.grad = None
        losses = torch.nn.functional.ctc_loss(logits.log_softmax(2), labels, frames, counts, reduction="none")
        losses.mean().backward()
        return losses.mean().item()

    return lambda: rc.ctc_loss(y, targets)[0], theirs


def crf_calls(T, N, K, dtype):
    rng = np.random.default_rng(0)
    y, A = rng.normal(size=(T, N, K)).astype(dtype), rng.normal(size=(K, K)).astype(dtype)
    tags = rng.integers(K, size=(T, N))
    emissions, transitions = torch.tensor(y, requires_grad=True), torch.tensor(A, requires_grad=True)
    wanted, rows = torch.tensor(tags), torch.arange(N)

    def theirs():
        emissions.grad = transitions.grad = None
        sums, score = emissions[0], emissions[0, rows, wanted[0]]
        for t in range(1, T):
            sums = torch.logsumexp(sums[:, :, None] + transitions, dim=1) + emissions[t]
            score = score + transitions[wanted[t - 1], wanted[t]] + emissions[t, rows, wanted[t]]
        loss = (torch.logsumexp(sums, dim=1) - score).mean()
        loss.backward()
        return loss.item()

    return lambda: rc.crf_loss(y, A, tags)[0], theirs


def main():
    rc.set_num_threads(arguments.threads)
    torch.set_num_threads(arguments.threads)
    print(f"{processor()}, {arguments.threads} thread(s), torch {torch.__version__}; loss and gradients, ms")
    for name, shapes, make in (("ctc", CTC, ctc_calls), ("crf", CRF, crf_calls)):
        for shape in shapes:
            for dtype in arguments.dtype:
                calls = make(*shape, dtype)
                apart = abs(calls[0]() - calls[1]())
                ours, theirs = (1e3 * seconds for seconds in interleaved_medians(calls, arguments.seconds))
                times = f"rnncore {ours:.3f}, PyTorch {theirs:.3f}: {ours / theirs:.3f} of its time"
                print(f"{name} {'x'.join(map(str, shape)):>13} {dtype}: {times}; losses {apart:.1e} apart", flush=True)


if __name__ == "__main__":
    arguments = parser.parse_args()
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(arguments.threads)
    import numpy as np
    import torch

    import rnncore as rc
    from rnncore.config import processor
    from rnncore.testing import interleaved_medians

    main()
