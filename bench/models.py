"""Every type of RNN on real data, in rnncore and in PyTorch: same parameters, batches and updates.

    python bench/models.py DATA [--task names_language ...] [--seeds 3] [--threads 1] [--json FILE]

DATA is a folder with one data set a folder, as the examples take them. Each task is trained by both from the same
parameters at the start, with the same batches in the same order; the learned parameters of PyTorch are then scored by
the same code as those of rnncore. Prints the held-out figures, mean and spread of the seeds, and the seconds of the
updates. Dropout draws its masks differently in the two. Needs torch.
"""

import argparse
import json
import os
import statistics
import sys
from pathlib import Path

#: Task (a module of examples/) -> its data set.
TASKS = {
    "names_language": "names",
    "sentiment": "sentiment",
    "dna": "dna",
    "speaker": "speech",
    "speech_recognition": "digits",
    "video": "video",
    "music": "music",
    "ner": "ner",
    "translation": "translation",
}

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("data")
parser.add_argument("--task", nargs="+", choices=TASKS, default=list(TASKS))
parser.add_argument("--seeds", type=int, default=3)
parser.add_argument("--epochs", type=int, help="instead of the task's own")
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--json", help="write the figures to this file")


class Recorder:
    """Trains a model of rnncore and keeps what PyTorch needs to do the same: first parameters, batches by epoch."""

    def __init__(self, model, training):
        self.epochs, self.initial = [], None
        original = model._batches

        def batches(examples, batch_size, rng=None):
            made = original(examples, batch_size, rng)
            if self.initial is None:
                self.initial = {name: p.copy() for name, p in model.params.items()}
            self.epochs.append(made)
            return made

        model._batches = batches
        model.fit(*training)
        del model._batches
        self.seconds = sum(record["seconds"] for record in model.history)


def put(model, params):
    for name, p in model.params.items():
        p[...] = params[name]


def compare(task, data, arguments):
    """-> for each seed the figures of both, with the seconds of their updates"""
    example = importlib.import_module(task)
    training, held_out = example.read(data)
    results = []
    for seed in range(arguments.seeds):
        settings = {"patience": None} | ({} if arguments.epochs is None else {"epochs": arguments.epochs})
        model = example.make_model(random_state=seed, **settings)
        recorder = Recorder(model, training)
        ours = {"seconds": recorder.seconds} | example.figures(model, held_out)
        learned = {name: p.copy() for name, p in model.params.items()}
        put(model, recorder.initial)
        other = TorchModel(model)
        put(model, learned)
        seconds = other.train(recorder.epochs)
        put(model, other.arrays())
        theirs = {"seconds": seconds} | example.figures(model, held_out)
        results.append({"rnncore": ours, "PyTorch": theirs})
        print(f"  seed {seed}: " + ", ".join(f"{k} {ours[k]:.4g} / {theirs[k]:.4g}" for k in ours), flush=True)
    return results


def summary(values):
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{spread}"


def main():
    torch.set_num_threads(arguments.threads)
    found = {}
    for task in arguments.task:
        print(f"{task}: rnncore / PyTorch, {arguments.threads} thread(s)", flush=True)
        results = found[task] = compare(task, Path(arguments.data) / TASKS[task], arguments)
        for name in results[0]["rnncore"]:
            both = [[result[who][name] for result in results] for who in ("rnncore", "PyTorch")]
            print(f"  {name:>22} {summary(both[0]):>20} {summary(both[1]):>20}")
        total = [sum(result[who]["seconds"] for result in results) for who in ("rnncore", "PyTorch")]
        print(f"  rnncore takes {total[0] / total[1]:.2f} of the time of PyTorch\n", flush=True)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    arguments = parser.parse_args()
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "RNNCORE_NUM_THREADS"):
        os.environ[variable] = str(arguments.threads)
    sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

    import importlib

    import torch

    from rnncore.bench.twins import TorchModel

    main()
