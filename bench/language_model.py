"""The same character model in rnncore and in PyTorch: same parameters at the start, same batches, same updates.

    python bench/language_model.py FILE [--cell lstm] [--hidden 256] [--layers 1] [--epochs 2] [--threads 1]

Trains both on the first 90 % of FILE, prints tokens a second and the held-out loss of both, and how far they are apart.
Needs torch.
"""

import argparse
import os
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("file")
parser.add_argument("--cell", choices=["lstm", "gru", "rnn"], default="lstm")
parser.add_argument("--hidden", type=int, default=256)
parser.add_argument("--layers", type=int, default=1)
parser.add_argument("--epochs", type=int, default=2)
parser.add_argument("--batch", type=int, default=32)
parser.add_argument("--chunk", type=int, default=64)
parser.add_argument("--learning-rate", type=float, default=2e-3)
parser.add_argument("--threads", type=int, default=1)
arguments = parser.parse_args()
for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "RNNCORE_NUM_THREADS"):
    os.environ[variable] = str(arguments.threads)

from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402

import rnncore as rc  # noqa: E402
from rnncore.bench.twins import TorchLanguageModel  # noqa: E402


def train_torch(model, ids):
    network = TorchLanguageModel(model, arguments.threads)
    targets = torch.from_numpy(rc.streams(ids, model.batch_size))
    inputs = torch.cat([torch.full_like(targets[:1], model.vocabulary.eos_id), targets[:-1]])
    for _ in range(model.epochs):
        state = None
        for t in range(0, len(targets), model.chunk_length):
            chunk = slice(t, t + model.chunk_length)
            state = network.update(inputs[chunk], targets[chunk], state)
    return network


@torch.no_grad()
def held_out_torch(network, ids, eos):
    targets = torch.from_numpy(ids)[:, None]
    inputs = torch.cat([torch.full_like(targets[:1], eos), targets[:-1]])
    total, state = 0.0, None
    for t in range(0, len(targets), 2048):
        loss, state = network.loss(inputs[t : t + 2048], targets[t : t + 2048], state, reduction="sum")
        total += loss.item()
    return total / len(ids)


def main():
    text = Path(arguments.file).read_text(encoding="utf-8")
    cut = round(len(text) * 0.9)
    options = {"form": "reset_after", "update": "old"} if arguments.cell == "gru" else None
    settings = {
        "cell": arguments.cell,
        "hidden_size": arguments.hidden,
        "num_layers": arguments.layers,
        "cell_options": options,
        "epochs": arguments.epochs,
        "batch_size": arguments.batch,
        "chunk_length": arguments.chunk,
        "learning_rate": arguments.learning_rate,
        "random_state": 0,
    }
    untrained = rc.LanguageModel(**settings).build(rc.Vocabulary.from_text(text[:cut]))
    ids, held_out = untrained.vocabulary.encode(text[:cut]), untrained.vocabulary.encode(text[cut:])
    tokens = len(ids) // arguments.batch * arguments.batch * arguments.epochs

    start = time.perf_counter()
    model = rc.LanguageModel(**settings).fit(text[:cut])
    seconds = time.perf_counter() - start
    ours = float(np.log(model.perplexity(text[cut:])))
    start = time.perf_counter()
    network = train_torch(untrained, ids)
    torch_seconds = time.perf_counter() - start
    theirs = held_out_torch(network, held_out, untrained.vocabulary.eos_id)

    print(f"{arguments.cell} {arguments.layers} x {arguments.hidden}, {arguments.epochs} epochs of {cut:,} characters")
    print(f"rnncore: {tokens / seconds:10,.0f} tokens/s   held-out {ours:.4f} nats a character")
    print(f"PyTorch: {tokens / torch_seconds:10,.0f} tokens/s   held-out {theirs:.4f} nats a character")
    print(f"{torch_seconds / seconds:.2f} times as fast; held-out losses {abs(ours - theirs):.4f} apart")


if __name__ == "__main__":
    main()
