"""What the diagrams in docs/figures share: colours, boxes, arrows."""

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

BLUE, RED, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#999999"
PALE = {BLUE: "#d6e8f4", RED: "#f9ddcc", GREEN: "#cdebe1", PINK: "#f3dfe9", GREY: "#ebebeb"}


def canvas(width, height, columns, rows):
    """A figure without axes, whose coordinates run from (0, 0) at the lower left to (columns, rows)."""
    figure = Figure(figsize=(width, height), dpi=120, facecolor="white")
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    axes.set(xlim=(0, columns), ylim=(0, rows))
    axes.axis("off")
    return figure, axes


def box(axes, x, y, width, height, title, text="", color=GREY, size=9, weight="bold"):
    """A rounded box with a title, and text below it."""
    shape = FancyBboxPatch(
        (x, y), width, height, boxstyle="round,pad=0,rounding_size=0.8", facecolor=PALE[color], edgecolor=color
    )
    axes.add_patch(shape)
    middle = x + width / 2
    if text:
        axes.text(middle, y + 0.68 * height, title, ha="center", va="center", fontsize=size, weight=weight)
        axes.text(middle, y + 0.3 * height, text, ha="center", va="center", fontsize=size - 0.5)
    else:
        axes.text(middle, y + height / 2, title, ha="center", va="center", fontsize=size, weight=weight)


def arrow(axes, start, end, color="black", dashed=False):
    style = {"linestyle": (0, (4, 3))} if dashed else {}
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=10, color=color, lw=1, **style))
