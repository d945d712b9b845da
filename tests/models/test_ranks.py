"""Training on several ranks: the bits of one, and what happens when a rank fails."""

import os
import signal
import time

import numpy as np
import pytest
from support import ranks
from support.training import MODELS, assert_same, fit, make

import rnncore as rc
from rnncore.models.shards import _sum_in_place

SETTINGS = {
    "plain": {"epochs": 3, "batch_size": 16, "dtype": "float32"},
    "all": {
        "epochs": 3,
        "dropout": 0.3,
        "recurrent_dropout": 0.2,
        "learning_rate_decay": 0.5,
        "accumulation": 2,
        "patience": 3,
    },
}
each_settings = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)


def alone(settings, **options):
    """What fit_models returns, of this process."""
    results = {}
    for name in MODELS:
        seen = []
        model = fit(make(name, **settings), True, callback=seen.append, **options)
        records = [{k: v for k, v in record.items() if k != "seconds"} for record in model.history]
        results[name] = {"parameters": ranks.checksum(model.params.values()), "losses": model.losses}
        results[name] |= {"history": records, "calls": len(seen)}
    return results


@each_settings
@pytest.mark.parametrize("size", [2, 4])
def test_the_bits_do_not_depend_on_the_number_of_ranks(size, settings, tmp_path):
    """Parameters, losses and history of all models, with batches of fewer rows than shards among them."""
    wanted = alone(settings, shards=8)
    for rank, found in enumerate(ranks.run_on_ranks(size, ranks.fit_models, tmp_path, settings, {})):
        for name, result in wanted.items():
            calls = 0 if rank else result["calls"]
            assert found[name] == result | {"calls": calls}, name


@pytest.mark.parametrize("shards", [2, 4])
def test_a_hundred_updates(shards, tmp_path):
    """A language model, a tagger of ragged sequences and an encoder-decoder with attention."""
    for name, settings in {
        "language": {"epochs": 34, "batch_size": 12},
        "tagger": {"epochs": 20, "batch_size": 5},
        "seq2seq": {"epochs": 20, "batch_size": 5, "attention": "additive"},
    }.items():
        settings = settings | {"dtype": "float32"}
        model = fit(make(name, **settings), True, shards=shards)
        assert len(model.losses) >= 90
        wanted = {"parameters": ranks.checksum(model.params.values()), "losses": model.losses}
        for found in ranks.run_on_ranks(2, ranks.fit_models, tmp_path, settings, {"shards": shards}, [name]):
            assert {key: found[name][key] for key in wanted} == wanted


def test_as_many_ranks_as_shards(tmp_path):
    """Each rank has a single shard."""
    wanted = alone(SETTINGS["plain"], shards=8)
    for found in ranks.run_on_ranks(8, ranks.fit_models, tmp_path, SETTINGS["plain"], {}, ["language", "tagger"]):
        for name, result in found.items():
            assert result["parameters"] == wanted[name]["parameters"]


@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("name", [*MODELS, "streams"])
def test_shards_give_the_gradient_of_the_batch(name, shards):
    """Of ragged batches too: the sums are divided once, by the weight of all."""
    settings = {"epochs": 20, "batch_size": 8 if name == "streams" else 7}
    name = "language" if name == "streams" else name
    if name == "seq2seq":
        settings["attention"] = "multiplicative"
    whole, cut = fit(make(name, **settings), True), fit(make(name, **settings), True, shards=shards)
    np.testing.assert_allclose(cut.losses, whole.losses, rtol=1e-10)
    for key, p in whole.params.items():
        np.testing.assert_allclose(cut.params[key], p, rtol=0, atol=1e-10, err_msg=key)


def test_exchanges_between_ranks(tmp_path):
    for size in (1, 2, 4):
        assert ranks.run_on_ranks(size, ranks.exchanges, tmp_path) == [[]] * size


def test_sums_are_those_of_one_tree():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(8, 5)).astype(np.float32)
    a, b, c, d, e, f, g, h = values
    wanted = ((a + b) + (c + d)) + ((e + f) + (g + h))
    np.testing.assert_array_equal(rc.distributed.tree_sum(values), wanted)
    np.testing.assert_array_equal(_sum_in_place(values.copy()), wanted)


