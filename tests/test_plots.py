"""Pictures: the axes that come back, the numbers that were drawn, labels that do not overlap, nothing to draw."""

import itertools
import re

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rnncore import plots

RECORDS = [
    {"epoch": 1, "loss": 2.5, "held_out": 2.75},
    {"epoch": 2, "loss": 2.0, "held_out": 2.5},
    {"epoch": 3, "loss": 1.5, "held_out": None},
]
NORMS = {"RNN": [0.25, 0.5, 1.0], "LSTM": [0.0, 0.9, 1.0]}
BEAM = [
    [(-1, "a", -0.5, True), (-1, "the", -1.25, True), (-1, "$x$", -3.0, False)],
    [(0, "cat", -1.75, True), (1, "cat", -1.5, True), (0, "dog", -1.0, False)],
]
DRAWINGS = {
    "loss_curve": ([2.0, 1.0], [(1, 1.5)]),
    "history": (RECORDS,),
    "gradient_flow": (NORMS,),
    "gates": (np.eye(3), "abc"),
    "beam": (BEAM,),
    "attention": (np.eye(3)[:, :2], "ab", "xy"),
    "alignment": (np.eye(3)[[0, 1, 1, 0, 2]], "a ", [("a", 1, 3), (" ", 4, 5)]),
}


def lines(ax):
    return {line.get_label(): line.get_xydata().tolist() for line in ax.get_lines()}


def tick_labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def check_no_overlap(ax, texts):
    FigureCanvasAgg(ax.figure).draw()
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    assert len(boxes) > 1
    for a, b in itertools.combinations(boxes, 2):
        assert min(a.x1, b.x1) <= max(a.x0, b.x0) or min(a.y1, b.y1) <= max(a.y0, b.y0)


@pytest.mark.parametrize("name", DRAWINGS)
def test_axes_given_or_new(name):
    draw, arguments = getattr(plots, name), DRAWINGS[name]
    given = Figure().add_subplot()
    assert draw(*arguments, ax=given) is given
    first, second = draw(*arguments), draw(*arguments)
    assert first is not second
    for ax in (given, first):
        FigureCanvasAgg(ax.figure).draw()


def test_history_draws_what_was_measured():
    assert lines(plots.history(RECORDS)) == {
        "training": [[1, 2.5], [2, 2.0], [3, 1.5]],
        "held-out": [[1, 2.75], [2, 2.5]],
    }
    assert lines(plots.history([{"epoch": 1, "loss": 2.5}])) == {"training": [[1, 2.5]]}


def test_gradient_flow_is_logarithmic_and_leaves_out_zeros():
    ax = plots.gradient_flow(NORMS)
    assert ax.get_yscale() == "log"
    assert list(lines(ax)) == list(NORMS)
    drawn = [line.get_ydata() for line in ax.get_lines()]
    np.testing.assert_array_equal(drawn, [[0.25, 0.5, 1], [np.nan, 0.9, 1]])
    np.testing.assert_array_equal(ax.get_lines()[0].get_xdata(), [0, 1, 2])
    FigureCanvasAgg(plots.gradient_flow({"dead": [0.0, 0.0]}).figure).draw()


def test_gates_draws_units_down_and_tokens_along():
    values = np.arange(12).reshape(4, 3) / 20
    ax = plots.gates(values, "a\nb ", units=[2, 0], title="forget gate")
    (image,) = ax.get_images()
    np.testing.assert_array_equal(image.get_array(), values[:, [2, 0]].T)
    assert tick_labels(ax.xaxis) == ["a", "↵", "b", "␣"]
    assert tick_labels(ax.yaxis) == ["2", "0"]
    assert ax.get_title() == "forget gate"
    np.testing.assert_array_equal(plots.gates(values, "abcd").get_images()[0].get_array(), values.T)


@pytest.mark.parametrize("values, limits", [([0, 1], (0, 1)), ([-0.2, 0.5], (-1, 1)), ([0.5, 3], (-3, 3))])
def test_range_of_gates(values, limits):
    (image,) = plots.gates(np.array([values]), ["a"]).get_images()
    assert image.get_clim() == limits


@pytest.mark.parametrize(
    "tokens", ["x" * 60, ["internationally", "the"] * 30, ["cat", "sat"] * 2, ["W"] * 60], ids=["i", "long", "few", "W"]
)
@pytest.mark.parametrize("ax", [None, "given"])
def test_labels_of_gates_do_not_overlap(tokens, ax):
    ax = None if ax is None else Figure(figsize=(9, 4)).add_subplot()
    ax = plots.gates(np.zeros((len(tokens), 40)), tokens, ax)
    check_no_overlap(ax, ax.get_xticklabels())
    check_no_overlap(ax, ax.get_yticklabels())


