"""What looks at the class of a module or follows its operations gets torch.nn's own: the same results, no error."""

import copy
import importlib
import subprocess
import sys
import types
from functools import partial

import pytest

torch = pytest.importorskip("torch")
# PyTorch's own warnings, of TorchScript, tracing, export and quantisation.
pytestmark = [pytest.mark.filterwarnings(f"ignore::{c}Warning") for c in ("Deprecation", "Future", "User")]

from support.torch_modules import KINDS, LENGTHS, D, H, N, T, close, flat, leaf, outcome, pair, states_of  # noqa: E402

from rnncore.interop import torch as interop  # noqa: E402

every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(7)


class Model(torch.nn.Module):
    def __init__(self, recurrent):
        super().__init__()
        self.rnn = recurrent
        self.head = torch.nn.Linear(H * (1 + recurrent.bidirectional), 2)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


def models(kind, dtype="float32", **options):
    """-> a model with a module of torch.nn, a converted copy of it"""
    theirs = Model(pair(kind, dtype, **options)[0]).to(getattr(torch, dtype))
    ours = copy.deepcopy(theirs)
    assert interop.replace(ours) == ["rnn"]
    return theirs, ours


def equal(got, wanted):
    for a, b in zip(flat(got), flat(wanted), strict=True):
        assert torch.equal(a, b)


# ---- torch.fx, TorchScript, export --------------------------------------------------------------------------


@every_kind
def test_fx_has_the_module_for_a_leaf(kind):
    theirs, ours = models(kind, "float64")
    traced = torch.fx.symbolic_trace(ours)
    assert str(traced.graph) == str(torch.fx.symbolic_trace(theirs).graph)
    assert traced.rnn is ours.rnn
    x = torch.randn(T, N, D).double()
    close(traced(x), theirs(x), "traced")
    assert type(ours.rnn).__module__ == "rnncore.interop.torch"


@every_kind
def test_script(kind):
    theirs, ours = models(kind, num_layers=2, bidirectional=True)
    x = torch.randn(T, N, D)
    parameters = list(ours.parameters())
    scripted = torch.jit.script(ours)
    assert torch.equal(scripted(x), theirs(x))
    assert type(ours.rnn) is type(theirs.rnn)
    assert all(a is b for a, b in zip(ours.parameters(), parameters, strict=True))
    close(ours(x), theirs(x), "after", 1e-5)
    # The module alone stays what it is.
    module = pair(kind)[1]
    torch.jit.script(module)
    assert type(module) is getattr(interop, KINDS[kind][0])


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@every_kind
def test_jit_trace(kind):
    theirs, ours = models(kind)
    x, other = torch.randn(2, T, N, D)
    traced = torch.jit.trace(ours, x)
    assert torch.equal(traced(other), theirs(other))


@pytest.mark.parametrize("strict", [False, True])
@every_kind
def test_export(kind, strict):
    """An exported program runs without rnncore."""
    theirs, ours = models(kind)
    x = torch.randn(T, N, D)
    program = torch.export.export(ours, (x,), strict=strict)
    close(program.module()(x), theirs(x), "exported", 1e-5)
    if hasattr(torch.compiler, "is_exporting") or not strict:
        assert "rnncore" not in str(program.graph)


# ---- quantisation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [None, "linear", "names"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_quantize_dynamic(kind, spec):
    quantization = torch.ao.quantization
    theirs, ours = models(kind)
    spec = {
        None: None,
        "linear": {torch.nn.Linear},
        "names": {"rnn": quantization.default_dynamic_qconfig},
    }[spec]
    x = torch.randn(T, N, D)
    got, wanted = (quantization.quantize_dynamic(model, spec) for model in (ours, theirs))
    assert type(got.rnn) is type(wanted.rnn)
    assert torch.equal(got(x), wanted(x))
    assert type(ours.rnn) is getattr(interop, kind)  # only the copy is converted


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_quantize_by_fx(kind):
    quantize_fx = importlib.import_module("torch.ao.quantization.quantize_fx")
    quantization = torch.ao.quantization
    mapping = quantization.QConfigMapping().set_global(quantization.default_dynamic_qconfig)
    x, results = torch.randn(T, N, D), []
    for model in models(kind):
        prepared = quantize_fx.prepare_fx(model.eval(), mapping, (x,))
        results.append(quantize_fx.convert_fx(prepared))
    assert type(results[1].rnn) is type(results[0].rnn) is not getattr(torch.nn, kind)
    assert torch.equal(results[1](x), results[0](x))


