"""PyTorch's own inputs of its recurrent modules, and its inputs that raise: the same results and the same errors."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")  # PyTorch needs it to import its own
common = pytest.importorskip("torch.testing._internal.common_modules")

from support.torch_modules import close  # noqa: E402

from rnncore.interop import torch as interop  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")

MODULES = {
    info.module_cls: info for info in common.module_db if info.module_cls in (torch.nn.RNN, torch.nn.GRU, torch.nn.LSTM)
}
every_module = pytest.mark.parametrize("info", MODULES.values(), ids=[cls.__name__ for cls in MODULES])
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def constructed(cls, arguments, dtype):
    torch.manual_seed(3)
    return cls(*arguments.args, **arguments.kwargs).to(dtype)


def leaves_of(tree):
    return [leaf for leaf in torch.utils._pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


@every_dtype
@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("packed", [False, True])
@every_module
def test_inputs(info, packed, training, requires_grad, dtype):
    options = {"with_packed_sequence": True} if packed and info.module_cls is not torch.nn.LSTM else {}
    inputs = info.module_inputs_func(
        info, device="cpu", dtype=dtype, requires_grad=requires_grad, training=training, **options
    )
    assert len(inputs) >= 16
    for given in inputs:
        results = []
        for cls in (info.module_cls, getattr(interop, info.module_cls.__name__)):
            module = constructed(cls, given.constructor_input, dtype).train(training)
            arguments, words = given.forward_input.args, given.forward_input.kwargs
            outputs = leaves_of([*module(*arguments, **words)])
            outputs = [output for output in outputs if output.is_floating_point()]
            wanted = [leaf for leaf in leaves_of([arguments, words]) if leaf.requires_grad] + list(module.parameters())
            gradients = torch.autograd.grad([o.square().sum() for o in outputs], wanted, allow_unused=True)
            results.append([*outputs, *gradients])
        for k, (wanted, got) in enumerate(zip(*results, strict=True)):
            if wanted is None or got is None:
                assert got is wanted
            else:
                close(got, wanted, (given.desc, k), 1e-5 if dtype is torch.float32 else 1e-12)


def raised(function):
    with pytest.raises(Exception) as caught:
        function()
    return type(caught.value), str(caught.value)


@every_dtype
@every_module
def test_inputs_that_raise(info, dtype):
    inputs = info.module_error_inputs_func(info, device="cpu", dtype=dtype, requires_grad=False, training=False)
    assert inputs
    for given in inputs:
        case = given.module_error_input
        errors = []
        for cls in (info.module_cls, getattr(interop, info.module_cls.__name__)):
            constructor = case.constructor_input

            def run(cls=cls, constructor=constructor, case=case):
                module = cls(*constructor.args, **constructor.kwargs)
                if given.error_on is common.ModuleErrorEnum.FORWARD_ERROR:  # noqa: B023
                    module(*case.forward_input.args, **case.forward_input.kwargs)

            with pytest.raises(given.error_type, match=given.error_regex):
                run()
            errors.append(raised(run))
        assert errors[1] == errors[0]
