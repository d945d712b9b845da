"""Helpers for the examples: the command line, reading and splitting data, progress, pictures."""

import argparse
import random
import sys
from pathlib import Path


def arguments(description, file, argv, data=True, add=None):
    """Parse the command line of the script ``file`` -> path of the data (None: made-up data), picture.

    add: a function that gives the parser more arguments.
    """
    name = Path(file).stem
    parser = argparse.ArgumentParser(
        prog=f"{name}.py", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if data:
        parser.add_argument("path", nargs="?", help="the data; without it a tiny made-up set")
    else:
        parser.add_argument("--steps", type=int, default=60, help="length of the sequences (%(default)s)")
    if add:
        add(parser)
    parser.add_argument("--picture", default=f"{name}.png", metavar="FILE", help="default: %(default)s")
    return parser.parse_args(argv)


def load(options, read, made_up, description):
    """Return the data at ``options.path``, or the made-up set; end the script if the data cannot be read."""
    if options.path is None:
        return made_up()
    try:
        return read(options.path)
    except OSError as error:
        reason = f"{error.strerror}: {error.filename}"
    except (ValueError, LookupError, TypeError):
        reason = "not in this form" if Path(options.path).exists() else "there is no such file or folder"
    wanted = next(part for part in description.split("\n\n") if part.startswith("Data:"))
    sys.exit(f"cannot read the data at {options.path}: {reason}\n\n{wanted}")


def lines(path):
    """Return the lines of a UTF-8 file that are not blank."""
    return [line.strip() for line in Path(path).read_text("utf-8").split("\n") if line.strip()]


def split(keys, share, labels=None, seed=0):
    """Split rows -> training rows, held-out rows, both in order.

    Rows with the same key stay together: nothing held out is seen in training. With labels, the share applies to each
    label (a key counts for the label of its first row).
    """
    rows_of, keys_of = {}, {}
    for row, key in enumerate(keys):
        rows_of.setdefault(key, []).append(row)
    for key, rows in rows_of.items():
        keys_of.setdefault(labels[rows[0]] if labels is not None else None, []).append(key)
    rng, held_out = random.Random(seed), set()
    for some in keys_of.values():
        held_out.update(rng.sample(some, round(share * len(some))))
    sides = [], []
    for row, key in enumerate(keys):
        sides[key in held_out].append(row)
    return sides


def take(rows, *columns):
    """Select these rows of every list -> tuple of lists."""
    return tuple([column[row] for row in rows] for column in columns)


def each_epoch(progress):
    """Callback for ``fit``: print a line after every epoch."""
    if progress.epoch_ends:
        record = progress.record
        held_out = "" if record["held_out"] is None else f"   held-out {record['held_out']:.4f}"
        epoch = f"epoch {record['epoch']:3}   loss {record['loss']:.4f}{held_out}   {record['seconds']:.2f} s"
        print(epoch, flush=True)


def show(figures):
    """Print figures, one per line."""
    print()
    for name, value in figures.items():
        print(f"{name}: {value:.3f}")
    print()


def heat_map(values, rows, columns, title, label, numbers=False, cmap="Blues"):
    """Draw a matrix of shares in [0, 1] as percent, in colours -> Axes.

    label: of the colour bar. numbers: write those of 1 % or more into their cells.
    """
    from matplotlib.figure import Figure

    size = (max(5, (0.3 if numbers else 0.19) * len(columns) + 2.5), max(3, 0.3 * len(rows) + 1.5))
    ax = Figure(figsize=size, layout="constrained").add_subplot()
    image = ax.imshow([[100 * value for value in row] for row in values], aspect="auto", cmap=cmap, vmin=0, vmax=100)
    ax.figure.colorbar(image, ax=ax, pad=0.02, label=label)
    columns = [name if len(name) <= 16 else name[:15] + "…" for name in columns]
    rotation = 90 if max(map(len, columns)) > 2 else 0
    ax.set_xticks(range(len(columns)), columns, rotation=rotation, fontsize=8, parse_math=False)
    ax.set_yticks(range(len(rows)), rows, fontsize=8)
    ax.set_title(title, fontsize=10)
    for i, row in enumerate(values):
        for j, value in enumerate(row if numbers else ()):
            if value >= 0.01:
                color = "white" if value > 0.5 else "black"
                ax.text(j, i, f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=color)
    return ax


def confusion(wanted, predicted, classes):
    """Draw the share of each class (a row) that is predicted as each class (a column) -> Axes."""
    import numpy as np

    counts = np.zeros((len(classes), len(classes)))
    place = {label: n for n, label in enumerate(classes)}
    for w, p in zip(wanted, predicted, strict=True):
        counts[place[w], place[p]] += 1
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [str(label) for label in classes]
    ax = heat_map(shares, names, names, "What each class is taken for", "percent of the row", numbers=True)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    return ax


def save(ax, file):
    """Write the picture to a file."""
    ax.figure.savefig(file, dpi=120)
    print(f"picture: {file}")
