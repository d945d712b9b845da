"""A text of any size: seconds of the pass that learns the vocabulary and of the one that writes the ids, and the memory
that training takes beside what it takes with a short text.

The text is made of the lines of a file, shuffled again and again. Run it as

    python bench/corpus.py shared/data/shakespeare/input.txt --gigabytes 2
"""

from __future__ import annotations

import argparse
import random
import resource
import tempfile
import time
from pathlib import Path

import rnncore as rc

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("text", help="a text file, for its lines")
parser.add_argument("--gigabytes", type=float, default=2.0)
parser.add_argument("--updates", type=int, default=300)
parser.add_argument("--level", choices=["char", "word"], default="char")
parser.add_argument("--hidden", type=int, default=128)
parser.add_argument("--folder", help="for the text and its ids; a temporary one if not given")


def write_text(path: Path, lines: list[str], size: float) -> None:
    written = 0
    rng = random.Random(0)
    with open(path, "w", encoding="utf-8") as file:
        while written < size:
            rng.shuffle(lines)
            written += file.write("".join(lines))


def peak() -> float:
    """MB that the process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    arguments = parser.parse_args()
    lines = Path(arguments.text).read_text(encoding="utf-8").splitlines(keepends=True)
    settings = {"hidden_size": arguments.hidden, "batch_size": 64, "epochs": 1, "random_state": 0}
    model = rc.LanguageModel(arguments.level, **settings)
    model.fit("".join(lines[:3000]), callback=lambda at: at.update == 3)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = Path(folder, "text.txt")
        write_text(path, lines, arguments.gigabytes * 1e9)
        print(f"{path.stat().st_size / 1e9:.2f} GB of text; {peak():,.0f} MB before it is read", flush=True)
        begin = time.perf_counter()
        corpus = rc.Corpus(path)
        vocabulary = corpus.vocabulary(arguments.level)
        learned = time.perf_counter()
        print(f"vocabulary of {len(vocabulary):,}: {learned - begin:.1f} s; {peak():,.0f} MB", flush=True)
        ids = corpus.ids(vocabulary)
        print(f"{len(ids):,} ids: {time.perf_counter() - learned:.1f} s; {peak():,.0f} MB", flush=True)
        begin = time.perf_counter()
        tokens = []

        def stop(at: rc.models.training.Progress) -> bool:
            tokens.append((at.tokens, time.perf_counter()))
            return at.update == arguments.updates

        rc.LanguageModel(arguments.level, **settings).fit(path, callback=stop)
        (first, start), (last, end) = tokens[0], tokens[-1]
        print(f"first update after {start - begin:.1f} s, which check the text and find the ids", flush=True)
        print(f"{arguments.updates} updates, {(last - first) / (end - start):,.0f} tokens/s; {peak():,.0f} MB")


if __name__ == "__main__":
    main()
