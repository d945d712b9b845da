"""Pictures of the section "How it works": the house, a call, the register tile, panels, threads, chains of sums."""

from drawing import BLUE, GREEN, GREY, PALE, PINK, RED, arrow, box, canvas
from matplotlib.patches import FancyBboxPatch, Rectangle


def draw(target):
    draw_house(target / "how_house.png")
    draw_call(target / "how_call.png")
    draw_tile(target / "how_tile.png")
    draw_panels(target / "how_panels.png")
    draw_plans(target / "how_plans.png")
    draw_chains(target / "how_chains.png")


# ---- the house ------------------------------------------------------------------------------------------------------


def draw_house(path):
    figure, axes = canvas(7.6, 5.6, 100, 76)
    box(axes, 2, 66, 22, 8, "cli/, bench/", "commands", GREY)
    box(axes, 27, 66, 22, 8, "models/", "fit, predict, save", PINK)
    box(axes, 52, 66, 22, 8, "compat/", "names of NumPy code", PINK)
    box(axes, 77, 66, 21, 8, "interop/", "PyTorch, ONNX, Keras", PINK)
    box(axes, 2, 52, 47, 8, "losses.py, optim.py, text.py, metrics.py", "loss, update, vocabulary, scores", PINK)
    box(axes, 52, 52, 46, 8, "layers/, inspection.py", "stacks, directions, frozen layers, streams", PINK)
    box(axes, 2, 38, 72, 8, "functional.py, gates.py", "the functions of the cells; weights gate by gate", BLUE)
    box(axes, 2, 24, 72, 8, "engine/", "table of cells; checks, ragged batches, caches, records of a call", BLUE)
    box(axes, 2, 10, 72, 8, "src/_engine.pyx and the .pxd files", "threads, packing, time loops, steps, sums", GREEN)
    box(axes, 2, 0.5, 46, 5, "src/kernels/: products and steps, in C", "", RED)
    box(axes, 52, 0.5, 22, 5, "threads.c, memory.c", "", RED)
    box(axes, 80, 31, 18, 13, "reference/", "the specification:\nplain NumPy", GREY)
    for x in (38, 63, 87):
        arrow(axes, (x, 66), (x, 60))
    arrow(axes, (13, 66), (13, 60))
    for x in (25, 63):
        arrow(axes, (x, 52), (x, 46))
    arrow(axes, (38, 38), (38, 32))
    arrow(axes, (38, 24), (38, 18))
    arrow(axes, (25, 10), (25, 5.5))
    arrow(axes, (63, 10), (63, 5.5))
    arrow(axes, (74, 41), (80, 39.5), dashed=True)
    arrow(axes, (74, 29), (80, 34), dashed=True)
    axes.text(78, 28, "only the named tuples\nof gradients", fontsize=8.5, va="top")
    for low, high, text in ((22, 75, "Python"), (7.5, 20, "Cython"), (0, 6, "C")):
        axes.plot([100, 100], [low, high], color=GREY, lw=1, clip_on=False)
        axes.text(99.2, (low + high) / 2, text, rotation=90, ha="right", va="center", fontsize=8.5, color="#555555")
    figure.savefig(path)


# ---- a call ---------------------------------------------------------------------------------------------------------