@pytest.mark.parametrize(
    "first", ["import rnncore.interop.torch", "import torch._dynamo, torch.ao.quantization.fx.prepare"]
)
def test_order_of_imports(first, tmp_path):
    """The tools are found whether they are imported before the modules or after them, and not imported for them."""
    code = f"""
import sys, warnings
{first}
tools = "torch._dynamo", "torch.ao.quantization.quantize"
import torch
from rnncore.interop.torch import LSTM
assert all(tool in sys.modules for tool in tools) == {"dynamo" in first}
warnings.simplefilter("ignore")
model, x = torch.nn.Sequential(LSTM(3, 4)), torch.randn(6, 5, 3)
torch.compile(model, backend="eager", fullgraph=True)(x)
quantized = torch.ao.quantization.quantize_dynamic(model)
assert type(quantized[0]) is torch.ao.nn.quantized.dynamic.LSTM
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_a_tool_that_changed_is_told_of():
    """Importing it must not fail."""
    with pytest.warns(RuntimeWarning, match="torch.ao.quantization.quantize .* is not known: call restore"):
        interop.tools._change("torch.ao.quantization.quantize", types.ModuleType("quantize"))


# ---- torch.func and gradients of gradients ------------------------------------------------------------------


@every_kind
def test_functional_call(kind):
    theirs, ours = models(kind, "float64")
    x = torch.randn(T, N, D).double()
    parameters = {name: p.detach() * 2 for name, p in theirs.named_parameters()}
    got, wanted = (torch.func.functional_call(model, parameters, (x,)) for model in (ours, theirs))
    close(got, wanted, "functional_call")


@every_kind
def test_transforms(kind):
    theirs, ours = models(kind, "float64")
    parameters = {name: p.detach() for name, p in theirs.named_parameters()}
    batches = torch.randn(3, T, N, D).double()
    results = []
    for model in (theirs, ours):

        def loss(parameters, x, model=model):
            return torch.func.functional_call(model, parameters, (x,)).square().sum()

        gradient = torch.func.grad(loss)
        results.append(
            [
                gradient(parameters, batches[0]),
                torch.func.jvp(partial(loss, parameters), (batches[0],), (batches[1],)),
                torch.func.jacrev(loss, 1, chunk_size=1)(parameters, batches[0]),
            ]
        )
        # torch.nn has no vmap of its recurrent modules.
        with pytest.raises(RuntimeError, match="Batching rule not implemented"):
            torch.func.vmap(loss, (None, 0))(parameters, batches)
    for got, wanted in zip(*(torch.utils._pytree.tree_leaves(result) for result in results), strict=True):
        assert torch.equal(got, wanted)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize(("bidirectional", "bias", "batch_first"), [(False, True, False), (True, False, True)])
@every_kind
def test_gradients_of_gradients(kind, bidirectional, bias, batch_first, states, packed):
    results = []
    modules = pair(kind, bidirectional=bidirectional, bias=bias, batch_first=batch_first, num_layers=2)
    x = leaf(N, T, D) if batch_first else leaf(T, N, D)
    leaves, hx = states_of(modules[0], 2 * (1 + bidirectional), N, H) if states else ([], None)

    def prepare(x):
        if not packed:
            return x
        return torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor(LENGTHS), batch_first, enforce_sorted=False)

    for module in modules:
        wanted = [x, *leaves, *module.parameters()]
        outputs = flat(module(prepare(x), hx))
        gradients = torch.autograd.grad([o.square().sum() for o in outputs], wanted, create_graph=True)
        penalty = sum(g.square().sum() for g in gradients)
        results.append([*gradients, *torch.autograd.grad(penalty, wanted)])
    for k, (got, wanted) in enumerate(zip(results[1], results[0], strict=True)):
        close(got, wanted, k)


@every_kind
def test_gradients_of_gradients_by_differences(kind):
    _, module = pair(kind, bidirectional=True)
    if kind == "RNN-relu":
        pytest.skip("has kinks")
    x, parameters = leaf(3, 4, D), dict(module.named_parameters())

    def function(x, *values):
        return module_call(module, dict(zip(parameters, values, strict=True)), x)

    def module_call(module, values, x):
        return torch.func.functional_call(module, values, (x,))[0]

    assert torch.autograd.gradgradcheck(function, (x, *parameters.values()))


@every_kind
def test_a_gradient_penalty_of_a_first_order_layer(kind):
    """Only the cotangent is differentiated a second time."""
    _, module = pair(kind)
    x = torch.randn(T, N, D).double()
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    y, _ = module(x)
    (gradient,) = torch.autograd.grad((y * scale).sum(), module.weight_hh_l0, create_graph=True)
    (slope,) = torch.autograd.grad(gradient.sum(), scale)
    close(slope, gradient.sum().detach() / 2, "slope")


@every_kind
def test_changes_that_gradients_of_gradients_would_miss(kind):
    _, module = pair(kind)
    y, _ = module(leaf(T, N, D))
    with torch.no_grad():
        module.bias_ih_l0 += 1
    with pytest.raises(RuntimeError, match="an initial state or a bias has been modified by an inplace operation"):
        torch.autograd.grad(y.sum(), module.weight_hh_l0, create_graph=True)


# ---- parametrizations, projections --------------------------------------------------------------------------


@pytest.mark.parametrize("first", [False, True])
@every_kind
def test_parametrizations(kind, first):
    """before or after the conversion"""
    theirs = Model(pair(kind)[0])
    ours = copy.deepcopy(theirs)
    parametrize = torch.nn.utils.parametrizations
    if not first:
        assert interop.replace(ours) == ["rnn"]
    for model in (theirs, ours):
        parametrize.weight_norm(model.rnn, "weight_hh_l0")
        parametrize.spectral_norm(model.rnn, "weight_ih_l0")
        model.eval()
    ours.load_state_dict(theirs.state_dict())
    if first:
        names = interop.replace(ours)
        assert (names, names.skipped) == (["rnn"], {})
    assert isinstance(ours.rnn, interop.modules.Recurrent)
    x = leaf(T, N, D)
    wanted = outcome(theirs.rnn, x, [], None)
    for got in (outcome(ours.rnn, x, [], None), outcome(copy.deepcopy(ours).rnn, x, [], None)):
        for k, (a, b) in enumerate(zip(got, wanted, strict=True)):
            close(a, b, k)
    assert "_Recurrence" in type(ours.rnn(x)[0].grad_fn).__name__
    with pytest.raises(RuntimeError, match="parametrized modules is only supported through state_dict"):
        copy.copy(ours.rnn).__reduce_ex__(2)
    restored = copy.deepcopy(ours)
    assert interop.restore(restored) == ["rnn"]
    assert not isinstance(restored.rnn, interop.modules.Recurrent)
    close(copy.deepcopy(restored).rnn(x)[0], wanted[0], "restored")
    for model in (ours, theirs):
        for name in ("weight_hh_l0", "weight_ih_l0"):
            torch.nn.utils.parametrize.remove_parametrizations(model.rnn, name)
    assert type(ours.rnn) is getattr(interop, KINDS[kind][0])
    close(ours.rnn(x)[0], theirs.rnn(x)[0], "removed")


@every_kind
def test_pruning_and_weights_of_older_hooks(kind):
    prune = pytest.importorskip("torch.nn.utils.prune")
    modules = pair(kind)
    for module in modules:
        prune.l1_unstructured(module, "weight_hh_l0", amount=0.5)
        torch.nn.utils.weight_norm(module, "weight_ih_l0")
    x = leaf(T, N, D)
    wanted, got = (outcome(module, x, [], None) for module in modules)
    for k, (a, b) in enumerate(zip(got, wanted, strict=True)):
        close(a, b, k)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_projections(dtype):
    options = {"proj_size": 2, "num_layers": 2, "bidirectional": True}
    theirs, ours = pair("LSTM", dtype, **options)
    x = leaf(T, N, D, dtype=dtype)
    for got, wanted in zip(outcome(ours, x, [], None), outcome(theirs, x, [], None), strict=True):
        assert torch.equal(got, wanted)
    assert str(ours) == f"rnncore.{theirs}"
