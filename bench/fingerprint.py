"""Hashes of results and gradients: two versions, or two builds, that print the same lines compute the same bits.

    python bench/fingerprint.py > before; ...; python bench/fingerprint.py | diff before -

200 random calls of the functions for each instruction set of the machine, over all options, gate orders, dtypes,
lengths, resets, ids, layouts, checkpoints and thread counts; then layers, streams, losses, optimisers and a language
model. Random numbers come from fixed seeds. Uses public names only, so that it runs on any version.
"""

import argparse
import hashlib
import itertools

import numpy as np

import rnncore as rc

OPTIONS = [
    *(("rnn", 1, {"activation": activation}) for activation in ("tanh", "relu", "identity")),
    *(
        ("gru", 2 if form == "simplified" else 3, {"form": form, "update": update, "gate_order": order})
        for form in ("reset_before", "reset_after", "simplified")
        for update in ("new", "old")
        for order in ("rzn", "zrn")
    ),
    *(
        ("lstm", 4, {"output_activation": activation, "peephole_output": peephole, "gate_order": order})
        for activation in ("tanh", "identity")
        for peephole in (None, "current", "previous")
        for order in ("ifgo", "fgio", "ogif")
    ),
]


class Digest:
    """A hash of arrays: shapes, dtypes and bits."""

    def __init__(self):
        self.sha = hashlib.sha256()

    def add(self, *values):
        for value in values:
            if isinstance(value, (tuple, list)):
                self.add(*value)
            elif isinstance(value, dict):
                self.add(*(value[key] for key in sorted(value)))
            elif value is None:
                self.sha.update(b"none")
            else:
                array = np.asarray(value)
                self.sha.update(f"{array.shape} {array.dtype}".encode())
                self.sha.update(np.ascontiguousarray(array).tobytes())

    def __str__(self):
        return self.sha.hexdigest()[:16]


def random_call(rng, cell, G, options):
    """-> arguments of the forward function, cotangents of the backward function"""
    dtype = rng.choice(["float32", "float64"])
    T, N, D = (int(rng.integers(1, high)) for high in (40, 20, 40))
    H = int(rng.integers(1, 80))

    def normal(*shape, scale=1.0):
        array = (scale * rng.normal(size=shape)).astype(dtype)
        return np.asfortranarray(array) if rng.random() < 0.3 else array

    options = dict(options)
    ids = rng.random() < 0.2
    arguments = {
        "x": rng.integers(D, size=(T, N)) if ids else normal(T, N, D),
        "Wx": normal(D, G * H, scale=D**-0.5),
        "Wh": normal(H, G * H, scale=H**-0.5),
        "b": normal(G * H, scale=0.5),
    }
    states = ["h", "c"] if cell == "lstm" else ["h"]
    if rng.random() < 0.7:
        arguments |= {f"{name}0": normal(N, H) for name in states}
    if options.get("form") == "reset_after" and rng.random() < 0.8:
        arguments["bhn"] = normal(H)
    if cell == "lstm":
        if options["peephole_output"] is None:
            del options["peephole_output"]
        else:
            arguments["peephole"] = normal(3, H, scale=0.5)
    if rng.random() < 0.4:
        arguments["lengths"] = rng.integers(T + 1, size=N)
    if rng.random() < 0.3:
        arguments["resets"] = rng.random((T, N)) < 0.2
    arguments["reverse"] = bool(rng.random() < 0.4)
    arguments["checkpoint"] = [None, None, None, True, 3][rng.integers(5)]
    cotangents = {"dh": normal(T, N, H)}
    if rng.random() < 0.7:
        cotangents |= {f"d{name}_n": normal(N, H) for name in states}
    return arguments | options, cotangents


def hash_calls(count):
    """`count` calls of the functions, with the backward pass, and once more for inference."""
    digest = Digest()
    for seed, (cell, G, options) in zip(range(count), itertools.cycle(OPTIONS), strict=False):
        rng = np.random.default_rng(seed)
        arguments, cotangents = random_call(rng, cell, G, options)
        rc.set_num_threads(1 + seed % 3)
        forward, backward = (getattr(rc, f"{cell}_{direction}") for direction in ("forward", "backward"))
        h, state, cache = forward(**arguments)
        digest.add(h, state, cache.gates, cache.c if cell == "lstm" else None)
        digest.add(list(backward(cache=cache, **cotangents)))
        h, state, _ = forward(**arguments | {"training": False, "checkpoint": None})
        digest.add(h, state)
    return digest


