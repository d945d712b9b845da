"""Files of models."""

import json
import pickle
import re
import tracemalloc
import zipfile

import numpy as np
import pytest
from support.files import write_model_file
from support.models import (
    GOOD,
    KINDS,
    LABELS,
    MODELS,
    TEXTS,
    assert_equal,
    assert_same_parameters,
    make,
    make_of,
    results_of,
)

import rnncore as rc


def assert_loaded(path, model, X, y):
    loaded = rc.load(path)
    assert type(loaded) is type(model)
    assert_same_parameters(loaded, model)
    assert loaded.history == model.history
    assert loaded.get_params() == model.get_params()
    assert_equal(results_of(loaded, X, y), results_of(model, X, y))
    return loaded


@pytest.mark.parametrize(
    ("name", "kind", "labels"),
    [(n, k, labels) for n in MODELS for k in KINDS for labels in (LABELS if n != "seq2seq" else ["str"])],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_files(name, kind, labels, dtype, tmp_path):
    model, X, y = make_of(name, kind, labels, dtype=dtype)
    path = tmp_path / "model.npz"
    model.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["model.npz"]
    with np.load(path, allow_pickle=False) as file:
        assert {key: file[key].dtype.kind for key in file} == {
            "header": "U",
            "sha256": "U",
            **{f"array/{key}": "f" for key in model.params},
        }
    loaded = assert_loaded(path, model, X, y)
    if name != "seq2seq":
        assert loaded.classes_.tolist() == sorted(LABELS[labels])
        assert loaded.classes_.dtype == model.classes_.dtype
    # It goes on, too.
    loaded.set_params(warm_start=True).fit(X, y)
    assert loaded.history[-1]["epoch"] == 2


@pytest.mark.parametrize("name", ["tagger", "classifier"])
@pytest.mark.parametrize(
    ("labels", "class_weight"),
    [
        ("int", {3: 2.0, -1: 0.5, 7: 0}),
        ("int", {np.int64(3): np.float32(2.0)}),
        ("bool", {True: 3.0}),
        ("float", {0.0: 2.0}),
        ("str", {"rr": 4}),
        ("str", "balanced"),
    ],
    ids=str,
)
def test_files_with_class_weights(name, labels, class_weight, tmp_path):
    model, X, y = make_of(name, "text", labels, class_weight=class_weight)
    model.save(tmp_path / "model.npz")
    loaded = assert_loaded(tmp_path / "model.npz", model, X, y)
    assert type(loaded.class_weight) is type(class_weight)
    for each in (model, loaded):
        each.fit(X, y)
    assert_same_parameters(model, loaded)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("tagger", {"output": "sigmoid", "bidirectional": False, "num_layers": 2}),
        ("classifier", {"pooling": "mean", "cell": "gru", "cell_options": {"form": "reset_after"}}),
        ("generator", {"cell": "rnn", "cell_options": {"activation": "relu"}, "clip_norm": None}),
        ("seq2seq", {"bidirectional": True, "reverse_source": True, "num_layers": 2}),
        ("seq2seq", {"embedding_size": 0, "cell": "gru", "random_state": np.random.default_rng(0)}),
    ],
)
def test_files_with_settings(name, settings, tmp_path):
    model, X, y = make_of(name, "text", "bool", **settings)
    model.save(tmp_path / "model.npz")
    if isinstance(model.random_state, np.random.Generator):
        model.random_state = None  # is not in files
    assert_loaded(tmp_path / "model.npz", model, X, y)


def test_files_with_several_labels(tmp_path):
    X, y = TEXTS, [np.arange(3 * len(text)).reshape(-1, 3) % 2 for text in TEXTS]
    model = make("tagger", X, y, output="sigmoid")
    model.save(tmp_path / "model.npz")
    loaded = assert_loaded(tmp_path / "model.npz", model, X, y)
    assert loaded.score(X, y) == model.score(X, y)


def rewrite(path, change):
    """Change the header of a file, and its checksum."""
    with np.load(path) as file:
        contents = dict(file)
    header = json.loads(str(contents["header"]))
    change(header)
    contents["header"] = np.array(json.dumps(header))
    write_model_file(path, contents)


