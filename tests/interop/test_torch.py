"""The modules on the engine against torch.nn's: outputs, states, every gradient, and what a module does besides."""

import concurrent.futures
import inspect

import numpy as np
import pytest
from support.compare import TOLERANCE

import rnncore as rc

torch = pytest.importorskip("torch")
make_fx = pytest.importorskip("torch.fx.experimental.proxy_tensor").make_fx
pytestmark = pytest.mark.filterwarnings("ignore:dropout option adds dropout:UserWarning")

from support.torch_modules import (  # noqa: E402 - needs torch
    KINDS,
    LENGTHS,
    D,
    H,
    N,
    T,
    close,
    flat,
    leaf,
    outcome,
    pair,
    states_of,
)

from rnncore.interop import torch as interop  # noqa: E402

every_kind = pytest.mark.parametrize("kind", KINDS)
every_dtype = pytest.mark.parametrize("dtype", TOLERANCE)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(7)


def compare(kind, dtype, shape, prepare=lambda x: x, states=True, batch=(N,), **options):
    theirs, ours = pair(kind, dtype, **options)
    x = leaf(*shape, dtype=dtype)
    cells = theirs.num_layers * (1 + theirs.bidirectional)
    leaves, hx = states_of(theirs, cells, *batch, H, dtype=dtype) if states else ([], None)
    wanted, got = (outcome(module, x, leaves, hx, prepare) for module in (theirs, ours))
    for k, (a, b) in enumerate(zip(got, wanted, strict=True)):
        close(a, b, f"{k} of {len(wanted)}", TOLERANCE[dtype])
    with torch.inference_mode():
        for a, b in zip(flat(ours(prepare(x), hx)), wanted, strict=False):
            close(a, b, "inference", TOLERANCE[dtype])


# ---- equality with torch.nn ---------------------------------------------------------------------------------


@every_dtype
@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(
    ("num_layers", "bidirectional", "bias"), [(1, False, True), (2, True, True), (3, False, False)]
)
@every_kind
def test_batches(kind, num_layers, bidirectional, bias, batch_first, states, dtype):
    options = {"num_layers": num_layers, "bidirectional": bidirectional, "bias": bias, "batch_first": batch_first}
    compare(kind, dtype, (N, T, D) if batch_first else (T, N, D), states=states, **options)


@every_dtype
@pytest.mark.parametrize("enforce_sorted", [False, True])
@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize(("num_layers", "bidirectional"), [(1, False), (1, True), (2, True)])
@every_kind
def test_packed_sequences(kind, num_layers, bidirectional, states, enforce_sorted, dtype):
    def prepare(x):
        lengths = sorted(LENGTHS, reverse=True) if enforce_sorted else LENGTHS
        return torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=enforce_sorted)

    compare(kind, dtype, (T, N, D), prepare, states, num_layers=num_layers, bidirectional=bidirectional)


@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@every_kind
def test_one_sequence_without_a_batch(kind, batch_first, states):
    compare(kind, "float64", (T, D), states=states, batch=(), num_layers=2, batch_first=batch_first)


@pytest.mark.parametrize("shape", [(1, 1, D), (1, N, D), (T, 1, D), (70, 33, D)])
@every_kind
def test_sizes(kind, shape):
    compare(kind, "float64", shape, batch=shape[1:2])