LAYERS = [
    lambda **common: rc.RNN(6, 17, 2, activation="relu", **common),
    lambda **common: rc.GRU(6, 17, 2, **common),
    lambda **common: rc.GRU(6, 17, 2, form="reset_after", update="old", **common),
    lambda **common: rc.LSTM(6, 17, 2, peephole=True, **common),
]


def hash_layers():
    """Stacks in one direction and both, with dropout, ragged, and step by step."""
    digest = Digest()
    settings = itertools.product(LAYERS, (False, True), ("float32", "float64"), (0.0, 0.3))
    for seed, (make, bidirectional, dtype, dropout) in enumerate(settings):
        rng = np.random.default_rng(seed)
        options = {"dropout": dropout, "recurrent_dropout": dropout, "dtype": dtype, "seed": seed}
        layer = make(bidirectional=bidirectional, batch_first=bool(seed % 2), **options)
        N, T = 9, 14
        shape = (N, T) if seed % 2 else (T, N)
        x, dy = rng.normal(size=(*shape, 6)), rng.normal(size=(*shape, layer.output_size))
        lengths = rng.integers(T + 1, size=N)
        y, state, cache = layer.forward(x, lengths=lengths)
        digest.add(y, state, layer.backward(dy, cache), layer.grads, layer(x, state))
        if not bidirectional:
            stream = layer.stream(N)
            digest.add([stream.step(np.asarray(x_t, dtype)) for x_t in (x.swapaxes(0, 1) if seed % 2 else x)])
    return digest


def hash_training():
    """Losses, optimisers, and a language model: training, scores and samples."""
    digest = Digest()
    rng = np.random.default_rng(0)
    for dtype in ("float32", "float64"):
        dense = rc.Dense(13, 300, dtype=dtype, seed=1)
        h, targets = rng.normal(size=(20, 7, 13)).astype(dtype), rng.integers(300, size=(20, 7))
        digest.add(rc.fused_softmax_cross_entropy(dense, h, targets, rng.integers(21, size=7)), dense.grads)
        digest.add(rc.softmax_cross_entropy(rng.normal(size=(20, 7, 30)).astype(dtype), targets % 30))
        for optimizer in (rc.SGD, rc.RMSProp, rc.Adagrad, rc.Adam):
            params = {"W": rng.normal(size=(30, 7)).astype(dtype)}
            rule = optimizer(params, 0.1)
            for _ in range(3):
                rule.step({"W": rng.normal(size=(30, 7)).astype(dtype)}, clip_norm=1.0)
            digest.add(params)
    letters = np.array(list("abcdefgh \n"))
    corpus = "".join(letters[rng.integers(len(letters), size=4000)])
    for cell, options in (("rnn", {}), ("gru", {"form": "reset_after"}), ("lstm", {"peephole": True})):
        model = rc.LanguageModel(
            cell=cell, hidden_size=24, num_layers=2, epochs=2, cell_options=options, dropout=0.2, seed=3
        )
        model.fit(corpus)
        digest.add(model.params, model.log_prob(["abba", "fee"]))
        digest.sha.update("".join(model.sample(80, temperature=0.8, top_p=0.9, seed=4)).encode())
    return digest


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=200, help="random calls for each instruction set")
    arguments = parser.parse_args()
    print(f"random calls: {arguments.calls}")
    for isa in rc.available_isas():
        if isa == "blas":  # its bits are those of a version of SciPy
            continue
        rc.use_isa(isa)
        print(f"{isa} functions {hash_calls(arguments.calls)}", flush=True)
        rc.set_num_threads(1)
        print(f"{isa} layers {hash_layers()}", flush=True)
        print(f"{isa} training {hash_training()}", flush=True)


if __name__ == "__main__":
    main()
