"""What rnncore and five other libraries do with RNN, GRU and LSTM on the CPU: a table whose cells are probed.

    python bench/features.py [--only rnncore PyTorch ...]

A cell is what a small probe found with the installed library: its own layers or operators, called as its users call
them, beside the NumPy reference of rnncore. Only the row GPU is not run: it has sources. Libraries that are not
installed are left out. Calls that may crash run in child processes. Takes about five minutes.
"""

import argparse
import contextlib
import datetime
import importlib
import importlib.metadata
import inspect
import itertools
import operator
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"  # read when Keras is imported

import numpy as np

import rnncore as rc
from rnncore import reference
from rnncore.config import processor

T, N, D, H = 6, 5, 3, 4  # time steps, batch, input size, hidden size
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
STATES = {"RNN": ("h0",), "GRU": ("h0",), "LSTM": ("h0", "c0")}
NOTES = """
* Keras on its PyTorch backend; ONNX Runtime and OpenVINO with models of one node, T and N dynamic; thinc's own LSTM.
* wrong: those of x, Wx and Wh. ignored: OpenVINO reads the peepholes of a model and computes without them. internal:
  `ops.lstm_forward_training` returns them. GRU, LSTM: these, not RNN.
* packed: a `PackedSequence`. not length 0: the final state is 0, not the initial state. static shapes: OpenVINO ignores
  the lengths where T or N is dynamic. N=0: with T=0 PyTorch and Keras raise, OpenVINO returns uninitialised memory.
* same bits: as found with 1 to 4 threads and six shapes; gradients, where there are any, for the threads.
* installed: without pip and setuptools; PyTorch is the CPU build; NumPy, 71 MB, is in every figure but PyTorch's.
* GPU is not probed. Sources: """


def draw(cell, dtype="float32", T=T, N=N, D=D, H=H, state=False):
    """-> the arguments of a forward function by name, weights as rnncore has them"""
    rng, G = np.random.default_rng(0), GATES[cell]
    shapes = {"x": (T, N, D), "Wx": (D, G * H), "Wh": (H, G * H), "b": (G * H,)}
    shapes |= {name: (N, H) for name in STATES[cell] if state}
    return {name: (rng.normal(size=shape) / np.sqrt(shape[-1])).astype(dtype) for name, shape in shapes.items()}


def functions(module, cell, arrays, form="reset_after", **options):
    """Call rnncore or its reference -> [h, final states ...], cache"""
    if cell == "GRU":
        options |= {"form": form, "update": "old"}
    h, final, cache = getattr(module, f"{cell.lower()}_forward")(**arrays, **options)
    return [h, *(final if cell == "LSTM" else [final])], cache


def expected(cell, arrays, **options):
    return functions(reference, cell, arrays, **options)[0]


def reorder(weights, given, wanted):
    blocks = dict(zip(given, np.split(weights, len(given), axis=-1), strict=True))
    return np.concatenate([blocks[gate] for gate in wanted], axis=-1)


def close(found, wanted):
    """Equal up to rounding, in shape and dtype; thinc returns no final states, so the shorter list counts."""
    tolerance = {"float32": 1e-5, "float64": 1e-10}[str(wanted[0].dtype)]
    return all(
        f.shape == w.shape and f.dtype == w.dtype and np.allclose(f, w, rtol=0, atol=tolerance)
        for f, w in zip(found, wanted, strict=False)
    )


# ---- the libraries --------------------------------------------------------------------------------------------------


class Library:
    """How a library is called. ``run`` -> [h (T, N, H), final states (N, H) ...].

    ``known`` are the arguments of what runs an LSTM, ``call``, as its documentation explains them: none resets the
    state before a step. The probe fails if there are others.
    """

    cells, requires, threads, second = tuple(GATES), (), 1, None
    gpu, by_lengths, peepholes = "no", "yes", False

    def arguments(self):
        return inspect.signature(operator.attrgetter(self.call)(self.module)).parameters.keys() - {"self"}

    def numpy_call(self, arrays):
        return self.run("LSTM", arrays)

    def everything(self, arrays):
        """-> what one call of the LSTM returns, with all options that return more"""
        return self.run("LSTM", arrays)


