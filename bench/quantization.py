"""What bfloat16 and int8 cost: every example, trained once, with its weights as they are and rounded.

    python bench/quantization.py DATA [--task char_lm ...] [--seed 0] [--epochs N] [--json FILE]

DATA is a folder with one data set a folder, as the examples take them. Prints the held-out figures of each precision,
the difference to float32, the bytes of the parameters, and the time of the figures over that in float32. Before that
the error of layers with random weights after 1,000 steps.
"""

import argparse
import importlib
import itertools
import json
import sys
import time
from pathlib import Path

import numpy as np
from models import TASKS

from rnncore.engine.quantization import PRECISIONS
from rnncore.layers import RECURRENT

#: Task (a module of examples/) -> its data set; the language models have no twin in bench/models.py.
EXAMPLES = {"char_lm": "shakespeare", "word_lm": "wikitext2"} | TASKS

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("data")
parser.add_argument("--task", nargs="+", choices=EXAMPLES, default=list(EXAMPLES))
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--epochs", type=int, help="instead of the task's own")
parser.add_argument("--json", help="write the figures to this file")


def measure(example, model, held_out):
    start = time.perf_counter()
    figures = example.figures(model, held_out)
    return figures | {"bytes": model.nbytes, "seconds": time.perf_counter() - start}


def compare(task, data, arguments):
    """-> figures by precision"""
    example = importlib.import_module(task)
    training, held_out = example.read(data)
    settings = {"patience": None} | ({} if arguments.epochs is None else {"epochs": arguments.epochs})
    model = example.make_model(random_state=arguments.seed, **settings).fit(*training)
    found = {"float32": measure(example, model, held_out)}
    for precision in PRECISIONS:
        found[precision] = measure(example, model.quantize(precision), held_out)
    return found


def show(task, found):
    exact = found["float32"]
    print(f"{task}: {exact['bytes']:,} bytes in float32")
    for name, value in exact.items():
        if name not in ("bytes", "seconds"):
            rounded = ", ".join(f"{p} {found[p][name]:.4f} ({found[p][name] - value:+.4f})" for p in PRECISIONS)
            print(f"  {name:>34} {value:.4f}; {rounded}")
    for name, title in (("bytes", "bytes over float32"), ("seconds", "seconds over float32")):
        print(f"  {title:>34} " + ", ".join(f"{p} {found[p][name] / exact[name]:.2f}" for p in PRECISIONS), flush=True)


def drift(steps=1000):
    """Print the relative error of the state after many steps, of layers with random weights."""
    rng = np.random.default_rng(arguments.seed)
    print(f"relative error of h after {steps:,} steps, random weights")
    for cell, init in itertools.product(RECURRENT.values(), ("uniform", "orthogonal")):
        for H in (64, 256):
            layer = cell(H, H, init=init, seed=arguments.seed)
            x = rng.normal(size=(steps, 8, H)).astype("float32")
            h = layer(x)[0][-1]
            norm, rounded = np.linalg.norm(h), {p: layer.quantize(p)(x)[0][-1] - h for p in PRECISIONS}
            errors = ", ".join(f"{p} {np.linalg.norm(difference) / norm:.2%}" for p, difference in rounded.items())
            print(f"  {cell.__name__:>6} {init:>10} H={H:<4} {errors}", flush=True)


def main():
    found = {}
    drift()
    for task in arguments.task:
        found[task] = compare(task, Path(arguments.data) / EXAMPLES[task], arguments)
        show(task, found[task])
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
    main()
