"""Copies and files of converted models, and conversion there and back."""

import copy
import io
import pickle
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore:dropout option adds dropout:UserWarning")

from support.torch_modules import KINDS, D, H, N, T, close, flat, pair  # noqa: E402

from rnncore.interop import torch as interop  # noqa: E402

every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(7)


class Other(interop.GRU):
    """A user's own subclass."""


def of_torch(kind):
    return getattr(torch.nn, KINDS[kind][0])


def converted(kind):
    return getattr(interop, KINDS[kind][0])


def saved(module, **options):
    file = io.BytesIO()
    torch.save(module, file, **options)
    return file.getvalue()


def same(got, wanted):
    """Two modules of torch.nn are equal in all that they hold, and compute the same."""
    assert type(got) is type(wanted)
    skipped = {"_parameters", "_flat_weights", "_flat_weight_refs", "_buffers", "_backward_hooks", "_forward_hooks"}
    assert got.__dict__.keys() == wanted.__dict__.keys()
    for name in got.__dict__.keys() - skipped:
        assert got.__dict__[name] == wanted.__dict__[name], name
    for (name, a), b in zip(got.named_parameters(), wanted.parameters(), strict=True):
        assert torch.equal(a, b), name
        assert a.requires_grad == b.requires_grad, name
        assert getattr(got, name) is a
    for (name, a), b in zip(got.named_buffers(), wanted.buffers(), strict=True):
        assert torch.equal(a, b), name
    assert all(a is b for a, b in zip(got._flat_weights, got.parameters(), strict=True))
    x = torch.randn(T, N, D, dtype=got.weight_ih_l0.dtype)
    if got.batch_first:
        x = x.transpose(0, 1)
    got, wanted = (copy.deepcopy(module).eval()(x) for module in (got, wanted))
    for a, b in zip(flat(got), flat(wanted), strict=True):
        assert torch.equal(a, b)


def settled(kind, dtype="float32"):
    """-> module of torch.nn with settings, a buffer and a frozen parameter of its own, a converted copy"""
    theirs, _ = pair(kind, dtype, num_layers=2, bidirectional=True, batch_first=True, dropout=0.25)
    theirs.register_buffer("scale", torch.arange(3.0))
    theirs.weight_hh_l0.requires_grad_(False)
    theirs.eval()
    theirs.note = "kept"
    ours = copy.deepcopy(theirs)
    interop.replace(ours)
    return theirs, ours


# ---- copies and files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@every_kind
def test_pickle(kind, protocol):
    theirs, ours = settled(kind)
    state = torch.get_rng_state()
    same(pickle.loads(pickle.dumps(ours, protocol)), theirs)
    torch.set_rng_state(state)
    pickle.loads(pickle.dumps(ours, protocol))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("weights_only", [False, True])
@every_kind
def test_torch_save(kind, weights_only):
    theirs, ours = settled(kind)
    loaded = []
    for module in (theirs, ours):
        file = saved(module)
        if weights_only:
            with pytest.raises(pickle.UnpicklingError, match=rf"torch.nn.modules.rnn.{of_torch(kind).__name__}"):
                torch.load(io.BytesIO(file), weights_only=True)
            torch.serialization.add_safe_globals([of_torch(kind), set])  # PyTorch 2.4 asks for set
        try:
            loaded.append(torch.load(io.BytesIO(file), weights_only=weights_only))
        finally:
            torch.serialization.clear_safe_globals()
        assert b"rnncore" not in file
    same(loaded[1], loaded[0])


