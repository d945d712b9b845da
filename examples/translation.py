"""Short sentences from English to French.

Many to many of different lengths: a bidirectional LSTM reads the English words, another LSTM writes the French ones,
starting from the last state of the first and looking back at its states (attention). Translations are found by greedy
or beam search.

Data: eng-fra.txt or its folder (20,000 pairs from tatoeba.org via manythings.org/anki): English, tab, French. Most
English sentences have several translations. 10 % of the distinct English sentences, at most 1,000, are held out with
all their translations: a held-out English sentence never occurs in training.

    python examples/translation.py data/translation
"""

import itertools
import random
import re
from pathlib import Path

import common

import rnncore as rc
from rnncore import plots


def words_of(text):
    """Lower-case a text and separate its tokens with spaces.

    Every punctuation mark is a token; the no-break spaces before it in French are dropped. Words are split after an
    apostrophe and before a hyphen: "J'ai dit : vas-y !" becomes "j' ai dit : vas -y !".
    """
    return " ".join(re.findall(r"\w+'(?=\w)|-?\w+|[^\w\s]", text.lower().replace("’", "'")))


def text_of(words):
    """Join tokens into normal text."""
    return re.sub(r" (?=[-.,])|(?<=') ", "", words)


def read(path):
    """-> training (English, French), held-out (English, lists of French)"""
    path = Path(path) / "eng-fra.txt" if Path(path).is_dir() else Path(path)
    pairs = [tuple(words_of(text) for text in line.split("\t")[:2]) for line in common.lines(path)]
    return divide(pairs)


def divide(pairs):
    pairs = list(dict.fromkeys(pairs))
    english, french = map(list, zip(*pairs, strict=True))
    training, held_out = common.split(english, min(0.1, 1000 / len(set(english))))
    translations = {}
    for row in held_out:
        translations.setdefault(english[row], []).append(french[row])
    return common.take(training, english, french), (list(translations), list(translations.values()))


def made_up():
    """Generate phrases; the French colour comes after the animal and agrees with it in gender and number."""
    numbers = {"one": ("un", "une"), "two": ("deux",) * 2, "three": ("trois",) * 2, "four": ("quatre",) * 2}
    animals = {"cat": "chat", "dog": "chien", "bear": "ours", "cow": "vache", "goat": "chèvre", "hen": "poule"}
    colours = {"green": ("vert", "verte"), "grey": ("gris", "grise"), "black": ("noir", "noire")}
    pairs = []
    for number, animal, colour in itertools.product(numbers, animals, colours):
        her, s = animals[animal].endswith("e"), "" if number == "one" else "s"
        french = [animals[animal], colours[colour][her]]
        french = [word if word.endswith("s") else word + s for word in french]
        pairs.append((f"{number} {colour} {animal}{s} .", " ".join([numbers[number][her], *french, "."])))
    return divide(pairs)


MADE_UP = {"hidden_size": 64, "epochs": 60, "batch_size": 8, "learning_rate": 0.01, "dropout": 0.0}
MADE_UP |= {"learning_rate_decay": 0.95}


def make_model(random_state=0, **settings):
    tuned = {"hidden_size": 256, "dropout": 0.3, "epochs": 12, "batch_size": 64}
    tuned |= {"attention": "additive", "bidirectional": True}
    tuned |= {"learning_rate": 3e-3, "learning_rate_decay": 0.85}
    return rc.EncoderDecoder("word", random_state=random_state, **tuned | settings)


def figures(model, held_out):
    english, french = held_out
    found, references = {}, [[words.split() for words in right] for right in french]
    for name, width in (("greedy", 1), ("beam of 5", 5)):
        said = model.predict(english, beam_width=width)
        right = sum(words in known for words, known in zip(said, french, strict=True))
        found[f"exact match, {name}"] = right / len(said)
        found[f"BLEU, {name}"] = rc.metrics.bleu(references, [words.split() for words in said])
    return found


def picture(model, held_out):
    """Draw the search for the translation of one sentence, the longest of five tokens at most that it gets right, and
    which words each word of the translation looked at."""
    from matplotlib.figure import Figure

    short = [(words, known) for words, known in zip(*held_out, strict=True) if len(words.split()) <= 5]
    said = model.predict([words for words, _ in short], beam_width=4)
    right = [words for (words, known), found in zip(short, said, strict=True) if found in known]
    source = max(right, key=lambda words: len(words.split()), default=held_out[0][0])
    beam = model.beam_search(source, beam_width=4)
    left, right = Figure(figsize=(13, 4), layout="constrained").subplots(1, 2, width_ratios=[2.2, 1])
    plots.beam(beam.steps, best=beam.best, ax=left)
    left.set_title(text_of(source), fontsize=10)
    left.set_xlabel("step (below each word: log-probability of the path so far, in nats)")
    said = beam.hypotheses[0].sequence
    plots.attention(model.attention_weights(source, said), source.split(), said.split(), ax=right)
    return left


def main(argv=None):
    options = common.arguments(__doc__, __file__, argv)
    training, held_out = common.load(options, read, made_up, __doc__)
    model = make_model(**{} if options.path else MADE_UP)
    print(f"{len(training[0]):,} pairs to train on, {len(held_out[0]):,} English sentences held out")
    model.fit(*training, callback=common.each_epoch)
    found = figures(model, held_out)
    common.show(found)
    rows = random.Random(0).sample(range(len(held_out[0])), min(12, len(held_out[0])))
    english, french = common.take(rows, *held_out)
    for source, right, said in zip(english, french, model.predict(english, beam_width=5), strict=True):
        print(f"{text_of(source):25} {text_of(said):30}", "right" if said in right else f"not: {text_of(right[0])}")
    common.save(picture(model, held_out), options.picture)
    return found


if __name__ == "__main__":
    main()
