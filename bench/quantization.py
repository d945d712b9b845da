"""What bfloat16 and int8 cost: every example, trained once, with its weights as they are and rounded.

    python bench/quantization.py DATA [--task char_lm ...] [--seed 0] [--epochs N] [--json FILE]

DATA is a folder with one data set a folder, as the examples take them. Prints the held-out figures of each precision,
the difference to float32, the bytes of the parameters, and the time of the figures over that in float32.
"""

import argparse
import importlib
import json
import sys
import time
from pathlib import Path

from models import TASKS

from rnncore.engine.quantization import PRECISIONS

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


def main():
    found = {}
    for task in arguments.task:
        found[task] = compare(task, Path(arguments.data) / EXAMPLES[task], arguments)
        show(task, found[task])
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
    main()