@every_kind
def test_a_file_of_a_model_loads_without_rnncore(kind, tmp_path):
    model = torch.nn.Sequential(pair(kind, "float32")[0])
    x = torch.randn(T, N, D)
    wanted = model(x)[0].detach()
    interop.replace(model)
    torch.save(model, tmp_path / "model.pt")
    torch.save((x, wanted), tmp_path / "result.pt")
    code = """
import sys, torch
sys.modules["rnncore"] = None
model = torch.load("model.pt", weights_only=False)
x, wanted = torch.load("result.pt", weights_only=True)
assert torch.equal(model(x)[0], wanted)
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert type(model[0]) is converted(kind)


def test_a_subclass_pickles_as_itself():
    module = Other(D, H)
    for loaded in (pickle.loads(pickle.dumps(module)), copy.deepcopy(module)):
        assert type(loaded) is Other
        assert torch.equal(loaded.weight_hh_l0, module.weight_hh_l0)


@every_kind
def test_copies_keep_the_class(kind):
    theirs, ours = settled(kind)
    twin = copy.deepcopy(torch.nn.ModuleList([ours, ours]))
    assert twin[0] is twin[1]
    assert type(twin[0]) is converted(kind)
    assert twin[0].weight_ih_l0 is not ours.weight_ih_l0
    interop.restore(twin)
    same(twin[0], theirs)
    shallow = copy.copy(ours)
    assert type(shallow) is converted(kind)
    assert shallow.weight_ih_l0 is ours.weight_ih_l0


@every_kind
def test_a_copy_has_no_part_of_the_original(kind):
    _, module = pair(kind)
    x = torch.randn(T, N, D).double()
    wanted = module(x)[0].detach()
    twin = copy.deepcopy(module)
    with torch.no_grad():
        for p in module.parameters():
            p.zero_()
    close(twin(x)[0], wanted, "engine")
    close(of_torch(kind).forward(twin, x)[0], wanted, "torch.nn's own path")


def test_the_language_model_of_pytorchs_examples(tmp_path):
    """Save the model with the best validation loss, load it, flatten_parameters, test: its three lines of main.py."""

    class RNNModel(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.drop, self.encoder = torch.nn.Dropout(0.2), torch.nn.Embedding(9, D)
            self.rnn, self.decoder = torch.nn.LSTM(D, H, 2, dropout=0.2), torch.nn.Linear(H, 9)

        def forward(self, input, hidden):
            output, hidden = self.rnn(self.drop(self.encoder(input)), hidden)
            return torch.log_softmax(self.decoder(self.drop(output)).view(-1, 9), dim=1), hidden

    RNNModel.__qualname__ = "RNNModel"
    globals()["RNNModel"] = RNNModel
    model = RNNModel()
    assert interop.replace(model) == ["rnn"]
    tokens = torch.randint(9, (2, T, N))
    for _ in range(2):
        hidden = (torch.zeros(2, N, H), torch.zeros(2, N, H))
        for data in tokens:
            model.zero_grad()
            hidden = tuple(state.detach() for state in hidden)
            output, hidden = model(data, hidden)
            torch.nn.NLLLoss()(output, data.flatten()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.25)
            for p in model.parameters():
                p.data.add_(p.grad, alpha=-1.0)
        with open(tmp_path / "model.pt", "wb") as f:
            torch.save(model, f)
    with open(tmp_path / "model.pt", "rb") as f:
        loaded = torch.load(f, weights_only=False)
    loaded.rnn.flatten_parameters()
    model.rnn.flatten_parameters()
    assert type(loaded.rnn) is torch.nn.LSTM
    model.eval()
    loaded.eval()
    with torch.no_grad():
        close(loaded(data, hidden)[0], model(data, hidden)[0], "log_prob", 1e-5)


# ---- replace and restore ------------------------------------------------------------------------------------


@every_kind
def test_there_and_back(kind):
    theirs, _ = settled(kind)
    model = torch.nn.ModuleDict({"a": copy.deepcopy(theirs), "b": torch.nn.Linear(2, 2)})
    model["shared"] = model["a"]
    module, parameters = model["a"], list(model.parameters())
    calls = []
    module.register_forward_hook(lambda *_: calls.append(1))
    for convert, cls in [(interop.replace, converted(kind)), (interop.restore, of_torch(kind))] * 2:
        assert convert(model) == ["a"]
        assert type(module) is cls
        assert model["a"] is module is model["shared"]
        assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
        module(torch.randn(N, T, D))
        assert convert(model) == []
        assert not module.training
    assert len(calls) == 4
    module._forward_hooks.clear()
    same(module, theirs)


@every_kind
def test_an_optimizer_goes_on(kind):
    theirs, ours = (copy.deepcopy(pair(kind)[0]) for _ in range(2))
    ours.load_state_dict(theirs.state_dict())
    optimizers = [torch.optim.Adam(module.parameters(), lr=0.01) for module in (theirs, ours)]
    x = torch.randn(T, N, D).double()
    for convert in (interop.replace, interop.restore, interop.replace):
        convert(ours)
        for module, optimizer in zip((theirs, ours), optimizers, strict=True):
            optimizer.zero_grad()
            module(x)[0].square().sum().backward()
            optimizer.step()
    for got, wanted in zip(ours.parameters(), theirs.parameters(), strict=True):
        close(got, wanted, "parameter", 1e-9)


def test_what_is_left_is_named_with_its_reason():
    class Own(torch.nn.LSTM):
        pass

    model = torch.nn.ModuleDict(
        {
            "gru": torch.nn.GRU(D, H),
            "projected": torch.nn.LSTM(D, H, proj_size=2),
            "own": Own(D, H),
            "cell": torch.nn.GRUCell(D, H),
            "linear": torch.nn.Linear(2, 2),
        }
    )
    names = interop.replace(model)
    assert isinstance(names, list)
    assert names == ["gru"]
    assert names.skipped == {
        "projected": "proj_size is 2: the engine has no projections",
        "own": "Own is a subclass of LSTM, with code of its own",
        "cell": "GRUCell computes one step: the engine computes sequences",
    }
    assert type(model["projected"]) is torch.nn.LSTM
    model["other"] = Other(D, H)
    names = interop.restore(model)
    assert names == ["gru"]
    assert names.skipped == {"other": "Other is a subclass of GRU, with code of its own"}
    with pytest.raises(TypeError, match="model must be a torch.nn.Module; got int"):
        interop.restore(3)
