"""The engine beside the NumPy reference, PyTorch and ONNX Runtime (those installed) and the limits of the machine.

    python bench/compare.py [--cell lstm gru rnn] [--dtype float32 float64] [--threads 1] [--seconds 0.3]
                            [--mode forward train stream lm sample ragged options threads] [--json FILE]

The whole of what ``rnncore bench`` shows a part of; the code is in rnncore/bench.
"""

import sys

from rnncore.bench.command import main

if __name__ == "__main__":
    sys.exit(main())
