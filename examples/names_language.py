"""Which language is a surname from?

Many to one: a bidirectional LSTM reads the letters of a name; its last states predict one of 18 languages.

Data: a folder with one file of names for each language, Arabic.txt ... Vietnamese.txt (data/names of
github.com/spro/practical-pytorch), or the folder above it. A name that occurs several times in a file counts once; a
name in several files is one row for each of these languages. 10 % of the distinct names of each language are held out.
All rows of a name are on the same side: no held-out name is seen in training.

    python examples/names_language.py data/names/lang
"""

import random
from pathlib import Path

import common

import rnncore as rc


def read(path):
    """-> training (names, languages), held-out (names, languages)"""
    folder = Path(path) / "lang" if (Path(path) / "lang").is_dir() else Path(path)
    rows = [(name, file.stem) for file in sorted(folder.glob("*.txt")) for name in dict.fromkeys(common.lines(file))]
    return divide(rows)


def divide(rows):
    names, languages = map(list, zip(*rows, strict=True))
    training, held_out = common.split(names, 0.1, languages)
    return common.take(training, names, languages), common.take(held_out, names, languages)


def made_up():
    """Generate names whose endings tell their language, in the same form."""
    rng = random.Random(0)
    endings = {"Italian": ("ini", "elli", "ucci"), "Polish": ("ski", "czyk", "wicz"), "Russian": ("ov", "in", "enko")}
    starts = [a + b + c for a in "BDKLMRST" for b in "aeo" for c in ("l", "r", "nd", "b", "st")]
    return divide([(start + rng.choice(ends), language) for language, ends in endings.items() for start in starts])


MADE_UP = {"hidden_size": 32, "epochs": 10, "learning_rate": 0.01}


def make_model(random_state=0, **settings):
    tuned = {"hidden_size": 128, "dropout": 0.3, "epochs": 8, "batch_size": 32, "learning_rate": 2e-3}
    return rc.SequenceClassifier("char", random_state=random_state, **tuned | settings)


def figures(model, held_out):
    return {"accuracy": model.score(*held_out)}


def picture(model, held_out):
    names, languages = held_out
    return common.confusion(languages, model.predict(names), model.classes_)


def main(argv=None):
    options = common.arguments(__doc__, __file__, argv)
    training, held_out = common.load(options, read, made_up, __doc__)
    model = make_model(**{} if options.path else MADE_UP)
    print(f"{len(training[0]):,} names to train on, {len(held_out[0]):,} held out, {len(set(training[1]))} languages")
    model.fit(*training, callback=common.each_epoch)
    found = figures(model, held_out)
    common.show(found)
    names, languages = common.take(random.Random(1).sample(range(len(held_out[0])), 10), *held_out)
    for name, language, p in zip(names, languages, model.predict_proba(names), strict=True):
        best = ", ".join(f"{model.classes_[c]} {p[c]:.0%}" for c in p.argsort()[::-1][:3])
        print(f"{name:14} ({language}): {best}")
    common.save(picture(model, held_out), options.picture)
    return found


if __name__ == "__main__":
    main()
