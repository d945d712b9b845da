"""An Operator read from an ONNX node with constant weights, beside ONNX Runtime on the same node.

    python bench/onnx_operators.py [--op LSTM GRU RNN] [--seconds 0.2] [--hidden 64 128 256 512] [--steps 1 8 32 100]

N=1, D=H, float32, one thread, both directions alone and together. Microseconds, medians of interleaved rounds; the
ratio is ONNX Runtime over rnncore. Both must give the same before they are timed.
"""

import argparse
import datetime
import os
import statistics

os.environ.update(
    dict.fromkeys(("RNNCORE_NUM_THREADS", "OMP_NUM_THREADS"), "1")
)  # read when the libraries are imported

import numpy as np
import onnxruntime

import rnncore as rc
from rnncore import layers
from rnncore.bench.measure import measure
from rnncore.config import processor
from rnncore.interop.onnx import from_onnx, to_onnx

LAYERS = {
    "LSTM": lambda H, **options: layers.LSTM(H, H, **options),
    "GRU": lambda H, **options: layers.GRU(H, H, form="reset_after", update="old", **options),
    "RNN": lambda H, **options: layers.RNN(H, H, **options),
}


def calls(op_type, H, T, bidirectional):
    operator = from_onnx(to_onnx(LAYERS[op_type](H, bidirectional=bidirectional, seed=0)))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    model = to_onnx(operator).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    X = np.random.default_rng(0).normal(size=(T, 1, H)).astype("float32")
    for ours, theirs in zip(operator.run(X), session.run(None, {"X": X}), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    return {"rnncore": lambda: operator.run(X), "ONNX Runtime": lambda: session.run(None, {"X": X})}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--op", nargs="+", default=["LSTM"], choices=list(LAYERS))
    parser.add_argument("--hidden", nargs="+", type=int, default=[64, 128, 256, 512])
    parser.add_argument("--steps", nargs="+", type=int, default=[1, 8, 32, 100])
    parser.add_argument("--seconds", type=float, default=0.2, help="for each of the two")
    arguments = parser.parse_args()
    versions = f"{rc.available_isas()[-1]}, onnxruntime {onnxruntime.__version__}, {datetime.date.today()}"
    print(f"N=1, D=H, float32, one thread, {processor()}, {versions}")
    ratios = []
    for op_type in arguments.op:
        for bidirectional in (False, True):
            for H in arguments.hidden:
                for T in arguments.steps:
                    times = measure(calls(op_type, H, T, bidirectional), arguments.seconds)
                    ratios.append(times["ONNX Runtime"] / times["rnncore"])
                    shape = f"{op_type} {'both' if bidirectional else 'one':4} H={H:<4} T={T:<4}"
                    columns = "  ".join(f"{name} {1e6 * time:9.1f}" for name, time in times.items())
                    print(f"{shape} {columns}  {ratios[-1]:5.2f}", flush=True)
    print(f"geometric mean {statistics.geometric_mean(ratios):.2f}, worst {min(ratios):.2f}")


if __name__ == "__main__":
    main()
