"""Which words are names of persons?

Many to many of equal length: a bidirectional LSTM reads a sentence, and a conditional random field on top of it gives
every word a tag: B-person begins a name, I-person continues it, O is anything else.

Data: a folder with wnut17.train.conll, wnut17.dev.conll and wnut17.test.conll (WNUT-17, Derczynski et al. 2017):
tweets and similar texts, one word and its tag per line. The split is the official one: train for training, test held
out; dev is for validation. Tags of entities other than persons become O. The set is hard by design: hardly any name of
the test sentences occurs in the training sentences. The model therefore sees the shapes of names instead of the names,
and learns from their context.

    python examples/ner.py data/ner
"""

import random
import re
from collections import Counter
from itertools import chain
from pathlib import Path

import common

import rnncore as rc


def read(path):
    """-> training (sentences, tags), held-out (sentences, tags), words as the model sees them"""
    (words, tags), (test_words, test_tags) = (raw(path, part) for part in ("train", "test"))
    known = known_words(words, tags)
    return (normal(words, known), tags), (normal(test_words, known), test_tags)


def read_validation(path):
    """-> (sentences, tags) of dev"""
    words, tags = raw(path, "dev")
    return normal(words, known_words(*raw(path, "train"))), tags


def raw(path, part):
    """-> sentences, tags; lists of lists of str"""
    blocks = (Path(path) / f"wnut17.{part}.conll").read_text("utf-8").strip().split("\n\n")
    sentences = [[line.split("\t") for line in block.splitlines()] for block in blocks]
    tags = [[tag if tag.endswith("person") else "O" for _, tag in sentence] for sentence in sentences]
    return [[word for word, _ in sentence] for sentence in sentences], tags


def known_words(sentences, tags, least=3):
    """Return the words, lower-cased, that occur at least ``least`` times and are rarely names."""
    counts, names = Counter(), Counter()
    for word, tag in zip(chain(*sentences), chain(*tags), strict=True):
        counts[word.lower()] += 1
        names[word.lower()] += tag != "O"
    return {word for word, count in counts.items() if count >= least and names[word] < 0.3 * count}


def normal(sentences, known):
    """Lower-case known words, replace others by a shape: <Xx>, <x>, <X>, <0>, ..., <@> users, <#> topics, <h> links."""
    return [[word.lower() if word.lower() in known else shape(word) for word in sentence] for sentence in sentences]


def shape(word):
    if word[0] in "@#" or word.startswith("http"):
        return f"<{word[0]}>"
    pattern = re.sub(r"[a-z]", "x", re.sub(r"[A-Z]", "X", re.sub(r"\d", "0", word)))
    return "<" + re.sub(r"(.)\1+", r"\1", pattern)[:4] + ">"


def made_up_raw():
    """Generate sentences about persons -> sentences, tags. Those from 200 on are about other persons."""
    rng = random.Random(0)
    known = "Anna Ben Cora Dan Eva Finn".split(), "Abel Bosch Carr Dorn Ek Fox".split()
    new = "Gina Hugo Ines Jan Karl Lena".split(), "Gray Hill Ives Jung Kern Lund".split()
    words, tags = [], []
    for n in range(240):
        first, last = known if n < 200 else new
        sentence = []
        for part in rng.choice(
            ("P met P in the park", "P saw the dog", "the dog bit P today", "we like P and P")
        ).split():
            person = [rng.choice(first), rng.choice(last)][: rng.randint(1, 2)]
            sentence += zip(person, ("B-person", "I-person"), strict=False) if part == "P" else [(part, "O")]
        words.append([word for word, _ in sentence])
        tags.append([tag for _, tag in sentence])
    return words, tags


def made_up():
    """-> training (sentences, tags), held-out (sentences, tags), words as the model sees them"""
    words, tags = made_up_raw()
    known = known_words(words[:200], tags[:200])
    words = normal(words, known)
    return (words[:200], tags[:200]), (words[200:], tags[200:])


MADE_UP = {"hidden_size": 32, "epochs": 8, "learning_rate": 0.01}


def make_model(random_state=0, **settings):
    tuned = {"output": "crf", "scheme": "iob", "class_weight": {"O": 1, "B-person": 64, "I-person": 64}}
    tuned |= {"hidden_size": 100, "embedding_size": 100, "dropout": 0.4, "epochs": 10, "batch_size": 16}
    tuned |= {"learning_rate": 1e-3}
    return rc.SequenceTagger("word", random_state=random_state, **tuned | settings)


def figures(model, held_out):
    score = rc.metrics.entity_score(held_out[1], model.predict(held_out[0]), "person")
    return {"precision of persons": score.precision, "recall of persons": score.recall, "F1 of persons": score.f1}


def picture(model, held_out, words):
    """Draw the probability of each tag at each word, for the short sentence whose persons are found best.

    words: the held-out sentences as they were written.
    """
    short = [row for row, tags in enumerate(held_out[1]) if len(tags) <= 20]
    sentences, wanted = common.take(short, *held_out)
    found = model.predict(sentences)
    pairs = [(rc.metrics.entities(tags), rc.metrics.entities(f)) for tags, f in zip(wanted, found, strict=True)]
    worth = [len(right & said) - len(right ^ said) for right, said in pairs]
    best = worth.index(max(worth))
    p = model.predict_proba([sentences[best]])[0]
    title, label = "Which words are names of persons", "probability (percent)"
    return common.heat_map(p.T, model.classes_, words[short[best]], title, label, numbers=True)


def main(argv=None):
    options = common.arguments(__doc__, __file__, argv)
    training, held_out = common.load(options, read, made_up, __doc__)
    model = make_model(**{} if options.path else MADE_UP)
    print(f"{len(training[0]):,} sentences to train on, {len(held_out[0]):,} held out")
    validation = read_validation(options.path) if options.path else None
    model.fit(*training, validation=validation, callback=common.each_epoch)
    found = figures(model, held_out)
    common.show(found)
    words = raw(options.path, "test")[0] if options.path else made_up_raw()[0][200:]
    some = [row for row, tags in enumerate(held_out[1]) if "B-person" in tags and len(tags) < 20][:8]
    for row, tags in zip(some, model.predict(common.take(some, held_out[0])[0]), strict=True):
        print(" ".join(f"[{word}]" if tag != "O" else word for word, tag in zip(words[row], tags, strict=True)))
        print("    right:", names(words[row], held_out[1][row]), "  found:", names(words[row], tags))
    common.save(picture(model, held_out, words), options.picture)
    return found


def names(words, tags):
    return ", ".join(" ".join(words[begin:end]) for _, begin, end in sorted(rc.metrics.entities(tags))) or "none"


if __name__ == "__main__":
    main()
