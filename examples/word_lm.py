"""Text, word by word: articles in the style of Wikipedia.

Many to many of equal length: an LSTM reads a word and predicts the next; every line ends in <eos>.

Data: a folder with wiki.valid.txt and wiki.test.1500.txt (from WikiText-2, Merity et al. 2016). The first, 214,000
words, is the training text; the second, 86,000 words, is held out. Words beyond the 10,000 most frequent become <unk>,
in the held-out text too.

    python examples/word_lm.py data/wikitext2
"""

import random
import re
from pathlib import Path

import common

import rnncore as rc
from rnncore import plots


def read(path):
    """-> training (text,), held-out (text,)"""
    return tuple(((Path(path) / name).read_text("utf-8"),) for name in ("wiki.valid.txt", "wiki.test.1500.txt"))


def made_up():
    """Generate lines whose verbs agree with their nouns."""
    rng = random.Random(0)
    verbs = {"cat": ("sleeps", "eats"), "dog": ("barks", "runs"), "cats": ("sleep", "eat"), "dogs": ("bark", "run")}
    lines = []
    for _ in range(900):
        noun = rng.choice(list(verbs))
        lines.append(f"{rng.choice(('the', 'my'))} {rng.choice(('old', 'small'))} {noun} {rng.choice(verbs[noun])} .\n")
    return ("".join(lines[:800]),), ("".join(lines[800:]),)


MADE_UP = {"hidden_size": 32, "epochs": 10, "batch_size": 8, "chunk_length": 12, "learning_rate": 0.01}


def make_model(random_state=0, **settings):
    tuned = {"hidden_size": 200, "dropout": 0.3, "epochs": 6, "batch_size": 20, "chunk_length": 35}
    tuned |= {"learning_rate": 2e-3, "learning_rate_decay": 0.7}
    return rc.LanguageModel("word", random_state=random_state, **tuned | settings)


def figures(model, held_out):
    return {"perplexity": float(model.perplexity(*held_out))}


def picture(model, held_out):
    ax = plots.history(model.history)
    ax.set_ylabel("loss (nats a word)")
    return ax


def tidy(words):
    """Join tokens into normal text."""
    words = re.sub(r" @(\W)@ ", r"\1", words)
    words = re.sub(r" ([.,;:!?)%]|'s\b|n't\b)", r"\1", words)
    return re.sub(r"\( ", "(", words)


def main(argv=None):
    options = common.arguments(__doc__, __file__, argv)
    training, held_out = common.load(options, read, made_up, __doc__)
    model = make_model(**{} if options.path else MADE_UP)
    print(f"{len(training[0].split()):,} words to train on, {len(held_out[0].split()):,} held out")
    model.fit(*training, *held_out, callback=common.each_epoch)
    found = figures(model, held_out)
    common.show(found)
    print(f"{len(model.vocabulary):,} words are known. A paragraph:\n")
    prompt = "\n The" if options.path else "the"
    print(prompt.strip(), tidy(model.sample(100, prompt=prompt, temperature=0.8, seed=1, stop_at_eos=True)), "\n")
    common.save(picture(model, held_out), options.picture)
    return found


if __name__ == "__main__":
    main()