class RNNCore(Library):
    title, package, peepholes = "rnncore", "rnncore", True

    def run(self, cell, arrays, **options):
        rc.set_num_threads(self.threads)
        return functions(rc, cell, arrays, **options)[0]

    def everything(self, arrays):
        found, cache = functions(rc, "LSTM", arrays)
        return [*found, cache.gates, cache.c]

    def gradients(self, cell, arrays, dh):
        rc.set_num_threads(self.threads)
        found = getattr(rc, f"{cell.lower()}_backward")(dh, functions(rc, cell, arrays)[1])
        return {name: getattr(found, f"d{name}") for name in arrays}

    def in_place(self, arrays):
        return arrays["Wx"], lambda: self.run("LSTM", arrays)[0]


class Torch(Library):
    """The order of the gates is that of rnncore."""

    title, package = "PyTorch", "torch"
    gpu, source = "yes", "https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html"
    call, known, by_lengths = "nn.LSTM.forward", {"input", "hx"}, "packed"

    def layer(self, cell, arrays):
        self.torch.set_num_threads(self.threads)
        Wx, Wh, b = (self.torch.from_numpy(arrays[name]) for name in ("Wx", "Wh", "b"))
        layer = getattr(self.torch.nn, cell)(len(Wx), len(Wh), dtype=Wx.dtype)
        for name, value in zip(layer.state_dict(), (Wx.T, Wh.T, b, 0 * b), strict=True):
            setattr(layer, name, self.torch.nn.Parameter(value))  # views of the arrays
        return layer

    def forward(self, cell, layer, x, state):
        """-> tensors [h, final states ...]"""
        state = [s[None] for s in state]
        h, final = layer(x, (tuple(state) if cell == "LSTM" else state[0]) if state else None)
        return [h, *(s[0] for s in (final if cell == "LSTM" else [final]))]

    def open(self, cell, arrays, pack=lambda x: x, **options):
        """-> layer, the leaves of the graph by name, and what a call returns"""
        layer = self.layer(cell, arrays, **options)
        leaves = {name: self.torch.from_numpy(arrays[name]).clone().requires_grad_() for name in arrays}
        state = [leaves[name] for name in STATES[cell] if name in leaves]
        return layer, leaves, self.forward(cell, layer, pack(leaves["x"]), state)

    def run(self, cell, arrays, form=None, lengths=None):
        rnn, pack = self.torch.nn.utils.rnn, lambda x: x
        if lengths is not None:
            pack = partial(rnn.pack_padded_sequence, lengths=lengths, enforce_sorted=False)
        with self.torch.inference_mode():
            h, *final = self.open(cell, arrays, pack)[2]
        return [a.detach().numpy() for a in (h if lengths is None else rnn.pad_packed_sequence(h)[0], *final)]

    def gradients(self, cell, arrays, dh):
        layer, leaves, found = self.open(cell, arrays)
        found[0].backward(self.torch.from_numpy(dh))
        parameters = zip(("Wx", "Wh", "b"), self.parameter_gradients(cell, layer), strict=True)
        return {name: leaf.grad.numpy() for name, leaf in leaves.items() if leaf.grad is not None} | dict(parameters)

    def parameter_gradients(self, cell, layer):
        return [parameter.grad.numpy().T for parameter in layer.all_weights[0][:3]]

    def numpy_call(self, arrays):
        return self.layer("LSTM", arrays)(arrays["x"])

    def in_place(self, arrays):
        layer, x = self.layer("LSTM", arrays), self.torch.from_numpy(arrays["x"])
        return arrays["Wx"], lambda: self.forward("LSTM", layer, x, [])[0].detach().numpy()

    def second(self, arrays):
        layer, x = self.layer("LSTM", arrays), self.torch.from_numpy(arrays["x"]).requires_grad_()
        function = self.torch.autograd.gradgradcheck  # compares with numeric derivatives
        return function(lambda x: self.forward("LSTM", layer, x, [])[0], x, raise_exception=False)


