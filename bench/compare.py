"""Engine beside PyTorch and ONNX Runtime (those installed) and the reference, in interleaved rounds of one run.

    python bench/compare.py [--cell lstm gru rnn] [--dtype float32] [--mode forward train] [--seconds 0.3]

For every shape: milliseconds of each, GFLOP/s of the engine and their share of a large product's measured in the same
run, and how many times faster the engine is than the fastest peer; then the geometric mean and the worst of these.
One thread unless OPENBLAS_NUM_THREADS says else (the engine has one).
"""

import argparse
import datetime
import importlib.util
import os
import statistics

from workloads import (  # first: it pins the BLAS threads  # isort: skip
    SHAPES,
    flops,
    interleaved_medians,
    make_arrays,
    make_call,
    processor,
)

import numpy as np

import rnncore as rc
from rnncore import reference

# PyTorch and ONNX Runtime have one GRU: reset after the product, z weighs the old state.
CELLS = {"lstm": "lstm", "gru": "gru-reset_after", "rnn": "rnn"}
ONNX_GATES = {"rnn": [0], "gru": [1, 0, 2], "lstm": [0, 3, 1, 2]}  # our blocks in its order: z r h, i o f c
THREADS = int(os.environ["OPENBLAS_NUM_THREADS"])


def torch_call(cell, shape, dtype, backward):
    import torch

    torch.set_num_threads(THREADS)
    _, _, D, H = shape
    x, Wx, Wh, b, dh = (torch.from_numpy(a) for a in make_arrays(CELLS[cell], shape, dtype))
    layer = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[cell](D, H, dtype=x.dtype)
    with torch.no_grad():
        layer.weight_ih_l0.copy_(Wx.T)
        layer.weight_hh_l0.copy_(Wh.T)
        layer.bias_ih_l0.copy_(b)
        layer.bias_hh_l0.zero_()

    def infer():
        with torch.inference_mode():
            return layer(x)[0].numpy()

    def train():
        layer.zero_grad()
        h, _ = layer(x.detach().requires_grad_(True))
        h.backward(dh)
        return h.detach().numpy()

    return train if backward else infer


def onnx_call(cell, shape, dtype, backward):
    if backward or dtype != "float32":
        return None
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    T, N, D, H = shape
    x, Wx, Wh, b, _ = make_arrays(CELLS[cell], shape, dtype)

    def reorder(a):
        blocks = np.split(a, len(ONNX_GATES[cell]), axis=-1)
        return np.concatenate([blocks[k] for k in ONNX_GATES[cell]], axis=-1)

    weights = {"W": reorder(Wx).T[None], "R": reorder(Wh).T[None], "B": np.concatenate([reorder(b), 0 * b])[None]}
    options = {"linear_before_reset": 1} if cell == "gru" else {}
    graph = helper.make_graph(
        [helper.make_node(cell.upper(), ["x", *weights], ["y"], hidden_size=H, **options)],
        cell,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [T, N, D])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [T, 1, N, H])],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": x})[0][:, 0]


def product_rate(dtype, size=1024):
    """FLOP/s of the engine's own product of large square matrices."""
    dense = rc.Dense(size, size, dtype=dtype, seed=0)
    x = np.random.default_rng(0).normal(size=(size, size)).astype(dtype)
    (seconds,) = interleaved_medians([lambda: dense(x)], 0.5)
    return 2 * size**3 / seconds


def peers(cell, shape, dtype, backward):
    """-> dict of name -> call; each is checked against the engine before it is timed."""
    calls = {}
    if importlib.util.find_spec("torch"):
        calls["PyTorch"] = torch_call(cell, shape, dtype, backward)
    if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnx"):
        calls["ONNX Runtime"] = onnx_call(cell, shape, dtype, backward)
    calls = {name: call for name, call in calls.items() if call is not None}
    wanted = make_call(rc, CELLS[cell], shape, dtype, False)()
    for name, call in calls.items():
        np.testing.assert_allclose(call(), wanted, atol=1e-4 if dtype == "float32" else 1e-10, err_msg=name)
    return calls


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", nargs="+", choices=CELLS, default=list(CELLS))
    parser.add_argument("--dtype", nargs="+", choices=["float32", "float64"], default=["float32"])
    parser.add_argument("--mode", nargs="+", choices=["forward", "train"], default=["forward", "train"])
    parser.add_argument("--seconds", type=float, default=0.3, help="for each call of each shape")
    arguments = parser.parse_args()

    print(f"{datetime.date.today()}, {processor()}, {THREADS} thread, {rc.available_isas()[-1]}. Milliseconds")
    for dtype in arguments.dtype:
        peak = product_rate(dtype)
        for mode in arguments.mode:
            for cell in arguments.cell:
                print(f"\n{cell} {dtype} {mode}; a large product runs at {peak / 1e9:.0f} GFLOP/s")
                ratios = []
                for shape in SHAPES:
                    backward = mode == "train"
                    calls = {
                        "engine": make_call(rc, CELLS[cell], shape, dtype, backward),
                        "reference": make_call(reference, CELLS[cell], shape, dtype, backward),
                        **peers(cell, shape, dtype, backward),
                    }
                    medians = interleaved_medians(list(calls.values()), arguments.seconds)
                    seconds = dict(zip(calls, medians, strict=True))
                    rate = flops(CELLS[cell], shape, backward) / seconds["engine"]
                    figures = ", ".join(f"{name} {1e3 * value:.3f}" for name, value in seconds.items())
                    line = f"  {' '.join(map(str, shape)):>15}: {figures}; {rate / 1e9:.0f} GFLOP/s = {rate / peak:.0%}"
                    if rivals := [s for name, s in seconds.items() if name not in ("engine", "reference")]:
                        ratios.append(min(rivals) / seconds["engine"])
                        line += f"; {ratios[-1]:.2f} x the fastest peer"
                    print(line, flush=True)
                if ratios:
                    print(f"  geometric mean {statistics.geometric_mean(ratios):.2f}, worst {min(ratios):.2f}")


if __name__ == "__main__":
    main()