def test_a_language_model_of_version_1(tmp_path):
    path, text = tmp_path / "model.npz", "the cat sat on the mat. " * 10
    model = rc.LanguageModel(hidden_size=5, cell="gru", epochs=1, batch_size=4, learning_rate=0.01, seed=0).fit(text)
    model.save(path)
    old = "level cell hidden_size num_layers embedding_size dropout cell_options max_vocabulary epochs batch_size"
    old = (old + " chunk_length optimizer learning_rate clip_norm dtype seed").split()

    def as_version_1(header):
        header["version"] = 1
        settings = header["description"]["settings"]
        settings["seed"] = settings.pop("random_state")
        header["description"]["settings"] = {key: settings[key] for key in old}

    rewrite(path, as_version_1)
    loaded = rc.load(path)
    assert_same_parameters(loaded, model)
    assert loaded.get_params() == model.get_params()
    assert loaded.sample(20, seed=1) == model.sample(20, seed=1)
    assert loaded.log_prob(text) == model.log_prob(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.update(model="Oracle"), "model must be one of LanguageModel, .*; got 'Oracle'"),
        (lambda h: h.update(model=["x"]), "model must be one of LanguageModel, .*; got"),
        (lambda h: h.update(model="SequenceClassifier"), "is damaged"),
        (lambda h: h.update(description=[]), "is damaged"),
        (lambda h: h["description"].pop("settings"), "is damaged"),
        (lambda h: h["description"].pop("inputs"), "is damaged"),
        (lambda h: h["description"].update(inputs=None), "is damaged"),
        (lambda h: h["description"].update(labels=5), "is damaged"),
        (lambda h: h["description"].update(history=5), "is damaged"),
        (lambda h: h["description"]["inputs"].update(kind="sound"), "is damaged: kind must be one of"),
        (lambda h: h["description"]["inputs"].update(kind="ids"), "is damaged: vocabulary does not go with"),
        (lambda h: h["description"]["inputs"].update(size=9), "is damaged: size must be that of the vocabulary"),
        (lambda h: h["description"]["inputs"].update(vocabulary={"level": "char"}), "is damaged"),
        (lambda h: h["description"]["labels"].update(dtype="nothing"), "is damaged"),
        (lambda h: h["description"]["labels"].update(values=["p"]), "is damaged"),
        (lambda h: h["description"]["labels"].update(values=3), "is damaged"),
        (lambda h: h["description"]["settings"].update(hidden_size=0), "is damaged: hidden_size must be"),
        (lambda h: h["description"]["settings"].update(hidden_size=4), r"is damaged: .* must be .*; got"),
        (lambda h: h["description"]["settings"].update(hidden_size=10**11), "is damaged"),
        (lambda h: h["description"]["settings"].update(cell_options=5), "is damaged: cell_options"),
        (lambda h: h["description"]["settings"].update(colour="red"), "is damaged"),
        (lambda h: h["description"]["settings"].update(class_weight=[["p", 1, 2]]), "is damaged"),
        (lambda h: h["description"]["settings"].update(class_weight=[[["p"], 1]]), "is damaged"),
    ],
)
def test_damaged_descriptions(change, message, tmp_path):
    path = tmp_path / "model.npz"
    model, _, _ = make_of("tagger", "text")
    model.save(path)
    rewrite(path, change)
    with pytest.raises(ValueError, match=f"^{path}:? {message}"):
        rc.load(path)


@pytest.mark.parametrize("version", [0, -1, 6, 10**30, "2", 2.0, 2.5, True, None, []], ids=repr)
def test_versions_that_do_not_exist(version, tmp_path):
    """Older, newer, and what is equal to a version that does or can be counted as one."""
    path = tmp_path / "model.npz"
    make_of("tagger", "text")[0].save(path)
    rewrite(path, lambda header: header.update(version=version))
    message = f"{path} has version {version!r} of the format; this rnncore reads versions 1, 2, 3, 4, 5"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        rc.load(path)


# ---- small files that claim much ------------------------------------------------------------------------------------


