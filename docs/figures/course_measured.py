"""The plots of "Sequence models explained": small networks, trained and measured when the site is built."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

import rnncore as rc

BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#999999"
SIZE = {"fontsize": 9}


def subplots(width, height, *shape, **options):
    figure = Figure(figsize=(width, height), dpi=120, facecolor="white", layout="constrained")
    axes = figure.subplots(*shape, **options)
    for ax in np.ravel(axes):
        ax.tick_params(labelsize=9)
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


# ---- sampling ---------------------------------------------------------------------------------------------------


def sampling(target):
    animals = ["ant", "bee", "cat", "dog", "elk", "fox"]
    sentences = [f"the {animal} sleeps" for k, animal in enumerate(animals) for _ in range(32 >> k)]
    settings = {"hidden_size": 16, "epochs": 40, "batch_size": 21, "learning_rate": 0.03, "random_state": 0}
    model = rc.LanguageModel("word", cell="gru", **settings).fit(sentences)
    p = np.exp(model.score_many([f"{animal} sleeps" for animal in animals], prompt="the"))
    p /= p.sum()  # what follows the animal is certain

    figure, axes = subplots(7.5, 2.4, 1, 4, sharey=True)
    for ax, temperature in zip(axes, (0.5, 1, 2), strict=False):
        q = p ** (1 / temperature)
        ax.bar(animals, q / q.sum(), color=BLUE, width=0.7)
        ax.set_title(f"temperature {temperature}", **SIZE)
    kept = p.copy()
    kept[np.argsort(-p)[3:]] = 0
    axes[3].bar(animals, kept / kept.sum(), color=ORANGE, width=0.7)
    axes[3].set_title("temperature 1, top_k=3", **SIZE)
    axes[0].set_ylabel("probability after “the”", **SIZE)
    for ax in axes:
        ax.tick_params(axis="x", labelsize=8.5, length=0)
    figure.savefig(target / "course_sampling.png")


# ---- sample and hold --------------------------------------------------------------------------------------------


def sample_and_hold(T, N, rng, marks=None):
    """Inputs (T, N, 2), a value and a mark, and targets (T, N, 1), the value at the last mark."""
    values, marked = rng.uniform(-1, 1, (T, N)), rng.random((T, N)) < 0.15
    marked[0] = True
    if marks is not None:
        marked[:] = np.isin(np.arange(T), marks)[:, None]
    last = np.maximum.accumulate(np.where(marked, np.arange(T)[:, None], 0), axis=0)
    x = np.stack([values, marked], axis=2)
    return x.astype("float32"), np.take_along_axis(values, last, axis=0)[:, :, None].astype("float32")


def train(cell, hidden_size, steps, T, learning_rate, seed):
    """Train a layer and its output to hold values; return both, and the mean squared error of the last 20 batches."""
    rng = np.random.default_rng(1)
    layer, dense = cell(2, hidden_size, seed=seed), rc.Dense(hidden_size, 1, seed=seed)
    params = layer.params | dense.params
    optimizer, errors = rc.Adam(params, learning_rate), []
    for _ in range(steps):
        x, y = sample_and_hold(T, 16, rng)
        layer.zero_grad()
        dense.zero_grad()
        h, _, cache = layer.forward(x)
        found, kept = dense.forward(h)
        errors.append(float(((found - y) ** 2).mean()))
        layer.backward(dense.backward(2 * (found - y) / y.size, kept), cache)
        optimizer.step(layer.grads | dense.grads, clip_norm=1.0)
    return layer, dense, np.mean(errors[-20:])


def gates(target):
    T = 24
    x, y = sample_and_hold(T, 1, np.random.default_rng(12), marks=[0, 6, 10, 17])
    marked, steps = np.flatnonzero(x[:, 0, 1]), np.arange(T)
    for name, cell, seed in (("gru", rc.GRU, 1), ("lstm", rc.LSTM, 3)):
        layer, dense, _ = train(cell, 1, 400, 16, 0.03, seed)
        found = {gate: values[:, 0, 0] for gate, values in rc.gate_activations(layer, x)[0].items()}
        output = dense(layer(x)[0])[:, 0, 0]
        figure, (top, low) = subplots(7.5, 3.4, 2, 1, sharex=True, height_ratios=(1, 1.25))
        if name == "gru":
            top.step(steps, found["z"], where="mid", color=ORANGE, label="z, update gate")
        else:
            top.step(steps, found["i"], where="mid", color=ORANGE, label="i, input gate")
            top.step(steps, found["f"], where="mid", color=GREEN, linestyle="--", label="f, forget gate")
        top.set_ylabel("gate", **SIZE)
        top.set_ylim(-0.06, 1.06)
        low.plot(steps, x[:, 0, 0], "o", color=GREY, markersize=4, label="input")
        low.plot(marked, x[marked, 0, 0], "s", color=ORANGE, markersize=6.5, label="marked input")
        low.step(steps, y[:, 0, 0], where="mid", color=GREY, linewidth=3.5, alpha=0.45, label="target")
        low.step(steps, output, where="mid", color=BLUE, linewidth=1.4, label="output")
        low.set_ylabel("value", **SIZE)
        low.set_xlabel("step t", **SIZE)
        low.set_ylim(-1.1, 1.1)
        for ax in (top, low):
            for t in marked:
                ax.axvline(t, color=ORANGE, linewidth=0.6, alpha=0.5, zorder=0)
            ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, **SIZE)
        low.set_xlim(-0.6, T - 0.4)
        figure.savefig(target / {"gru": "course_gru_gates.png", "lstm": "course_lstm_gates.png"}[name])


# ---- gradients --------------------------------------------------------------------------------------------------


def gradients(target):
    T, H = 40, 16
    figure, (left, right) = subplots(7.5, 3.0, 1, 2)
    x = np.random.default_rng(0).normal(size=(T, 8, 2))
    back = np.arange(T)
    for scale, color in ((1.1, ORANGE), (1.0, GREY), (0.9, BLUE)):
        rnn = rc.RNN(2, H, activation="identity", seed=0)  # Wh is orthogonal
        rnn.params["Wh_0"] *= scale
        norms = rc.gradient_flow(rnn, x)[0, ::-1]
        left.semilogy(back, norms / norms[0], color=color)
        left.text(T, norms[-1] / norms[0], f"s = {scale}", color=color, va="center", **SIZE)
    left.set_xlim(0, T + 11)
    left.set_xticks(range(0, T + 1, 10))

    x, _ = sample_and_hold(T, 16, np.random.default_rng(2), marks=[0])
    for cell, color in ((rc.RNN, BLUE), (rc.GRU, ORANGE), (rc.LSTM, GREEN)):
        before = cell(2, H, seed=0), rc.Dense(H, 1, seed=0)
        after = train(cell, H, 250, T, 0.01, 0)
        for (layer, dense, *_), style in ((before, ":"), (after, "-")):
            dy = np.zeros((T, 16, H), "float32")
            dy[-1] = dense.params["W"][:, 0]  # of the output at the last step
            norms = rc.gradient_flow(layer, x, dy)[0, ::-1]
            label = f"{cell.__name__}, error {after[2]:.3f}" if style == "-" else None
            right.semilogy(back, norms / norms[0], style, color=color, label=label)
    right.plot([], [], ":", color="black", label="before training")
    right.set_ylim(1e-6, 5)
    right.legend(loc="lower left", frameon=False, **SIZE)
    for ax in (left, right):
        ax.set_xlabel("steps back from the last one", **SIZE)
        ax.grid(alpha=0.25)
    left.set_ylabel("norm of dL/dh, relative", **SIZE)
    figure.savefig(target / "course_gradients.png")


def clipping(target):
    figure, axes = subplots(7.0, 3.0, 1, 2, sharex=True, sharey=True)
    gradient, limit = np.array([4.0, 1.5]), 2.0
    by_norm, by_value = {"g": gradient.copy()}, {"g": gradient.copy()}
    rc.clip_by_global_norm(by_norm, limit)
    rc.clip_by_value(by_value, limit)
    shapes = Circle((0, 0), limit), Rectangle((-limit, -limit), 2 * limit, 2 * limit)
    names = "clip_by_global_norm(grads, 2)", "clip_by_value(grads, 2)"
    for ax, shape, name, clipped in zip(axes, shapes, names, (by_norm["g"], by_value["g"]), strict=True):
        shape.set(facecolor="#DCEBF7", edgecolor=BLUE, linewidth=1)
        ax.add_patch(shape)
        for vector, color, width in ((gradient, GREY, 1.4), (clipped, ORANGE, 2.4)):
            look = {"arrowstyle": "-|>,head_length=0.5,head_width=0.22", "color": color, "linewidth": width}
            ax.annotate("", vector, (0, 0), arrowprops=look | {"shrinkA": 0, "shrinkB": 0})
        ax.text(4.05, 1.75, "gradient", color="#666666", ha="right", **SIZE)
        ax.text(*(clipped / 2 + [-0.1, 0.2]), "clipped", color=ORANGE, ha="right", **SIZE)
        ax.set_title(name, family="monospace", fontsize=8.5)
        ax.set_aspect("equal")
        ax.set_xlabel("first element", **SIZE)
    axes[0].set(xlim=(-2.4, 4.6), ylim=(-2.4, 2.6))
    axes[0].set_ylabel("second element", **SIZE)
    figure.savefig(target / "course_clipping.png")


def draw(target):
    for plot in (sampling, gates, gradients, clipping):
        plot(target)
