"""Valid calls of models, files, plots and the command line: see :mod:`fuzz.recipes`."""

import numpy as np

import rnncore as rc

from .context import H, N, T, copy_of, ids, one_of, real, saved, value

FLAG = one_of(False, True)
TEXTS = ["abca", "b", "cab", "ac"]
NAMES = ("EncoderDecoder", "SequenceClassifier", "SequenceGenerator", "SequenceTagger", "SequenceTranscriber")
SMALL = {"hidden_size": 3, "embedding_size": 2, "epochs": 1, "batch_size": 2, "random_state": 0}


def texts(c):
    return list(TEXTS)


def targets(name):
    """What a model of this class is trained to give for TEXTS."""
    return {
        "EncoderDecoder": ["ba", "ab", "a", "bb"],
        "SequenceClassifier": ["p", "q", "p", "q"],
        "SequenceGenerator": None,
        "SequenceTagger": [list("pqqp"), ["p"], list("pqq"), ["q", "q"]],
        "SequenceTranscriber": ["pq", "p", "q", "p"],
    }[name]


def features():
    return [np.array([[0.5, -1.0]] * len(text)) for text in TEXTS]


def fitted(name, kind="text", **settings):
    """A function that fits a model: it is called once."""

    def make():
        if name == "LanguageModel":
            return rc.LanguageModel(**SMALL, **settings).fit("abcabcab" * 4)
        model = getattr(rc, name)(**SMALL, **settings)
        X = TEXTS if kind == "text" else features()
        if kind == "features" and name == "SequenceGenerator":
            X = [(x > 0) * 1.0 for x in X]
        y = targets(name)
        return model.fit(X) if y is None else model.fit(X, y)

    return make


FITTED = {name: [fitted(name), fitted(name, "features", dtype="float64")] for name in NAMES}
FITTED["LanguageModel"] = [fitted("LanguageModel"), fitted("LanguageModel", cell="gru", num_layers=2)]
FITTED["SequenceTagger"].append(fitted("SequenceTagger", output="crf"))
FITTED["SequenceTranscriber"].append(fitted("SequenceTranscriber", bidirectional=False))
FITTED["EncoderDecoder"].append(fitted("EncoderDecoder", attention="additive"))


def model_of(name):
    return lambda c: copy_of(c.rng.choice(FITTED[name]))(c)


def X_of(c):
    """Data as that of training."""
    if getattr(getattr(c.receiver, "_input_format", None), "kind", "text") == "text":
        return list(TEXTS)
    return features() if not isinstance(c.receiver, rc.SequenceGenerator) else [(x > 0) * 1.0 for x in features()]


def x_of(c):
    return X_of(c)[0]


def y_of(c):
    return targets(type(c.receiver).__name__)


def loss_weights(c):
    """Of steps, or of sequences."""
    return np.abs(c.array(N) if getattr(c.receiver, "output", "") == "crf" else c.array(T, N))


def model_inputs(c):
    """Inputs of loss_and_gradients: ids or features."""
    model = c.receiver
    size = next(iter(model.layers.values())).params
    first = next(iter(size.values()))
    if "embedding" in "".join(model.layers):
        return c.ids(len(first), T, N)
    x = c.array(T, N, first.shape[0])
    return x if not isinstance(model, rc.SequenceGenerator) else (x > 0) * 1.0


#: The settings of models.
SETTINGS = {
    "level": one_of("char", "word"),
    "cell": one_of("lstm", "gru", "rnn", "mingru"),
    "hidden_size": value(H),
    "num_layers": value(1),
    "embedding_size": value(3),
    "embedding_scale": value(1.0),
    **{key: value(0.1) for key in ("dropout", "recurrent_dropout")},
    "cell_options": value(None),
    "max_vocabulary": value(5),
    "epochs": value(1),
    "batch_size": value(2),
    "optimizer": one_of("adam", "sgd"),
    "learning_rate": value(0.01),
    "learning_rate_decay": value(1.0),
    "schedule": one_of(None, "cosine"),
    "warm_up": value(0),
    "accumulation": value(1),
    "clip_norm": value(5.0),
    "patience": value(1),
    "warm_start": value(False),
    "dtype": one_of("float32", "float64"),
    "random_state": value(0),
    "bidirectional": FLAG,
    "reverse_source": FLAG,
    "attention": one_of(None, "additive"),
    "chunk_length": value(4),
    "seed": value(0),
    "class_weight": value(None),
    "pooling": one_of("last", "mean"),
    "output": one_of("softmax", "crf"),
    "scheme": value(None),
}