def peak_of(function):
    """-> its result, and the bytes that Python and NumPy allocated meanwhile at most"""
    tracemalloc.start()
    try:
        return function(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def peak_of_refusal(path, message):
    def load():
        with pytest.raises(ValueError, match=f"^{path} is .*{message}"):
            rc.load(path)

    load()  # imports and the like
    return peak_of(load)[1]


@pytest.mark.parametrize(
    ("name", "kind", "place", "claim"),
    [
        ("tagger", "text", "settings", {"embedding_size": 3_000_000}),
        ("classifier", "text", "settings", {"hidden_size": 3_000}),
        ("generator", "text", "settings", {"num_layers": 10_000}),
        ("seq2seq", "ids", "inputs", {"size": 10_000_000}),
        ("seq2seq", "ids", "targets", {"size": 10_000_000}),
        ("tagger", "features", "inputs", {"size": 10**30}),
        ("generator", "text", "settings", {"cell": "gru", "cell_options": {"init": "uniform"}, "hidden_size": 3_000}),
        ("tagger", "text", "labels", {"dtype": "U10000000"}),
    ],
)
def test_claims_in_the_header(name, kind, place, claim, tmp_path):
    path = tmp_path / "model.npz"
    model, _, _ = make_of(name, kind)
    model.save(path)
    rewrite(path, lambda header: header["description"][place].update(claim))
    assert peak_of_refusal(path, "damaged: ") < 1_000_000


def rewrite_member(path, name, content, method, size=None):
    """Write another member of the archive, compressed; size: what the directory says of it."""
    with zipfile.ZipFile(path) as archive:
        contents = {member: archive.read(member) for member in archive.namelist()} | {name: content}
    with zipfile.ZipFile(path, "w", method) as archive:
        for member, bytes_of_it in contents.items():
            archive.writestr(member, bytes_of_it)
        if size is not None:
            archive.getinfo(name).file_size = size


@pytest.mark.parametrize(
    ("method", "size"),
    [
        (zipfile.ZIP_DEFLATED, None),
        (zipfile.ZIP_DEFLATED, 1000),
        (zipfile.ZIP_BZIP2, 1000),
        (zipfile.ZIP_LZMA, 1000),
    ],
)
def test_bombs(method, size, tmp_path):
    path = tmp_path / "model.npz"
    make_of("tagger", "text")[0].save(path)
    rewrite_member(path, "array/output.W.npy", bytes(50_000_000), method, size)
    assert path.stat().st_size < 100_000
    assert peak_of_refusal(path, "damaged") < 1_000_000


@pytest.mark.parametrize("shape", [(10_000_000,), (2,), (2**40, 2**40)])
def test_shapes_that_are_not_there(shape, tmp_path):
    path = tmp_path / "model.npz"
    make_of("tagger", "text")[0].save(path)
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(72)
    rewrite_member(path, "array/output.W.npy", content, zipfile.ZIP_STORED)
    assert peak_of_refusal(path, "damaged") < 1_000_000


def test_loading_takes_little_memory_and_draws_nothing(tmp_path, monkeypatch):
    path = tmp_path / "model.npz"
    model = rc.LanguageModel(hidden_size=300, num_layers=2, seed=0).build(rc.Vocabulary("abc"))
    model.save(path)

    def draw(*_):
        raise AssertionError("initial weights were drawn")

    for name in ("recurrent.orthogonal", "recurrent.glorot_uniform", "simple.glorot_uniform"):
        monkeypatch.setattr(f"rnncore.layers.{name}", draw)
    loaded, peak = peak_of(lambda: rc.load(path))
    assert_same_parameters(loaded, model)
    assert not any(gradient.any() for gradient in loaded.grads.values())
    assert peak < 4 * path.stat().st_size  # the file, parameters, gradients


def test_compressed_files(tmp_path):
    path = tmp_path / "model.npz"
    model, X, y = make_of("tagger", "text")
    model.save(path)
    with np.load(path) as file:
        contents = dict(file)
    np.savez_compressed(path, **contents)
    assert_loaded(path, model, X, y)


def test_layers_are_drawn_again_after_a_damaged_file(tmp_path):
    path = tmp_path / "model.npz"
    make_of("tagger", "text")[0].save(path)
    rewrite(path, lambda header: header["description"]["settings"].update(embedding_size=1000))
    with pytest.raises(ValueError, match="the parameters of Embedding must be at most .* bytes in .*; got "):
        rc.load(path)
    assert rc.LSTM(2, 3).params["Wh_0"].any()


@pytest.mark.parametrize("name", MODELS)
def test_embedding_scale(name):
    """Only the embeddings change, by that factor."""
    settings = {"hidden_size": 3, "embedding_size": 4, "epochs": 1, "learning_rate": 1e-30, "random_state": 0}
    plain, scaled = (MODELS[name](**settings, embedding_scale=scale).fit(*GOOD[name]) for scale in (1, 0.25))
    assert any("embedding" in key for key in plain.params)
    for key, p in plain.params.items():
        # The one update made biases 1e-30.
        np.testing.assert_allclose(scaled.params[key], p * (0.25 if "embedding" in key else 1), atol=1e-25, err_msg=key)


class Harmful:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_pickles_are_not_read(tmp_path):
    """Neither an object array beside the parameters, nor one in the place of a parameter, nor a whole pickle."""
    good, bad, trace = tmp_path / "good.npz", tmp_path / "bad.npz", tmp_path / "trace"
    rc.LanguageModel(hidden_size=3, epochs=1, batch_size=2).fit("abcabc" * 9).save(good)
    with np.load(good) as file:
        arrays = dict(file)
    objects = np.array([Harmful(trace)], dtype=object)
    parameter = next(name for name, array in arrays.items() if array.ndim == 2)
    for changed in ({**arrays, "more": objects}, {**arrays, parameter: objects}):
        np.savez(bad, **changed)
        with pytest.raises(ValueError, match="is not a model file of rnncore|object|pickle"):
            rc.load(bad)
    bad.write_bytes(pickle.dumps(Harmful(trace)))
    with pytest.raises(ValueError, match="is not a model file of rnncore"):
        rc.load(bad)
    assert not trace.exists()