@every_kind
def test_a_packed_sequence_is_given_back_as_it_came(kind):
    theirs, ours = pair(kind)
    x = torch.nn.utils.rnn.pack_sequence([torch.randn(n, D).double() for n in LENGTHS], enforce_sorted=False)
    got, wanted = ours(x)[0], theirs(x)[0]
    for a, b in zip(got[1:], wanted[1:], strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("layout", ["transposed", "strided", "expanded"])
@every_kind
def test_layouts_of_the_input(kind, layout):
    x = {
        "transposed": lambda: torch.randn(D, N, T).double().permute(2, 1, 0),
        "strided": lambda: torch.randn(2 * T, N, 2 * D).double()[::2, :, ::2],
        "expanded": lambda: torch.randn(T, 1, D).double().expand(T, N, D),
    }[layout]()
    theirs, ours = pair(kind)
    for a, b in zip(flat(ours(x)), flat(theirs(x)), strict=True):
        close(a, b, layout)


@every_kind
def test_dropout_draws_as_torch(kind):
    theirs, ours = pair(kind, num_layers=3, dropout=0.4)
    x = torch.randn(T, N, D).double()
    results = []
    for module in (theirs, ours):
        torch.manual_seed(1)
        y, _ = module(x)
        y.sum().backward()
        results.append([y, *(p.grad for p in module.parameters())])
    for got, wanted in zip(results[1], results[0], strict=True):
        close(got, wanted, "dropout")
    close(ours.eval()(x)[0], theirs.eval()(x)[0], "eval")


@pytest.mark.parametrize("packed", [False, True])
@every_kind
def test_gradcheck(kind, packed):
    _, module = pair(kind, bidirectional=True, num_layers=2)
    if kind == "RNN-relu":  # away from the kink
        with torch.no_grad():
            for name, p in module.named_parameters():
                p.copy_(p / 4 + ("bias" in name))
    names = [name for name, _ in module.named_parameters()]
    leaves, _ = states_of(module, 4, 2, H)

    def function(x, *tensors):
        states = tensors[: len(leaves)]
        hx = tuple(states) if len(states) > 1 else states[0]
        if packed:
            x = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor([2, 3]), enforce_sorted=False)
        parameters = dict(zip(names, tensors[len(leaves) :], strict=True))
        return tuple(flat(torch.func.functional_call(module, parameters, (x, hx))))

    assert torch.autograd.gradcheck(function, (leaf(3, 2, D), *leaves, *module.parameters()))


@every_kind
def test_a_training_loop_reaches_the_same_loss(kind):
    inputs, targets = torch.randint(7, (2, 20, 8))
    losses = []
    for recurrent in pair(kind, "float32"):
        torch.manual_seed(0)
        model = torch.nn.ModuleList([torch.nn.Embedding(7, D), recurrent, torch.nn.Linear(H, 7)])
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        for _ in range(30):
            optimizer.zero_grad()
            logits = model[2](model[1](model[0](inputs))[0])
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[0] < 1.9


# ---- what a module does besides -----------------------------------------------------------------------------


@every_kind
def test_constructor_parameters_and_initial_values_are_those_of_torch(kind):
    name, own = KINDS[kind]
    modules = []
    for library in (torch.nn, interop):
        torch.manual_seed(5)
        modules.append(getattr(library, name)(D, H, 2, bidirectional=True, **own))
    theirs, ours = (dict(module.named_parameters()) for module in modules)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert repr(modules[1]) == f"rnncore.{modules[0]!r}"
    assert isinstance(modules[1], getattr(torch.nn, name))
    positional = getattr(interop, name)(D, H, 2, *(["relu"] if name == "RNN" else []), False, True)
    assert (positional.num_layers, positional.bias, positional.batch_first) == (2, False, True)


@every_kind
def test_parameters_are_read_live(kind):
    theirs, ours = pair(kind)
    x = torch.randn(T, N, D).double()
    for module in (theirs, ours):
        module(x)
        with torch.no_grad():
            module.weight_hh_l0 *= 2
            module.weight_ih_l0[1] += 1
        module.bias_hh_l0 = torch.nn.Parameter(module.bias_ih_l0.detach() * 3)
    close(ours(x)[0], theirs(x)[0], "changed")


@every_kind
def test_change_between_forward_and_backward_is_noticed(kind):
    _, module = pair(kind)
    for name in ("weight_hh_l0", "input"):
        x = leaf(T, N, D) * 1
        y, _ = module(x)
        with torch.no_grad():
            (x if name == "input" else getattr(module, name)).mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()


