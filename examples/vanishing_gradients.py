"""Why gates? GRU and LSTM learn to remember a sign over many steps; a plain RNN cannot.

Many to one: a sequence has a sign, +1 or -1, at every step, and one step is marked. The class is the sign at the marked
step; all others are noise. In training the marked step is anywhere. In the sequences that are scored it is in the first
quarter, so the sign must be remembered for three quarters of the steps. With few steps (--steps 10) all three learn it;
with many, the gradient of a plain RNN does not reach the marked step. The data are made up.

    python examples/vanishing_gradients.py --steps 60

The picture shows how much of the gradient reaches each step of the held-out sequences, before and after training.
"""

import time

import common
import numpy as np

import rnncore as rc
from rnncore import plots


def signs(count, steps, latest, rng):
    """-> X (count, steps, 2): sign and mark; y (count,): the marked sign"""
    X = np.zeros((count, steps, 2), np.float32)
    X[:, :, 0] = rng.choice([-1, 1], (count, steps))
    rows, marked = np.arange(count), rng.integers(0, latest, count)
    X[rows, marked, 1] = 1
    return X, np.where(X[rows, marked, 0] > 0, "+", "-")


def made_up(steps=60):
    """-> training (X, y), held-out (X, y)"""
    rng = np.random.default_rng(0)
    return signs(4000, steps, steps, rng), signs(1000, steps, max(1, steps // 4), rng)


def make_model(cell="lstm", random_state=0, **settings):
    tuned = {"hidden_size": 32, "bidirectional": False, "epochs": 12, "batch_size": 32, "learning_rate": 5e-3}
    return rc.SequenceClassifier(cell=cell, random_state=random_state, **tuned | settings)


def flow(model, X):
    """Measure the norm, at each step, of the gradient of the sum of the final states of 100 sequences."""
    return rc.gradient_flow(model.layers["recurrent"], np.ascontiguousarray(X[:100].swapaxes(0, 1)))[0]


def picture(flows):
    ax = plots.gradient_flow(flows)
    colors = {"R": "#0072B2", "G": "#D55E00", "L": "#009E73"}  # which the colour-blind can tell apart
    for line in ax.get_lines():
        before = line.get_label().endswith("before training")
        line.set(linestyle=":" if before else "-", color=colors[line.get_label()[0]])
    ax.legend(fontsize=8)
    return ax


def main(argv=None):
    options = common.arguments(__doc__, __file__, argv, data=False)
    (X, y), held_out = made_up(options.steps)
    first = max(1, options.steps // 4)
    print(f"{options.steps} steps, of which one is marked in the first {first}; by chance 0.5 would be right")
    found, flows = {}, {}
    for cell in ("rnn", "gru", "lstm"):
        start, name = time.perf_counter(), cell.upper()
        model = make_model(cell, learning_rate=1e-9, epochs=1).fit(X[:1], y[:1])
        flows[f"{name} before training"] = flow(model, held_out[0])
        model = make_model(cell).fit(X, y)
        flows[f"{name} after"] = flow(model, held_out[0])
        found[name] = model.score(*held_out)
        share = flows[f"{name} after"][0] / flows[f"{name} after"][-1]
        seconds = time.perf_counter() - start
        print(
            f"{name:4}  accuracy {found[name]:.3f}   gradient at the first step / last: {share:.0e}   {seconds:.1f} s"
        )
    common.save(picture(flows), options.picture)
    return found


if __name__ == "__main__":
    main()
