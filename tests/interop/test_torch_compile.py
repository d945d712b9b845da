"""torch.compile without a break of the graph: the results and gradients of an eager call."""

import copy

import pytest
from support.compare import TOLERANCE

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.filterwarnings("ignore:dropout option adds dropout:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # PyTorch's own, in its compiler
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning"),
]

from support.torch_modules import KINDS, LENGTHS, D, H, N, T, close, flat, leaf, outcome, pair, states_of  # noqa: E402

from rnncore.interop import torch as interop  # noqa: E402

every_kind = pytest.mark.parametrize("kind", KINDS)
pack = torch.nn.utils.rnn.pack_padded_sequence


@pytest.fixture(autouse=True)
def fresh():
    torch.manual_seed(7)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(error_on_recompile=False):
        yield


def compiled(module, backend="aot_eager", **options):
    """-> the module compiled as one graph, and the operators in it"""
    operators = set()

    def collect(graph, inputs):
        operators.update(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return torch._dynamo.lookup_backend(backend)(graph, inputs)

    return torch.compile(module, backend=collect, fullgraph=True, **options), operators


def compare(kind, dtype, shape, prepare=lambda x: x, batch=(N,), backend="aot_eager", states=True, **options):
    module = pair(kind, dtype, **options)[1]
    x = leaf(*shape, dtype=dtype)
    cells = module.num_layers * (1 + module.bidirectional)
    leaves, hx = states_of(module, cells, *batch, H, dtype=dtype) if states else ([], None)
    wanted = outcome(module, x, leaves, hx, prepare)
    function, operators = compiled(module, backend)
    got = outcome(function, x, leaves, hx, prepare, list(module.parameters()))
    assert any("rnncore.recurrence" in operator for operator in operators)
    for k, (a, b) in enumerate(zip(got, wanted, strict=True)):
        close(a, b, f"{k} of {len(wanted)}", TOLERANCE[dtype])
    with torch.no_grad():
        for a, b in zip(flat(function(prepare(x), hx)), wanted, strict=False):
            close(a, b, "inference", TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize(
    ("num_layers", "bidirectional", "bias", "batch_first"), [(1, False, True, False), (2, True, False, True)]
)
@every_kind
def test_batches(kind, num_layers, bidirectional, bias, batch_first, states, dtype):
    options = {"num_layers": num_layers, "bidirectional": bidirectional, "bias": bias, "batch_first": batch_first}
    compare(kind, dtype, (N, T, D) if batch_first else (T, N, D), states=states, **options)


@every_kind
def test_with_the_default_backend(kind):
    compare(kind, "float32", (T, N, D), backend="inductor", num_layers=2, bidirectional=True)


@pytest.mark.parametrize("states", [False, True])
@every_kind
def test_one_sequence_without_a_batch(kind, states):
    compare(kind, "float64", (T, D), batch=(), states=states, num_layers=2)


# Its compiler cannot read a named tuple's subclass.
reads_packed_sequences = pytest.mark.skipif(torch.__version__ < "2.5", reason="PyTorch 2.4")


@reads_packed_sequences
@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2])
@every_kind
def test_packed_sequences(kind, num_layers, states):
    def prepare(x):
        return pack(x, torch.tensor(LENGTHS), enforce_sorted=False)

    compare(kind, "float64", (T, N, D), prepare, states=states, num_layers=num_layers, bidirectional=True)


@reads_packed_sequences
@pytest.mark.parametrize("states", [False, True])
@every_kind
def test_sorted_packed_sequences(kind, states):
    def prepare(x):
        return pack(x, torch.tensor(sorted(LENGTHS, reverse=True)))

    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=not states):
        compare(kind, "float64", (T, N, D), prepare, states=states, bidirectional=True)


@every_kind
def test_packed_sequences_where_the_graph_may_break(kind):
    _, module = pair(kind, num_layers=2)
    x = pack(torch.randn(T, N, D).double(), torch.tensor(sorted(LENGTHS, reverse=True)))
    for got, wanted in zip(flat(torch.compile(module, backend="eager")(x)), flat(module(x)), strict=True):
        close(got, wanted, "broken")


@every_kind
def test_small_batches(kind):
    """Where an eager call goes to torch.nn."""
    compare(kind, "float64", (1, 1, D), batch=(1,))


@every_kind
def test_in_a_model(kind):
    """Forward, loss and backward of a converted model in one graph; parameters are read live."""
    theirs = pair(kind, "float32", num_layers=2)[0]
    model = torch.nn.Sequential(theirs)
    assert interop.replace(model) == ["0"]
    twin = copy.deepcopy(model)
    function, _ = compiled(lambda x: model(x)[0].square().sum())
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (model, twin)]
    for _ in range(3):
        x = torch.randn(T, N, D)
        for optimizer, loss in zip(optimizers, (function, lambda x: twin(x)[0].square().sum()), strict=True):
            optimizer.zero_grad()
            loss(x).backward()
            optimizer.step()
    for got, wanted in zip(model.parameters(), twin.parameters(), strict=True):
        close(got, wanted, "parameter", TOLERANCE["float32"])


