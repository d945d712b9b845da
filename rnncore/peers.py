"""The networks of layers and models in PyTorch, with the same parameters: what benches and tests compare with."""

import time

import numpy as np

from . import layers


def torch_module(layer):
    """-> the module of PyTorch with the parameters of a layer, copied."""
    import torch

    p = {name: torch.from_numpy(value.copy()) for name, value in layer.params.items()}
    if isinstance(layer, layers.Embedding):
        return torch.nn.Embedding.from_pretrained(p["W"], freeze=False)
    if isinstance(layer, layers.Dense):
        module = torch.nn.Linear(layer.input_size, layer.output_size, dtype=p["W"].dtype)
    else:
        if layer.recurrent_dropout:
            raise ValueError(f"PyTorch has no recurrent dropout; the layer has {layer.recurrent_dropout}")
        kind = {layers.LSTM: torch.nn.LSTM, layers.GRU: torch.nn.GRU, layers.RNN: torch.nn.RNN}[type(layer)]
        module = kind(
            layer.input_size,
            layer.hidden_size,
            layer.num_layers,
            dropout=layer.dropout if layer.num_layers > 1 else 0.0,
            bidirectional=layer.bidirectional,
            dtype=p["Wx_0"].dtype,
        )
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        for target, value in torch_parameters(module, p):
            target.copy_(value)
    for name, parameter in module.named_parameters():
        # A second bias only doubles the learning rate of the first, but for a GRU's candidate.
        if name.startswith("bias_hh") and not isinstance(module, torch.nn.GRU):
            parameter.requires_grad_(False)
    return module


def torch_parameters(module, params, of=lambda parameter: parameter):
    """Pairs of a parameter of the module, laid out as rnncore does, and the one of ``params`` that it stands for.

    of: what is to be laid out, given the parameter: itself, or its gradient.
    """
    names = {name: of(parameter) for name, parameter in module.named_parameters()}
    for name, value in params.items():
        kind, _, place = name.partition("_")
        if "weight_ih_l0" not in names:
            # Embedding tables stand as they are, the weights of a Linear transposed.
            found = {"W": names["weight"] if "bias" not in names else names["weight"].t(), "b": names.get("bias")}[kind]
        elif kind == "bhn":
            found = names[f"bias_hh_l{place}"].chunk(3)[2]
        else:
            found = names[{"Wx": "weight_ih", "Wh": "weight_hh", "b": "bias_ih"}[kind] + f"_l{place}"].t()
        yield found, value


class TorchLanguageModel:
    """The same network with the parameters of an rnncore model; a one-hot input is an embedding of width V."""

    def __init__(self, model, threads):
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

    def loss(self, inputs, targets, state=None, reduction="mean"):
        """-> loss of inputs, targets (T, N), and the state after them, cut off from its past."""
        h, state = self.recurrent(self.embedding(inputs), state)
        logits = self.output(h).flatten(0, 1)
        state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
        return self.torch.nn.functional.cross_entropy(logits, targets.flatten(), reduction=reduction), state

    def update(self, inputs, targets, state=None):
        """-> state"""
        loss, state = self.loss(inputs, targets, state)
        self.optimizer.zero_grad()
        loss.backward()
        self.torch.nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        self.optimizer.step()
        return state

    def sample(self, n):
        """A Python loop over the steps, as every tutorial has it."""
        torch = self.torch
        token, state = torch.zeros(1, 1, dtype=torch.long), None
        with torch.inference_mode():
            for _ in range(n):
                h, state = self.recurrent(self.embedding(token), state)
                token = torch.multinomial(torch.softmax(self.output(h[0]), dim=-1), 1)


