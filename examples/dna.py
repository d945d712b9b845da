"""Where are the splice junctions in DNA?

Many to one: a bidirectional LSTM reads 60 letters of DNA; the mean of its states predicts whether an exon ends in the
middle of them (EI), an exon begins there (IE), or neither (N). The middle is marked, ...ACG|GTA..., so that the network
need not count to 30.

Data: splice.data, or its folder (UCI "Molecular Biology (Splice-junction Gene Sequences)"): class, name, letters. 20
% of the distinct sequences of each class are held out; equal sequences are never on both sides.

    python examples/dna.py data/dna
"""

import random
from pathlib import Path

import common
import numpy as np

import rnncore as rc


def read(path):
    """-> training (sequences, classes), held-out (sequences, classes)"""
    path = Path(path) / "splice.data" if Path(path).is_dir() else Path(path)
    fields = [[field.strip() for field in line.split(",")] for line in common.lines(path)]
    return divide([(letters, label) for label, _, letters in fields])


def divide(rows):
    sequences, labels = map(list, zip(*rows, strict=True))
    sequences = [f"{letters[:30]}|{letters[30:]}" for letters in sequences]
    training, held_out = common.split(sequences, 0.2, labels)
    return common.take(training, sequences, labels), common.take(held_out, sequences, labels)


def made_up():
    """Generate random letters, with the usual letters around a junction in the middle of EI and IE."""
    rng, rows = random.Random(0), []
    # The junction, after letter 30, is AG|GTAAGT at the end of an exon, TTTCAG|GT at its beginning.
    for label, usual, begin in (("EI", "AGGTAAGT", 28), ("IE", "TTTCAGGT", 24), ("N", "", 30)):
        for _ in range(500):
            letters = "".join(rng.choices("ACGT", k=60))
            rows.append((letters[:begin] + usual + letters[begin + len(usual) :], label))
    return divide(rows)


MADE_UP = {
    "hidden_size": 32,
    "embedding_size": 8,
    "dropout": 0.0,
    "epochs": 10,
    "batch_size": 16,
    "learning_rate": 0.01,
}


def make_model(random_state=0, **settings):
    tuned = {"hidden_size": 64, "embedding_size": 16, "pooling": "mean", "dropout": 0.3, "epochs": 20, "batch_size": 32}
    tuned |= {"learning_rate": 3e-3, "learning_rate_decay": 0.95}
    return rc.SequenceClassifier("char", random_state=random_state, **tuned | settings)


def figures(model, held_out):
    sequences, labels = held_out
    right = model.predict(sequences) == np.array(labels)
    return {"accuracy": right.mean()} | {
        f"accuracy of {c}": right[np.array(labels) == c].mean() for c in model.classes_
    }


def picture(model, held_out):
    """Draw how much the probability of the right class falls when one letter is hidden (N), by its position."""
    from matplotlib.figure import Figure

    ax = Figure(figsize=(8, 4), layout="constrained").add_subplot()
    for c, label in enumerate(model.classes_):
        sequences = [s for s, wanted in zip(*held_out, strict=True) if wanted == label][:100]
        if label == "N":
            continue
        whole = model.predict_proba(sequences)[:, c]
        hidden = [
            model.predict_proba([s[:t] + "N" + s[t + 1 :] for s in sequences])[:, c]
            for t in [*range(30), *range(31, 61)]
        ]
        kind = {"EI": "EI: an exon ends", "IE": "IE: an exon begins"}.get(label, label)
        ax.plot(np.arange(60) - 29.5, 100 * (whole - hidden).mean(axis=1), ".-", label=kind)
    ax.axvline(0, color="0.7", zorder=0)
    ax.set_xlabel("position of the hidden letter (0 is the junction)")
    ax.set_ylabel("loss of probability of the right class (percent)")
    ax.set_title("Which letters give a junction away", fontsize=10)
    ax.legend()
    return ax


def main(argv=None):
    options = common.arguments(__doc__, __file__, argv)
    training, held_out = common.load(options, read, made_up, __doc__)
    model = make_model(**{} if options.path else MADE_UP)
    print(f"{len(training[0]):,} sequences to train on, {len(held_out[0]):,} held out")
    model.fit(*training, callback=common.each_epoch)
    found = figures(model, held_out)
    common.show(found)
    sequences, labels = common.take(random.Random(0).sample(range(len(held_out[0])), 5), *held_out)
    for letters, label, p in zip(sequences, labels, model.predict_proba(sequences), strict=True):
        said = "  ".join(f"{c} {share:4.0%}" for c, share in zip(model.classes_, p, strict=True))
        print(f"... {letters[20:41].lower()} ...  is {label:2}:  {said}")
    common.save(picture(model, held_out), options.picture)
    return found


if __name__ == "__main__":
    main()
