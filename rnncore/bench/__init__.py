"""The engine beside the NumPy reference, PyTorch, ONNX Runtime (those installed) and the limits of the machine.

``rnncore bench`` and ``python -m rnncore.bench`` run :func:`~rnncore.bench.command.main`. All competitors of a workload
are measured in one run: interleaved rounds, medians, pinned threads.
"""

from __future__ import annotations
