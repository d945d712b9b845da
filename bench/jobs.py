"""Scoring of many sentences in one process and in two workers of joblib, on one thread each, in turns.

    python bench/jobs.py TEXT [--sentences 100000] [--backend dask loky] [--rounds 3]

The sentences are the lines of a text, again and again, each with a number at its end. The results must be equal.
"""

import argparse
import statistics
import time
import warnings
from contextlib import ExitStack
from pathlib import Path

import joblib
import numpy as np

import rnncore as rc
from rnncore.config import processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text")
    parser.add_argument("--sentences", type=int, default=100_000)
    parser.add_argument("--backend", nargs="+", choices=["dask", "loky"], default=["dask", "loky"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hidden", type=int, default=256)
    arguments = parser.parse_args()
    rc.set_num_threads(1)
    lines = [line for line in Path(arguments.text).read_text(encoding="utf-8").splitlines() if line]
    sentences = [f"{lines[n % len(lines)]} {n}" for n in range(arguments.sentences)]
    model = rc.LanguageModel(hidden_size=arguments.hidden, epochs=1, random_state=0)
    model.fit(sentences[:2000], callback=lambda at: at.update == 3)
    print(f"{processor()}, {time.strftime('%Y-%m-%d')}: LSTM {arguments.hidden}, ", end="")
    print(f"{len(sentences):,} sentences, {sum(map(len, sentences)):,} characters")
    with ExitStack() as stack:
        if "dask" in arguments.backend:
            from distributed import Client, LocalCluster

            warnings.simplefilter("ignore")
            cluster = LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None)
            stack.enter_context(cluster)
            stack.enter_context(Client(cluster))
        seconds = {name: [] for name in ("one process", *arguments.backend)}
        for backend in arguments.backend:  # start the workers
            with joblib.parallel_config(backend, n_jobs=2):
                model.log_prob(sentences[:1000])
        for _ in range(arguments.rounds):
            wanted = None
            for name, times in seconds.items():
                begin = time.perf_counter()
                if name == "one process":
                    wanted = model.log_prob(sentences, n_jobs=1)
                else:
                    with joblib.parallel_config(name, n_jobs=2):
                        np.testing.assert_array_equal(model.log_prob(sentences), wanted)
                times.append(time.perf_counter() - begin)
    for name, times in seconds.items():
        ratio = statistics.median(np.array(seconds["one process"]) / times)
        print(f"{name:12} {statistics.median(times):7.2f} s   {ratio:.2f} times as fast as one process")


if __name__ == "__main__":
    main()