FIT = {
    "lengths": value(None),
    "sample_weight": lambda c: np.abs(c.array(len(TEXTS))),
    "validation": lambda c: (list(TEXTS), y_of(c)),
    "callback": lambda c: [lambda record: None],
    "progress": value(False),
    "resume": value(False),
    "comm": value(None),
    "shards": value(None),
    "timeout": value(60.0),
}
DECODING = {
    "beam_width": value(2),
    "length_penalty": value(0.7),
    "max_length": value(4),
    "language_model": lambda c: None,
    "lm_weight": value(0.5),
    "insertion_bonus": value(0.0),
    "n_jobs": value(1),
}
DRAWING = {
    "n": value(3),
    "prompt": value("ab"),
    "temperature": value(1.0),
    "top_k": value(2),
    "top_p": value(0.9),
    "seed": value(0),
    "random_state": value(0),
    "stop_at_eos": one_of(None, True),
}
LOSS = {
    "inputs": model_inputs,
    "targets": ids(2, T, N),
    "sources": model_inputs,
    "lengths": ids(T + 1, N),
    "source_lengths": ids(T + 1, N),
    "weights": loss_weights,
    "labels": value(None),
    "margins": value(None),
    "state": value(None),
}

ESTIMATOR = {
    "fit": {"X": X_of, "y": y_of, **FIT},
    "predict": {"X": X_of, "y": value(None), "lengths": value(None), **DECODING},
    "predict_proba": {"X": X_of, "y": value(None), "lengths": value(None), "n_jobs": value(1)},
    "score": {"X": X_of, "y": y_of, "lengths": value(None), "sample_weight": FIT["sample_weight"], "n_jobs": value(1)},
    "log_prob": {"X": X_of, "y": y_of, "lengths": value(None), "n_jobs": value(1)},
    "sample": {"X": X_of, "lengths": value(None), **DECODING, **DRAWING},
    "beam_search": {"x": x_of, "source": x_of, **DECODING},
    "alignment": {"x": x_of, "y": lambda c: y_of(c)[0]},
    "attention_weights": {"x": x_of, "y": lambda c: y_of(c)[0]},
    "generate": {**DRAWING, "label": value(None), "seed": value(None), "max_length": value(4)},
    "quantize": {"precision": one_of("bfloat16", "int8"), "calibration": X_of},
    "save": {"path": lambda c: str(c.directory / "written.npz"), "training": FLAG},
    "set_params": {"params": lambda c: {"hidden_size": 3, "learning_rate": 0.1}},
    "get_params": {"deep": FLAG},
    "loss_and_gradients": LOSS,
}
LOSSES = {
    "SequenceClassifier": {"targets": ids(2, N), "weights": lambda c: np.abs(c.array(N))},
    "SequenceTranscriber": {
        "targets": lambda c: [np.array([1]) for _ in range(N)],
        "weights": lambda c: np.abs(c.array(N)),
    },
    "SequenceGenerator": {"targets": model_inputs},
    "EncoderDecoder": {"inputs": ids(2, T, N)},
}
LANGUAGE = {
    "fit": {"texts": one_of("abcabc" * 4, ["abc", "ca"]), **FIT, "validation": value("abcab" * 3)},
    "log_prob": {"texts": one_of("abc", ["abc", "ca"]), "n_jobs": value(1)},
    "perplexity": {"texts": one_of("abc", ["abc", "ca"])},
    "score": {"texts": one_of("abc", ["abc", "ca"]), "y": value(None), "n_jobs": value(1)},
    "score_many": {"texts": texts, "prompt": value("a"), "per_token": FLAG},
    "sample": DRAWING,
    "iter_sample": DRAWING,
    "beam_search": {**DRAWING, **DECODING},
    "build": {"vocabulary": copy_of(lambda: rc.Vocabulary("abc"))},
    "quantize": {"precision": one_of("bfloat16", "int8"), "calibration": value("abcab")},
    **{name: ESTIMATOR[name] for name in ("save", "set_params", "get_params", "loss_and_gradients")},
}


def saved_model(c):
    name = c.rng.choice(("LanguageModel", "SequenceTagger", "EncoderDecoder"))
    return c.file(saved(SAVED[name]))


SAVED = {
    name: lambda path, name=name: fitted(name)().save(path.with_suffix(".npz")) or path.with_suffix(".npz").rename(path)
    for name in FITTED
}

# ---- files, plots, the command line -----------------------------------------------------------------------------


def corpus(c):
    c.file(b"abc abc\nca b\n", damaged=False)
    return rc.Corpus(c.directory / "given")


