"""pytest-benchmark: reference against engine, every cell, both dtypes, forward and forward + backward.

    pytest bench/bench_cells.py --benchmark-group-by=param:cell,param:shape -k "lstm and float32"

One thread unless OPENBLAS_NUM_THREADS (the reference's products are BLAS) and RNNCORE_NUM_THREADS say else.
``extra_info`` holds the instruction set, the threads and the GFLOP/s of the median.
"""

import os

# BLAS reads its variable when NumPy is loaded.
for variable in ("OPENBLAS_NUM_THREADS", "RNNCORE_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import pytest  # noqa: E402

import rnncore as rc  # noqa: E402
from rnncore import reference  # noqa: E402
from rnncore.bench.competitors import make_call  # noqa: E402
from rnncore.bench.measure import flops  # noqa: E402
from rnncore.bench.workloads import SHAPES, VARIANTS, make_problem  # noqa: E402

MODULES = {"reference": reference, **dict.fromkeys(rc.available_isas(), rc)}


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.parametrize("cell", VARIANTS)
def test_cell(benchmark, cell, shape, dtype, direction, module):
    backward = direction != "forward"
    if module != "reference":
        rc.use_isa(module)
    try:
        benchmark(make_call(MODULES[module], make_problem(VARIANTS[cell], shape, dtype), backward))
    finally:
        rc.use_isa(rc.available_isas()[-1])
    if benchmark.stats is not None:
        benchmark.extra_info["GFLOP/s"] = flops(VARIANTS[cell], shape, backward) / benchmark.stats.stats.median / 1e9
    benchmark.extra_info["instruction set"] = module
    benchmark.extra_info["BLAS threads"] = os.environ["OPENBLAS_NUM_THREADS"]
    benchmark.extra_info["threads"] = rc.get_num_threads()
