"""model.quantize: what models in bfloat16 and int8 compute, their files, and what they refuse."""

import copy
import json
import pickle

import numpy as np
import pytest
from support.files import write_model_file
from support.isas import DEFAULT
from support.models import KINDS, MODELS, assert_equal, each_model_and_kind, make_of, results_of

import rnncore as rc
from rnncore.engine.quantization import round_to_bfloat16

PRECISIONS = ("bfloat16", "int8")
each_precision = pytest.mark.parametrize("precision", PRECISIONS)
TEXT = "the cat sat on the mat. the dog lay on the log. " * 30


@pytest.fixture(scope="module")
def language_model():
    settings = {"hidden_size": 32, "epochs": 4, "batch_size": 4, "learning_rate": 0.01, "random_state": 0}
    return rc.LanguageModel(**settings, num_layers=2).fit(TEXT)


def rounded(model):
    """The model with its matrices rounded to bfloat16."""
    other = copy.deepcopy(model)
    for name, p in other.params.items():
        if name.split(".")[1].startswith("W"):
            p[...] = round_to_bfloat16(p.astype("f8"))
    return other


def flat(results):
    """All numbers in results, in order; and all else."""
    numbers, others = [], []
    for value in results:
        if isinstance(value, (tuple, list)):
            inner, more = flat(value)
            numbers, others = numbers + inner, others + more
        elif isinstance(value, (np.ndarray, np.generic)) and np.asarray(value).dtype.kind == "f":
            numbers += np.ravel(value).tolist()
        else:
            others.append(value)
    return numbers, others


# ---- what they compute ----------------------------------------------------------------------------------------------


@each_model_and_kind
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bfloat16_is_the_model_with_rounded_weights(name, kind, dtype):
    model, X, y = make_of(name, kind, dtype=dtype)
    small = model.quantize("bfloat16")
    wanted = rounded(model)
    assert_equal(results_of(small, X, y), results_of(wanted, X, y))
    assert small.score(X, y) == wanted.score(X, y)
    if name == "generator":
        options = {"label": y[0], "random_state": 3}
        np.testing.assert_array_equal(small.generate(5, **options), wanted.generate(5, **options))
    if name == "seq2seq":
        np.testing.assert_equal(small.sample(X, seed=1), wanted.sample(X, seed=1))
    if name == "transcriber":
        assert small.alignment(X[0], y[0]) == wanted.alignment(X[0], y[0])


