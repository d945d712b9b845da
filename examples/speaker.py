"""Who is speaking? Nine men say the Japanese vowels "ae".

Many to one, from numbers: a bidirectional LSTM reads a recording frame by frame (12 cepstrum coefficients each, 7 to
29 frames); the mean of its states predicts the speaker.

Data: a folder with ae.train, ae.test, size_ae.train and size_ae.test (UCI "Japanese Vowels", Kudo, Toyama and Shimbo
1999). The split is the official one: 270 recordings for training, 370 held out.

    python examples/speech.py data/speech
"""

from pathlib import Path

import common
import numpy as np

import rnncore as rc


def read(path):
    """-> training (recordings, speakers), held-out (recordings, speakers)"""
    return recordings(Path(path), "train"), recordings(Path(path), "test")


def recordings(folder, part):
    blocks = (folder / f"ae.{part}").read_text().strip().split("\n\n")
    X = [np.array([line.split() for line in block.splitlines()], np.float32) for block in blocks]
    sizes = [int(size) for size in (folder / f"size_ae.{part}").read_text().split()]
    return X, [f"speaker {n}" for n, size in enumerate(sizes, 1) for _ in range(size)]


def made_up():
    """Generate noisy waves of three speakers, each with its own frequency."""
    rng, X, y = np.random.default_rng(0), [], []
    for _ in range(60):
        for speaker in range(3):
            frames, channels = np.arange(rng.integers(7, 30))[:, None], np.arange(12)
            wave = np.sin(frames * (0.3 + 0.3 * speaker) + channels + rng.uniform(0, 6))
            X.append((wave + 0.3 * rng.standard_normal(wave.shape)).astype(np.float32))
            y.append(f"speaker {speaker + 1}")
    return (X[:-30], y[:-30]), (X[-30:], y[-30:])


MADE_UP = {"hidden_size": 32, "epochs": 10, "learning_rate": 0.01}


def make_model(random_state=0, **settings):
    tuned = {"hidden_size": 100, "pooling": "mean", "dropout": 0.3, "epochs": 40, "batch_size": 16}
    tuned |= {"learning_rate": 2e-3, "learning_rate_decay": 0.95}
    return rc.SequenceClassifier(random_state=random_state, **tuned | settings)


def figures(model, held_out):
    return {"accuracy": model.score(*held_out)}


def picture(model, held_out):
    """Draw the predicted speakers of one recording after each frame."""
    recording, speaker = max(zip(*held_out, strict=True), key=lambda pair: len(pair[0]))
    so_far = model.predict_proba([recording[: t + 1] for t in range(len(recording))])
    frames = [str(t + 1) for t in range(len(recording))]
    title = f"Who it sounds like after each frame (it is {speaker})"
    ax = common.heat_map(so_far.T, model.classes_, frames, title, "probability (percent)")
    ax.set_xlabel("frames heard")
    return ax


def main(argv=None):
    options = common.arguments(__doc__, __file__, argv)
    training, held_out = common.load(options, read, made_up, __doc__)
    model = make_model(**{} if options.path else MADE_UP)
    print(f"{len(training[0]):,} recordings to train on, {len(held_out[0]):,} held out")
    model.fit(*training, callback=common.each_epoch)
    found = figures(model, held_out)
    common.show(found)
    wrong = [(w, p) for w, p in zip(held_out[1], model.predict(held_out[0]), strict=True) if w != p]
    print(f"{len(wrong)} of {len(held_out[0])} recordings were given to the wrong man:")
    for pair in sorted(set(wrong), key=wrong.count, reverse=True)[:5]:
        print(f"  {pair[0]} taken for {pair[1]}: {wrong.count(pair)}")
    common.save(picture(model, held_out), options.picture)
    return found


if __name__ == "__main__":
    main()
