"""Pictures of the section "Inference": what a call does, how many threads it takes, where a call of PyTorch goes."""

import math

from drawing import BLUE, GREEN, GREY, PALE, RED, arrow, box, canvas
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle


def draw(target):
    draw_calls(target / "inference_calls.png")
    draw_threads(target / "inference_threads.png")
    draw_pytorch(target / "inference_pytorch.png")


# ---- what a call does -----------------------------------------------------------------------------------------------


def draw_calls(path):
    figure, axes = canvas(7.6, 2.9, 100, 38)
    rows = [
        ("layer(x, state)", [], ["check", "results", "pack weights,\nor read in place", "steps"]),
        ("frozen(x, state)", ["pack weights"], ["check", "results", "steps"]),
        ("stream.step(x_t, out=y_t)", ["pack weights", "state, scratch"], ["check", "one step"]),
    ]
    color = {
        "pack weights": RED,
        "pack weights,\nor read in place": RED,
        "steps": GREEN,
        "one step": GREEN,
        "state, scratch": BLUE,
    }
    axes.text(39, 35.5, "once", ha="center", va="center", fontsize=9, weight="bold")
    axes.text(78, 35.5, "in every call", ha="center", va="center", fontsize=9, weight="bold")
    axes.plot([55, 55], [1, 37], color=GREY, lw=1, ls=(0, (4, 3)))
    for place, (name, once, always) in enumerate(rows):
        y = 25 - 11.5 * place
        axes.text(0.5, y + 3.5, name, va="center", fontsize=9)
        for k, text in enumerate(once[::-1]):
            box(axes, 53 - 13.5 * (k + 1), y, 12.5, 7, text, color=color.get(text, GREY), weight="normal")
        x = 57
        for text in always:
            width = {"check": 7, "results": 8, "steps": 9.5, "one step": 9}.get(text, 15.5)
            box(axes, x, y, width, 7, text, color=color.get(text, GREY), weight="normal")
            x += width + 0.8
    figure.savefig(path)


# ---- threads --------------------------------------------------------------------------------------------------------


def threads_of(T, N, H, limit=8, G=4):
    """Threads that a forward pass of an LSTM with D = H takes: make_plan in src/plan.pxd."""
    operations = 2 * T * N * G * H * (H + H)
    size = max(1, min(limit, int(operations / 12e6)))
    if size == 1:
        return 1
    groups = max(1, min(size, N // 4))
    members = max(1, min(size // groups, N * H * G * H // groups // 50_000, H // 32))
    if members > 1:
        units = math.ceil(math.ceil(H / members) / 32) * 32
        members = math.ceil(H / units)
    return groups * members


def draw_threads(path):
    sizes = (32, 64, 128, 256, 512, 1024)
    calls = ((1, 1), (20, 1), (20, 4), (100, 1), (20, 16), (100, 4), (20, 64), (100, 16), (100, 64))
    figure = Figure(figsize=(7.2, 3.3), dpi=120, facecolor="white", layout="constrained")
    axes = figure.subplots()
    table = [[threads_of(T, N, H) for T, N in calls] for H in sizes]
    axes.imshow(table, cmap="Blues", vmin=0, vmax=14, aspect="auto")
    for row, numbers in enumerate(table):
        for column, number in enumerate(numbers):
            axes.text(column, row, str(number), ha="center", va="center", fontsize=10)
    axes.set_xticks(range(len(calls)), [f"T={T}\nN={N}" for T, N in calls], fontsize=9)
    axes.set_yticks(range(len(sizes)), [f"{H}" for H in sizes], fontsize=9)
    axes.set_xlabel("steps and rows of the call", fontsize=9)
    axes.set_ylabel("hidden size H = D", fontsize=9)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    figure.savefig(path)


# ---- a call of a module of PyTorch ----------------------------------------------------------------------------------


def draw_pytorch(path):
    figure, axes = canvas(7.6, 3.6, 100, 47)
    questions = [
        "more than a few tokens\n(8, 3 or 1, by cell and dtype)?",
        "no tracer, transform or\nautocast is on?",
        "float32 or float64, on the CPU,\nno proj_size?",
        "shapes, dtypes, devices fit?",
    ]
    for k, text in enumerate(questions):
        y = 38 - 10 * k
        box(axes, 27, y, 36, 7.5, text, weight="normal")
        if k:
            arrow(axes, (45, y + 10), (45, y + 7.5))
            axes.text(46, y + 8.8, "yes", va="center", fontsize=8.5)
        arrow(axes, (63, y + 3.75), (77, y + 3.75))
        axes.text(70, y + 5.2, "no", ha="center", va="center", fontsize=8.5)
    box(axes, 0.5, 38, 18, 7.5, "module(x, hx)", color=BLUE, weight="normal")
    arrow(axes, (18.5, 41.75), (27, 41.75))
    axes.add_patch(Rectangle((77, 8), 22, 37.5, facecolor=PALE[RED], edgecolor=RED))
    axes.text(88, 26.7, "forward of\ntorch.nn", ha="center", va="center", fontsize=9)
    axes.text(46, 6.7, "yes", va="center", fontsize=8.5)
    arrow(axes, (45, 8), (45, 5.5))
    box(axes, 27, 0.3, 36, 5.2, "engine, a layer at a time", color=GREEN, weight="normal")
    figure.savefig(path)