# ---- accidents ------------------------------------------------------------------------------------------------------

TIMEOUT = 4.0
SAID = {
    "raise": "ValueError: the data of rank 1 are bad",
    "exit": "rank 1",
    "hang": "rank 1 did not answer for 4 s",
    "stop": "rank 1 did not answer for 4 s",
    "kill": "signal 9",  # mpiexec says so, and ends the others
}


@pytest.mark.parametrize("kind", SAID)
def test_an_accident_of_a_rank_ends_all(kind, tmp_path):
    """In time, with the reason; and the run goes on from the file, on another number of ranks, with the same bits."""
    whole = fit(make("language", epochs=4, batch_size=8, dropout=0.2), True, shards=8)
    result, seconds = ranks.run_on_ranks(2, ranks.with_accident, tmp_path, kind, TIMEOUT, check=False)
    assert result.returncode != 0
    assert SAID[kind] in result.stdout + result.stderr
    assert seconds < TIMEOUT + 8  # two interpreters that start, and end
    model = rc.load(tmp_path / "model.npz")
    assert len(model.losses) == 4
    fit(model, True, resume=True)
    assert_same(model.params, whole.params)
    wanted = {"parameters": ranks.checksum(whole.params.values()), "losses": whole.losses}
    assert ranks.run_on_ranks(2, ranks.resume, tmp_path) == [wanted] * 2


@pytest.mark.parametrize("seed", range(int(os.environ.get("RNNCORE_TEST_KILLS", "2"))))
def test_a_rank_is_killed_at_any_moment(seed, tmp_path):
    """RNNCORE_TEST_KILLS=50: the others end in time, the file loads, and the run that goes on ends in the same bits."""
    rng = np.random.default_rng(seed)
    size = int(rng.choice([2, 4]))
    process = ranks.start_on_ranks(size, ranks.long_run, tmp_path, TIMEOUT)
    try:
        while not (tmp_path / "model.npz").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.001)
        time.sleep(rng.exponential(0.1))
        rank, how = rng.integers(size), signal.SIGKILL if rng.random() < 0.5 else signal.SIGSTOP
        os.kill(int((tmp_path / f"pid-{rank}").read_text()), how)
        begin = time.monotonic()
        process.communicate(timeout=60)
        assert time.monotonic() - begin < TIMEOUT + 3
    finally:
        process.kill()
    model = rc.load(tmp_path / "model.npz")
    whole = fit(make("language", **ranks.LONG_RUN), True, shards=8)
    assert 0 < len(model.losses) <= len(whole.losses)
    fit(model, True, resume=True)
    assert_same(model.params, whole.params)
    assert model.losses == whole.losses


def test_an_interrupt_of_a_rank_ends_all_at_the_same_update(tmp_path):
    found = ranks.run_on_ranks(2, ranks.with_accident, tmp_path, "interrupt", TIMEOUT)
    assert found == [{"interrupted": True, "updates": 4}] * 2


@pytest.mark.parametrize("where", ["callback", "last callback", "raised"])
def test_an_interrupt_in_a_callback_ends_all_with_the_same_parameters(where, tmp_path):
    found = ranks.run_on_ranks(2, ranks.with_interrupt_in_a_callback, tmp_path, where)
    assert found[0] == found[1]
    assert found[0]["interrupted"]


def test_what_may_differ_between_ranks(tmp_path):
    """A number of threads on one of them, an error before that all have caught, random states of loaded models."""
    for first, second in zip(*ranks.run_on_ranks(2, ranks.other_circumstances, tmp_path), strict=True):
        assert first == second


def test_ranks_that_wait_for_each_other_give_up(tmp_path):
    result, seconds = ranks.run_on_ranks(2, ranks.other_calls, tmp_path, check=False)
    assert result.returncode != 0
    assert "they have not made the same calls" in result.stderr
    assert seconds < 2 + 8


def test_a_subclass_with_a_loss_of_its_own():
    class Doubled(rc.LanguageModel):
        def loss_and_gradients(self, *arguments):
            loss, state = super().loss_and_gradients(*arguments)
            for grad in self.grads.values():
                grad *= 2
            return 2 * loss, state

    settings = {"hidden_size": 4, "batch_size": 8, "epochs": 3, "random_state": 0, "dtype": "float64"}
    whole, cut = (Doubled(**settings).fit(MODELS["language"][1], shards=shards) for shards in (None, 4))
    np.testing.assert_allclose(cut.losses, whole.losses, rtol=1e-10)


