"""The same workload as a call of the engine, with BLAS too, of the reference, PyTorch, ONNX Runtime and OpenVINO."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np

from .. import _engine, functional, reference
from ..engine.cells import CELLS, Cell
from ..engine.settings import available_isas, use_isa
from ..interop import cells as interop_cells
from ..interop.onnx_attributes import KINDS
from ..layers import RECURRENT, Recurrent
from .measure import Call
from .report import BLAS
from .workloads import COMPARED, VARIANTS, Problem, Shape, make_problem


def has(*packages: str) -> bool:
    """Return whether packages are installed."""
    return all(importlib.util.find_spec(package) for package in packages)


def make_call(module: Any, problem: Problem, backward: bool) -> Call:
    """Return a call without arguments: forward for inference, or forward and backward.

    ``module`` is :mod:`rnncore`, :mod:`rnncore.functional` or :mod:`rnncore.reference`.
    """
    name, arguments = problem.variant.cell.name, problem.arguments()
    x, weights = arguments.pop("x"), [arguments.pop(name) for name in ("Wx", "Wh", "b") if name in problem.weights]
    forward, backward_function = (getattr(module, f"{name}_{direction}") for direction in ("forward", "backward"))

    def infer() -> Any:
        return forward(x, *weights, training=False, **arguments)[0]

    def train() -> Any:
        _, _, cache = forward(x, *weights, **arguments)
        return backward_function(problem.dh, cache)

    return train if backward else infer


def make_layer(problem: Problem) -> Recurrent:
    """Return the layer with the weights of a problem."""
    cell, x = problem.variant.cell, problem.x
    options = {name: word for name, word in problem.variant.options.items() if word != cell.options[name][0]}
    layer: Recurrent = RECURRENT[cell.name](x.shape[-1], problem.dh.shape[-1], dtype=x.dtype, **options)
    for name, array in problem.weights.items():
        layer.params[f"{name}_0"][...] = array
    return layer


def competitors(cell_name: str, shape: Shape, dtype: str, backward: bool, threads: int) -> dict[str, Call]:
    """Return the calls by name. Frameworks must give the engine's results before they are timed."""
    cell = CELLS[cell_name]
    problem = make_problem(VARIANTS[COMPARED[cell_name]], shape, dtype)
    calls = {name: make_call(m, problem, backward) for name, m in (("engine", functional), ("reference", reference))}
    if "blas" in available_isas():
        calls[BLAS] = _with_blas(calls["engine"])
    if cell.framework_options is None:
        return calls
    peers: dict[str, Call] = {}
    if has("torch"):
        peers["PyTorch"] = _torch_call(problem, backward, threads)
    if not backward and dtype == "float32" and has("onnx"):
        if has("onnxruntime"):
            peers["ONNX Runtime"] = onnx_runtime_call(onnx_model(cell, problem), problem, threads)
        if has("openvino"):
            peers["OpenVINO"] = openvino_call(onnx_model(cell, problem), problem, threads)
    wanted = make_call(functional, problem, False)()
    for name, call in peers.items():
        np.testing.assert_allclose(call(), wanted, atol=1e-4 if dtype == "float32" else 1e-10, err_msg=name)
    return calls | peers


def _with_blas(call: Call) -> Call:
    usual = _engine.get_isa()

    def with_blas() -> Any:
        use_isa("blas")
        try:
            return call()
        finally:
            use_isa(usual)

    return with_blas


def _torch_call(problem: Problem, backward: bool, threads: int) -> Call:
    import torch

    from .twins import torch_module

    torch.set_num_threads(threads)
    x, dh = torch.from_numpy(problem.x), torch.from_numpy(problem.dh)
    module = torch_module(make_layer(problem)).requires_grad_(True)

    def infer() -> Any:
        with torch.inference_mode():
            return module(x)[0].numpy()

    def train() -> Any:
        module.zero_grad()
        h, _ = module(x.detach().requires_grad_(True))
        h.backward(dh)
        return h.detach().numpy()

    return train if backward else infer


def onnx_model(cell: Cell, problem: Problem) -> bytes:
    """Return a model of one node, from x (T, N, D) to y (T, 1, N, H), with the weights as constants."""
    from onnx import TensorProto, helper, numpy_helper

    T, N, D = problem.x.shape
    H, kind = problem.dh.shape[-1], KINDS[cell.label]
    options = {"linear_before_reset": 1} if kind.flag == "linear_before_reset" else {}
    Wx, Wh, b = (interop_cells.reorder(array, cell.gates, kind.gates) for array in problem.weights.values())
    weights = {"W": Wx.T[None], "R": Wh.T[None], "B": np.concatenate([b, 0 * b])[None]}
    graph = helper.make_graph(
        [helper.make_node(cell.label, ["x", *weights], ["y"], hidden_size=H, **options)],
        cell.name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [T, N, D])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [T, 1, N, H])],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    serialized: bytes = model.SerializeToString()
    return serialized


def onnx_runtime_call(model: bytes, problem: Problem, threads: int) -> Call:
    """Return a call of ONNX Runtime."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": problem.x})[0][:, 0]


def openvino_call(model: bytes, problem: Problem, threads: int, precision: str = "f32") -> Call:
    """Return a call of OpenVINO. The precision is a hint: where the processor lacks it, another is used."""
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(core.read_model(model), "CPU", settings).create_infer_request()
    return lambda: request.infer({"x": problem.x}, share_inputs=True, share_outputs=True)[0][:, 0]
