"""Text, character by character: plays in the style of Shakespeare, names for new dinosaurs.

Many to many of equal length: an LSTM reads a character and predicts the next. To write text, predictions are sampled
and fed back.

Data: a text file, or a folder with input.txt or dinos.txt. A file with one word per line is a list of names
(lower-cased, each once; 10 % are held out at random), and each name is learned as a sentence with an end. Any other
file is one text, of which the last 10 % are held out.

    python examples/char_lm.py data/shakespeare
    python examples/char_lm.py data/dinos
"""

import math
import random
from pathlib import Path

import common
import numpy as np

import rnncore as rc
from rnncore import plots


def read(path):
    """-> training (text or names,), held-out (text or names,)"""
    path = Path(path)
    if path.is_dir():
        path = next(path / name for name in ("input.txt", "dinos.txt") if (path / name).exists())
    words = common.lines(path)
    if all(len(word.split()) == 1 for word in words):
        names = list(dict.fromkeys(word.lower() for word in words))
        training, held_out = common.split(names, 0.1)
        return common.take(training, names), common.take(held_out, names)
    return divide(path.read_text("utf-8"))


def divide(text):
    end = len(text) * 9 // 10
    return (text[:end],), (text[end:],)


def made_up():
    """Generate sentences that say who sits where."""
    rng = random.Random(0)
    animals, places = ("cat", "dog", "owl", "fox"), ("mat", "log", "roof", "box")
    return divide("".join(f"the {rng.choice(animals)} sat on the {rng.choice(places)}.\n" for _ in range(400)))


MADE_UP = {"hidden_size": 48, "epochs": 10, "batch_size": 8, "chunk_length": 32, "learning_rate": 0.01}
NAMES = {"hidden_size": 128, "epochs": 15, "dropout": 0.3}


def make_model(random_state=0, **settings):
    tuned = {"hidden_size": 256, "epochs": 5, "batch_size": 32, "chunk_length": 64, "learning_rate": 2e-3}
    tuned |= {"learning_rate_decay": 0.8}
    return rc.LanguageModel("char", random_state=random_state, **tuned | settings)


def figures(model, held_out):
    nats = math.log(model.perplexity(*held_out))
    return {"nats a character": nats, "bits a character": nats / math.log(2), "perplexity": math.exp(nats)}


def picture(model, held_out, steps=48):
    """Draw forget gates over a held-out text: of the ten units that forget most at white space, and keep most there."""
    text = held_out[0][:steps] if isinstance(held_out[0], str) else max(held_out[0], key=len)
    x = model.layers["embedding"](model.vocabulary.encode(text)[:, None])
    forget = rc.gate_activations(model.layers["recurrent"], x)[-1]["f"][:, 0]
    ends = np.array([char.isspace() for char in text])
    # In the order of the mean gate at white space less that at other characters, so that units of one habit are
    # neighbours; in a name, which has no white space, in the order of the mean gate.
    habit = forget[ends].mean(axis=0) - forget[~ends].mean(axis=0) if ends.any() else forget.mean(axis=0)
    order = habit.argsort()
    ax = plots.gates(forget, text, units=[*order[:10], *order[-10:]])
    where = " at the ends of words" if ends.any() else ""
    ax.set_title(f"Forget gates: ten units that forget most{where}, then ten that keep most", fontsize=10)
    ax.figure.axes[-1].set_ylabel("0 forgets the cell state, 1 keeps it")
    return ax


def main(argv=None):
    options = common.arguments(__doc__, __file__, argv)
    training, held_out = common.load(options, read, made_up, __doc__)
    names = not isinstance(training[0], str)
    settings = NAMES if names else {}
    model = make_model(**settings if options.path else MADE_UP)
    print(f"{len(training[0]):,} {'names' if names else 'characters'} to train on, {len(held_out[0]):,} held out")
    model.fit(*training, *held_out, callback=common.each_epoch)
    found = figures(model, held_out)
    common.show(found)
    if names:
        known, new, seed = {*training[0], *held_out[0]}, [], 0
        while len(new) < 20:
            name, seed = model.sample(30, temperature=0.8, seed=seed), seed + 1
            if name not in known:
                new.append(name.capitalize())
        print(f"Twenty new names (of {seed} drawn; the others exist):")
        print(*(", ".join(new[row : row + 5]) for row in range(0, 20, 5)), sep="\n")
    else:
        print(model.sample(500, prompt="\n", temperature=0.8, seed=0).strip())
    common.save(picture(model, held_out), options.picture)
    return found


if __name__ == "__main__":
    main()
