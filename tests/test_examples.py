"""The examples run, learn what they made up, draw their picture; nothing held out is among the training data."""

import importlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")

EXAMPLES = Path(__file__).parents[1] / "examples"

# Script: where its figures on the made-up set must lie.
LEARNED = {
    "char_lm": {"perplexity": ("<", 1.2)},
    "word_lm": {"perplexity": ("<", 2.0)},
    "names_language": {"accuracy": (">", 0.9)},
    "ner": {"F1 of persons": (">", 0.9)},
    "sentiment": {"accuracy": (">", 0.9)},
    "dna": {"accuracy": (">", 0.9)},
    "speaker": {"accuracy": (">", 0.9)},
    "speech_recognition": {
        "label error rate": ("<", 0.1),
        "telephone numbers in noise": ("<", 0.2),
        "with a language model": ("<", 0.1),
    },
    "video": {"accuracy": (">", 0.9)},
    "music": {"F1 of the notes": (">", 0.85)},
    "translation": {
        "exact match, greedy": (">", 0.8),
        "exact match, beam of 5": (">", 0.8),
        "BLEU, greedy": (">", 0.8),
    },
    "vanishing_gradients": {"RNN": ("<", 0.6), "GRU": (">", 0.95), "LSTM": (">", 0.95)},
}
FOLDERS = {
    "char_lm": ("shakespeare", "dinos"),
    "word_lm": ("wikitext2",),
    "names_language": ("names",),
    "ner": ("ner",),
    "sentiment": ("sentiment",),
    "dna": ("dna",),
    "speaker": ("speech",),
    "speech_recognition": ("digits",),
    "video": ("video",),
    "music": ("music",),
    "translation": ("translation",),
}
# Official splits, where a few sequences are alike in both parts.
OFFICIAL = ("word_lm", "ner", "speaker", "music")


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == EXAMPLES:
            del sys.modules[name]


def test_every_example_is_here():
    assert {file.stem for file in EXAMPLES.glob("*.py")} - {"common"} == set(LEARNED)


@pytest.mark.parametrize("name", LEARNED)
def test_made_up(example, name, tmp_path, capsys):
    picture = tmp_path / "picture.png"
    found = example(name).main(["--picture", str(picture)])
    for figure, (sign, limit) in LEARNED[name].items():
        assert (found[figure] < limit) if sign == "<" else (found[figure] > limit), (figure, found[figure])
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert str(picture) in capsys.readouterr().out


def test_split_keeps_keys_together(example):
    keys = [n // 2 for n in range(200)]
    labels = ["a" if n < 160 else "b" for n in range(200)]
    training, held_out = example("common").split(keys, 0.1, labels)
    assert sorted(training + held_out) == list(range(200))
    assert not {keys[row] for row in training} & {keys[row] for row in held_out}
    assert sum(labels[row] == "b" for row in held_out) == 4
    assert len(held_out) == 20
    assert example("common").split(keys, 0.1, labels) == (training, held_out)


def as_key(sequence):
    return sequence if isinstance(sequence, str) else np.asarray(sequence).tobytes()


@pytest.mark.parametrize("name, folder", [(name, folder) for name, folders in FOLDERS.items() for folder in folders])
def test_read(example, name, folder):
    data = Path(os.environ.get("RNNCORE_DATA", "/nowhere")) / folder
    if not data.exists():
        pytest.skip("RNNCORE_DATA is not the folder of the data sets")
    module = example(name)
    training, held_out = module.read(data)
    for part in (training, held_out):
        assert len(part) == len(module.made_up()[0])
        assert len({len(column) for column in part}) == 1
        assert len(part[0])
    assert len(training[0]) > len(held_out[0]) or name == "speaker"
    if name not in OFFICIAL and not isinstance(training[0], str):
        assert not {as_key(x) for x in training[0]} & {as_key(x) for x in held_out[0]}
    if name == "music":
        assert all(piece.shape[1] == 88 and set(np.unique(piece)) <= {0, 1} for piece in training[0] + held_out[0])
    if name == "ner":
        assert all(len(words) == len(tags) for part in (training, held_out) for words, tags in zip(*part, strict=True))
    # The same split every time.
    assert all(as_key(str(a)) == as_key(str(b)) for a, b in zip(held_out, module.read(data)[1], strict=True))