class TorchModel:
    """The network of a tagger, classifier, generator or encoder-decoder, as users of PyTorch write it."""

    def __init__(self, model):
        import torch

        self.torch, self.model = torch, model
        self.modules = torch.nn.ModuleDict({name: torch_module(layer) for name, layer in model.layers.items()})
        self.parameters = [p for p in self.modules.parameters() if p.requires_grad]
        kinds = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD, "rmsprop": torch.optim.RMSprop}
        self.optimizer = kinds[model.optimizer](self.parameters, lr=model.learning_rate)
        self.dropout = torch.nn.Dropout(model.dropout)
        self.loss = getattr(self, type(model).__name__)

    def train(self, epochs):
        """The updates of all epochs, lists of batches of the model. -> their seconds"""
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

    def arrays(self, of=lambda parameter: parameter):
        """-> the parameters, or what ``of`` gives for each, by their names in rnncore and laid out as there."""
        found = {name: np.zeros_like(p) for name, p in self.model.params.items()}
        for name, module in self.modules.items():
            own = {key.removeprefix(f"{name}."): array for key, array in found.items() if key.startswith(f"{name}.")}
            for parameter, array in torch_parameters(module, own, of):
                array[...] = parameter.detach().numpy()
        return found

    def tensor(self, value):
        return None if value is None else self.torch.from_numpy(value)

    def embedded(self, inputs, layer="recurrent", embedding="embedding"):
        """What the recurrent layer is given: features, rows of the embedding, or one-hot rows."""
        if embedding in self.modules:
            return self.dropout(self.modules[embedding](inputs))
        if inputs.ndim == 3:
            return inputs
        dtype = self.modules["output"].weight.dtype
        return self.torch.nn.functional.one_hot(inputs, self.model.layers[layer].input_size).to(dtype)

    def run(self, x, lengths, layer="recurrent", state=None):
        """-> packed states of the top layer, final state"""
        packed = self.torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
        return self.modules[layer](packed, state)

    def logits(self, h):
        return self.modules["output"](self.dropout(h))

    def packed(self, values, lengths):
        """In the order of packed states."""
        return self.torch.nn.utils.rnn.pack_padded_sequence(values, lengths, enforce_sorted=False).data

    def mean(self, losses, weights):
        return losses.mean() if weights is None else (losses * weights).sum() / weights.sum()

    # The losses of a batch, by the name of the model's class; arguments as those of its loss_and_gradients.

    def SequenceClassifier(self, inputs, targets, lengths, weights):
        h, state = self.run(self.embedded(inputs), lengths)
        if self.model.pooling == "mean":
            h, _ = self.torch.nn.utils.rnn.pad_packed_sequence(h)
            pooled = h.sum(0) / lengths[:, None]
        else:
            final = state[0] if isinstance(state, tuple) else state
            pooled = self.torch.cat(list(final[-2 if self.model.bidirectional else -1 :]), dim=1)
        losses = self.torch.nn.functional.cross_entropy(self.logits(pooled), targets, reduction="none")
        return self.mean(losses, weights)

    def SequenceTagger(self, inputs, targets, lengths, weights):
        h, _ = self.run(self.embedded(inputs), lengths)
        logits, targets = self.logits(h.data), self.packed(targets, lengths)
        if self.model.output == "softmax":
            losses = self.torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        else:
            losses = self.labels_loss(logits, targets.reshape(logits.shape))
        return self.mean(losses, None if weights is None else self.packed(weights, lengths))

    def labels_loss(self, logits, targets):
        """(L, K) of labels that do not exclude each other -> (L,)"""
        function = self.torch.nn.functional.binary_cross_entropy_with_logits
        return function(logits, targets.to(logits.dtype), reduction="none").sum(dim=1)

    def SequenceGenerator(self, inputs, targets, lengths, labels):
        state = None
        if labels is not None:
            recurrent = self.model.layers["recurrent"]
            start = self.modules["start"](labels).view(len(labels), -1, recurrent.num_layers, recurrent.hidden_size)
            state = tuple(start.permute(1, 2, 0, 3).contiguous())
            state = state if len(state) > 1 else state[0]
        h, _ = self.run(self.embedded(inputs), lengths, state=state)
        logits, targets = self.logits(h.data), self.packed(targets, lengths)
        if targets.ndim == 1:
            return self.torch.nn.functional.cross_entropy(logits, targets)
        return self.labels_loss(logits, targets).mean()

    def EncoderDecoder(self, sources, inputs, targets, source_lengths, lengths):
        x = self.embedded(sources, "encoder", "source_embedding")
        _, state = self.run(x, source_lengths, "encoder")
        if self.model.bidirectional:
            states = state if isinstance(state, tuple) else (state,)
            states = tuple(
                self.modules[f"bridge_{name}"](self.torch.cat([s[0::2], s[1::2]], dim=2))
                for name, s in zip("hc", states, strict=False)
            )
            state = states if len(states) > 1 else states[0]
        h, _ = self.run(self.embedded(inputs, "decoder", "target_embedding"), lengths, "decoder", state)
        return self.torch.nn.functional.cross_entropy(self.logits(h.data), self.packed(targets, lengths))
