"""How long Ctrl-C takes to end a call: SIGINT comes at random moments, from another process.

    python bench/interrupts.py [--calls wide_step ctc] [--rounds 5] [--threads 1] [--isa avx2]

For each long call, and for some that always run to their end (a step of an optimiser, freezing): the time from the
signal to KeyboardInterrupt, the median and the longest. A call that ends before the signal comes is called again.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import rnncore as rc
from rnncore import _engine
from rnncore.config import processor

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.long_calls import LONG_CALLS

# Sends SIGINT after so many seconds, and says when: the clock is the same in all processes.
SENDER = """
import os, signal, sys, time
for line in sys.stdin:
    time.sleep(float(line))
    moment = time.monotonic()
    os.kill(int(sys.argv[1]), signal.SIGINT)
    print(moment, flush=True)
"""


def adam():
    params, grads = {"W": np.ones(10**8, "float32")}, {"W": np.ones(10**8, "float32")}
    optimizer = rc.Adam(params)
    return lambda: optimizer.step(grads)


def freeze():
    layer = rc.LSTM(4096, 4096, seed=0)
    return layer.freeze


def quantize():
    layer = rc.LSTM(2048, 2048, seed=0).freeze()
    return lambda: layer.quantize("int8")


def embedding_backward():
    layer, ids = rc.Embedding(200_000, 512, seed=0), np.random.default_rng(0).integers(200_000, size=(1000, 100))
    y, cache = layer.forward(ids)
    return lambda: layer.backward(y, cache)


CALLS = LONG_CALLS | {function.__name__: function for function in (adam, freeze, quantize, embedding_backward)}


def latency(call, delay, sender):
    """Seconds from the signal, which comes after `delay`, to KeyboardInterrupt."""
    try:
        sender.stdin.write(f"{delay}\n")
        sender.stdin.flush()
        while True:
            call()
    except KeyboardInterrupt:
        heard = time.monotonic()
    return heard - float(sender.stdout.readline())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", nargs="+", choices=CALLS, default=list(CALLS), metavar="CALL")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--isa", choices=rc.available_isas(), default=_engine.get_isa())
    arguments = parser.parse_args()
    rc.set_num_threads(arguments.threads)
    rc.use_isa(arguments.isa)
    print(f"{processor()}, {arguments.isa}, {arguments.threads} threads, {time.strftime('%Y-%m-%d')}")
    print(f"{'call':30} {'median s':>10} {'longest s':>10}")
    rng = np.random.default_rng()
    command = [sys.executable, "-c", SENDER, str(os.getpid())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as sender:
        for name in arguments.calls:
            call = CALLS[name]()
            seconds = [latency(call, rng.uniform(0.1, 1), sender) for _ in range(arguments.rounds)]
            print(f"{name:30} {statistics.median(seconds):10.2f} {max(seconds):10.2f}", flush=True)
            del call


if __name__ == "__main__":
    main()