class Keras(Torch):
    """On its backend PyTorch, whose derivatives it has."""

    title, package, requires = "Keras", "keras", ("torch",)
    source = "https://keras.io/api/layers/recurrent_layers/lstm/"
    call, known, by_lengths = "layers.LSTM.call", {"sequences", "initial_state", "mask", "training"}, "yes"
    mask = None

    def layer(self, cell, arrays, form="reset_after"):
        self.torch.set_num_threads(self.threads)
        weights, options = [arrays[name] for name in ("Wx", "Wh", "b")], {"dtype": str(arrays["x"].dtype)}
        if cell == "GRU":
            Wx, Wh, b = (reorder(array, "rzn", "zrn") for array in weights)
            options["reset_after"] = form == "reset_after"
            weights = [Wx, Wh, np.stack([b, 0 * b]) if form == "reset_after" else b]
        options |= dict.fromkeys(("return_sequences", "return_state", "zero_output_for_mask"), True)
        layer = getattr(self.keras.layers, {"RNN": "SimpleRNN"}.get(cell, cell))(len(arrays["Wh"]), **options)
        layer.build((None, None, len(arrays["Wx"])))
        layer.set_weights(weights)
        return layer

    def forward(self, cell, layer, x, state):
        h, *final = layer(x.transpose(0, 1), initial_state=state or None, mask=self.mask)
        return [h.transpose(0, 1), *final]

    def run(self, cell, arrays, form="reset_after", lengths=None):
        steps = np.arange(len(arrays["x"]))
        self.mask = None if lengths is None else self.torch.from_numpy(steps < np.array(lengths)[:, None])
        with self.torch.inference_mode():
            return [array.detach().numpy() for array in self.open(cell, arrays, form=form)[2]]

    def parameter_gradients(self, cell, layer):
        found = [variable.value.grad.numpy() for variable in layer.trainable_variables]
        return [reorder(array, "zrn", "rzn") for array in (*found[:2], found[2][0])] if cell == "GRU" else found

    def numpy_call(self, arrays):
        layer, inputs = self.layer("LSTM", arrays), self.keras.Input((None, D))
        if all(isinstance(array, np.ndarray) for array in layer(arrays["x"])):
            return layer(arrays["x"])
        return ["predict only", self.keras.Model(inputs, layer(inputs)[0]).predict(arrays["x"], verbose=0)]