@every_kind
def test_biases_may_change_between_forward_and_backward(kind):
    _, module = pair(kind)
    x, gradients = torch.randn(T, N, D).double(), []
    for change in (False, True):
        y, _ = module(x)
        with torch.no_grad():
            module.bias_ih_l0 += 3 * change
            module.bias_hh_l0 -= 2 * change
        gradients.append(torch.autograd.grad(y.square().sum(), list(module.parameters())))
    for unchanged, changed in zip(*gradients, strict=True):
        assert torch.equal(changed, unchanged)


@every_kind
def test_the_output_may_be_changed_in_place(kind):
    theirs, ours = pair(kind)
    x = torch.randn(T, N, D).double()
    gradients = []
    for module in (theirs, ours):
        y, _ = module(x)
        z = y * 1 if module is theirs else y
        z.mul_(3)
        z.sum().backward()
        gradients.append(module.weight_hh_l0.grad)
    close(gradients[1], gradients[0], "gradient")


@every_kind
def test_backward_twice(kind):
    _, module = pair(kind)
    x = leaf(T, N, D)
    y, _ = module(x)
    first = torch.autograd.grad(y.sum(), x, retain_graph=True)
    (second,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(first[0], second)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(y.sum(), x)


@every_kind
def test_saved_tensors_may_go_elsewhere_but_not_change(kind):
    theirs, ours = pair(kind)
    x, gradients = torch.randn(T, N, D).double(), []
    for module in (theirs, ours):
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t.numpy().copy(), torch.from_numpy):
            y, _ = module(x)
        y.sum().backward()
        gradients.append(module.weight_hh_l0.grad)
    close(gradients[1], gradients[0], "gradient")
    # The same values may come back in another layout.
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: t.transpose(0, -1).contiguous(), lambda t: t.transpose(0, -1)
    ):
        y, _ = ours(x)
    (gradient,) = torch.autograd.grad(y.sum(), ours.weight_hh_l0)
    close(gradient, gradients[0], "gradient")
    for change in (lambda t: t.float(), lambda t: t[:-1], lambda t: t[..., :1]):
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t, change):
            y, _ = ours(x)
        with pytest.raises(ValueError, match="a saved array must be"):
            y.sum().backward()


@every_kind
def test_gradients_of_two_passes_add_up(kind):
    theirs, ours = pair(kind)
    for module in (theirs, ours):
        for seed in (1, 2):
            torch.manual_seed(seed)
            module(torch.randn(T, N, D).double())[0].square().sum().backward()
    for (name, wanted), got in zip(theirs.named_parameters(), ours.parameters(), strict=True):
        close(got.grad, wanted.grad, name)
        assert got.grad.is_contiguous()


@every_kind
def test_frozen_parameters_get_no_gradient(kind):
    _, module = pair(kind)
    module.weight_ih_l0.requires_grad_(False)
    x = torch.randn(T, N, D).double()
    module(x)[0].sum().backward()
    assert module.weight_ih_l0.grad is None
    assert module.weight_hh_l0.grad is not None
    module.requires_grad_(False)
    assert not module(x)[0].requires_grad
    assert module(x.requires_grad_())[0].requires_grad
    with torch.no_grad():
        assert not module(x)[0].requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@every_kind
def test_other_dtypes_go_to_torch(kind, dtype):
    theirs, ours = (module.to(dtype) for module in pair(kind))
    x = torch.randn(T, N, D, dtype=dtype)
    assert torch.equal(ours(x)[0], theirs(x)[0])


@every_kind
def test_autocast_goes_to_torch(kind):
    theirs, ours = pair(kind, "float32")
    x = torch.randn(T, N, D)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        try:
            wanted = theirs(x)[0]
        except RuntimeError as error:
            pytest.skip(f"torch.nn has no bfloat16 kernel for this CPU: {error}")
        assert torch.equal(ours(x)[0], wanted)


def raised(function, *arguments):
    """-> type and message of the exception, None if there is none"""
    try:
        function(*arguments)
    except Exception as error:
        return type(error), str(error)
    return None