@pytest.mark.parametrize("attention", ["additive", "multiplicative"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_attention_in_bfloat16(attention, bidirectional):
    model, X, y = make_of("seq2seq", "text", attention=attention, bidirectional=bidirectional)
    assert_equal(results_of(model.quantize("bfloat16"), X, y), results_of(rounded(model), X, y))
    close = model.quantize("int8")
    np.testing.assert_allclose(close.log_prob(X, y), model.log_prob(X, y), rtol=0.05, atol=0.2)


@pytest.mark.parametrize("settings", [{"output": "crf"}, {"output": "softmax", "bidirectional": False}])
def test_taggers_in_bfloat16(settings):
    model, X, y = make_of("tagger", "text", **settings)
    assert_equal(results_of(model.quantize("bfloat16"), X, y), results_of(rounded(model), X, y))


@pytest.mark.parametrize("embedding_size", [0, 8])
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm", "mingru"])
def test_language_model_in_bfloat16(cell, embedding_size):
    settings = {"hidden_size": 24, "epochs": 1, "batch_size": 4, "random_state": 0, "cell": cell}
    model = rc.LanguageModel(**settings, embedding_size=embedding_size).fit(TEXT)
    small, wanted = model.quantize("bfloat16"), rounded(model)
    assert small.log_prob(TEXT) == wanted.log_prob(TEXT)
    for options in ({}, {"temperature": 0.5, "top_k": 3}, {"temperature": 0}, {"top_p": 0.7}):
        assert small.sample(80, "the c", seed=4, **options) == wanted.sample(80, "the c", seed=4, **options)
    assert small.beam_search(6, "the c", beam_width=3) == wanted.beam_search(6, "the c", beam_width=3)
    assert small.score_many(["cat", "dog"], "the ").tolist() == wanted.score_many(["cat", "dog"], "the ").tolist()
    assert "".join(small.iter_sample(40, seed=2)) == small.sample(40, seed=2)


def test_sampling_in_int8_draws_what_scoring_expects(language_model):
    """The native loop and the layers have the same bits: what is likeliest is drawn."""
    small = language_model.quantize("int8")
    drawn = small.sample(60, "the ", temperature=0)
    context = "the "
    for letter in drawn:
        alternatives = sorted(set(TEXT))
        best = max(alternatives, key=lambda other: small.log_prob(context + other))
        assert small.log_prob(context + best) <= small.log_prob(context + letter) + 1e-5
        context += letter


@each_model_and_kind
def test_int8_is_close_and_does_not_depend_on_the_others(name, kind):
    model, X, y = make_of(name, kind, hidden_size=16, dtype="float32")
    small = model.quantize("int8")
    numbers, _ = flat(results_of(small, X, y))
    wanted, _ = flat(results_of(model, X, y))
    if len(numbers) == len(wanted):  # predicted sequences may differ in length
        np.testing.assert_allclose(numbers, wanted, rtol=0.1, atol=0.1)
    together = results_of(small, X, y)
    for n in range(len(X)):
        assert_equal(results_of(small, X[n : n + 1], y[n : n + 1]), together[n : n + 1])


def test_calibration(language_model):
    small = language_model.quantize("int8", calibration=TEXT)
    scales = small.layers["recurrent"].x_scales
    assert len(scales) == 2
    assert all(0 < scale < 1 for scale in scales)
    assert abs(small.score(TEXT) - language_model.score(TEXT)) < 0.01
    model, X, _ = make_of("classifier", "features")
    largest = max(np.abs(x).max(initial=0) for x in X)
    assert model.quantize("int8", X).layers["recurrent"].x_scales == (largest / 127,)
    model, X, y = make_of("generator", "text")
    assert model.quantize("int8", (X, y)).layers["recurrent"].x_scales[0] > 0
    with pytest.raises(ValueError, match="calibration .* must be None for bfloat16"):
        language_model.quantize("bfloat16", TEXT)


def test_the_model_is_as_before_and_goes_on_training(language_model):
    model = copy.deepcopy(language_model).set_params(warm_start=True, epochs=1)
    before = {name: p.copy() for name, p in model.params.items()}
    small = model.quantize("int8")
    score = small.score(TEXT)
    for name, p in model.params.items():
        np.testing.assert_array_equal(p, before[name])
    model.fit(TEXT)
    assert any((p != before[name]).any() for name, p in model.params.items())
    assert small.score(TEXT) == score


def test_a_new_network_is_in_float(language_model):
    small = language_model.quantize("int8")
    small.build(small.vocabulary)
    assert small.precision == "float32"
    small.set_params(epochs=1).fit(TEXT)


def test_the_precision_is_that_of_the_layers(language_model):
    model = copy.deepcopy(language_model).set_params(dtype="float64")
    assert model.precision == "float32"
    assert rc.LanguageModel(dtype="float64").precision == "float64"


def test_layers_of_two_instruction_sets(language_model):
    """The rows of a panel lie as the instruction set wants that it was packed for."""
    small = language_model.quantize("int8")
    wanted = small.sample(50, seed=0)
    try:
        rc.use_isa("plain")
        for name in ("embedding", "output"):
            other = copy.deepcopy(language_model.layers[name]).quantize("int8")
            mixed = small._with_layers(small.layers | {name: other}, "int8")
            assert mixed.sample(50, seed=0) == wanted
    finally:
        rc.use_isa(DEFAULT)


# ---- files ----------------------------------------------------------------------------------------------------------


@each_precision
@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name in MODELS for kind in KINDS[:1] + KINDS[3:]])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_files(name, kind, precision, dtype, tmp_path):
    model, X, y = make_of(name, kind, dtype=dtype)
    small = model.quantize(precision)
    path = tmp_path / "model.npz"
    small.save(path)
    wanted = results_of(small, X, y)
    for other in (rc.load(path), pickle.loads(pickle.dumps(small)), copy.deepcopy(small)):
        assert type(other) is type(model)
        assert (other.precision, other.nbytes, other.history) == (precision, small.nbytes, model.history)
        assert other.get_params() == model.get_params()
        assert_equal(results_of(other, X, y), wanted)
        again = tmp_path / "again.npz"
        other.save(again)
        assert_equal(results_of(rc.load(again), X, y), wanted)


def test_files_take_a_half_and_a_quarter(tmp_path):
    model = rc.LanguageModel(hidden_size=200, epochs=1, batch_size=4, random_state=0).fit(TEXT)
    sizes = {}
    for precision in (None, *PRECISIONS):
        path = tmp_path / f"{precision}.npz"
        (model if precision is None else model.quantize(precision)).save(path)
        sizes[precision] = path.stat().st_size
    assert sizes["bfloat16"] < 0.52 * sizes[None]
    assert sizes["int8"] < 0.28 * sizes[None]


def test_calibrated_scales_are_in_the_file(language_model, tmp_path):
    small = language_model.quantize("int8", calibration=TEXT)
    small.save(tmp_path / "model.npz")
    loaded = rc.load(tmp_path / "model.npz")
    assert loaded.layers["recurrent"].x_scales == small.layers["recurrent"].x_scales
    assert loaded.score(TEXT) == small.score(TEXT)