@every_kind
def test_dynamic_shapes(kind):
    _, module = pair(kind, num_layers=2, bidirectional=True)
    function, _ = compiled(module, dynamic=True)
    for sizes in ((6, 5), (9, 4), (12, 7)):
        x = leaf(*sizes, D)
        wanted, got = (outcome(f, x, [], None, parameters=list(module.parameters())) for f in (module, function))
        for a, b in zip(got, wanted, strict=True):
            close(a, b, sizes)
        torch._dynamo.config.error_on_recompile = True


@every_kind
def test_sizes_that_are_marked_as_dynamic(kind):
    _, module = pair(kind, batch_first=True)
    function, _ = compiled(module)
    for sizes in ((6, 5), (9, 4)):
        x = torch.randn(*sizes, D).double()
        torch._dynamo.mark_dynamic(x, 0)
        torch._dynamo.mark_dynamic(x, 1)
        close(function(x)[0], module(x)[0], sizes)


@every_kind
def test_dropout(kind):
    """The masks are the compiler's own: the eager backend draws as an eager call."""
    _, module = pair(kind, num_layers=3, dropout=0.4)
    x, results = torch.randn(T, N, D).double(), []
    for function in (module, compiled(module, "eager")[0]):
        torch.manual_seed(1)
        y, _ = function(x)
        results.append([y, *torch.autograd.grad(y.sum(), list(module.parameters()))])
    for got, wanted in zip(*results, strict=True):
        close(got, wanted, "dropout")
    assert not torch.equal(compiled(module)[0](x)[0], compiled(module)[0](x)[0])
    module.eval()
    close(compiled(module)[0](x)[0], module(x)[0], "eval")


@every_kind
def test_frozen_parameters(kind):
    _, module = pair(kind)
    x = torch.randn(T, N, D).double()
    module.weight_ih_l0.requires_grad_(False)
    function, _ = compiled(module)
    function(x)[0].sum().backward()
    assert module.weight_ih_l0.grad is None
    assert module.weight_hh_l0.grad.abs().max() > 0
    module.requires_grad_(False)
    assert not function(x)[0].requires_grad


@every_kind
def test_weights_in_another_layout(kind):
    _, module = pair(kind)
    for name in ("weight_ih_l0", "weight_hh_l0"):
        setattr(module, name, torch.nn.Parameter(getattr(module, name).detach().T.contiguous().T))
    x = leaf(T, N, D)
    function, _ = compiled(module, "inductor" if kind == "GRU" else "aot_eager")
    got, wanted = (outcome(f, x, [], None, parameters=list(module.parameters())) for f in (function, module))
    for a, b in zip(got, wanted, strict=True):
        close(a, b, "layout")


@every_kind
def test_a_state_of_another_size_is_an_error(kind):
    """Only the data of a sorted PackedSequence tell the size of the batch: the operator checks it."""
    if torch.__version__ < "2.5":
        pytest.skip("PyTorch 2.4")
    _, module = pair(kind)
    x = pack(torch.randn(T, N, D).double(), torch.tensor(sorted(LENGTHS, reverse=True)))
    _, hx = states_of(module, 1, N + 1, H)
    with pytest.raises(ValueError, match=r"h0 must be \(N, H\)"):
        compiled(module)[0](x, hx)


@every_kind
def test_eager_calls_after_a_compiled_one_use_the_engine(kind):
    _, module = pair(kind)
    x = torch.randn(T, N, D).double()
    compiled(module)[0](x)
    assert "_Recurrence" in type(module(x)[0].grad_fn).__name__


@every_kind
def test_the_operators(kind):
    """PyTorch's own checks: the schema, shapes without data, gradients with them."""
    _, module = pair(kind, bidirectional=True)
    count = 1 + (kind == "LSTM")
    packed = pack(torch.randn(T, N, D).double(), torch.tensor(LENGTHS), enforce_sorted=False)
    for batch_sizes, x in ((None, leaf(T, N, D)), (packed.batch_sizes, packed.data.requires_grad_())):
        for states in ([None, None], [leaf(2, N, H) for _ in range(count)] + [None] * (2 - count)):
            for training in (False, True):
                arguments = (x, batch_sizes, *states, list(module.parameters()), module.mode, 2, training)
                if not training:
                    arguments = torch.utils._pytree.tree_map_only(torch.Tensor, torch.Tensor.detach, arguments)
                if batch_sizes is not None and states[0] is None:
                    continue
                torch.library.opcheck(torch.ops.rnncore.recurrence.default, arguments)


def test_plain_modules_break_the_graph_as_ever():
    """Only modules on the engine are traced."""
    for module in (torch.nn.LSTM(D, H), interop.LSTM(D, H, proj_size=2)):
        with pytest.raises(torch._dynamo.exc.Unsupported, match="LSTM"):
            torch.compile(module, backend="eager", fullgraph=True)(torch.randn(T, N, D))
        x = torch.randn(T, N, D)
        assert torch.equal(torch.compile(module, backend="eager")(x)[0], module(x)[0])