@every_kind
def test_errors_are_those_of_torch(kind):
    theirs, ours = pair(kind, num_layers=2)
    firsts = pair(kind, batch_first=True)
    x, h = torch.randn(T, N, D).double(), torch.zeros(2, N, H).double()
    many = (h,) * (2 if kind == "LSTM" else 1)
    wrong = [
        (h[:1],) * len(many),
        (h[..., :1],) * len(many),
        (h[:, 0],) * len(many),
        (h.float(),) * len(many),
        (h,) * 3,
    ]
    states = [
        None,
        *(state if kind == "LSTM" else state[0] for state in wrong),
        (),
        (h, None),
        (h,),
        np.zeros((2, N, H)),
    ]
    wrong_inputs = [torch.randn(T, N, D + 1).double(), torch.randn(T, D + 1).double(), torch.randn(D).double(), x[:0]]
    cases = [(x, state) for state in states] + [(x[:, 0], state) for state in states]
    cases += [(input,) for input in (*wrong_inputs, x[:0, 0], x.float(), x.long(), torch.randn(()).double(), "x", None)]
    packed = torch.nn.utils.rnn.pack_sequence([torch.randn(n, D + 1).double() for n in (3, 2)])
    count = 0
    for pairs in ((theirs, ours), firsts):
        for arguments in [*cases, (packed,)]:
            wanted, got = (raised(module, *arguments) for module in pairs)
            assert got == wanted, arguments
            count += wanted is not None
    assert count > 30


@pytest.mark.parametrize("name", ["weight_ih_l0_reverse", "weight_hh_l0", "bias_hh_l1", "weight_ih_l1"])
@every_kind
def test_every_parameter_is_checked(kind, name):
    """A dtype or a shape of its own must not reach native code."""
    x = torch.randn(T, N, D).double()
    for change in (lambda p: p.float(), lambda p: p[:-1], lambda p: p.to("meta")):
        modules = pair(kind, num_layers=2, bidirectional=True)
        for module in modules:
            setattr(module, name, torch.nn.Parameter(change(getattr(module, name).detach())))
        wanted, got = (raised(module, x) for module in modules)
        assert got == wanted
        assert got is not None


# PyTorch's own, of forward-mode derivatives.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
@every_kind
def test_what_follows_every_operation_goes_to_torch(kind):
    theirs, ours = (module.requires_grad_(False) for module in pair(kind))
    x, other = torch.randn(2, T, N, D).double()
    with torch.no_grad():
        traced = make_fx(ours)(x)
    close(traced(other)[0], theirs(other)[0], "traced")
    with torch.autograd.forward_ad.dual_level():
        tangents = [
            torch.autograd.forward_ad.unpack_dual(module(torch.autograd.forward_ad.make_dual(x, other))[0]).tangent
            for module in (theirs, ours)
        ]
    close(tangents[1], tangents[0], "tangent")


@every_kind
def test_negative_views(kind):
    theirs, ours = pair(kind)
    x = torch.view_as_complex(torch.randn(T, N, D, 2).double()).conj().imag
    assert x.is_neg()
    gradients = []
    for module in (theirs, ours):
        y, _ = module(x)
        gradients.append(torch.autograd.grad(y, module.weight_hh_l0, torch.ones(T, N, H).double() * y.detach())[0])
    close(gradients[1], gradients[0], "gradient")


@every_kind
def test_threads_may_share_a_graph(kind):
    _, module = pair(kind)
    x = leaf(T, N, D)
    loss = module(x)[0].square().sum()
    wanted = torch.autograd.grad(loss, [x, *module.parameters()], retain_graph=True)

    def differentiate(_):
        return torch.autograd.grad(loss, [x, *module.parameters()], retain_graph=True)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for gradients in pool.map(differentiate, range(100)):
            assert all(torch.equal(a, b) for a, b in zip(gradients, wanted, strict=True))


@every_kind
def test_what_was_kept_is_freed_by_backward(kind):
    _, module = pair(kind, "float32")
    y, _ = module(torch.randn(64, 32, D))
    loss = y.sum()
    node = y.grad_fn
    assert all(cache._call is None and "Wx" not in cache._weights.by_name() for cache in node.caches)
    assert node.saved_tensors
    loss.backward()
    with pytest.raises(RuntimeError, match="freed"):
        node.saved_tensors  # noqa: B018 - the access raises