def nodes_and_edges(ax):
    """-> {(x, y): text} of the tokens, and of the numbers, and {(parent's place, place): width of the line}."""
    tokens, numbers = ({tuple(t.xy): t.get_text() for t in ax.texts[k::2]} for k in (0, 1))
    edges = {}
    for line in ax.get_lines()[1:]:
        points = line.get_xydata()
        edges[tuple(points[0]), tuple(points[-1])] = line.get_linewidth()
    return tokens, numbers, edges


def test_beam_ranks_hypotheses_and_joins_them_to_their_parents():
    tokens, numbers, edges = nodes_and_edges(plots.beam(BEAM))
    assert tokens == {(1, 0): "a", (1, 1): "the", (1, 2): "$x$", (2, 0): "dog", (2, 1): "cat", (2, 2): "cat"}
    assert numbers == {
        (1, 0): "-0.50",
        (1, 1): "-1.25",
        (1, 2): "-3.00",
        (2, 0): "-1.00",
        (2, 1): "-1.50",
        (2, 2): "-1.75",
    }
    best = {((0, 0), (1, 1)), ((1, 1), (2, 1))}  # "dog" is likelier, but was not kept
    assert edges.keys() == best | {
        ((0, 0), (1, 0)),
        ((0, 0), (1, 2)),
        ((1, 0), (2, 0)),
        ((1, 0), (2, 2)),
    }
    assert {edge for edge, width in edges.items() if width > 1} == best


def test_alignment_marks_the_frames_of_each_label():
    p = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.0, 0.3, 0.7], [1.0, 0.0, 0.0]])
    ax = plots.alignment(p, ["a", " "], [("a", 1, 2), (" ", 2, 3)])
    np.testing.assert_allclose(ax.images[0].get_array(), 100 * p.T)
    assert tick_labels(ax.yaxis) == ["blank", "a", "␣"]
    assert [(text.get_text(), text.get_position()) for text in ax.texts] == [("a", (1, -0.6)), ("␣", (2, -0.6))]
    spans = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in ax.patches]
    assert spans == [(0.5, 1.5), (1.5, 2.5)]
    plots.alignment(np.zeros((0, 3)), "ab", [])


def test_the_best_path_of_a_beam_may_be_given():
    _, _, edges = nodes_and_edges(plots.beam(BEAM, best=(0, 0)))
    assert [edge for edge, width in edges.items() if width > 1] == [((0, 0), (1, 0))]


def test_labels_of_a_wide_and_long_beam_do_not_overlap():
    steps = [[(k if t else -1, "internationally", -1.0 - t - k, True) for k in range(5)] for t in range(10)]
    ax = plots.beam(steps)
    check_no_overlap(ax, ax.texts)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("history", ([],), "records must hold at least one epoch; got none"),
        ("gradient_flow", ({},), "norms must hold at least one array; got none"),
        ("gradient_flow", ({"a": []},), "norms['a'] must be (T,) with T at least 1; got (0,)"),
        ("gradient_flow", ({"a": [[1.0]]},), "norms['a'] must be (T,) with T at least 1; got (1, 1)"),
        ("gates", ([], ""), "activations must be (T, H), both at least 1; got (0,)"),
        ("gates", (np.zeros((0, 3)), ""), "activations must be (T, H), both at least 1; got (0, 3)"),
        ("gates", (np.zeros((3, 2)), "ab"), "tokens must be T = 3 as in activations; got 2"),
        ("beam", ([],), "steps must be one or more, none empty; got sizes []"),
        ("beam", ([BEAM[0], []],), "steps must be one or more, none empty; got sizes [3, 0]"),
        ("beam", ([BEAM[1]],), "parents in steps[0] must be -1; got 0"),
        ("beam", ([BEAM[0], BEAM[0]],), "parents in steps[1] must be in [0, 3); got -1"),
    ],
)
def test_nothing_or_nonsense_to_draw(name, arguments, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        getattr(plots, name)(*arguments)


def test_wrong_units_and_wrong_best():
    for units in ([], [2], [-1]):
        with pytest.raises(ValueError, match=re.escape(f"units must be one or more in [0, H) = [0, 2); got {units}")):
            plots.gates(np.zeros((1, 2)), "a", units=units)
    with pytest.raises(
        ValueError, match=re.escape("best must be the step and the position of a hypothesis; got (2, 0)")
    ):
        plots.beam(BEAM, best=(2, 0))
