"""minGRU beside this library's GRU, and beside the same cell written step by step with PyTorch operations.

    python bench/mingru.py [--seconds 2]

Forward and backward, float32, one thread. Prints medians of interleaved rounds, and ratios to minGRU.
"""

import argparse
import os

THREADS = ("RNNCORE_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
os.environ.update(dict.fromkeys(THREADS, "1"))  # read when the libraries are imported

import numpy as np  # noqa: E402
import torch  # noqa: E402

import rnncore as rc  # noqa: E402
from rnncore.bench.measure import measure  # noqa: E402
from rnncore.config import processor  # noqa: E402

T, N, D, H = 1000, 64, 10, 100


def make_calls():
    """Return the training calls by name; all minGRUs have the same weights, and must give the same results."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)

    def normal(*shape, scale=1.0):
        return (scale * rng.normal(size=shape)).astype("float32")

    x, dh = normal(T, N, D), normal(T, N, H)
    Wx, b = normal(D, 2 * H, scale=0.3), normal(2 * H, scale=0.1)
    gru_weights = normal(D, 3 * H, scale=0.3), normal(H, 3 * H, scale=0.1), normal(3 * H, scale=0.1)
    leaves = [torch.from_numpy(array).requires_grad_() for array in (x, Wx, b)]

    def mingru():
        h, _, cache = rc.mingru_forward(x, Wx, b)
        gradients = rc.mingru_backward(dh, cache)
        return h, gradients.dx, gradients.dWx, gradients.db

    def gru():
        h, _, cache = rc.gru_forward(x, *gru_weights)
        return h, rc.gru_backward(dh, cache)

    def step_by_step():
        steps, weight, bias = leaves
        for leaf in leaves:
            leaf.grad = None
        h, states = torch.zeros(N, H), []
        for t in range(T):
            a = steps[t] @ weight + bias
            z, n = torch.sigmoid(a[:, :H]), a[:, H:]
            h = (1 - z) * h + z * n
            states.append(h)
        h = torch.stack(states)
        h.backward(torch.from_numpy(dh))
        return h.detach().numpy(), *(leaf.grad.numpy() for leaf in leaves)

    for ours, theirs in zip(mingru(), step_by_step(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())
    return {"minGRU": mingru, "GRU": gru, "PyTorch operations": step_by_step}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2, help="for each of the three")
    medians = measure(make_calls(), parser.parse_args().seconds)
    isa = rc.available_isas()[-1]
    print(f"T={T} N={N} D={D} H={H} float32, one thread, {processor()}, {isa}, torch {torch.__version__}")
    for name, median in medians.items():
        print(f"{name:20} {median * 1e3:7.1f} ms  {median / medians['minGRU']:5.1f}")


if __name__ == "__main__":
    main()