def test_to_torch_leaves_the_generator_alone():
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    interop.to_torch(rc.LSTM(D, H))
    assert torch.equal(torch.rand(2), wanted)


# ---- weights ------------------------------------------------------------------------------------------------


@every_dtype
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(
    ("num_layers", "bidirectional", "bias"), [(1, False, True), (2, True, True), (2, False, False)]
)
@every_kind
def test_from_torch_and_back(kind, num_layers, bidirectional, bias, batch_first, dtype):
    options = {"num_layers": num_layers, "bidirectional": bidirectional, "bias": bias, "batch_first": batch_first}
    module, _ = pair(kind, dtype, **options)
    layer = interop.from_torch(module)
    x = torch.randn(*((N, T, D) if batch_first else (T, N, D)), dtype=getattr(torch, dtype))
    y, state = layer(x.numpy())
    assert y.dtype == dtype
    back = interop.to_torch(layer)
    assert type(back) is getattr(torch.nn, KINDS[kind][0])
    states = state if isinstance(state, tuple) else (state,)
    for other in (module, back):
        for got, wanted in zip((y, *states), flat(other(x)), strict=True):
            close(torch.from_numpy(got.copy()), wanted.detach(), kind, TOLERANCE[dtype])
    given = {f"net.rnn.{name}": tensor for name, tensor in module.state_dict().items()}
    words = {"nonlinearity": module.nonlinearity} if kind.startswith("RNN") else {}
    again = interop.from_torch({"other": torch.zeros(2), **given}, prefix="net.rnn.", batch_first=batch_first, **words)
    np.testing.assert_array_equal(again(x.numpy())[0], y)
    layer.params["Wh_0"][...] = 0
    assert module.weight_hh_l0.abs().max() > 0


def test_what_is_refused():
    with pytest.raises(ValueError, match="proj_size"):
        interop.from_torch(torch.nn.LSTM(D, H, proj_size=2))
    with pytest.raises(TypeError, match="source must be .* got Linear"):
        interop.from_torch(torch.nn.Linear(2, 2))
    with pytest.raises(TypeError, match="a module tells its own options; got batch_first"):
        interop.from_torch(torch.nn.GRU(D, H), batch_first=True)
    with pytest.raises(TypeError, match="weight_ih_l0 must be of float16, float32 or float64; got torch.bfloat16"):
        interop.from_torch(torch.nn.GRU(D, H, dtype=torch.bfloat16))
    weights = torch.nn.GRU(D, H).state_dict()
    weights["bias_hh_l0"] = torch.zeros(5)
    with pytest.raises(ValueError, match=r"bias_hh_l0 must be \(3H,\) = \(12,\); got \(5,\)"):
        interop.from_torch(weights)
    for layer, message in [
        (rc.GRU(D, H), "form='reset_before'"),
        (rc.LSTM(D, H, peephole=True), "peephole=True"),
        (rc.LSTM(D, H, output_activation="identity"), "output_activation='identity'"),
        (rc.RNN(D, H, activation="identity"), "activation='identity'"),
    ]:
        with pytest.raises(ValueError, match=message):
            interop.to_torch(layer)
    with pytest.raises(TypeError, match="layer must be"):
        interop.to_torch(rc.Dense(D, H))


def test_gru_with_the_other_update():
    layer = rc.GRU(D, H, form="reset_after", update="new", dtype="float64", seed=0)
    x = np.random.default_rng(0).normal(size=(T, N, D))
    close(interop.to_torch(layer)(torch.from_numpy(x))[0], torch.from_numpy(layer(x)[0]), "y")


def test_signatures_of_the_constructors():
    for name in ("RNN", "GRU", "LSTM"):
        assert str(inspect.signature(getattr(interop, name))) == str(inspect.signature(getattr(torch.nn, name)))