class ONNX(Library):
    """Libraries that run a model of one node; ``compile(model)`` -> function of a dict of arrays."""

    requires, peepholes, static = ("onnx",), True, False  # onnx: for the probes only
    slots = "X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"
    orders = {"RNN": ("h", "h"), "GRU": ("rzn", "zrn"), "LSTM": ("ifgo", "iofg")}

    def node(self, cell, arrays, lengths=None, peephole=None):
        """-> the inputs of the node by name"""
        Wx, Wh, b = (reorder(arrays[name], *self.orders[cell]) for name in ("Wx", "Wh", "b"))
        found = {"X": arrays["x"], "W": Wx.T[None], "R": Wh.T[None], "B": np.concatenate([b, 0 * b])[None]}
        found |= {f"initial_{name[0]}": arrays[name][None] for name in STATES[cell] if name in arrays}
        found |= {} if lengths is None else {"sequence_lens": np.array(lengths, "int32")}
        found |= {} if peephole is None else {"P": peephole[[0, 2, 1]].reshape(1, -1)}  # rows i f o -> i o f
        return {name: np.ascontiguousarray(array) for name, array in found.items()}

    def prepare(self, cell, inputs, form="reset_after", fed=("X", "sequence_lens", "initial_h", "initial_c")):
        """-> function without arguments that runs the node; the inputs that are not ``fed`` are constants"""
        helper, H = self.onnx.helper, inputs["R"].shape[-1]
        shapes = {"X": ("T", "N", inputs["W"].shape[-1]), "sequence_lens": ("N",)}
        shapes = {} if self.static else shapes | dict.fromkeys(("initial_h", "initial_c"), (1, "N", H))

        def info(name, array, shape):
            return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), shape)

        attributes = {"linear_before_reset": int(form == "reset_after")} if cell == "GRU" else {}
        outputs = ["Y", "Y_h", "Y_c"][: 1 + len(STATES[cell])]
        feeds = {name: array for name, array in inputs.items() if name in fed}
        names = [name if name in inputs else "" for name in self.slots[: 8 if cell == "LSTM" else 6]]
        graph = helper.make_graph(
            [helper.make_node(cell, names, outputs, hidden_size=H, **attributes)],
            "one_node",
            [info(name, array, shapes.get(name, array.shape)) for name, array in feeds.items()],
            [info(name, inputs["X"], None) for name in outputs],
            [self.onnx.numpy_helper.from_array(inputs[name], name) for name in inputs.keys() - feeds.keys()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
        call = self.compile(model.SerializeToString())
        return lambda: (lambda Y, *final: [Y[:, 0], *(s[0] for s in final)])(*call(feeds))

    def run(self, cell, arrays, form="reset_after", **options):
        return self.prepare(cell, self.node(cell, arrays, **options), form)()

    def in_place(self, arrays):
        inputs = self.node("LSTM", arrays)
        call = self.prepare("LSTM", inputs, fed=("X", "W"))
        return inputs["W"], lambda: call()[0]


class ONNXRuntime(ONNX):
    title, package = "ONNX Runtime", "onnxruntime"
    gpu, source = "yes", "https://github.com/microsoft/onnxruntime/blob/main/docs/OperatorKernels.md"
    known = set(ONNX.slots)

    def arguments(self):
        return {slot.name for slot in self.onnx.defs.get_schema("LSTM").inputs}

    def compile(self, model):
        options = self.module.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = self.threads, 4
        session = self.module.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return lambda feeds: session.run(None, feeds)


class OpenVINO(ONNX):
    title, package, gpu, call = "OpenVINO", "openvino", "Intel only", "opset15.lstm_sequence"
    source = "https://docs.openvino.ai/2024/openvino-workflow/running-inference/inference-devices-and-modes.html"
    known = set("X initial_hidden_state initial_cell_state sequence_lengths W R B hidden_size direction".split())
    known |= {"activations", "activations_alpha", "activations_beta", "clip", "name"}

    def compile(self, model):
        core = self.module.Core()
        settings = {"INFERENCE_NUM_THREADS": self.threads, "INFERENCE_PRECISION_HINT": "f32"}
        compiled = core.compile_model(core.read_model(model), "CPU", settings)
        return lambda feeds: list(compiled(feeds).values())


class Thinc(Library):
    """Its own LSTM, on NumpyOps; PyTorchLSTM is PyTorch's. Parameters are one flat array, gates f i o g."""

    title, package, cells = "thinc", "thinc", ("LSTM",)
    gpu, source = "yes", "https://thinc.ai/docs/api-backends"
    call, known = "types.Padded", {"data", "size_at_t", "lengths", "indices"}

    def layer(self, arrays):
        """-> layer, the model of lists of sequences around it, the flat array that the layer holds"""
        api = importlib.import_module("thinc.api")
        Wx, Wh, b = (reorder(arrays[name], "ifgo", "fiog") for name in ("Wx", "Wh", "b"))
        layer, flat = api.LSTM(len(Wh), len(Wx)), np.concatenate([Wx.T.ravel(), b, Wh.T.ravel(), 0 * b])
        layer.set_param("LSTM", flat)
        layer.set_param("HC0", np.zeros((2, 1, 1, len(Wh)), flat.dtype))
        return layer, api.with_padded(layer), flat

    def sequences(self, arrays, lengths=None):
        ends = [None] * arrays["x"].shape[1] if lengths is None else lengths
        return [np.ascontiguousarray(arrays["x"][:end, n]) for n, end in enumerate(ends)]

    def run(self, cell, arrays, lengths=None):
        if "h0" in arrays:
            raise TypeError("a call takes no initial state")
        h = np.zeros((*arrays["x"].shape[:2], len(arrays["Wh"])), arrays["x"].dtype)
        for n, states in enumerate(self.layer(arrays)[1].predict(self.sequences(arrays, lengths))):
            h[: len(states), n] = states
        return [h]

    def everything(self, arrays):
        layer, _, flat = self.layer(arrays)
        zero, x, sizes = np.zeros((1, 1, H), "float32"), arrays["x"].reshape(T * N, D), np.full(T, N, "int32")
        return [*self.run("LSTM", arrays), "internal", *layer.ops.lstm_forward_training(flat, zero, zero, x, sizes)[1]]

    def gradients(self, cell, arrays, dh):
        layer, model, _ = self.layer(arrays)
        dx = model.begin_update(self.sequences(arrays))[1](self.sequences({"x": dh}))
        found, flat = {"x": np.stack(dx, axis=1)}, layer.get_grad("LSTM")
        for name in "Wx", "b", "Wh":
            part, flat = np.split(flat, [arrays[name].size])
            found[name] = reorder(part.reshape(arrays[name].T.shape).T, "fiog", "ifgo")
        return found

    def numpy_call(self, arrays):
        return self.layer(arrays)[1].predict(self.sequences(arrays))

    def in_place(self, arrays):
        _, model, flat = self.layer(arrays)
        return flat[: arrays["Wx"].size], lambda: np.stack(model.predict(self.sequences(arrays)))


# ---- the probes: the docstring is the name of the row ---------------------------------------------------------------


def numpy_arrays(library):
    """takes and returns NumPy arrays"""
    try:
        found = library.numpy_call(draw("LSTM"))
    except (TypeError, AttributeError):
        return "no"
    words = [part for part in found if isinstance(part, str)]
    return words[0] if words else "yes" if all(isinstance(array, np.ndarray) for array in found) else "no"


def weights_in_place(library):
    """reads the caller's weight arrays in every call"""
    array, call = library.in_place(draw("LSTM"))
    before = call()
    array *= 2
    changed = call()
    array /= 2
    return "yes" if not np.array_equal(before, changed) and np.array_equal(before, call()) else "no, copies"


def gradient_errors(library, cell, arrays):
    """-> by argument, the error of the gradient along a random direction, relative to the norm of the gradient"""
    rng, errors, step = np.random.default_rng(1), {}, 1e-2
    dh = rng.normal(size=(T, N, H)).astype("float32")
    for name, gradient in library.gradients(cell, arrays, dh).items():
        change = step * rng.normal(size=gradient.shape).astype("float32")
        above, below = (library.run(cell, arrays | {name: arrays[name] + sign * change})[0] for sign in (1, -1))
        error = np.vdot(gradient, change) - np.vdot(above - below, dh) / 2
        errors[name] = abs(error) / step / np.linalg.norm(gradient)
    return errors


def gradients(library):
    """gradients, which agree with numeric ones"""
    if hasattr(library, "gradients"):
        errors = [error for cell in library.cells for error in gradient_errors(library, cell, draw(cell)).values()]
        return "yes" if max(errors) < 1e-2 else "wrong"
    places = library.module, *(getattr(library.module, name, None) for name in ("InferenceSession", "opset15"))
    found = [name for place in places for name in dir(place) if re.search("(?i)gradient|training|backward", name)]
    return f"found {', '.join(found)}" if found else "no"


def float64(library):
    """float64"""
    cells = []
    for cell in library.cells:
        arrays = draw(cell, "float64")
        with contextlib.suppress(Exception):  # each library has its own
            cells += [cell] * close(library.run(cell, arrays), expected(cell, arrays))
    return "yes" if len(cells) == len(library.cells) else ", ".join(cells) or "no"


def gru_forms(library):
    """GRU: reset gate before the product, after it"""
    arrays, found = draw("GRU"), []
    for word in ("before", "after") if "GRU" in library.cells else ():
        form = f"reset_{word}"
        found += [word] * close(library.run("GRU", arrays, form=form), expected("GRU", arrays, form=form))
    return "both" if len(found) == 2 else " ".join(found) or "no GRU"


def peepholes(library):
    """peepholes"""
    if not library.peepholes:
        return "no"  # ``layer`` sets all parameters that the library's layer has
    arrays, peephole = draw("LSTM"), np.random.default_rng(1).normal(size=(3, H)).astype("float32")
    found = library.run("LSTM", arrays, peephole=peephole)
    if close(found, expected("LSTM", arrays, peephole=peephole)):
        return "yes"
    return "ignored" if close(found, expected("LSTM", arrays)) else "wrong"


def inspection(library):
    """all cell states and gate activations of a call"""
    cache, found = functions(reference, "LSTM", draw("LSTM"))[1], library.everything(draw("LSTM"))

    def place(wanted):
        wanted = np.sort(np.ravel(wanted))
        for number, array in enumerate(found):
            if np.size(array) == wanted.size and np.allclose(np.sort(np.ravel(array)), wanted, atol=1e-5):
                return "internal" if any(isinstance(part, str) for part in found[:number]) else "yes"
        return "no"

    return " / ".join(dict.fromkeys((place(cache.c), place(cache.gates))))


def lengths(library):
    """rows of different lengths without packing or sorting"""
    arrays = draw("LSTM", state=library.title != "thinc")

    def right(case):
        return close(library.run("LSTM", arrays, lengths=case), expected("LSTM", arrays, lengths=case))

    if right([3, 6, 1, 5, 4]):
        return library.by_lengths if library.by_lengths != "yes" or right([3, 0, 1, 6, 4]) else "not length 0"
    library.static = True  # OpenVINO ignores the lengths if T or N is dynamic
    static, library.static = right([3, 6, 1, 5, 4]), False
    return "static shapes" if static else "no"


def resets(library):
    """resets of the state inside a sequence"""
    if hasattr(library, "known"):
        assert library.arguments() == library.known, library.arguments() ^ library.known
        return "no"
    arrays, steps = draw("LSTM"), np.random.default_rng(1).random((T, N)) < 0.3
    right = close(library.run("LSTM", arrays, resets=steps), expected("LSTM", arrays, resets=steps))
    return "yes" if right else "wrong"


def initial_state(library):
    """initial state and its gradient"""
    arrays = draw("LSTM", state=True)
    try:
        assert close(library.run("LSTM", arrays), expected("LSTM", arrays))
    except TypeError:
        return "no"
    if not hasattr(library, "gradients"):
        return "no gradient"
    return "yes" if max(gradient_errors(library, "LSTM", arrays).values()) < 1e-2 else "wrong"


def empty(library, cell, axis):
    """In a child process: print whether an axis of length 0 gives the empty result."""
    arrays = draw(cell, state=library.title != "thinc", **{axis: 0})
    print("yes" if close(library.run(cell, arrays), expected(cell, arrays)) else "no", end="")


def empties(library):
    """T=0 and N=0 give the empty result"""
    cases = list(itertools.product(library.cells, "TN"))

    def outcome(case):
        command = [sys.executable, __file__, "--empty", library.title, *case]
        try:
            child = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
        except subprocess.TimeoutExpired:
            return "hangs"
        return "aborts" if child.returncode < 0 else child.stdout or "raises"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        words = dict(zip(cases, pool.map(outcome, cases), strict=True))
    worst = [word for word in ("aborts", "hangs") if word in words.values()]
    good = [f"{axis}=0" for axis in "TN" if all(words[cell, axis] == "yes" for cell in library.cells)]
    return worst[0] if worst else "yes" if len(good) == 2 else " ".join(good) or "no"


def same_bits(library):
    """same bits for any number of threads, alone and in a batch"""
    inference, training = set(library.cells), set(library.cells)
    shapes = (20, 3, 7), (20, 40, 128), (10, 7, 300), (5, 130, 256), (10, 1, 512), (10, 64, 512)
    for cell, (T, N, H) in itertools.product(library.cells, shapes):
        arrays, states, gradients = draw(cell, T=T, N=N, D=H + 3, H=H), set(), set()
        for library.threads in (4, 3, 2, 1):
            h = library.run(cell, arrays)[0]
            states.add(h.tobytes())
            found = library.gradients(cell, arrays, h) if hasattr(library, "gradients") else {}
            gradients.add(b"".join(array.tobytes() for array in found.values()))
        rows = slice(0, 1), slice(N - 1, N), slice(N // 3, N)
        parts = [library.run(cell, arrays | {"x": arrays["x"][:, part]})[0] for part in rows]
        if len(states) > 1 or not all(np.array_equal(a, h[:, b]) for a, b in zip(parts, rows, strict=True)):
            inference.discard(cell)
        if len(gradients) > 1:
            training.discard(cell)
    words = [cell + " inference" * (cell not in training) for cell in library.cells if cell in inference]
    return "yes" if training == inference == set(library.cells) else ", ".join(words) or "no"


def gpu(library):
    """GPU"""
    return library.gpu


def second_derivatives(library):
    """second derivatives"""
    return "yes" if library.second and library.second(draw("LSTM", "float64")) else "no"


def requirements(name, seen):
    """Add a package and what it requires to ``seen``, without extras, pip and setuptools."""
    name = re.sub(r"[-_.]+", "-", name).lower()
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:  # for another platform or Python
        return
    if name not in seen and name not in ("pip", "setuptools"):
        seen[name] = distribution
        for line in distribution.requires or []:
            if "extra ==" not in line:
                requirements(re.match(r"[\w.-]+", line).group(), seen)


def installed_size(library):
    """installed with what it requires, MB"""
    seen, files = {}, set()
    for name in (library.package, *(() if isinstance(library, ONNX) else library.requires)):
        requirements(name, seen)
    for distribution in seen.values():
        files |= {Path(distribution.locate_file(file)).resolve() for file in distribution.files or []}
    if library.title == "rnncore":  # an editable install lists no files
        files |= set(Path(rc.__file__).resolve().parent.rglob("*"))
    return f"{sum(file.stat().st_size for file in files if file.is_file()) / 1e6:,.0f}"


PROBES = (
    *(numpy_arrays, weights_in_place, gradients, initial_state, second_derivatives, float64, gru_forms, peepholes),
    *(inspection, lengths, resets, empties, same_bits, gpu, installed_size),
)
LIBRARIES = {library.title: library for library in (RNNCore, Torch, Keras, ONNXRuntime, OpenVINO, Thinc)}


def load(title):
    """-> the library, or None if it or what its probes need is not installed"""
    library = LIBRARIES[title]()
    try:
        for name in (library.package, *library.requires):
            setattr(library, name, importlib.import_module(name))
    except ImportError:
        return None
    library.module = getattr(library, library.package)
    return library


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(LIBRARIES), choices=list(LIBRARIES), metavar="LIBRARY")
    parser.add_argument("--empty", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.empty:
        return empty(load(arguments.empty[0]), *arguments.empty[1:])

    loaded = {title: load(title) for title in arguments.only}
    libraries = [library for library in loaded.values() if library]
    print(f"| | {' | '.join(library.title for library in libraries)} |\n{'|---' * (1 + len(libraries))}|", flush=True)
    for probe in PROBES:
        print(f"| {probe.__doc__} | {' | '.join(probe(library) for library in libraries)} |", flush=True)
    versions = [f"{library.title} {importlib.metadata.version(library.package)}" for library in libraries]
    versions.append(f"NumPy {np.__version__}, Python {sys.version.split()[0]}")
    sources = [f"[{library.title}]({library.source})" for library in libraries if hasattr(library, "source")]
    print(f"\n{datetime.date.today()}, {', '.join(versions)}, {processor()}\n{NOTES}{', '.join(sources)}.")
    print(*(f"{title} is not installed." for title, library in loaded.items() if library is None))


if __name__ == "__main__":
    main()
