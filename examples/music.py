"""New chorales after Bach.

One to many, with several labels at once: at each quarter note an LSTM predicts, for each of the 88 keys of a piano
(MIDI pitches 21 to 108), the probability that it sounds next. The sampled notes are fed back.

Data: jsb-chorales-quarter.json or its folder (Boulanger-Lewandowski et al. 2012). The split is the official one:
"train" for training, "test" held out. To learn from more than 229 pieces, each is transposed by up to three semitones
down and up.

    python examples/music.py data/music
"""

import json
from pathlib import Path

import common
import numpy as np

import rnncore as rc

LOWEST, KEYS = 21, 88
NAMES = "C C# D Eb E F F# G G# A Bb B".split()


def read(path):
    """-> training (pieces,), held-out (pieces,): arrays (T, 88) of 0 and 1"""
    path = Path(path) / "jsb-chorales-quarter.json" if Path(path).is_dir() else Path(path)
    pieces = json.loads(path.read_text())
    training = [roll(piece, by) for by in range(-3, 4) for piece in pieces["train"]]
    return (training,), ([roll(piece) for piece in pieces["test"]],)


def roll(piece, transpose=0):
    """Convert a list of chords, each a list of pitches -> array (T, 88)"""
    keys = np.zeros((len(piece), KEYS), np.float32)
    for t, chord in enumerate(piece):
        keys[t, [pitch - LOWEST + transpose for pitch in chord]] = 1
    return keys


def made_up():
    """Generate scales in thirds, up and down, from random keys."""
    rng, pieces = np.random.default_rng(0), []
    for _ in range(60):
        low = rng.integers(50, 62)
        scale = [low + step for step in (0, 2, 4, 5, 7, 9, 11, 12, 14, 16)]
        way = [*range(8), *range(6, 0, -1)] * 2
        pieces.append(roll([[scale[n], scale[n + 2]] for n in way]))
    return (pieces[:50],), (pieces[50:],)


MADE_UP = {"hidden_size": 128, "epochs": 50, "batch_size": 2, "learning_rate": 0.02, "dropout": 0.0}
MADE_UP |= {"learning_rate_decay": 0.96}


def make_model(random_state=0, **settings):
    tuned = {"hidden_size": 200, "dropout": 0.2, "epochs": 20, "batch_size": 8}
    tuned |= {"learning_rate": 0.01, "learning_rate_decay": 0.87}
    return rc.SequenceGenerator(random_state=random_state, **tuned | settings)


def figures(model, held_out):
    found = there = right = 0.0
    for piece, notes in zip(held_out[0], model.predict(*held_out), strict=True):
        found, there, right = found + notes.sum(), there + piece.sum(), right + (notes * piece).sum()
    return {"nats a step": -model.score(*held_out), "F1 of the notes": float(2 * right / (found + there))}


def compose(model, held_out, begin=8, steps=64):
    """Let the model continue the beginning of a held-out piece."""
    seed = held_out[0][1][:begin]
    return np.concatenate([seed, model.generate(steps - begin, seed=seed, temperature=0.9, random_state=0)])


def picture(model, held_out, begin=8):
    """Draw the piano roll of a new piece; the notes before the line were given."""
    from matplotlib.figure import Figure

    piece = compose(model, held_out, begin)
    pitches = np.flatnonzero(piece.any(axis=0))
    low, high = pitches.min() - 1, pitches.max() + 2
    ax = Figure(figsize=(9, 4), layout="constrained").add_subplot()
    extent = (0, len(piece), low + LOWEST - 0.5, high + LOWEST - 0.5)
    ax.imshow(piece.T[low:high], origin="lower", aspect="auto", cmap="Greys", extent=extent, interpolation="nearest")
    ax.axvline(begin, color="C1")
    ticks = [pitch for pitch in range(low + LOWEST, high + LOWEST) if pitch % 12 in (0, 7)]
    ax.set_yticks(ticks, [f"{NAMES[pitch % 12]}{pitch // 12 - 1}" for pitch in ticks])
    ax.grid(axis="y", alpha=0.3)
    ax.set_xlabel("quarter notes")
    ax.set_ylabel("pitch")
    ax.set_title("A new piece; the notes before the line were given", fontsize=10)
    return ax


def main(argv=None):
    options = common.arguments(__doc__, __file__, argv)
    training, held_out = common.load(options, read, made_up, __doc__)
    model = make_model(**{} if options.path else MADE_UP)
    steps = sum(map(len, training[0]))
    print(f"{len(training[0]):,} pieces ({steps:,} chords) to train on, {len(held_out[0]):,} held out")
    model.fit(*training, callback=common.each_epoch)
    found = figures(model, held_out)
    common.show(found)
    print("A new piece, quarter by quarter (the first two bars were given):")
    chords = ["+".join(f"{NAMES[(k + LOWEST) % 12]}{(k + LOWEST) // 12 - 1}" for k in np.flatnonzero(keys)) or "rest"
              for keys in compose(model, held_out)[:32]]  # fmt: skip
    print(*(" | ".join(f"{chord:15}" for chord in chords[t : t + 4]) for t in range(0, 32, 4)), sep="\n")
    common.save(picture(model, held_out), options.picture)
    return found


if __name__ == "__main__":
    main()
