"""What does the hand say? Movements of Brazilian sign language, tracked in video.

Many to one: a bidirectional LSTM reads where the hand is in each of 45 frames and predicts which of 15 movements it is.
Features do not depend on where the hand is and how far it reaches; the direction stays, because classes differ by it.

Data: a file with a line for each video, 45 pairs x,y in 0..1 and then the class 1..15 (UCI "Libras Movement", Dias,
Peres and Biscaro 2009). Half of each class is held out.

    python examples/video.py data/video/movement_libras.data
"""

from pathlib import Path

import common
import numpy as np

import rnncore as rc

NAMES = ["curved swing", "horizontal swing", "vertical swing", "anti-clockwise arc", "clockwise arc", "circle"]
NAMES += ["horizontal straight line", "vertical straight line", "horizontal zigzag", "vertical zigzag"]
NAMES += ["horizontal wavy", "vertical wavy", "face-up curve", "face-down curve", "tremble"]
COPIES = 20  # of each video to train on, each a little different


def features(path):
    """path (T, 2) of the hand -> (T, 5): place and velocity, free of where and how large, and the length so far"""
    place = path - path.mean(axis=0)
    place = place / max(np.sqrt((place**2).sum(axis=1).mean()), 1e-6)
    velocity = np.gradient(place, axis=0)
    length = np.sqrt((velocity**2).sum(axis=1)).cumsum()
    return np.column_stack([place, 5 * velocity, length / 4 - 1]).astype(np.float32)


def varied(path, rng):
    """The same movement by somebody else: turned, stretched, at another pace, from another beginning to another end"""
    turn = rng.normal(scale=0.12)
    turned = path @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    stretched = turned * rng.uniform(0.8, 1.25, size=2)
    T = len(path)
    moments = np.linspace(rng.uniform(0, 0.06), 1 - rng.uniform(0, 0.06), T)
    moments = moments + rng.uniform(-0.08, 0.08) * np.sin(np.pi * moments) * (1 - 2 * (rng.random() < 0.5))
    moments = np.clip(moments, 0, 1) * (T - 1)
    resampled = np.column_stack([np.interp(moments, np.arange(T), column) for column in stretched.T])
    return resampled + rng.normal(scale=0.004, size=resampled.shape)


def read_paths(path):
    file = Path(path)
    rows = np.loadtxt(file / "movement_libras.data" if file.is_dir() else file, delimiter=",")
    if rows.ndim != 2 or rows.shape[1] != 91:
        raise ValueError("not 45 pairs and a class")
    return rows[:, :90].reshape(-1, 45, 2), [NAMES[int(number) - 1] for number in rows[:, 90]]


def data_of(paths, labels, seed=0):
    """-> training (features, labels), with variations; held-out (features, labels)"""
    # Some videos stand there twice: both are on one side.
    training, held_out = common.split([path.tobytes() for path in paths], 0.5, labels, seed)
    rng = np.random.default_rng(seed)
    many = [
        (features(varied(paths[row], rng) if n else paths[row]), labels[row]) for row in training for n in range(COPIES)
    ]
    return tuple(map(list, zip(*many, strict=True))), (
        [features(paths[row]) for row in held_out],
        common.take(held_out, labels)[0],
    )


def read(path):
    return data_of(*read_paths(path))


def made_up_paths():
    """Circles and lines of many sizes at many places, in two directions each."""
    rng, paths, labels = np.random.default_rng(0), [], []
    for n in range(120):
        phase = np.linspace(0, 1, 45) ** rng.uniform(0.7, 1.4)
        angle = rng.uniform(0, 6) + 2 * np.pi * phase * rng.uniform(0.8, 1)
        path = [
            np.column_stack([np.cos(angle), np.sin(angle)]),
            np.column_stack([np.cos(angle), -np.sin(angle)]),
            np.column_stack([phase, 0.1 * phase]),
            np.column_stack([0.1 * phase, phase]),
        ][n % 4]
        paths.append(rng.uniform(0.2, 0.6, size=2) + rng.uniform(0.1, 0.3) * path + 0.005 * rng.normal(size=path.shape))
        labels.append(["anti-clockwise circle", "clockwise circle", "to the right", "upwards"][n % 4])
    return paths, labels


def made_up():
    return data_of(*made_up_paths())


MADE_UP = {"hidden_size": 16, "epochs": 4, "learning_rate": 0.01}


def make_model(random_state=0, **settings):
    tuned = {"hidden_size": 96, "pooling": "mean", "dropout": 0.5, "epochs": 25, "batch_size": 32}
    tuned |= {"learning_rate": 3e-3, "learning_rate_decay": 0.93}
    return rc.SequenceClassifier(random_state=random_state, **tuned | settings)


def figures(model, held_out):
    return {"accuracy": model.score(*held_out)}


def picture(model, held_out):
    """Draw six movements with the verdict on each, and what the model believed after each frame."""
    from matplotlib.figure import Figure

    X, y = held_out
    # One of each class, then another of each.
    chosen = sorted(range(len(y)), key=lambda row: y[:row].count(y[row]))[:6]
    figure = Figure(figsize=(12, 6.4), layout="constrained")
    axes = figure.subplots(2, 6, height_ratios=[1.2, 1])
    for (above, below), row in zip(axes.T, chosen, strict=True):
        so_far = model.predict_proba([X[row][: t + 1] for t in range(len(X[row]))])
        best = np.argsort(-so_far[-1])[:3]
        verdict = model.classes_[best[0]]
        above.plot(*X[row][:, :2].T, color="0.8")
        above.scatter(*X[row][:, :2].T, c=np.arange(len(X[row])), s=10)
        above.plot(*X[row][0, :2], "o", color="C1")
        above.set_aspect("equal", adjustable="datalim")
        above.set(xticks=[], yticks=[])
        right = verdict == y[row]
        above.set_title(f"{y[row]}\nsays: {verdict}", fontsize=8, color="black" if right else "C3")
        for k in best:
            below.plot(np.arange(1, len(so_far) + 1), 100 * so_far[:, k], label=model.classes_[k])
        below.set(ylim=(-2, 155), yticks=range(0, 101, 20), xlabel="frames seen")
        below.legend(fontsize=7, loc="upper left", frameon=False)
    axes[1, 0].set_ylabel("probability (percent)")
    return axes[1, 0]


def add_arguments(parser):
    parser.add_argument("--splits", type=int, default=1, help="train and score on so many splits (%(default)s)")


def main(argv=None):
    options = common.arguments(__doc__, __file__, argv, add=add_arguments)
    paths, labels = common.load(options, read_paths, made_up_paths, __doc__)
    scores = []
    for seed in range(options.splits):
        training, held_out = data_of(paths, labels, seed)
        print(f"{len(training[0]):,} paths to train on, {len(held_out[0]):,} videos held out")
        model = make_model(seed, **{} if options.path else MADE_UP).fit(*training, callback=common.each_epoch)
        scores.append(figures(model, held_out)["accuracy"])
        print(f"split {seed + 1}: accuracy {scores[-1]:.3f}", flush=True)
    found = {"accuracy": float(np.mean(scores))}
    common.show(found)
    common.save(picture(model, held_out), options.picture)
    return found


if __name__ == "__main__":
    main()