def test_damaged_files(language_model, tmp_path):
    path, damaged = tmp_path / "model.npz", tmp_path / "damaged.npz"
    language_model.quantize("int8", calibration=TEXT).save(path)
    Wh, scales = "array/recurrent.Wh_0", "array/recurrent.Wh_0/scales"

    def replaced(key, change):
        return lambda c: c.update({key: change(c[key])})

    for change, message in [
        (lambda c: c.pop(scales), "the parameter recurrent.Wh_0/scales is missing"),
        (lambda c: c.pop(Wh), "the parameter recurrent.Wh_0 is missing"),
        (lambda c: c.update({"array/more": np.zeros(3)}), "no parameter more"),
        (replaced(Wh, lambda a: a.astype(np.int16)), r"recurrent.Wh_0 must be \(32, 128\) int8; got .* int16"),
        (replaced(Wh, lambda a: a[:-1]), r"recurrent.Wh_0 must be \(32, 128\) int8"),
        (replaced(Wh, lambda a: np.full_like(a, -128)), r"must lie in \[-127, 127\]; got -128"),
        (replaced(scales, lambda a: a * np.nan), "scales of recurrent.Wh_0 must be .* finite float32, none below 0"),
        (replaced(scales, lambda a: -a), "none below 0"),
        (replaced(scales, lambda a: a.astype("f8")), "finite float32"),
        (replaced("array/recurrent.b_0", lambda a: a[1:]), r"recurrent.b_0 must be \(128,\) float32; got \(127,\)"),
        (
            replaced("array/recurrent/x_scales", lambda a: a[1:]),
            "of the inputs of recurrent must be float64 in .* for each of 2 layers",
        ),
        (replaced("array/recurrent/x_scales", lambda a: a > 0), "of the inputs of recurrent must be .* bool"),
        (replaced("array/recurrent/x_scales", lambda a: a + 1e300), r"must be float64 in \[0, 3.40282e\+38\]"),
        (lambda c: c.update({"array/output/x_scales": np.zeros(1)}), "no parameter output/x_scales"),
    ]:
        with np.load(path) as file:
            content = dict(file)
        change(content)
        write_model_file(damaged, content)
        with pytest.raises(ValueError, match=f"is damaged: .*{message}"):
            rc.load(damaged)
    with np.load(path) as file:
        content = dict(file)
    header = json.loads(str(content["header"]))
    header["description"]["precision"] = "int4"
    write_model_file(damaged, content | {"header": np.array(json.dumps(header))})
    with pytest.raises(ValueError, match="precision must be one of 'bfloat16', 'int8'; got 'int4'"):
        rc.load(damaged)


# ---- what cannot be -------------------------------------------------------------------------------------------------


@each_precision
@pytest.mark.parametrize("name", MODELS)
def test_no_training(name, precision, tmp_path):
    model, X, y = make_of(name, "text")
    small = model.quantize(precision)
    batch = small._batch(small._scored(X, y, None), np.arange(2))
    for call in (
        lambda: small.fit(X, y),
        lambda: small.set_params(warm_start=True).fit(X, y),
        lambda: small.loss_and_gradients(*batch.arguments),
    ):
        with pytest.raises(TypeError, match=f"a model in {precision} cannot be trained"):
            call()
    with pytest.raises(ValueError, match=f"those of this one are {precision}"):
        small.quantize(precision)
    with pytest.raises(ValueError, match=f"this model has none: it is in {precision}, for use"):
        small.save(tmp_path / "model.npz", training=True)
    assert not list(tmp_path.iterdir())


def test_errors(language_model):
    with pytest.raises(TypeError, match="cannot be trained"):
        language_model.quantize("int8").fit(TEXT)
    with pytest.raises(ValueError, match="call fit first"):
        rc.LanguageModel().quantize("int8")
    with pytest.raises(ValueError, match="precision must be one of 'bfloat16', 'int8'; got 'int4'"):
        language_model.quantize("int4")
    broken = copy.deepcopy(language_model)
    broken.params["output.W"][0, 0] = np.inf
    with pytest.raises(ValueError, match="W must be finite, in float32 too, to become int8; got inf"):
        broken.quantize("int8")
    caught = []

    def callback(progress):
        try:
            model.quantize("int8")
        except RuntimeError as error:
            caught.append(str(error))
        return True

    model = rc.LanguageModel(hidden_size=4, epochs=1, batch_size=4)
    model.fit(TEXT, callback=callback)
    assert caught


# ---- what it costs --------------------------------------------------------------------------------------------------


def test_compare(language_model, capsys):
    small = language_model.quantize("int8")
    found = rc.compare(language_model, small, TEXT)
    assert found.scores == (language_model.score(TEXT), small.score(TEXT))
    assert found.nbytes == (language_model.nbytes, small.nbytes)
    assert found.precisions == ("float32", "int8")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["log-probability", "(nats)", "bytes", "of", "parameters"]
    assert lines[2].split() == ["int8", f"{found.scores[1]:.4f}", f"{small.nbytes:,}"]
    assert float(lines[3].split()[0]) == pytest.approx(found.difference, abs=1e-4)
    model, X, y = make_of("classifier", "text")
    assert rc.compare(model, model.quantize("bfloat16"), (X, y)).measure == "accuracy"
    with pytest.raises(TypeError, match="other must be a LanguageModel"):
        rc.compare(language_model, model, TEXT)
    with pytest.raises(ValueError, match="data must hold what score takes; got an empty tuple"):
        rc.compare(language_model, language_model, ())
