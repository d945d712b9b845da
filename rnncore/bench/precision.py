"""The same layer in bfloat16 and int8, of the engine and of its peers."""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from ..engine.cells import CELLS
from ..engine.quantization import PRECISIONS
from . import competitors
from .competitors import has, make_layer
from .measure import Call
from .twins import torch_module
from .workloads import COMPARED, VARIANTS, Problem, Shape, make_problem

#: By precision: how far the results of a peer may be from the engine's, of values below 1. Where the processor has no
#: VNNI, those of ONNX Runtime in int8 are wrong, because its sums overflow; it takes as long as if they were right.
_TOLERANCE = {"bfloat16": 0.1, "int8": 0.2}


def layer_calls(cell_name: str, shape: Shape, threads: int) -> dict[str, dict[str, Call]]:
    """Return the calls of a layer by precision and name; those of the engine are called "engine".

    Precisions are "float32" and PRECISIONS. The layer in float32 has its weights packed, as the others have.
    """
    cell = CELLS[cell_name]
    problem = make_problem(VARIANTS[COMPARED[cell_name]], shape, "float32")
    layer = make_layer(problem)
    exact = layer.freeze()
    calls: dict[str, dict[str, Call]] = {"float32": {"engine": lambda: exact(problem.x)[0]}}
    for precision in PRECISIONS:
        small = layer.quantize(precision)
        calls[precision] = {"engine": lambda small=small: small(problem.x)[0]}  # type: ignore[misc]
    if cell.framework_options is None:
        return calls
    if has("torch"):
        calls["bfloat16"]["PyTorch"] = _torch_bfloat16(problem, threads)
        if cell_name in ("lstm", "gru"):
            calls["int8"]["PyTorch"] = _torch_int8(problem, threads)
    if has("onnx", "openvino"):
        model = competitors.onnx_model(cell, problem)
        calls["bfloat16"]["OpenVINO"] = competitors.openvino_call(model, problem, threads, "bf16")
    if has("onnx", "onnxruntime") and cell_name == "lstm":
        model = _dynamic_quantize(competitors.onnx_model(cell, problem))
        calls["int8"]["ONNX Runtime"] = competitors.onnx_runtime_call(model, problem, threads)
    wanted = layer(problem.x)[0]
    for precision, own in calls.items():
        for name, call in own.items():
            error = np.abs(call() - wanted).max()
            if error > _TOLERANCE.get(precision, 1e-5):
                print(f"{name} in {precision} is off by {error:.2f}: {cell_name} {shape}", file=sys.stderr)
    return calls


def _torch_bfloat16(problem: Problem, threads: int) -> Call:
    import torch

    torch.set_num_threads(threads)
    x, module = torch.from_numpy(problem.x), torch_module(make_layer(problem)).to(torch.bfloat16)

    def infer() -> Any:
        with torch.inference_mode():
            return module(x.to(torch.bfloat16))[0].float().numpy()

    return infer


def _torch_int8(problem: Problem, threads: int) -> Call:
    import torch
    from torch.ao.quantization import quantize_dynamic

    torch.set_num_threads(threads)
    x, modules = torch.from_numpy(problem.x), torch.nn.ModuleList([torch_module(make_layer(problem))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (module,) = quantize_dynamic(modules, {torch.nn.LSTM, torch.nn.GRU}, dtype=torch.qint8)

    def infer() -> Any:
        with torch.inference_mode():
            return module(x)[0].numpy()

    return infer


def _dynamic_quantize(model: bytes) -> bytes:
    """Return the model of ONNX Runtime's own quantization, which writes files: DynamicQuantizeLSTM."""
    from onnxruntime.quantization import quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        source.write_bytes(model)
        quantize_dynamic(source, target, per_channel=True, op_types_to_quantize=["LSTM"])
        return target.read_bytes()
