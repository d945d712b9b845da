"""The diagrams of "Sequence models explained": boxes and arrows, laid out in inches from the lower left corner."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.path import Path

import rnncore as rc

BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#999999"
INK, PALE = "#333333", "#C8C8C8"
#: Edge and fill of what stands in a box.
STYLES = {
    "input": ("#777777", "#F0F0F0"),
    "cell": (BLUE, "#DCEBF7"),
    "reverse": (ORANGE, "#FBE5D6"),
    "output": (GREEN, "#DAF0E8"),
    "gate": (ORANGE, "#FBE5D6"),
    "tanh": (BLUE, "#DCEBF7"),
    "plain": (INK, "white"),
    "loss": (ORANGE, "white"),
}


class Sheet:
    """A figure whose coordinates are inches."""

    def __init__(self, width, height):
        self.figure = Figure(figsize=(width, height), dpi=120, facecolor="white")
        self.ax = self.figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
        self.ax.axis("off")

    def text(self, x, y, text, size=9.5, color=INK, **options):
        options = {"ha": "center", "va": "center", "zorder": 6} | options
        self.ax.text(x, y, text, fontsize=size, color=color, math_fontfamily="cm", **options)

    def box(self, x, y, text="", style="cell", width=0.5, height=0.38, size=9.5, **options):
        """A box around its centre."""
        edge, fill = STYLES[style]
        shape = "round,pad=0,rounding_size=0.06"
        corner = (x - width / 2, y - height / 2)
        look = {"edgecolor": edge, "facecolor": fill, "linewidth": 1.2, "zorder": 3} | options
        self.ax.add_patch(FancyBboxPatch(corner, width, height, boxstyle=shape, **look))
        self.text(x, y, text, size)

    def node(self, x, y, text, radius=0.12):
        """An elementwise operation."""
        self.ax.add_patch(Circle((x, y), radius, edgecolor=INK, facecolor="white", linewidth=1.1, zorder=4))
        if text == "+":
            self.line([(x - 0.06, y), (x + 0.06, y)], zorder=5)
            self.line([(x, y - 0.06), (x, y + 0.06)], zorder=5)
        elif text == "*":
            for side in (-0.045, 0.045):
                self.line([(x - 0.045, y - side), (x + 0.045, y + side)], zorder=5)
        else:
            self.text(x, y, text, 8.5)

    def line(self, points, color=INK, zorder=2, width=1.1, style="-", over=False):
        """A line through points; ``over`` interrupts the lines that it crosses."""
        x, y = zip(*points, strict=True)
        if over:
            self.ax.plot(x, y, color="white", linewidth=5, zorder=zorder - 0.5, solid_capstyle="butt")
        self.ax.plot(x, y, color=color, linewidth=width, linestyle=style, zorder=zorder, solid_capstyle="round")

    def arrow(self, *points, color=INK, style="-", width=1.1, zorder=2, over=False, bend=None):
        """An arrow through points, with straight pieces, or a curve from the first to the second."""
        look = {"arrowstyle": "-|>,head_length=3.4,head_width=1.9", "shrinkA": 0, "shrinkB": 0, "mutation_scale": 1.6}
        look |= {"color": color, "linewidth": width, "linestyle": style, "zorder": zorder, "joinstyle": "round"}
        if over:
            self.line(points, "white", zorder - 0.5, 5)
        if bend is not None:
            patch = FancyArrowPatch(*points, connectionstyle=f"arc3,rad={bend}", **look)
        else:
            codes = [Path.MOVETO] + [Path.LINETO] * (len(points) - 1)
            patch = FancyArrowPatch(path=Path(points, codes), **look)
        self.ax.add_patch(patch)

    def dot(self, x, y, color=INK):
        """Where a line branches."""
        self.ax.add_patch(Circle((x, y), 0.03, color=color, zorder=4))

    def save(self, target, name):
        self.figure.savefig(target / name)


# ---- sequences and networks -------------------------------------------------------------------------------------


def notation(target):
    sentences = ["the cat sat", "a dog", "the dog sat on the cat"]
    vocabulary = rc.Vocabulary.from_text(sentences, level="word")
    ids, lengths = rc.pad([np.append(vocabulary.encode(text), vocabulary.eos_id) for text in sentences])
    (T, N), V = ids.shape, len(vocabulary)
    sheet = Sheet(7.5, 3.0)
    width, height, left, top = 0.86, 0.27, 0.85, 2.3
    for t in range(T):
        y = top - (t + 0.5) * height
        sheet.text(left - 0.13, y, f"{t}", 8.5, ha="right")
        for n in range(N):
            valid = t < lengths[n]
            look = {"facecolor": STYLES["input"][1] if valid else "white", "edgecolor": GREY, "linewidth": 0.8}
            hatch = {} if valid else {"hatch": "////", "edgecolor": PALE}
            sheet.ax.add_patch(Rectangle((left + n * width, y - height / 2), width, height, **look | hatch))
            if valid:
                sheet.text(left + n * width + 0.09, y, f"{vocabulary.tokens[ids[t, n]]}", 9, ha="left")
                sheet.text(left + (n + 1) * width - 0.09, y, f"{ids[t, n]}", 9, BLUE, ha="right")
    for n in range(N):
        sheet.text(left + (n + 0.5) * width, top + 0.13, f"n = {n}", 9)
        sheet.text(left + (n + 0.5) * width, top - T * height - 0.15, f"{lengths[n]}", 9)
    sheet.text(left + 1.5 * width, top + 0.5, f"ids (T, N) = ({T}, {N})", 10)
    sheet.text(left - 0.13, top + 0.13, "t", 9, ha="right")
    sheet.text(left - 0.13, top - T * height - 0.15, "lengths", 9, ha="right")

    cell, x0, n = 0.29, 4.6, 0
    for t in range(lengths[n]):
        y = top - (t + 0.5) * height
        for k in range(V):
            one = ids[t, n] == k
            corner = (x0 + k * cell, y - height / 2)
            look = {"facecolor": BLUE if one else "white", "edgecolor": GREY, "linewidth": 0.8}
            sheet.ax.add_patch(Rectangle(corner, cell, height, **look))
            sheet.text(x0 + (k + 0.5) * cell, y, "1" if one else "0", 8.5, "white" if one else GREY)
        sheet.text(x0 - 0.1, y, f"t = {t}", 9, ha="right")
    for k in range(V):
        sheet.text(x0 + (k + 0.5) * cell, top + 0.13, f"{k}", 9, BLUE)
        place = (x0 + (k + 0.62) * cell, top - lengths[n] * height - 0.08)
        sheet.text(*place, vocabulary.tokens[k], 9, rotation=45, ha="right", va="top", rotation_mode="anchor")
    sheet.text(x0 + V * cell / 2, top + 0.5, f"row n = {n}, one-hot: ({lengths[n]}, V) = ({lengths[n]}, {V})", 10)
    sheet.save(target, "course_notation.png")


def forward(target):
    sheet = Sheet(7.5, 2.75)
    x_level, h_level, y_level = 0.3, 1.35, 2.4

    def column(x, t, first=False):
        sheet.box(x, x_level, f"$x_{{{t}}}$", "input")
        sheet.box(x, h_level, f"$h_{{{t}}}$")
        sheet.box(x, y_level, rf"$\hat{{y}}_{{{t}}}$", "output")
        sheet.arrow((x, x_level + 0.19), (x, h_level - 0.19))
        sheet.arrow((x, h_level + 0.19), (x, y_level - 0.19))
        sheet.text(x + 0.09, (x_level + h_level) / 2, "$W_x$", 9, BLUE, ha="left")
        sheet.text(x + 0.09, (h_level + y_level) / 2, "$W_y$", 9, GREEN, ha="left")

    column(0.75, "t")
    loop = [(1.0, h_level + 0.08), (1.4, h_level + 0.08), (1.4, h_level - 0.08), (1.0, h_level - 0.08)]
    sheet.arrow(*loop)
    sheet.text(1.46, h_level, "$W_h$", 9, BLUE, ha="left")
    sheet.text(2.03, h_level, "=", 16)

    places = {"1": 3.35, "2": 4.4, "3": 5.45, "T": 6.85}
    sheet.box(2.5, h_level, "$h_0$", "plain", width=0.4)
    before = 2.7
    for t, x in places.items():
        column(x, t)
        if t == "T":
            sheet.text(6.15, h_level, r"$\cdots$", 12)
            sheet.arrow((before, h_level), (6.0, h_level))
            sheet.arrow((6.3, h_level), (x - 0.25, h_level))
        else:
            sheet.arrow((before, h_level), (x - 0.25, h_level))
            sheet.text((before + x - 0.25) / 2 - 0.02, h_level + 0.13, "$W_h$", 9, BLUE)
        before = x + 0.25
    sheet.save(target, "course_forward.png")


def backward(target):
    sheet = Sheet(7.0, 3.75)
    sums, x_level, h_level, y_level, loss_level = 0.25, 0.95, 1.85, 2.75, 3.45
    places = {"1": 1.6, "2": 3.4, "3": 5.2}
    sheet.box(0.35, h_level, "$h_0$", "plain", width=0.4)
    before = 0.55
    for t, x in places.items():
        sheet.box(x, x_level, f"$x_{t}$", "input")
        sheet.box(x, h_level, f"$h_{t}$")
        sheet.box(x, y_level, rf"$\hat{{y}}_{t}$", "output")
        sheet.box(x, loss_level, f"$L_{t}$", "loss")
        sheet.arrow((before, h_level + 0.08), (x - 0.25, h_level + 0.08), color=GREY)
        for low, high in ((x_level, h_level), (h_level, y_level), (y_level, loss_level)):
            sheet.arrow((x - 0.08, low + 0.19), (x - 0.08, high - 0.19), color=GREY)
            sheet.arrow((x + 0.08, high - 0.19), (x + 0.08, low + 0.19), color=ORANGE, width=1.5)
        sheet.arrow((x - 0.25, h_level - 0.08), (before, h_level - 0.08), color=ORANGE, width=1.5)
        sheet.text((before + x - 0.25) / 2, h_level - 0.22, rf"$da_{t}\, W_h^\top$", 9.5, ORANGE)
        sheet.text(
            x + 0.16, (h_level + y_level) / 2 + 0.01, rf"$\partial L_{t}/\partial h_{t}$", 9.5, ORANGE, ha="left"
        )
        sheet.text(x + 0.16, (x_level + h_level) / 2 - 0.06, f"$dx_{t}$", 9.5, ORANGE, ha="left")
        # Round the input, to the sums below.
        sheet.arrow((x - 0.2, h_level - 0.19), (x - 0.42, h_level - 0.42), (x - 0.42, sums + 0.16), color=ORANGE)
        before = x + 0.25
    sheet.arrow((before, h_level + 0.08), (before + 0.75, h_level + 0.08), color=GREY)
    sheet.arrow((before + 0.75, h_level - 0.08), (before, h_level - 0.08), color=ORANGE, width=1.5)
    sheet.text(before + 0.38, h_level - 0.22, r"$da_4\, W_h^\top$", 9.5, ORANGE)
    sheet.text(before + 0.92, h_level, r"$\cdots$", 12)
    label = r"$dW_x,\ dW_h,\ db$: sums over all steps"
    sheet.box(3.18, sums, label, "loss", width=4.6, height=0.32)
    sheet.arrow((5.75, loss_level + 0.12), (6.15, loss_level + 0.12), color=GREY)
    sheet.text(6.23, loss_level + 0.12, "forward", 9, ha="left")
    sheet.arrow((6.15, loss_level - 0.12), (5.75, loss_level - 0.12), color=ORANGE, width=1.5)
    sheet.text(6.23, loss_level - 0.12, "backward", 9, ha="left")
    sheet.save(target, "course_backward.png")


def truncated(target):
    sheet = Sheet(7.5, 1.5)
    y, step = 0.8, 0.735
    x = 0.8
    sheet.text(0.2, y + 0.08, "$h_0$", 9.5)
    before = 0.33
    for chunk in range(3):
        width = 3 * step - 0.06
        corner = (x - step / 2 + 0.03, y - 0.4)
        shape = "round,pad=0,rounding_size=0.08"
        look = {"facecolor": "#F7F7F7", "edgecolor": PALE, "linewidth": 1, "zorder": 1}
        sheet.ax.add_patch(FancyBboxPatch(corner, width, 0.8, boxstyle=shape, **look))
        sheet.text(corner[0] + width / 2, y - 0.58, f"call {chunk + 1}: x[{3 * chunk}:{3 * chunk + 3}]", 9)
        for k in range(3):
            t = 3 * chunk + k + 1
            sheet.arrow((before, y + 0.08), (x - 0.19, y + 0.08), color=INK if k == 0 else GREY)
            if k:
                sheet.arrow((x - 0.19, y - 0.08), (before, y - 0.08), color=ORANGE, width=1.5)
            sheet.box(x, y, f"$h_{t}$", width=0.38)
            before = x + 0.19
            x += step
        if chunk < 2:
            sheet.text(x - step / 2 + 0.09, y + 0.5, "state", 9)
        x += 0.18
    sheet.save(target, "course_truncated.png")


def types(target):
    sheet = Sheet(7.5, 2.3)
    x_level, h_level, y_level = 0.85, 1.4, 1.95
    size = {"width": 0.28, "height": 0.28}

    def column(x, input_style, cell, has_output):
        sheet.box(x, h_level, "", cell, **size)
        if input_style:
            sheet.box(x, x_level, "", input_style, **size)
            sheet.arrow((x, x_level + 0.14), (x, h_level - 0.14))
        if has_output:
            sheet.box(x, y_level, "", "output", **size)
            sheet.arrow((x, h_level + 0.14), (x, y_level - 0.14))

    # Title, class, left edge, step, number of inputs, first step that has an output, first step of a decoder.
    panels = [
        ("one to one", "Dense", 0.45, 0.44, 1, 0, None),
        ("one to many", "SequenceGenerator", 1.15, 0.5, 1, 0, 0),
        ("many to one", "SequenceClassifier", 2.75, 0.44, 3, 2, None),
        ("many to many,\nequal lengths", "SequenceTagger", 4.2, 0.44, 3, 0, None),
        ("many to many,\nother length", "EncoderDecoder", 5.65, 0.5, 2, 2, 2),
    ]
    for title, name, left, step, inputs, first_output, decoder in panels:
        steps = 1 if name == "Dense" else 4 if name == "EncoderDecoder" else 3
        for k in range(steps):
            x, decodes = left + k * step, decoder is not None and k >= decoder
            column(x, "input" if k < inputs or decodes else None, "reverse" if decodes else "cell", k >= first_output)
            if k:
                sheet.arrow((x - step + 0.14, h_level), (x - 0.14, h_level))
            if decodes and k > decoder:
                middle = x - step / 2
                path = [(x - step + 0.14, y_level), (middle, y_level), (middle, x_level), (x - 0.14, x_level)]
                sheet.arrow(*path, color=GREY, style=(0, (2.5, 1.5)), zorder=1)
        middle = left + (steps - 1) * step / 2
        sheet.text(middle, 0.42, title, 9, linespacing=1.15)
        sheet.text(middle, 0.11, name, 8, BLUE, family="monospace")
    sheet.save(target, "course_types.png")


# ---- language models --------------------------------------------------------------------------------------------


def language_model(target):
    sentences = ["the cat sat on the mat", "the cat ate the fish", "the dog sat on the rug", "the dog ate the bone"]
    settings = {"hidden_size": 16, "epochs": 60, "batch_size": 4, "learning_rate": 0.02, "random_state": 0}
    model = rc.LanguageModel("word", cell="gru", **settings).fit(sentences)
    words = ["<eos>", *sentences[0].split(), "<eos>"]
    ids = np.array([model.vocabulary.tokens.index(word) for word in words])
    layers = model.layers
    logits = layers["output"](layers["recurrent"](layers["embedding"](ids[:-1, None]))[0])
    losses, _ = rc.softmax_cross_entropy(logits, ids[1:, None], reduction="none")

    sheet = Sheet(7.5, 2.4)
    x_level, h_level, y_level, word_level = 0.28, 0.94, 1.6, 1.98
    for t in range(7):
        x = 1.15 + 0.97 * t
        sheet.box(x, x_level, words[t], "input", width=0.66, height=0.34)
        sheet.box(x, h_level, f"$h_{t + 1}$", width=0.66, height=0.34)
        sheet.box(x, y_level, rf"$\hat{{y}}_{t + 1}$", "output", width=0.66, height=0.34)
        sheet.arrow((x, x_level + 0.17), (x, h_level - 0.17))
        sheet.arrow((x, h_level + 0.17), (x, y_level - 0.17))
        if t:
            sheet.arrow((x - 0.64, h_level), (x - 0.33, h_level))
        sheet.text(x, word_level, words[t + 1], 9.5)
        sheet.text(x, word_level + 0.27, f"{np.exp(-losses[t, 0]):.2f}", 9.5, ORANGE)
    for y, label in ((x_level, "input"), (h_level, "state"), (y_level, "softmax"), (word_level, "target")):
        sheet.text(0.68, y, label, 9, ha="right")
    sheet.text(0.68, word_level + 0.27, "p(target)", 9, ORANGE, ha="right")
    sheet.save(target, "course_language_model.png")


def sampling_loop(target):
    sheet = Sheet(7.5, 2.0)
    x_level, h_level, y_level = 0.28, 0.98, 1.68
    words = ["<eos>", "the", "ant", "sleeps", "<eos>"]
    for t in range(4):
        x = 0.75 + 1.68 * t
        sheet.box(x, x_level, words[t], "input", width=0.66, height=0.34)
        sheet.box(x, h_level, f"$h_{t + 1}$", width=0.66, height=0.34)
        sheet.box(x, y_level, rf"$\hat{{y}}_{t + 1}$", "output", width=0.66, height=0.34)
        sheet.arrow((x, x_level + 0.17), (x, h_level - 0.17))
        sheet.arrow((x, h_level + 0.17), (x, y_level - 0.17))
        sheet.text(x + 0.6, y_level + 0.13, "draw", 9, ORANGE)
        if t < 3:
            sheet.arrow((x + 0.33, h_level), (x + 1.35, h_level))
            path = [(x + 0.33, y_level), (x + 0.84, y_level), (x + 0.84, x_level), (x + 1.35, x_level)]
            sheet.arrow(*path, color=ORANGE, style=(0, (3, 1.6)), over=True, zorder=2.6)
        else:
            sheet.arrow((x + 0.33, y_level), (x + 0.84, y_level), color=ORANGE, style=(0, (3, 1.6)))
            sheet.text(x + 0.92, y_level, "<eos>", 9.5, ha="left")
            sheet.text(x + 0.92, y_level - 0.2, "(the end)", 9, ha="left")
    sheet.save(target, "course_sampling_loop.png")


# ---- cells ------------------------------------------------------------------------------------------------------


def frame(sheet, left, bottom, right, top):
    shape = "round,pad=0,rounding_size=0.12"
    look = {"facecolor": "#FAFAFA", "edgecolor": PALE, "linewidth": 1.2, "zorder": 0}
    sheet.ax.add_patch(FancyBboxPatch((left, bottom), right - left, top - bottom, boxstyle=shape, **look))


def gru_cell(target):
    sheet = Sheet(7.5, 3.5)
    top, gates, z_level, h_bus, x_bus = 3.0, 1.65, 2.3, 1.0, 0.72
    frame(sheet, 0.75, 0.45, 6.75, 3.35)
    z_at, r_at, rh_at, n_at = 2.2, 3.45, 4.4, 5.6
    sheet.text(0.22, top, "$h'$", 11)
    sheet.text(7.25, top, "$h$", 11)
    sheet.text(1.6, 0.18, "$x$", 11)

    sheet.arrow((0.38, top), (z_at - 0.12, top))
    sheet.arrow((z_at + 0.12, top), (n_at - 0.12, top))
    sheet.arrow((n_at + 0.12, top), (7.1, top))
    sheet.node(z_at, top, "*")
    sheet.node(n_at, top, "+")
    sheet.text((z_at + n_at) / 2, top + 0.15, r"$(1-z) * h'$", 9.5)

    # The two inputs, along the bottom.
    sheet.dot(1.1, top)
    sheet.line([(1.1, top), (1.1, h_bus), (rh_at, h_bus)])
    sheet.arrow((rh_at, h_bus), (rh_at, gates - 0.12))
    sheet.line([(1.6, 0.3), (1.6, x_bus), (n_at, x_bus)])
    sheet.arrow((n_at, x_bus), (n_at, gates - 0.19))
    for at in (z_at, r_at):
        sheet.dot(at + 0.12, h_bus)
        sheet.arrow((at + 0.12, h_bus), (at + 0.12, gates - 0.19))
        sheet.dot(at - 0.12, x_bus)
        sheet.arrow((at - 0.12, x_bus), (at - 0.12, gates - 0.19), over=True, zorder=2.6)

    sheet.box(z_at, gates, r"$\sigma$", "gate", width=0.6, size=12)
    sheet.box(r_at, gates, r"$\sigma$", "gate", width=0.6, size=12)
    sheet.box(n_at, gates, "tanh", "tanh", width=0.6)

    # r * h', the candidate.
    sheet.arrow((r_at + 0.3, gates), (rh_at - 0.12, gates))
    sheet.text(r_at, gates + 0.33, r"$r\ (\Gamma_r)$", 10, ORANGE)
    sheet.node(rh_at, gates, "*")
    sheet.arrow((rh_at + 0.12, gates), (n_at - 0.3, gates))
    sheet.text((rh_at + n_at) / 2 - 0.09, gates + 0.13, r"$r * h'$", 9.5)
    sheet.arrow((n_at, gates + 0.19), (n_at, z_level - 0.12))
    sheet.text(n_at + 0.12, (gates + z_level) / 2 + 0.03, r"$n\ (\tilde{c})$", 10, BLUE, ha="left")

    # z, twice.
    sheet.line([(z_at, gates + 0.19), (z_at, z_level)])
    sheet.text(z_at - 0.12, (gates + z_level) / 2 + 0.05, r"$z\ (\Gamma_u)$", 10, ORANGE, ha="right")
    sheet.dot(z_at, z_level)
    sheet.arrow((z_at, z_level), (z_at, 2.5))
    sheet.node(z_at, 2.63, "1−", 0.13)
    sheet.arrow((z_at, 2.76), (z_at, top - 0.12))
    sheet.arrow((z_at, z_level), (n_at - 0.12, z_level))
    sheet.node(n_at, z_level, "*")
    sheet.arrow((n_at, z_level + 0.12), (n_at, top - 0.12))
    sheet.text(n_at + 0.12, (z_level + top) / 2, "$z * n$", 9.5, ha="left")
    sheet.save(target, "course_gru_cell.png")


def lstm_cell(target):
    sheet = Sheet(7.5, 3.9)
    c_level, gates, h_bus = 3.4, 1.65, 0.95
    frame(sheet, 0.75, 0.45, 6.75, 3.72)
    f_at, i_at, g_at, o_at, h_at = 2.05, 3.15, 4.15, 5.3, 6.15
    sheet.text(0.22, c_level, "$c'$", 11)
    sheet.text(7.25, c_level, "$c$", 11)
    sheet.text(0.22, h_bus, "$h'$", 11)
    sheet.text(7.25, 2.35, "$h$", 11)
    sheet.text(1.15, 0.18, "$x$", 11)

    sheet.arrow((0.38, c_level), (f_at - 0.12, c_level))
    sheet.arrow((f_at + 0.12, c_level), (g_at - 0.12, c_level))
    sheet.arrow((g_at + 0.12, c_level), (7.1, c_level))
    sheet.node(f_at, c_level, "*")
    sheet.node(g_at, c_level, "+")
    sheet.text((f_at + g_at) / 2, c_level + 0.15, "$f * c'$", 9.5)

    # Both inputs reach all four blocks.
    sheet.line([(0.4, h_bus), (o_at, h_bus)])
    sheet.line([(1.15, 0.3), (1.15, h_bus)])
    sheet.dot(1.15, h_bus)
    sheet.text(3.6, h_bus - 0.2, r"$x W_x + h' W_h + b$: one block of columns for each box", 9.5)
    boxes = [
        (f_at, r"$f\ (\Gamma_f)$", "gate"),
        (i_at, r"$i\ (\Gamma_u)$", "gate"),
        (g_at, r"$g\ (\tilde{c})$", "tanh"),
        (o_at, r"$o\ (\Gamma_o)$", "gate"),
    ]
    for at, name, style in boxes:
        sheet.arrow((at, h_bus), (at, gates - 0.19))
        if at != o_at:
            sheet.dot(at, h_bus)
        label, size = ("tanh", 9.5) if style == "tanh" else (r"$\sigma$", 12)
        sheet.box(at, gates, label, style, width=0.6, size=size)
        sheet.text(at + 0.08, gates + 0.33, name, 10, STYLES[style][0], ha="left")

    sheet.arrow((f_at, gates + 0.19), (f_at, c_level - 0.12))
    sheet.arrow((i_at, gates + 0.19), (i_at, 2.6), (g_at - 0.12, 2.6))
    sheet.arrow((g_at, gates + 0.19), (g_at, 2.48))
    sheet.node(g_at, 2.6, "*")
    sheet.arrow((g_at, 2.72), (g_at, c_level - 0.12))
    sheet.text(g_at + 0.1, 3.0, "$i * g$", 9.5, ha="left")

    # The output.
    sheet.dot(h_at, c_level)
    sheet.arrow((h_at, c_level), (h_at, 3.11))
    sheet.box(h_at, 2.96, "tanh", "plain", width=0.46, height=0.28, size=9)
    sheet.arrow((h_at, 2.82), (h_at, 2.47))
    sheet.arrow((o_at, gates + 0.19), (o_at, 2.35), (h_at - 0.12, 2.35))
    sheet.node(h_at, 2.35, "*")
    sheet.arrow((h_at + 0.12, 2.35), (7.1, 2.35))

    # Peepholes.
    dashed = {"color": PINK, "style": (0, (3, 1.6)), "width": 1.3}
    sheet.dot(1.15, c_level, PINK)
    sheet.line([(1.15, c_level), (1.15, gates)], **dashed)
    sheet.arrow((1.15, gates), (f_at - 0.3, gates), **dashed)
    sheet.dot(1.15, 2.3, PINK)
    sheet.arrow((1.15, 2.3), (2.6, 2.3), (2.6, gates), (i_at - 0.3, gates), over=True, zorder=2.6, **dashed)
    sheet.line([(f_at, 2.2), (f_at, 2.4)], zorder=2.7)
    sheet.dot(4.75, c_level, PINK)
    sheet.arrow((4.75, c_level), (4.75, gates), (o_at - 0.3, gates), **dashed)
    sheet.text(1.22, 2.75, "peepholes", 9, "#A0578A", ha="left")
    sheet.save(target, "course_lstm_cell.png")


# ---- two directions, several layers -----------------------------------------------------------------------------


def bidirectional(target):
    sheet = Sheet(7.5, 3.2)
    x_level, forward_level, reverse_level, y_level = 0.3, 1.1, 1.95, 2.85
    places = [1.75, 3.25, 4.75, 6.25]
    for t, x in enumerate(places, start=1):
        left, right = x - 0.32, x + 0.32
        sheet.box(x, x_level, f"$x_{t}$", "input")
        sheet.box(left, forward_level, rf"$\overrightarrow{{h}}_{t}$")
        sheet.box(right, reverse_level, rf"$\overleftarrow{{h}}_{t}$", "reverse")
        sheet.box(x, y_level, rf"$\hat{{y}}_{t}$", "output")
        sheet.arrow((x - 0.1, x_level + 0.19), (left, forward_level - 0.19))
        sheet.arrow((x + 0.1, x_level + 0.19), (right, reverse_level - 0.19), over=True)
        sheet.arrow((left, forward_level + 0.19), (x - 0.1, y_level - 0.19))
        sheet.arrow((right, reverse_level + 0.19), (x + 0.1, y_level - 0.19))
        first, last = t == 1, t == len(places)
        sheet.arrow(
            (0.98 if first else left - 1.25, forward_level), (left - 0.25, forward_level), color=BLUE, width=1.6
        )
        if not last:
            start = (right + 1.25, reverse_level)
            sheet.arrow(start, (right + 0.25, reverse_level), color=ORANGE, width=1.6, zorder=1)
        else:
            sheet.arrow((right + 0.55, reverse_level), (right + 0.25, reverse_level), color=ORANGE, width=1.6)
    sheet.text(0.86, forward_level, "forward", 9.5, BLUE, ha="right")
    sheet.text(0.86, reverse_level, "reverse", 9.5, ORANGE, ha="right")
    sheet.text(0.86, y_level, "output", 9.5, GREEN, ha="right")
    sheet.text(0.86, x_level, "input", 9.5, ha="right")
    sheet.save(target, "course_bidirectional.png")


def deep(target):
    sheet = Sheet(7.5, 3.6)
    x_level, y_level, levels = 0.3, 3.3, (1.05, 1.8, 2.55)
    places = [2.5, 3.9, 5.3, 6.7]
    for t, x in enumerate(places, start=1):
        sheet.box(x, x_level, f"$x_{t}$", "input")
        sheet.box(x, y_level, rf"$\hat{{y}}_{t}$", "output")
        below = x_level
        for layer, level in enumerate(levels):
            sheet.box(x, level, rf"$h^{{[{layer}]}}_{t}$", width=0.62)
            sheet.arrow((x, below + 0.19), (x, level - 0.19))
            sheet.text(x + 0.07, (below + level) / 2, f"Wx_{layer}", 8, BLUE, ha="left", family="monospace")
            left = places[t - 2] + 0.31 if t > 1 else 1.75
            sheet.arrow((left, level), (x - 0.31, level))
            if t > 1:
                sheet.text((left + x - 0.31) / 2 - 0.03, level + 0.1, f"Wh_{layer}", 8, BLUE, family="monospace")
            below = level
        sheet.arrow((x, below + 0.19), (x, y_level - 0.19))
        sheet.text(x + 0.07, (below + y_level) / 2, "W", 8, GREEN, ha="left", family="monospace")
    for layer, level in enumerate(levels):
        sheet.text(0.95, level, f"layer {layer}", 9.5, BLUE, ha="right")
        sheet.text(1.68, level, f"$h_0^{{[{layer}]}}$", 9.5, ha="right")
    sheet.text(0.95, x_level, "input", 9.5, ha="right")
    sheet.text(0.95, y_level, "output", 9.5, GREEN, ha="right")
    sheet.save(target, "course_deep.png")


def draw(target):
    diagrams = (notation, forward, backward, truncated, types, language_model, sampling_loop, gru_cell, lstm_cell)
    for diagram in (*diagrams, bidirectional, deep):
        diagram(target)
