"""``random_state``: an int, a generator of either kind, or None."""

import numpy as np
import pytest
from support.models import GOOD, MODELS, assert_same_parameters

import rnncore as rc

ALL = MODELS | {"language": rc.LanguageModel}


def fitted(name, **settings):
    data = (["abcab", "bca", "cab"] * 4,) if name == "language" else GOOD[name]
    return ALL[name](hidden_size=3, epochs=2, batch_size=2, dropout=0.2, **settings).fit(*data), data


@pytest.mark.parametrize("name", ALL)
def test_kinds(name):
    def parameters(random_state):
        return np.concatenate([p.ravel() for p in fitted(name, random_state=random_state)[0].params.values()])

    for make in (lambda: 3, lambda: np.int64(3), lambda: np.random.default_rng(3), lambda: np.random.RandomState(3)):
        np.testing.assert_array_equal(parameters(make()), parameters(make()))
    np.testing.assert_array_equal(parameters(3), parameters(np.random.default_rng(3)))
    for one, other in [(3, 4), (None, None), (np.random.RandomState(3), np.random.RandomState(4))]:
        assert (parameters(one) != parameters(other)).any()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", [np.random.default_rng, np.random.RandomState])
def test_an_int_starts_again_and_a_generator_goes_on(name, kind):
    model, data = fitted(name, random_state=5)
    before = {key: p.copy() for key, p in model.params.items()}
    model.fit(*data)
    for key, p in before.items():
        np.testing.assert_array_equal(model.params[key], p)
    model.set_params(random_state=kind(5)).fit(*data)
    before = {key: p.copy() for key, p in model.params.items()}
    model.fit(*data)
    assert any((model.params[key] != p).any() for key, p in before.items())


def test_of_a_call():
    """Drawing takes the same kinds."""
    model, _ = fitted("language", random_state=0)
    generator, _ = fitted("generator", random_state=0)
    for draw in (
        lambda random: model.sample(50, seed=random, stop_at_eos=False),
        lambda random: generator.generate(50, label="p", random_state=random),
    ):
        texts = [draw(np.random.RandomState(seed)) for seed in range(20)]
        assert texts == [draw(np.random.RandomState(seed)) for seed in range(20)]
        assert len(set(texts)) > 1


def test_seed_is_another_name_of_it():
    model = rc.LanguageModel(hidden_size=3, seed=7)
    assert (model.random_state, model.seed) == (7, 7)
    assert model.get_params()["random_state"] == 7
    assert "seed" not in model.get_params()
    model.seed = 8
    assert model.random_state == 8
    assert model.set_params(seed=9, epochs=1).get_params()["random_state"] == 9
    assert rc.LanguageModel().seed is None
    assert rc.LanguageModel(random_state=3).seed == 3
    for wrong in (lambda: rc.LanguageModel(seed=1, random_state=1), lambda: model.set_params(seed=1, random_state=2)):
        with pytest.raises(TypeError, match="^random_state and seed are two names of one setting; got both"):
            wrong()
    assert model.random_state == 9
    one, other = (
        rc.LanguageModel(hidden_size=3, epochs=1, batch_size=2, **{key: 4}) for key in ("seed", "random_state")
    )
    assert_same_parameters(one.fit("abcabc"), other.fit("abcabc"))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", [np.random.default_rng, np.random.RandomState])
def test_a_generator_is_not_in_a_file(name, kind, tmp_path):
    model, _ = fitted(name, random_state=kind(0))
    model.save(tmp_path / "model.npz")
    loaded = rc.load(tmp_path / "model.npz")
    assert loaded.random_state is None
    assert_same_parameters(loaded, model)
