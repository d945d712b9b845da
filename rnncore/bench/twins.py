"""The networks of layers and models in PyTorch, with the same parameters: benches and tests compare with them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .._types import Array
from ..layers import Dense, Embedding, Layer, Recurrent

Tensor = Any  # PyTorch is an extra: its types are not known here
Of = Callable[[Tensor], Tensor]


def _itself(parameter: Tensor) -> Tensor:
    return parameter


def torch_module(layer: Layer) -> Any:
    """Return the module of PyTorch with a copy of the parameters of a layer.

    The second bias of a recurrent module only doubles the learning rate of the first one, except for the candidate of a
    GRU; it is not trained.
    """
    import torch

    from ..interop.torch import to_torch

    if isinstance(layer, Recurrent):
        if layer.recurrent_dropout:
            raise ValueError(f"PyTorch has no recurrent dropout; the layer has {layer.recurrent_dropout}")
        module = to_torch(layer)
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(not name.startswith("bias_hh") or layer.variant.has_bhn)
        return module
    arrays = {name: torch.from_numpy(value.copy()) for name, value in layer.params.items()}
    if not isinstance(layer, Dense | Embedding):
        module = torch.nn.Module()  # of parameters that are used by name
        for name, array in arrays.items():
            module.register_parameter(name, torch.nn.Parameter(array))
        return module
    if isinstance(layer, Embedding):
        return torch.nn.Embedding.from_pretrained(arrays["W"], freeze=False)
    module = torch.nn.Linear(*arrays["W"].shape, dtype=arrays["W"].dtype)
    with torch.no_grad():
        module.weight.copy_(arrays["W"].T)
        module.bias.copy_(arrays["b"])
    return module


def torch_parameters(module: Any, params: dict[str, Array], of: Of = _itself) -> Iterator[tuple[Tensor, Array]]:
    """Yield each array of ``params`` behind the parameter of the module for it, laid out as the array is.

    ``of`` takes a parameter and returns what is laid out: the parameter itself, or its gradient.
    """
    names = {name: of(parameter) for name, parameter in module.named_parameters()}
    for name, value in params.items():
        kind, _, place = name.partition("_")
        if name in names:
            found = names[name]
        elif "weight_ih_l0" not in names:
            # An Embedding has its table as it is, a Linear its weights transposed.
            found = {"W": names["weight"] if "bias" not in names else names["weight"].t(), "b": names.get("bias")}[kind]
        elif kind == "bhn":
            found = names[f"bias_hh_l{place}"].chunk(3)[2]
        else:
            found = names[{"Wx": "weight_ih", "Wh": "weight_hh", "b": "bias_ih"}[kind] + f"_l{place}"].t()
        yield found, value


class TorchLanguageModel:
    """The network of a language model, with its parameters; a one-hot input is an embedding of width V."""

    def __init__(self, model: Any, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.torch = torch
        self.recurrent, self.output = (torch_module(model.layers[name]) for name in ("recurrent", "output"))
        V = len(model.vocabulary)
        if "embedding" in model.layers:
            self.embedding = torch_module(model.layers["embedding"])
        else:
            self.embedding = torch.nn.Embedding.from_pretrained(torch.eye(V, dtype=self.output.weight.dtype))
        modules = (self.embedding, self.recurrent, self.output)
        self.parameters = [q for module in modules for q in module.parameters() if q.requires_grad]
        self.optimizer = torch.optim.Adam(self.parameters, lr=model.learning_rate)
        self.clip_norm = model.clip_norm

    def loss(self, inputs: Tensor, targets: Tensor, state: Any = None, reduction: str = "mean") -> tuple[Tensor, Any]:
        """Return the loss of inputs and targets (T, N), and the detached state after them."""
        h, state = self.recurrent(self.embedding(inputs), state)
        logits = self.output(h).flatten(0, 1)
        state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
        return self.torch.nn.functional.cross_entropy(logits, targets.flatten(), reduction=reduction), state

    def update(self, inputs: Tensor, targets: Tensor, state: Any = None) -> Any:
        """Update the parameters once; return the state after the inputs."""
        loss, state = self.loss(inputs, targets, state)
        self.optimizer.zero_grad()
        loss.backward()
        self.torch.nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        self.optimizer.step()
        return state

    def sample(self, n: int) -> None:
        """Draw n tokens in a Python loop over the steps, as tutorials do."""
        torch = self.torch
        token, state = torch.zeros(1, 1, dtype=torch.long), None
        with torch.inference_mode():
            for _ in range(n):
                h, state = self.recurrent(self.embedding(token), state)
                token = torch.multinomial(torch.softmax(self.output(h[0]), dim=-1), 1)


class TorchModel:
    """The network of a tagger, classifier, generator or encoder-decoder, as users of PyTorch write it."""

    def __init__(self, model: Any) -> None:
        import torch

        self.torch, self.model = torch, model
        self.modules = torch.nn.ModuleDict({name: torch_module(layer) for name, layer in model.layers.items()})
        self.parameters = [p for p in self.modules.parameters() if p.requires_grad]
        kinds = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD, "rmsprop": torch.optim.RMSprop}
        self.optimizer = kinds[model.optimizer](self.parameters, lr=model.learning_rate)
        self.dropout = torch.nn.Dropout(model.dropout)
        self.loss = getattr(self, type(model).__name__)

    def train(self, epochs: list[list[Any]]) -> float:
        """Run the updates of all epochs, lists of batches of the model; return the seconds they took."""
        torch = self.torch
        epochs = [[tuple(map(self.tensor, batch.arguments)) for batch in batches] for batches in epochs]
        start = time.perf_counter()
        for batches in epochs:
            for arguments in batches:
                loss = self.loss(*arguments)
                self.optimizer.zero_grad()
                loss.backward()
                if self.model.clip_norm is not None:
                    torch.nn.utils.clip_grad_norm_(self.parameters, self.model.clip_norm)
                self.optimizer.step()
            for group in self.optimizer.param_groups:
                group["lr"] *= self.model.learning_rate_decay
        return time.perf_counter() - start

    def arrays(self, of: Of = _itself) -> dict[str, Array]:
        """Return the parameters, or what ``of`` returns for each, with the names and the layout of the model's."""
        found = {name: np.zeros_like(p) for name, p in self.model.params.items()}
        for name, module in self.modules.items():
            own = {key.removeprefix(f"{name}."): array for key, array in found.items() if key.startswith(f"{name}.")}
            for parameter, array in torch_parameters(module, own, of):
                array[...] = parameter.detach().numpy()
        return found

    def tensor(self, value: Array | list[Array] | None) -> Tensor:
        if isinstance(value, list):
            return [self.torch.from_numpy(array) for array in value]
        return None if value is None else self.torch.from_numpy(value)

    def embedded(self, inputs: Tensor, layer: str = "recurrent", embedding: str = "embedding") -> Tensor:
        """Return the input of the recurrent layer: features, rows of the embedding, or one-hot rows."""
        if embedding in self.modules:
            return self.dropout(self.modules[embedding](inputs))
        if inputs.ndim == 3:
            return inputs
        dtype = self.modules["output"].weight.dtype
        return self.torch.nn.functional.one_hot(inputs, self.model.layers[layer].input_size).to(dtype)

    def run(self, x: Tensor, lengths: Tensor, layer: str = "recurrent", state: Any = None) -> Any:
        """Return the packed states of the top layer and the final state."""
        packed = self.torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
        return self.modules[layer](packed, state)

    def logits(self, h: Tensor) -> Tensor:
        return self.modules["output"](self.dropout(h))

    def packed(self, values: Tensor, lengths: Tensor) -> Tensor:
        """Return values (T, N, ...) in the order of packed states."""
        return self.torch.nn.utils.rnn.pack_padded_sequence(values, lengths, enforce_sorted=False).data

    def mean(self, losses: Tensor, weights: Tensor | None) -> Tensor:
        return losses.mean() if weights is None else (losses * weights).sum() / weights.sum()

    # The loss of a batch, under the name of the class of the model; the arguments are those of its loss_and_gradients.

    def SequenceClassifier(self, inputs: Tensor, targets: Tensor, lengths: Tensor, weights: Tensor) -> Tensor:
        h, state = self.run(self.embedded(inputs), lengths)
        if self.model.pooling == "mean":
            h, _ = self.torch.nn.utils.rnn.pad_packed_sequence(h)
            pooled = h.sum(0) / lengths[:, None]
        else:
            final = state[0] if isinstance(state, tuple) else state
            pooled = self.torch.cat(list(final[-2 if self.model.bidirectional else -1 :]), dim=1)
        losses = self.torch.nn.functional.cross_entropy(self.logits(pooled), targets, reduction="none")
        return self.mean(losses, weights)

    def SequenceTagger(
        self, inputs: Tensor, targets: Tensor, lengths: Tensor, weights: Tensor, margins: Tensor | None = None
    ) -> Tensor:
        h, _ = self.run(self.embedded(inputs), lengths)
        if self.model.output == "crf":
            losses = self.crf_losses(h, targets, lengths, margins)
            weights = self.torch.ones(len(lengths), dtype=losses.dtype) if weights is None else weights
            return (losses * weights).sum() / (weights * lengths).sum()
        logits, targets = self.logits(h.data), self.packed(targets, lengths)
        if self.model.output == "softmax":
            losses = self.torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        else:
            losses = self.labels_loss(logits, targets.reshape(logits.shape))
        return self.mean(losses, None if weights is None else self.packed(weights, lengths))

    def SequenceTranscriber(self, inputs: Tensor, targets: list[Tensor], lengths: Tensor, weights: Tensor) -> Tensor:
        h, _ = self.run(self.embedded(inputs), lengths)
        log_p, _ = self.torch.nn.utils.rnn.pad_packed_sequence(h._replace(data=self.logits(h.data).log_softmax(1)))
        counts = self.torch.tensor([len(labels) for labels in targets])
        function = self.torch.nn.functional.ctc_loss
        losses = function(log_p, self.torch.cat(targets), lengths, counts, reduction="none")
        return self.mean(losses, weights)

    def crf_losses(self, h: Any, targets: Tensor, lengths: Tensor, margins: Tensor | None) -> Tensor:
        """Return the losses (N,) of a conditional random field: a loop over the steps, as users write it."""
        torch, A = self.torch, self.modules["transitions"].A
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(h._replace(data=self.logits(h.data)))
        if margins is not None:
            y = y - margins[..., None] * torch.nn.functional.one_hot(targets, y.shape[2])
        rows = torch.arange(len(lengths))
        sums, score = y[0], y[0, rows, targets[0]]
        for t in range(1, len(y)):
            valid = t < lengths
            sums = torch.where(valid[:, None], torch.logsumexp(sums[:, :, None] + A, dim=1) + y[t], sums)
            score = score + torch.where(valid, A[targets[t - 1], targets[t]] + y[t, rows, targets[t]], 0)
        return torch.logsumexp(sums, dim=1) - score

    def attend(self, h: Any, memory: Any, lengths: Tensor, memory_lengths: Tensor) -> Any:
        """Return packed states that have looked back at the packed memory."""
        torch, p = self.torch, self.modules["attention"]
        h, _ = torch.nn.utils.rnn.pad_packed_sequence(h)
        memory, _ = torch.nn.utils.rnn.pad_packed_sequence(memory)
        h, memory = h.transpose(0, 1), memory.transpose(0, 1)
        if self.model.attention == "multiplicative":
            scores = h @ p.W @ memory.transpose(1, 2)
        else:
            scores = torch.tanh((h @ p.Wq)[:, :, None] + (memory @ p.Wk + p.b)[:, None]) @ p.v
        padded = torch.arange(memory.shape[1]) >= memory_lengths[:, None]
        context = scores.masked_fill(padded[:, None], -torch.inf).softmax(dim=2) @ memory
        y = torch.tanh(self.modules["combine"](torch.cat([context, h], dim=2))).transpose(0, 1)
        return torch.nn.utils.rnn.pack_padded_sequence(y, lengths, enforce_sorted=False)

    def labels_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the losses (L,) of K labels that do not exclude each other, logits (L, K)."""
        function = self.torch.nn.functional.binary_cross_entropy_with_logits
        return function(logits, targets.to(logits.dtype), reduction="none").sum(dim=1)

    def SequenceGenerator(
        self, inputs: Tensor, targets: Tensor, lengths: Tensor, labels: Tensor, weights: Tensor
    ) -> Tensor:
        state = None
        if labels is not None:
            recurrent = self.model.layers["recurrent"]
            start = self.modules["start"](labels).view(len(labels), -1, recurrent.num_layers, recurrent.hidden_size)
            state = tuple(start.permute(1, 2, 0, 3).contiguous())
            state = state if len(state) > 1 else state[0]
        h, _ = self.run(self.embedded(inputs), lengths, state=state)
        logits, targets = self.logits(h.data), self.packed(targets, lengths)
        if targets.ndim == 1:
            losses = self.torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        else:
            losses = self.labels_loss(logits, targets)
        return self.mean(losses, None if weights is None else self.packed(weights, lengths))

    def EncoderDecoder(
        self,
        sources: Tensor,
        inputs: Tensor,
        targets: Tensor,
        source_lengths: Tensor,
        lengths: Tensor,
        weights: Tensor,
    ) -> Tensor:
        x = self.embedded(sources, "encoder", "source_embedding")
        memory, state = self.run(x, source_lengths, "encoder")
        if self.model.bidirectional:
            states = state if isinstance(state, tuple) else (state,)
            states = tuple(
                self.modules[f"bridge_{name}"](self.torch.cat([s[0::2], s[1::2]], dim=2))
                for name, s in zip("hc", states, strict=False)
            )
            state = states if len(states) > 1 else states[0]
        h, _ = self.run(self.embedded(inputs, "decoder", "target_embedding"), lengths, "decoder", state)
        if self.model.attention is not None:
            h = self.attend(h, memory, lengths, source_lengths)
        logits, targets = self.logits(h.data), self.packed(targets, lengths)
        losses = self.torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        return self.mean(losses, None if weights is None else self.packed(weights, lengths))