def draw_call(path):
    figure, axes = canvas(7.6, 6.4, 100, 85)
    steps = [
        ("functional.py: lstm_forward", "options become a Variant of the table", BLUE),
        ("engine/calls.py: prepare_forward", "checks, converts, allocates", BLUE),
        ("_engine.pyx: forward", "describe_call: arrays become pointers", GREEN),
        ("run.pxd: run_pair", "plan, team, packing, scratch", GREEN),
        ("forward.pxd: forward_steps", "a piece: the time loop of some rows", GREEN),
        ("steps.pxd: step_forward", "one step: product, then kernel", GREEN),
        ("products.inc.h: tile", "a += h' Wh, in registers", RED),
        ("lstm.inc.h: lstm_forward", "i f g o, c and h of each unit", RED),
    ]
    down = [
        "x, Wx, Wh, b, h0, c0, lengths, ...",
        "record ForwardCall: Cell, Weights, Batch, arrays",
        "struct Pair: one Call, or two",
        "structs Group and Member: rows, units, Factors",
        "pointers to the rows of one step",
    ]
    left, width, height = 4, 46, 7
    tops = [84, 72.6, 61.2, 49.8, 35.2, 23.8, 9]
    for (title, text, color), top in zip(steps[:6], tops, strict=False):
        box(axes, left, top - height, width, height, title, text, color)
    box(axes, 1, tops[6] - height, 32, height, *steps[6])
    box(axes, 37, tops[6] - height, 32, height, *steps[7])
    for k, text in enumerate(down):
        start, end = tops[k] - height, tops[k + 1]
        arrow(axes, (27, start), (27, end))
        axes.text(29, (start + end) / 2 + (1.6 if k == 3 else 0), text, fontsize=8.5, va="center")
    start, end = tops[5] - height, tops[6]
    arrow(axes, (17, start), (17, end))
    arrow(axes, (44, start), (48, end))
    axes.text(19, (start + end) / 2, "multiply_packed,\nor multiply", fontsize=8.5, va="center")
    axes.text(48, (start + end) / 2, "pre-activations a", fontsize=8.5, va="center")
    low, high = tops[6] - height / 2, tops[1] - height / 2
    axes.plot([69, 72, 72], [low, low, high], color=RED, lw=1.2)
    arrow(axes, (72, high), (left + width, high), RED)
    notes = [
        (high, "results are written into\nthe arrays that calls.py\nallocated"),
        (tops[3] - height / 2, "the team sleeps\nbetween calls"),
        (tops[4] - height / 2, "the calling thread asks\nPython for signals,\nten times a second"),
        (low, "every element is one\nchain of multiply-adds"),
    ]
    for y, text in notes:
        axes.text(75, y, text, fontsize=8.5, va="center")
    border = tops[4] + 2.4
    axes.plot([0, 100], [border] * 2, color="black", lw=0.8, ls=(0, (4, 3)))
    axes.text(100, border + 0.6, "with the GIL", fontsize=8, ha="right", va="bottom")
    axes.text(100, border - 0.6, "without it", fontsize=8, ha="right", va="top")
    figure.savefig(path)


# ---- the register tile ----------------------------------------------------------------------------------------------


def draw_tile(path):
    figure, axes = canvas(7.6, 4.8, 84, 54)
    rows, unit = 6, 2.6

    def grid(x, y, columns, count, color, width=unit):
        for i in range(count):
            for j in range(columns):
                axes.add_patch(
                    Rectangle(
                        (x + j * width, y + i * unit), width, unit, facecolor=PALE[color], edgecolor=color, lw=0.7
                    )
                )

    # h' (n, H) on the left, the panel above, the tile at their crossing.
    grid(10, 6, 10, rows, BLUE)
    axes.add_patch(Rectangle((10 + 4 * unit, 6), unit, rows * unit, facecolor=BLUE, edgecolor=BLUE))
    axes.text(10 + 5 * unit, 3.4, "h' : 6 rows of the batch, K columns", ha="center", va="center", fontsize=9)
    axes.text(10 + 4.5 * unit, 28.6, "k", ha="center", va="center", fontsize=9, color=BLUE)
    axes.text(8.6, 6 + rows * unit / 2, "6 rows", rotation=90, ha="center", va="center", fontsize=9)
    across = 7.5
    grid(44, 31, 4, 7, GREEN, across)
    axes.add_patch(Rectangle((44, 31 + 3 * unit), 4 * across, unit, facecolor=GREEN, edgecolor=GREEN))
    axes.text(42.6, 31 + 3.5 * unit, "k", ha="center", va="center", fontsize=9, color=GREEN)
    axes.text(
        44 + 2 * across, 51.2, "panel of Wh: 64 columns, side by side for every k", ha="center", va="center", fontsize=9
    )
    grid(44, 6, 4, rows, RED, across)
    for i in range(rows):
        for v in range(4):
            name = f"c[{rows - 1 - i}][{v}]: 16"
            axes.text(44 + (v + 0.5) * across, 6 + (i + 0.5) * unit, name, ha="center", va="center", fontsize=8)
    text = "tile: 6 x 4 vectors of 16 floats, in 24 of 32 registers"
    axes.text(44 + 2 * across, 3.4, text, ha="center", va="center", fontsize=9)
    arrow(axes, (37, 6 + rows * unit / 2), (43, 6 + rows * unit / 2))
    arrow(axes, (44 + 2 * across, 30.6), (44 + 2 * across, 6 + rows * unit + 0.4))
    text = (
        "for k = 0 .. K-1:\n"
        "  row[0..3] = panel[k]\n"
        "  for each row i:\n"
        "    c[i][v] += h'[i, k] * row[v]\n\n"
        "starts from x Wx + b,\n"
        "ends as pre-activations"
    )
    axes.text(8, 42, text, fontsize=8.5, va="center", family="DejaVu Sans Mono", linespacing=1.4)
    figure.savefig(path)


