"""What the rule of packing (src/plan.pxd) costs: short calls with weights in C and in Fortran order, beside NumPy.

    python bench/packing.py [--cells gru lstm] [--dtype float32] [--seconds 0.1] [--hidden 128 256 512 1024]

Inference of the functions, D=H, one thread. Microseconds, medians of interleaved rounds; Fortran order is that of
PyTorch's weights, ``w.T``; NumPy runs the reference with the same weights, whose products are BLAS.
"""

import argparse
import datetime
import os
import statistics

os.environ.update(dict.fromkeys(("RNNCORE_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

import numpy as np

import rnncore as rc
from rnncore.bench.measure import measure
from rnncore.config import processor

SIZES = [
    (1, 1),
    (2, 1),
    (4, 1),
    (8, 1),
    (32, 1),
    (100, 1),
    (1, 2),
    (1, 4),
    (4, 4),
    (1, 8),
    (8, 8),
    (1, 16),
    (1, 64),
    (4, 64),
]
OPTIONS = {"rnn": {}, "lstm": {}, "gru": {"form": "reset_after", "update": "old"}}


def calls(cell, dtype, T, N, H):
    rng = np.random.default_rng(0)
    G = {"rnn": 1, "gru": 3, "lstm": 4}[cell]

    def normal(*shape):
        return (rng.normal(size=shape) * H**-0.5).astype(dtype)

    x, Wx, Wh, b = normal(T, N, H), normal(H, G * H), normal(H, G * H), normal(G * H)
    fortran = np.asfortranarray(Wx), np.asfortranarray(Wh), b
    name = f"{cell}_forward"

    def call(module, weights):
        function, options = getattr(module, name), OPTIONS[cell]
        return lambda: function(x, *weights, training=False, **options)

    found = {
        "C": call(rc, (Wx, Wh, b)),
        "Fortran": call(rc, fortran),
        "NumPy": call(rc.reference, fortran),
    }
    np.testing.assert_array_equal(found["C"]()[0], found["Fortran"]()[0])
    np.testing.assert_allclose(found["C"]()[0], found["NumPy"]()[0], atol=1e-4)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", default=["gru", "lstm"], choices=list(OPTIONS))
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64"])
    parser.add_argument("--hidden", nargs="+", type=int, default=[128, 256, 512, 1024])
    parser.add_argument("--seconds", type=float, default=0.1, help="for each of the three")
    arguments = parser.parse_args()
    print(f"{arguments.dtype}, one thread, {processor()}, {rc.available_isas()[-1]}, {datetime.date.today()}")
    print("cell     H    T    N         C   Fortran     NumPy  Fortran/C  NumPy/Fortran")
    orders, gains = [], []
    for cell in arguments.cells:
        for H in arguments.hidden:
            for T, N in SIZES:
                times = measure(calls(cell, arguments.dtype, T, N, H), arguments.seconds)
                orders.append(times["Fortran"] / times["C"])
                gains.append(times["NumPy"] / times["Fortran"])
                columns = " ".join(f"{1e6 * time:9.1f}" for time in times.values())
                print(f"{cell:4} {H:5} {T:4} {N:4} {columns} {orders[-1]:10.2f} {gains[-1]:14.2f}", flush=True)
    print(f"Fortran over C: geometric mean {statistics.geometric_mean(orders):.2f}, worst {max(orders):.2f}")
    print(f"NumPy over Fortran: geometric mean {statistics.geometric_mean(gains):.2f}, worst {min(gains):.2f}")


if __name__ == "__main__":
    main()
