"""Vocabulary to text: training, probabilities, sampling and files of the language model."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from support.compare import TOLERANCE
from support.files import write_model_file
from support.gradcheck import numeric_gradient
from support.sampling import draw

import rnncore as rc
from rnncore.models import training
from rnncore.optim import SGD

TEXT = "the quick brown fox jumps over the lazy dog. pack my box with five dozen jugs.\n" * 8
SENTENCES = TEXT.replace(". ", ".\n").splitlines()

CASES = {
    "char-lstm": {"embedding_size": 0},
    "char-gru-2": {"cell": "gru", "num_layers": 2, "embedding_size": 0},
    "char-gru-after": {"cell": "gru", "cell_options": {"form": "reset_after", "update": "old"}},
    "char-gru-simplified": {"cell": "gru", "cell_options": {"form": "simplified"}},
    "char-rnn-embedded": {"cell": "rnn", "embedding_size": 5},
    "word-lstm-2-peephole": {"level": "word", "num_layers": 2, "cell_options": {"peephole": True}},
}


def make_model(case="char-lstm", text=TEXT, **options):
    """A model with random parameters, biases too, that has seen no training."""
    settings = {"hidden_size": 7, "seed": 3, "dtype": "float64", "batch_size": 4, "chunk_length": 10}
    model = rc.LanguageModel(**settings | CASES[case] | options)
    model.build(rc.Vocabulary.from_text(text, model.level))
    rng = np.random.default_rng(5)
    for p in model.params.values():
        p += rng.normal(size=p.shape) * 0.3
    return model


def next_log_probs(model, ids):
    """Log-probabilities (len(ids), V) of the token that follows each prefix, by the layers one step at a time."""
    state, rows = None, []
    for token in ids:
        x = np.array([[token]])
        x = model.layers["embedding"](x) if "embedding" in model.layers else x
        h, state = model.layers["recurrent"](x, state)
        logits = model.layers["output"](h)[0, 0]
        rows.append(logits - logits.max() - np.log(np.exp(logits - logits.max()).sum()))
    return np.array(rows)


@pytest.mark.parametrize("case", CASES)
def test_gradients_of_the_whole_model(case):
    model = make_model(case, hidden_size=3, text="abcab cd")
    rng = np.random.default_rng(0)
    V, lengths = len(model.vocabulary), np.array([4, 0, 2])
    inputs, targets = rng.integers(V, size=(2, 4, 3))
    model.loss_and_gradients(inputs, targets, lengths)
    actual = {name: grad.copy() for name, grad in model.grads.items()}

    def loss(**params):
        for name, value in params.items():
            model.params[name][...] = value
        return [np.array(model.loss_and_gradients(inputs, targets, lengths)[0])]

    params = {name: p.copy() for name, p in model.params.items()}
    for name, got in actual.items():
        wanted = numeric_gradient(loss, params, name, [np.array(1.0)])
        np.testing.assert_allclose(got, wanted, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_log_prob_is_the_sum_of_its_steps(case):
    model = make_model(case)
    text = "the dog jumps over my five foxes" * 2  # longer than a chunk
    ids = model.vocabulary.encode(text)
    rows = next_log_probs(model, [model.vocabulary.eos_id, *ids[:-1]])
    expected = rows[np.arange(len(ids)), ids].sum()
    np.testing.assert_allclose(model.log_prob(text), expected, rtol=1e-12)
    np.testing.assert_allclose(model.perplexity(text), np.exp(-expected / len(ids)), rtol=1e-12)
    np.testing.assert_allclose(model.score(text), expected / len(ids), rtol=1e-12)
    # Texts of other lengths beside it change nothing.
    several = model.log_prob(["a", text, "", "the fox"])
    np.testing.assert_allclose(several, [model.log_prob(t) for t in ("a", text, "", "the fox")], rtol=1e-12)


def test_scores_do_not_depend_on_the_other_sentences_or_on_chunks():
    model = make_model(text=TEXT)
    texts = [(TEXT * 3)[:count] for count in range(30, 60)]
    together = model.log_prob(texts)
    np.testing.assert_array_equal([model.log_prob([text])[0] for text in texts], together)
    np.testing.assert_array_equal([model.log_prob(text) for text in texts], together)
    for chunk_length in (1, 7, 1000):
        np.testing.assert_array_equal(model.set_params(chunk_length=chunk_length).log_prob(texts), together)


def test_sentences_count_their_end():
    model = make_model()
    model._sentences = True
    ids = np.append(model.vocabulary.encode("fox"), model.vocabulary.eos_id)
    rows = next_log_probs(model, [model.vocabulary.eos_id, *ids[:-1]])
    np.testing.assert_allclose(model.log_prob("fox"), rows[np.arange(4), ids].sum(), rtol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.5},
        {"top_k": 3},
        {"top_p": 0.6},
        {"temperature": 2.0, "top_k": 8, "top_p": 0.9},
    ],
)
@pytest.mark.parametrize("case", CASES)
def test_sample_equals_the_layers_one_step_at_a_time(case, options):
    model = make_model(case)
    vocabulary, prompt, n = model.vocabulary, "the fox", 25
    uniforms = np.random.default_rng(11).random(n)
    ids = [vocabulary.eos_id, *vocabulary.encode(prompt)]
    settings = {"temperature": 1.0, "top_k": None, "top_p": None} | options
    banned = [vocabulary.unk_id, vocabulary.eos_id] if model.level == "char" else [vocabulary.unk_id]
    for uniform in uniforms:
        ids.append(draw(next_log_probs(model, ids)[-1], uniform, banned=banned, **settings))
    expected = vocabulary.decode(ids[-n:])
    assert model.sample(n, prompt, seed=11, **options) == expected
    assert "".join(model.iter_sample(n, prompt, seed=11, **options)) == expected
    assert len(set(ids[-n:])) > 3


def test_sample_temperature_zero_takes_the_likeliest():
    model = make_model()
    ids = [model.vocabulary.eos_id]
    for _ in range(20):
        row = next_log_probs(model, ids)[-1]
        row[[model.vocabulary.unk_id, model.vocabulary.eos_id]] = -np.inf
        ids.append(int(row.argmax()))
    assert model.sample(20, temperature=0) == model.vocabulary.decode(ids[1:])
    assert model.sample(20, temperature=1.0, top_k=1, seed=0) == model.vocabulary.decode(ids[1:])


def test_sample_is_reproducible_and_never_unknown():
    model = make_model(dtype="float32")
    model.params["output.b"][model.vocabulary.unk_id] = 20
    first = model.sample(5000, seed=1)
    assert first == model.sample(5000, seed=1) == model.sample(5000, seed=np.random.default_rng(1))
    assert first != model.sample(5000, seed=2)
    assert "\ufffd" not in first
    assert model.sample(0) == ""


def test_sample_frequencies():
    """All logits from the bias: the draws are independent and their frequencies known."""
    model = make_model(text="abc")
    for name, p in model.params.items():
        p[...] = [0, -np.inf, 0.5, 1.0, -0.3] if name == "output.b" else 0
    drawn = model.sample(40_000, seed=4)
    wanted = np.exp([0.5, 1.0, -0.3]) / np.exp([0.5, 1.0, -0.3]).sum()
    counts = np.array([drawn.count(c) for c in "abc"])
    # Six standard deviations of a binomial count.
    assert (np.abs(counts - 40_000 * wanted) < 6 * np.sqrt(40_000 * wanted)).all(), counts


def test_sample_stops_at_the_end_of_a_sentence():
    model = make_model(text="abc")
    for name, p in model.params.items():
        p[...] = [0, 1.0, 0.5, 1.0, -0.3] if name == "output.b" else 0
    lengths = [len(model.sample(1000, seed=seed, stop_at_eos=True)) for seed in range(200)]
    assert 0 < np.mean(lengths) < 20
    assert 0 in lengths
    assert len(model.sample(1000, seed=0)) == 1000


def test_sample_refuses():
    model = make_model()
    for options, message in [
        ({"n": -1}, r"n must be at least 0; got -1"),
        ({"temperature": -0.1}, r"temperature must be at least 0 and finite; got -0.1"),
        ({"temperature": np.nan}, r"temperature must be"),
        ({"top_k": 0}, r"top_k must be at least 1; got 0"),
        ({"top_p": 0.0}, r"top_p must be in \(0, 1\]; got 0.0"),
        ({"top_p": 1.5}, r"top_p must be in"),
    ]:
        with pytest.raises(ValueError, match=message):
            model.sample(**{"n": 5} | options)
    model.params["output.b"][3] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        model.sample(5)
    with pytest.raises(ValueError, match="call fit first"):
        rc.LanguageModel().sample(5)


# ---- training -------------------------------------------------------------------------------------------------------


def test_fit_is_teacher_forcing_with_carried_state():
    """Two epochs of fit equal the same updates written out with the functions of the library."""
    settings = {"hidden_size": 6, "epochs": 2, "batch_size": 3, "chunk_length": 5, "optimizer": "sgd"}
    settings |= {"learning_rate": 0.3, "clip_norm": 0.5, "dtype": "float64", "seed": 9}
    text = TEXT[:50]
    model = rc.LanguageModel(**settings).fit(text)

    expected = rc.LanguageModel(**settings)
    expected.build(rc.Vocabulary.from_text(text))
    ids = expected.vocabulary.encode(text)[:48].reshape(3, 16).T
    inputs = np.vstack([[[1, 1, 1]], ids[:-1]])
    optimizer = SGD(expected.params, 0.3)
    for _ in range(2):
        state = None
        for t in (0, 5, 10, 15):
            _, state = expected.loss_and_gradients(inputs[t : t + 5], ids[t : t + 5], None, state)
            rc.clip_by_global_norm(expected.grads, 0.5)
            optimizer.step(expected.grads)
    for name, p in expected.params.items():
        np.testing.assert_array_equal(model.params[name], p, err_msg=name)


@pytest.mark.parametrize("texts", [TEXT, SENTENCES], ids=["text", "sentences"])
@pytest.mark.parametrize("level", ["char", "word"])
def test_fit_learns(level, texts):
    seen = []
    model = rc.LanguageModel(
        level, hidden_size=48, epochs=30, batch_size=4, chunk_length=20, learning_rate=0.01, seed=0
    )
    model.fit(texts, texts, callback=seen.append)
    assert model.perplexity(texts) < 1.6
    assert [record["epoch"] for record in model.history] == list(range(1, 31))
    assert model.history[-1]["loss"] < 0.3 * model.history[0]["loss"]
    assert seen[-1].update == seen[-1].updates == len(seen)
    np.testing.assert_allclose(np.log(model.perplexity(texts)), model.history[-1]["held_out"])
    if level == "char" and texts is SENTENCES:
        assert model.sample(200, temperature=0) in SENTENCES


def test_fit_keeps_the_model_at_an_interrupt():
    def interrupt(progress):
        if progress.update == 4:
            raise KeyboardInterrupt

    model = rc.LanguageModel(hidden_size=5, batch_size=4, chunk_length=8, seed=0)
    assert model.fit(TEXT, callback=interrupt).interrupted
    assert len(model.sample(10)) > 0
    stopped = rc.LanguageModel(hidden_size=5, batch_size=4, chunk_length=8, seed=0)
    stopped.fit(TEXT, callback=lambda progress: progress.update == 4)
    for name, p in stopped.params.items():
        np.testing.assert_array_equal(model.params[name], p)


def test_dropout_and_seed():
    settings = {"num_layers": 2, "hidden_size": 8, "dropout": 0.5, "epochs": 1, "batch_size": 4}
    first, again, other, without = (
        rc.LanguageModel(**settings | {"seed": seed} | extra).fit(TEXT).log_prob(TEXT)
        for seed, extra in [(0, {}), (0, {}), (1, {}), (0, {"dropout": 0.0})]
    )
    assert first == again
    assert len({first, other, without}) == 3


def test_fit_refuses():
    with pytest.raises(ValueError, match="at least one sentence or character"):
        rc.LanguageModel().fit("")
    with pytest.raises(ValueError, match="at least one sentence or character"):
        rc.LanguageModel().fit([])
    with pytest.raises(ValueError, match="at least batch_size = 32 tokens; got 5"):
        rc.LanguageModel().fit("hello")
    with pytest.raises(TypeError, match=r"text\[1\] must be str; got int"):
        rc.LanguageModel().fit(["hello", 3])
    for options, message in [
        ({"level": "byte"}, "level must be one of 'char', 'word'; got 'byte'"),
        ({"cell": "mlp"}, "cell must be one of 'rnn', 'gru', 'lstm', 'mingru'; got 'mlp'"),
        ({"optimizer": "lbfgs"}, "optimizer must be one of"),
        ({"epochs": 0}, "epochs must be at least 1; got 0"),
        ({"batch_size": -2}, "batch_size must be at least 1; got -2"),
        ({"embedding_size": -1}, "embedding_size must be at least 0; got -1"),
        ({"hidden_size": 0}, "hidden_size must be at least 1; got 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\); got 1.0"),
        ({"learning_rate": 0}, "learning_rate must be above 0 and finite; got 0"),
        ({"clip_norm": -1}, "clip_norm must be above 0 and finite; got -1"),
        ({"dtype": "int8"}, "dtype must be float32 or float64; got int8"),
        ({"cell_options": {"batch_first": True}}, "cell_options of 'lstm' may hold .*; got 'batch_first'"),
        ({"cell": "gru", "cell_options": {"peephole": True}}, "cell_options of 'gru' may hold"),
    ]:
        with pytest.raises(ValueError, match=message):
            rc.LanguageModel(**options).fit("hello")
    with pytest.raises(ValueError, match="at least one token"):
        make_model().perplexity("")
    with pytest.raises(ValueError, match="validation must hold at least one token"):
        rc.LanguageModel().fit(TEXT, "")


def test_history_counts_training_only(monkeypatch):
    """On a clock that moves by one second a look, and by a thousand in the callback."""
    clock = iter(range(10**9))

    def pause(progress):
        for _ in range(1000):
            next(clock)
        return progress.update == 20

    monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    model = rc.LanguageModel(hidden_size=4, batch_size=4, chunk_length=4, epochs=1, seed=0).fit(TEXT, callback=pause)
    (record,) = model.history
    assert (record["tokens"], record["seconds"], record["held_out"]) == (20 * 16, 20, None)


# ---- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("case", CASES)
def test_save_and_load(case, dtype, tmp_path):
    model = make_model(case, dtype=dtype)
    model.history = [{"epoch": 1, "loss": 0.1 + 0.2, "held_out": None, "tokens": 3, "seconds": 1.5}]
    path = tmp_path / "model.npz"
    model.save(path)
    loaded = rc.load(path)
    assert [p.name for p in tmp_path.iterdir()] == ["model.npz"]
    assert loaded.vocabulary == model.vocabulary
    assert loaded.history == model.history
    assert loaded.params.keys() == model.params.keys()
    for name, p in model.params.items():
        assert loaded.params[name].dtype == p.dtype
        np.testing.assert_array_equal(loaded.params[name], p)
    assert loaded.sample(30, seed=2) == model.sample(30, seed=2)
    assert loaded.log_prob("the fox") == model.log_prob("the fox")


def test_settings_of_numpy_types_are_saved(tmp_path):
    settings = {"hidden_size": np.int64(5), "dtype": np.float64, "learning_rate": np.float32(0.5), "seed": np.int32(1)}
    settings["cell_options"] = {"peephole": np.True_, "forget_bias": np.float32(0.5)}
    model = rc.LanguageModel(**settings).build(rc.Vocabulary("ab"))
    model.save(tmp_path / "model.npz")
    assert rc.load(tmp_path / "model.npz").hidden_size == 5


def test_save_replaces_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "model.npz"
    make_model().save(path)
    before = path.read_bytes()

    def fail(*arguments, **keywords):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        make_model(hidden_size=9).save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.npz"]


def test_load_refuses_other_files(tmp_path):
    path = tmp_path / "model.npz"
    with pytest.raises(FileNotFoundError):
        rc.load(path)
    model = make_model()
    model.save(path)
    whole = path.read_bytes()

    for content in (b"", b"hello", whole[: len(whole) // 2], whole[:-30], b"\x80\x04K\x01."):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is not a model file of rnncore, or is damaged"):
            rc.load(path)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    path.write_bytes(flipped)
    with pytest.raises(ValueError, match="damaged"):
        rc.load(path)
    np.savez(path, a=np.ones(3))
    with pytest.raises(ValueError, match="is not a model file"):
        rc.load(path)
    with open(path, "wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(ValueError, match="is not a model file"):
        rc.load(path)


def rewrite(path, change):
    with np.load(path) as file:
        contents = dict(file)
    header = json.loads(str(contents["header"]))
    change(header, contents)
    contents["header"] = np.array(json.dumps(header))
    write_model_file(path, contents)


def test_load_checks_the_contents(tmp_path):
    path = tmp_path / "model.npz"
    for change, message in [
        (lambda h, c: h.update(version=6), "has version 6 of the format; this rnncore reads versions 1, 2, 3, 4, 5"),
        (lambda h, c: h.update(format="other"), "its format is 'other'"),
        (lambda h, c: h.update(model="Oracle"), "model must be one of LanguageModel, .*; got 'Oracle'"),
        (lambda h, c: c.pop("array/recurrent.Wh_0"), "is damaged: parameters must be"),
        (
            lambda h, c: c.update({"array/recurrent.Wh_0": np.ones((7, 29))}),
            r"recurrent.Wh_0 must be \(7, 28\) float64; got \(7, 29\) float64",
        ),
        (lambda h, c: h["description"]["settings"].update(hidden=3), "is damaged"),
        (lambda h, c: h["description"]["vocabulary"]["tokens"].append("the"), "is damaged"),
        (lambda h, c: h["description"].pop("history"), "is damaged"),
    ]:
        make_model().save(path)
        rewrite(path, change)
        with pytest.raises(ValueError, match=message):
            rc.load(path)


def test_unknown_tokens_of_a_prompt_give_a_warning_at_the_call():
    model = rc.LanguageModel(hidden_size=3, epochs=1, batch_size=2, random_state=0).fit("abc" * 9)
    for call in (model.sample, model.iter_sample, model.beam_search):
        with pytest.warns(UserWarning, match="does not know these chars of the prompt: 'x', 'y'$") as caught:
            call(2, "axybx")
        assert caught[0].filename == __file__
