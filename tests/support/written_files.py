"""Model files as releases wrote them, and what the models in them say. Every later release must read them.

``python tests/support/written_files.py tests/data/0.2.0`` makes the folder of the release that is installed: one file
for each entry that this release knows, and ``values.json``. Those of 0.1.0 were made from the commits 342148a, the last
of format 1, and a82a085, the last before 0.2.0; that of 0.2.0 from af6ca81, the last before files had checksums. No
folder is made anew.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

import rnncore as rc

TEXTS = ["abca", "b", "cab", "bbacca", "ac", "ca"]
TAGS = [[{"a": "p", "b": "q", "c": "r"}[c] for c in text] for text in TEXTS]
CLASSES = ["even" if len(text) % 2 == 0 else "odd" for text in TEXTS]
REVERSED = [text[::-1] for text in TEXTS]
LINES = "the cat sat on the mat. " * 3

# name -> (class, X, y, settings)
ENTRIES = {
    "language": ("LanguageModel", LINES, None, {"num_layers": 2}),
    "language-gru": ("LanguageModel", LINES, None, {"cell": "gru", "cell_options": {"form": "reset_after"}}),
    "language-words": ("LanguageModel", LINES, None, {"level": "word", "cell": "rnn", "embedding_size": 0}),
    "tagger": ("SequenceTagger", TEXTS, TAGS, {"cell_options": {"peephole": True}}),
    "tagger-crf": ("SequenceTagger", TEXTS, TAGS, {"output": "crf"}),
    "classifier": ("SequenceClassifier", TEXTS, CLASSES, {"cell": "gru", "dtype": "float32", "pooling": "mean"}),
    "generator": ("SequenceGenerator", TEXTS, CLASSES, {"cell": "rnn", "cell_options": {"activation": "relu"}}),
    "seq2seq": ("EncoderDecoder", TEXTS, REVERSED, {"bidirectional": True, "reverse_source": True}),
    "seq2seq-attention": ("EncoderDecoder", TEXTS, REVERSED, {"cell": "gru", "attention": "additive"}),
    "transcriber": ("SequenceTranscriber", TEXTS, [tags[::2] for tags in TAGS], {"cell": "mingru"}),
}


def make(name):
    """A model of an entry, before ``fit``; None if this release has no such class or setting."""
    kind, _, _, settings = ENTRIES[name]
    settings = {"hidden_size": 3, "embedding_size": 2, "epochs": 2, "batch_size": 2, "dtype": "float64"} | settings
    settings |= {"seed": 1, "chunk_length": 3} if kind == "LanguageModel" else {"random_state": 1}
    try:
        model = getattr(rc, kind)(**settings)
        getattr(model, "check_settings", lambda: None)()
        return model
    except (AttributeError, TypeError, ValueError):
        return None


def fit(model, name, **options):
    _, X, y, _ = ENTRIES[name]
    return model.fit(X, **options) if y is None else model.fit(X, y, **options)


def digest(model):
    """SHA-256 of the parameters: names, dtypes, shapes and bits."""
    arrays = model.params
    if not arrays:  # quantized
        weights = {f"{name}.{key}": p for name, layer in model.layers.items() for key, p in layer.arrays().items()}
        arrays = {name: getattr(p, "values", p) for name, p in weights.items()}
        arrays |= {f"{name} scales": p.scales for name, p in weights.items() if getattr(p, "scales", None) is not None}
    hasher = hashlib.sha256()
    for name, p in sorted(arrays.items()):
        hasher.update(f"{name} {p.dtype} {p.shape} ".encode() + p.tobytes())
    return hasher.hexdigest()


def values_of(model, name):
    """What a model says of its data, in JSON types."""
    _, X, y, _ = ENTRIES[name]
    if y is None:
        return {"log_prob": np.asarray(model.log_prob([X, "cat on a mat"])).tolist()}
    if isinstance(model, rc.SequenceGenerator):
        return {"predict_proba": listed(model.predict_proba(X, y)), "log_prob": listed(model.log_prob(X, y))}
    values = {"predict": listed(model.predict(X))}
    for method in ("log_prob", "predict_proba"):
        if hasattr(model, method):
            values[method] = listed(getattr(model, method)(*((X, y) if method == "log_prob" else (X,))))
    return values


def listed(results):
    return [np.asarray(result).tolist() for result in results]


def stop(at):
    return at.update == 2


def write(folder):
    folder.mkdir()
    values = {}

    def keep(model, name, suffix="", **options):
        file = f"{name}{suffix}.npz"
        model.save(folder / file, **options)
        values[file] = {"entry": name, "class": type(model).__name__, "values": values_of(model, name)}
        values[file]["parameters"] = digest(model)

    for name in ENTRIES:
        model = make(name)
        if model is None:
            continue
        rng = np.random.default_rng(2)
        fit(model, name)
        for p in model.params.values():
            p += (0.5 * rng.normal(size=p.shape)).astype(p.dtype)
        keep(model, name)
        for precision in ("int8", "bfloat16") if hasattr(model, "quantize") and "-" not in name else ():
            keep(model.quantize(precision), name, f"-{precision}")
        if hasattr(model, "losses"):
            model = fit(make(name), name, callback=stop)
            keep(model, name, "-training", training=True)
            whole = fit(model, name, resume=True)
            values[f"{name}-training.npz"]["resumed"] = {"losses": whole.losses, "values": values_of(whole, name)}
    lines = ",\n".join(f"{json.dumps(file)}: {json.dumps(entry)}" for file, entry in values.items())
    (folder / "values.json").write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
