"""PyTorch: weights in and out, and drop-in modules for ``torch.nn``'s RNN, GRU and LSTM on the CPU.

Write ``from rnncore.interop.torch import GRU`` in place of ``from torch.nn import GRU``. The modules are subclasses of
those of torch.nn, with the same constructor, parameters, initial values, state dict, results and errors.
``replace(model)`` converts an existing model, ``restore(model)`` converts it back. Parameters are read in place: no
call copies the weights. ``PackedSequence``, float32 and float64 are supported. Dropout between layers draws from
PyTorch's generator.

torch.nn's own forward pass computes what the engine does not support:

* tensors on other devices, of other dtypes or of subclasses; ``proj_size`` of an LSTM;
* arguments that do not fit, for which torch.nn raises its errors;
* calls under autocast, tracers, dispatch modes, ``torch.func``, ``torch.export`` or forward-mode derivatives, and
  gradients of gradients (``create_graph=True``);
* batches that take longer to set up than to compute, such as single steps: up to 8 tokens of an RNN, 3 of a GRU, and 1
  of an LSTM in float64.

PyTorch's tools:

* ``pickle`` and ``torch.save`` write modules of torch.nn, which load without rnncore; call ``replace`` after loading,
  also in the worker processes that a model is sent to. ``copy.deepcopy`` keeps the class.
* ``torch.compile`` does not break the graph (``fullgraph=True``): the engine is an operator of it. These break the
  graph: modules with ``proj_size`` or of other dtypes; a sorted ``PackedSequence`` without ``hx``, whose batch size is
  only in its data, unless ``torch._dynamo.config.capture_dynamic_output_shape_ops`` is set; any ``PackedSequence`` in
  PyTorch 2.4, whose compiler cannot read one.
* ``torch.export`` writes torch.nn's operators, which run without rnncore; in PyTorch 2.4 with ``strict=True`` the
  program needs rnncore.
* ``torch.fx`` treats the modules as leaves, as it does those of torch.nn.
* ``torch.jit.script`` compiles torch.nn's code. The submodules of the model that it is given become torch.nn's.
* ``torch.ao.quantization`` quantises the modules as those of torch.nn. Those that it leaves as they are become
  torch.nn's, too.
* ``torch.func.vmap`` over them is an error, as it is with torch.nn.

Differences from torch.nn:

* The input and the weights must not be changed in place between forward and backward, whichever gradients are needed;
  biases may be.
* A parametrization is computed once a call, not several times, which shows in the training of those that keep a state
  (``spectral_norm``).
* Tensors that were an input or a parameter can no longer be resized in place (``resize_``): NumPy shares their memory.
* The number of threads is rnncore's (:func:`rnncore.set_num_threads`), not ``torch.set_num_threads``. PyTorch's threads
  keep spinning for a while after its parallel operations; the environment variable ``OMP_WAIT_POLICY=passive`` leaves
  the cores to the engine.
"""

from . import tools
from .modules import GRU, LSTM, RNN
from .replacing import Names, replace, restore
from .weights import from_torch, to_torch

__all__ = ["GRU", "LSTM", "RNN", "Names", "from_torch", "replace", "restore", "to_torch"]

tools.install()