# ---- packed panels --------------------------------------------------------------------------------------------------


def draw_panels(path):
    figure, axes = canvas(7.6, 4.9, 94, 63)
    colors, gates = (BLUE, RED, GREEN, PINK), "ifgo"
    H, rows, panel = 20, 6, 32
    width = 78 / (4 * H)
    # Wh as it lies
    for k, (gate, color) in enumerate(zip(gates, colors, strict=True)):
        axes.add_patch(Rectangle((12 + k * H * width, 47), H * width, 12, facecolor=PALE[color], edgecolor=color))
        axes.text(12 + (k + 0.5) * H * width, 60.5, f"{gate}: H columns", ha="center", va="center", fontsize=9)
    axes.text(10.5, 53, "Wh\n(H, 4H)", ha="right", va="center", fontsize=9)
    for row in range(1, rows):
        axes.plot([12, 90], [47 + row * 2] * 2, color="white", lw=0.8)
    cuts = [*range(0, 4 * H, panel), 4 * H]
    for number, (begin, end) in enumerate(zip(cuts[:-1], cuts[1:], strict=True)):
        axes.plot([12 + begin * width] * 2, [46, 59.4], color="black", lw=1.2, ls=(0, (4, 2)))
        axes.text(12 + (begin + end) / 2 * width, 44.6, f"panel {number}", ha="center", va="center", fontsize=9)
    axes.plot([90] * 2, [46, 59.4], color="black", lw=1.2, ls=(0, (4, 2)))
    # packed: panel after panel, in each the W columns of row 0, of row 1, ...
    axes.text(10.5, 33, "packed", ha="right", va="center", fontsize=9)
    x, cell = 12, 78 / 18
    for number, (begin, end) in enumerate(zip(cuts[:-1], cuts[1:], strict=True)):
        for k in range(6):
            left = x + (number * 6 + k) * cell
            for column in range(begin, begin + panel):
                color = PALE[colors[column // H]] if column < end else "white"
                step = cell / panel
                axes.add_patch(Rectangle((left + (column - begin) * step, 30), step, 6, facecolor=color, lw=0))
            axes.add_patch(Rectangle((left, 30), cell, 6, facecolor="none", edgecolor="black", lw=0.5))
            axes.text(
                left + cell / 2, 28.6, ("0", "1", "2", "3", "...", "H-1")[k], ha="center", va="center", fontsize=8
            )
        axes.add_patch(Rectangle((x + number * 6 * cell, 30), 6 * cell, 6, facecolor="none", edgecolor="black", lw=1.4))
        axes.text(x + (number * 6 + 3) * cell, 38, f"panel {number}: (H, 32)", ha="center", va="center", fontsize=9)
    axes.text(10.5, 28.6, "k", ha="right", va="center", fontsize=9)
    axes.text(90, 25.6, "white: zeros beyond column 4H", ha="right", va="center", fontsize=8.5)
    # gates of one row of a step
    axes.text(10.5, 14, "gates of\none row", ha="right", va="center", fontsize=9)
    for k, (gate, color) in enumerate(zip(gates, colors, strict=True)):
        left = 12 + k * H * width
        axes.add_patch(Rectangle((left, 11.5), H * width, 5, facecolor=PALE[color], edgecolor=color))
        axes.add_patch(Rectangle((left + 7 * width, 11.5), width, 5, facecolor=color, lw=0))
        axes.text(left + 7.5 * width, 18.3, f"{gate}[j]", ha="center", va="center", fontsize=9)
        axes.plot([left + 7.5 * width, 51], [11.2, 7], color=color, lw=1)
    box(axes, 26, 0.5, 50, 6, "lstm_forward_row: c[j], h[j] from i[j], f[j], g[j], o[j]", "", GREY)
    figure.savefig(path)


# ---- threads --------------------------------------------------------------------------------------------------------


def draw_plans(path):
    figure, axes = canvas(7.6, 3.3, 100, 44)
    cases = [
        ("N = 16, 4 threads: rows", 4, 1, "4 groups of 4 rows,\nwhich never meet"),
        ("N = 1, 4 threads: hidden units", 1, 4, "1 group of 4 members,\na phase for every step"),
        ("N = 8, 4 threads: both", 2, 2, "2 groups of 4 rows,\neach of 2 members"),
    ]
    colors = (BLUE, RED, GREEN, PINK)
    for place, (title, groups, members, note) in enumerate(cases):
        left, low, width, height = 6 + place * 32.5, 10, 25, 24
        number = 0
        for group in range(groups):
            for member in range(members):
                color = colors[number]
                x, y = left + member * width / members, low + height - (group + 1) * height / groups
                axes.add_patch(
                    Rectangle((x, y), width / members, height / groups, facecolor=PALE[color], edgecolor=color, lw=1.2)
                )
                name = f"thread {number}" if members < 4 else f"{number}"
                axes.text(x + width / members / 2, y + height / groups / 2, name, ha="center", va="center", fontsize=9)
                number += 1
        axes.text(left + width / 2, low + height + 4.5, title, ha="center", va="center", fontsize=9, weight="bold")
        axes.text(left + width / 2, low + height + 1.4, "hidden units", ha="center", va="center", fontsize=8.5)
        axes.text(left - 1.6, low + height / 2, "rows", rotation=90, ha="center", va="center", fontsize=8.5)
        axes.text(left + width / 2, low - 5.5, note, ha="center", va="center", fontsize=8.5)
    figure.savefig(path)


# ---- chains ---------------------------------------------------------------------------------------------------------


def draw_chains(path):
    figure, axes = canvas(7.6, 3.3, 100, 43)

    def chain(y, count, labels, color, cut=None):
        x, step = 22, 9.2
        for k in range(count):
            axes.add_patch(
                FancyBboxPatch(
                    (x + k * step, y),
                    6.6,
                    5,
                    boxstyle="round,pad=0,rounding_size=0.6",
                    facecolor=PALE[color],
                    edgecolor=color,
                )
            )
            axes.text(x + k * step + 3.3, y + 2.5, labels[k], ha="center", va="center", fontsize=8.5)
            if k:
                arrow(axes, (x + (k - 1) * step + 6.6, y + 2.5), (x + k * step, y + 2.5))
        if cut is not None:
            at = x + cut * step - (step - 6.6) / 2
            axes.plot([at] * 2, [y - 1.5, y + 6.5], color="black", lw=1, ls=(0, (3, 2)))
            axes.text(at, y + 7.6, "stored and loaded: exact", ha="center", va="center", fontsize=8.5)

    labels = ["start", *(f"+ a{k} b{k}" for k in range(7))]
    chain(36, 8, labels, BLUE)
    axes.text(20, 38.5, "one element", ha="right", va="center", fontsize=9)
    chain(22, 8, labels, BLUE, cut=5)
    axes.text(20, 24.5, "cut into blocks,\nchunks or calls", ha="right", va="center", fontsize=9)
    chain(9, 4, ["start", "+ a0 b0", "+ a1 b1", "+ a2 b2"], GREY)
    chain(1, 5, ["0", "+ a3 b3", "+ a4 b4", "+ a5 b5", "+ a6 b6"], GREY)
    box(axes, 72, 4, 26, 7, "another order,\nother bits", "", RED)
    arrow(axes, (22 + 3 * 9.2 + 6.6, 11.5), (72, 8.5))
    arrow(axes, (22 + 4 * 9.2 + 6.6, 3.5), (72, 6.5))
    axes.text(20, 7.5, "a sum shared by two:\nnot done", ha="right", va="center", fontsize=9)
    figure.savefig(path)