WORDS = (
    "",
    "0",
    "-1",
    "1",
    "2",
    "1.5",
    "nan",
    "inf",
    "1e400",
    "99999999999999999999",
    "hostile",
    "\ud800",
    "a\0b",
    "--",
    "=",
)
OPTIONS = {
    "train": ("--level", "--cell", "--hidden", "--layers", "--embedding", "--dropout", "--recurrent-dropout")
    + ("--vocabulary", "--minutes", "--batch", "--chunk", "--learning-rate", "--decay", "--patience", "--clip")
    + ("--held-out", "--held-out-file", "--sample", "--dtype", "--seed", "--encoding", "--shards", "--timeout"),
    "sample": ("--prompt", "--temperature", "--top-k", "--top-p", "--seed", "--precision"),
    "score": ("--encoding", "--precision"),
    "quantize": ("--output",),
    "info": (),
}


def command_line(c):
    """Arguments of a command, of which some are hostile words."""
    command = c.rng.choice(list(OPTIONS))
    text = c.file(b"abcabcabcab" * 4)
    arguments = [command]
    if command == "train":
        arguments += [text, "--output", str(c.directory / "model.npz"), "--epochs", "1", "--hidden", "3"]
    else:
        model = c.directory / "of_a_call.npz"
        model.write_bytes(saved(SAVED["LanguageModel"]))
        arguments.append(str(model))
    if command == "sample":
        arguments += ["-n", "4"]
    if command == "score":
        arguments.append(text)
    if command == "quantize":
        arguments += ["int8", "--output", str(c.directory / "quantized.npz")]
    for option in OPTIONS[command] and c.rng.choices(OPTIONS[command], k=c.rng.randrange(3)):
        arguments += [option, c.rng.choice(WORDS)]
    if c.rng.random() < 0.2:
        arguments[c.rng.randrange(len(arguments))] = c.rng.choice(WORDS)
    return arguments


FILES = {
    "load": [{"path": saved_model}],
    "compare": [
        {
            "model": copy_of(fitted("LanguageModel")),
            "other": copy_of(fitted("LanguageModel")),
            "data": value("abcab"),
        }
    ],
    "Corpus": [{"paths": lambda c: c.file(b"abc\nabc"), "encoding": one_of("utf-8", "latin-1")}],
    "Corpus.blocks": [{"level": one_of("char", "word")}],
    "Corpus.ids": [{"vocabulary": copy_of(lambda: rc.Vocabulary("abc")), "tick": lambda c: lambda: None}],
    "Corpus.write_ids": [{"vocabulary": copy_of(lambda: rc.Vocabulary("abc")), "tick": lambda c: lambda: None}],
    "Corpus.split": [{"share": value(0.5), "level": one_of("char", "word")}],
    "Corpus.vocabulary": [{"level": one_of("char", "word"), "max_size": value(5), "tick": lambda c: lambda: None}],
    "cli.main": [{"argv": command_line}],
    "plots.alignment": [
        {
            "probabilities": lambda c: np.abs(c.array(T, 3)) / 9,
            "classes": lambda c: ["a", "b"],
            "spans": lambda c: [("a", 0, 2)],
        }
    ],
    "plots.attention": [{"weights": real(2, 3), "source": value("abc"), "target": value("ab")}],
    "plots.beam": [{"steps": lambda c: [[(-1, "a", -0.4, True)], [(0, "b", -1.0, True)]], "best": value(None)}],
    "plots.gates": [
        {"activations": real(3, 4), "tokens": value("abc"), "units": lambda c: [0, 1], "title": value("gate")}
    ],
    "plots.gradient_flow": [{"norms": lambda c: {"RNN": np.abs(c.array(4)), "LSTM": np.abs(c.array(4))}}],
    "plots.history": [{"records": lambda c: [{"epoch": 1, "loss": 2.5, "held_out": 2.0}, {"epoch": 2, "loss": 2.0}]}],
    "plots.loss_curve": [{"losses": lambda c: [2.0, 1.5, 1.0], "held_out": lambda c: [(2, 1.5)], "saved": value(2)}],
}


def stream_x(c):
    return "a" if c.receiver._format.kind == "text" else c.array(2)


MODELS = {
    **FILES,
    **{name: [SETTINGS] for name in FITTED},
    **{
        f"{name}.{key}": [recipe | LOSSES.get(name, {}) if key == "loss_and_gradients" else recipe]
        for name in NAMES
        for key, recipe in ESTIMATOR.items()
    },
    **{f"LanguageModel.{key}": [recipe] for key, recipe in LANGUAGE.items()},
    "LanguageModel.seed=": [{"value": value(0)}],
    "models.transcriber.TranscriptionStream.step": [{"x": stream_x}],
}


def transcription_stream(c):
    return copy_of(fitted("SequenceTranscriber", bidirectional=False))(c).stream()


MODEL_RECEIVERS = {
    **{name: model_of(name) for name in FITTED},
    "Corpus": corpus,
    "models.transcriber.TranscriptionStream": transcription_stream,
}
