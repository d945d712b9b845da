"""Did they like the film? Sentences from reviews, positive or negative.

Many to one: a bidirectional LSTM reads the words of a sentence; the mean of its states predicts the class.

Data: a folder with rt-polarity.pos and rt-polarity.neg (Pang and Lee 2005), one sentence per line, already split into
words. 10 % of the sentences of each class are held out at random; the same sentence is never on both sides.

    python examples/sentiment.py data/sentiment
"""

import random
from pathlib import Path

import common
import numpy as np

import rnncore as rc


def read(path):
    """-> training (sentences, classes), held-out (sentences, classes)"""
    return divide(
        [(line, label) for label in ("pos", "neg") for line in common.lines(Path(path) / f"rt-polarity.{label}")]
    )


def divide(rows):
    sentences, labels = map(list, zip(*rows, strict=True))
    training, held_out = common.split(sentences, 0.1, labels)
    return common.take(training, sentences, labels), common.take(held_out, sentences, labels)


def made_up():
    """Generate short verdicts; "not" reverses them."""
    rng, rows = random.Random(0), {}
    adjectives = {"pos": "good great warm funny lovely bright".split(), "neg": "bad poor cold dull silly dark".split()}
    while len(rows) < 300:
        label, turned = rng.choice(("pos", "neg")), rng.random() < 0.3
        adjective = rng.choice(adjectives["neg" if (label == "pos") == turned else "pos"])
        thing = rng.choice("film story plot music cast ending".split())
        verb = rng.choice("is was looks".split()) + (" not" if turned else "")
        rows[f"{rng.choice(('the', 'this', 'its'))} {thing} {verb} {adjective} ."] = label
    return divide(list(rows.items()))


MADE_UP = {"hidden_size": 32, "epochs": 12, "learning_rate": 0.01, "learning_rate_decay": 1.0, "dropout": 0.2}


def make_model(random_state=0, **settings):
    tuned = {"hidden_size": 64, "embedding_size": 300, "max_vocabulary": 10_000, "pooling": "mean", "dropout": 0.5}
    tuned |= {"epochs": 3, "batch_size": 32, "learning_rate": 1e-3}
    tuned |= {"learning_rate_decay": 0.5, "embedding_scale": 0.1}
    return rc.SequenceClassifier("word", random_state=random_state, **tuned | settings)


def figures(model, held_out):
    return {"accuracy": model.score(*held_out)}


def picture(model, held_out):
    """Draw a few held-out sentences, each word in the colour of the prediction after it."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize
    from matplotlib.figure import Figure

    sentences = [s for s in held_out[0] if 4 <= len(s.split()) <= 12 and len(s) < 70]
    sentences = random.Random(0).sample(sentences, min(8, len(sentences)))
    ax = Figure(figsize=(9, 0.45 * len(sentences) + 0.6), layout="constrained").add_subplot()
    good = list(model.classes_).index("pos")
    # Orange and blue, which the colour-blind can tell apart, light enough for black letters.
    colors = ScalarMappable(Normalize(0, 100), LinearSegmentedColormap.from_list("", ["#eb9e66", "white", "#66aad1"]))
    for row, sentence in enumerate(sentences):
        words, begin = sentence.split(), 0
        for p, word in zip(
            model.predict_proba([words_to(words, n) for n in range(len(words))])[:, good], words, strict=True
        ):
            ax.barh(row, len(word) + 1, left=begin, color=colors.to_rgba(100 * p))
            ax.text(begin + len(word) / 2 + 0.5, row, word, ha="center", va="center", fontsize=8, parse_math=False)
            begin += len(word) + 1
        ax.text(begin + 1, row, f"{p:.0%}", va="center", fontsize=8, fontweight="bold")
    ax.figure.colorbar(colors, ax=ax, pad=0.02, label="probability of praise (percent)")
    ax.set_title("How the sentence sounds after each word", fontsize=10)
    ax.invert_yaxis()
    ax.set_axis_off()
    return ax


def words_to(words, n):
    """Return the beginning of a sentence, up to and including word n."""
    return " ".join(words[: n + 1])


def main(argv=None):
    options = common.arguments(__doc__, __file__, argv)
    training, held_out = common.load(options, read, made_up, __doc__)
    model = make_model(**{} if options.path else MADE_UP)
    print(f"{len(training[0]):,} sentences to train on, {len(held_out[0]):,} held out")
    model.fit(*training, callback=common.each_epoch)
    found = figures(model, held_out)
    common.show(found)
    p = model.predict_proba(held_out[0])
    order = np.argsort(p[:, list(model.classes_).index("pos")])
    for title, rows in (("praised most", order[::-1][:3]), ("blamed most", order[:3])):
        print(f"{title}:")
        for row in rows:
            print(f"  {held_out[0][row][:100]}  ({held_out[1][row]})")
    common.save(picture(model, held_out), options.picture)
    return found


if __name__ == "__main__":
    main()