def test_ranks_must_have_the_same_data_and_settings(tmp_path):
    for said in ranks.run_on_ranks(2, ranks.other_data, tmp_path):
        assert len(said) == 7
        assert "all ranks must have the same model, data and settings; " in said[0]
        assert said[1]
        assert said[3]
        assert "on rank 0 and" in said[2]
        assert "learning_rate is '0.1' on rank 0 and '0.2' on rank 1" in said[4]
        assert "all ranks must have the same held-out data" in said[5]
        assert "validation is 'tuple' on rank 0 and 'NoneType' on rank 1" in said[6]


class Rank:
    """A communicator that is only asked for its size."""

    def __init__(self, size):
        self.size = size

    def Get_rank(self):
        return 0

    def Get_size(self):
        return self.size

    Isend = Irecv = isend = iprobe = recv = Abort = None


@pytest.mark.parametrize(
    ("error", "match", "options"),
    [
        (TypeError, "comm must be a communicator of mpi4py; got int, which has no Get_rank", {"comm": 3}),
        (ValueError, "comm must have 1, 2, 4, 8, ... ranks; got 3", {"comm": Rank(3)}),
        (ValueError, "shards must be 1, 2, 4, 8, ...; got 3", {"shards": 3}),
        (ValueError, "shards must be at least 1; got 0", {"shards": 0}),
        (TypeError, "shards must be an integer; got 2.0", {"shards": 2.0}),
        (ValueError, "timeout must be above 0 and finite; got 0", {"timeout": 0}),
        (ValueError, "timeout must be above 0 and finite; got None", {"timeout": None}),
    ],
)
@pytest.mark.parametrize("name", ["classifier", "language"])
def test_wrong_options_leave_the_model_as_it_was(name, error, match, options):
    model = fit(make(name))
    before = {key: p.copy() for key, p in model.params.items()}
    with pytest.raises(error, match=match.replace("(", "[(]")):
        fit(model, **options)
    assert_same(model.params, before)


def test_too_few_shards_for_the_ranks():
    with pytest.raises(ValueError, match="shards must be at least the number of ranks, 4; got 2"):
        rc.models.shards.check_shards(2, rc.distributed.Ranks(Rank(4)))


def test_a_run_goes_on_with_its_shards(tmp_path):
    """Also from a file; other shards are refused."""
    whole = fit(make("language", epochs=3, dropout=0.2), shards=4)
    model = fit(make("language", epochs=1, dropout=0.2), shards=4)
    model.save(tmp_path / "model.npz", training=True)
    for going_on in (rc.load(tmp_path / "model.npz"), model):
        going_on.epochs = 3
        with pytest.raises(ValueError, match="resume goes on with shards = 4 of the run; got 2"):
            fit(going_on, resume=True, shards=2)
        fit(going_on, resume=True)
        assert_same(going_on.params, whole.params)


@pytest.mark.parametrize(
    ("error", "match", "arguments"),
    [
        (TypeError, "grads must be a dict of arrays; got list", ([np.zeros(2)], 0, 1)),
        (TypeError, r"grads\['W'\] must be a float32 or float64 array; got int64", ({"W": np.zeros(2, int)}, 0, 1)),
        (TypeError, "grads must be all float32 or all float64", ({"W": np.zeros(2, "f"), "b": np.zeros(2)}, 0, 1)),
        (ValueError, "weight must be at least 0 and finite; got nan", ({"W": np.zeros(2)}, 0, np.nan)),
        (ValueError, r"grads\['W'\] must be writeable", ({"W": np.broadcast_to(0.0, 2)}, 0, 1)),
    ],
)
def test_reduce_refuses(error, match, arguments):
    with pytest.raises(error, match=match):
        rc.distributed.reduce(None, *arguments)


def test_reduce_without_weight_gives_zeros():
    grads = {"W": np.ones(3)}
    assert rc.distributed.reduce(None, grads, 0.0, 0) == (0.0, 0.0)
    assert not grads["W"].any()
