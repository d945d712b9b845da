"""The table of cells: options by name, shapes, and the same cells in every part of the package."""

import copy
import pickle
from dataclasses import replace

import pytest
from support.compare import literally

import rnncore as rc
from rnncore import _engine, reference
from rnncore.engine.cells import CELLS, GRU, LSTM, MinGRU

every_cell = pytest.mark.parametrize("cell", CELLS.values(), ids=lambda cell: cell.name)


@every_cell
def test_every_part_has_the_cell(cell):
    for module in (rc, reference):
        for direction in ("forward", "backward"):
            assert callable(getattr(module, f"{cell.name}_{direction}"))
    assert getattr(rc, cell.label)(2, 3).cell is cell


@every_cell
def test_names_of_gradients(cell):
    inputs = ["x", *(weight.name for weight in cell.weights), *(f"{state}0" for state in cell.states)]
    assert sorted(cell.gradients._fields) == sorted(f"d{name}" for name in inputs)


def test_options_by_name():
    chosen = GRU.choose(update="old", gate_order="zrn")
    assert chosen is GRU.variant("reset_before", "old", "zrn")
    assert chosen.options == {"form": "reset_before", "update": "old"}
    assert (chosen.gates, chosen.gate_order) == ("rzn", "zrn")
    assert LSTM.choose().options == LSTM.variant().options


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"form": "new"}, "form must be one of 'reset_before', 'reset_after', 'simplified'; got 'new'"),
        ({"gate_order": "nzr"}, "gate_order must be one of 'rzn', 'zrn'; got 'nzr'"),
        ({"peephole": True}, "gru has the options form, update, gate_order; got 'peephole'"),
        ({"update": ["new"]}, "update must be one of 'new', 'old'; got ['new']"),
    ],
)
def test_wrong_options(words, message):
    with pytest.raises(ValueError, match=literally(message)):
        GRU.choose(**words)


def test_what_depends_on_the_options():
    plain, after, simplified = (GRU.choose(form=form) for form in ("reset_before", "reset_after", "simplified"))
    assert plain.shapes(2, 5) == {"Wx": (2, 15), "Wh": (5, 15), "b": (15,)}
    assert after.shapes(2, 5) == plain.shapes(2, 5) | {"bhn": (5,)}
    assert (plain.has_bhn, after.has_bhn) == (False, True)
    assert simplified.shapes(2, 5) == {"Wx": (2, 10), "Wh": (5, 10), "b": (10,)}
    assert simplified.gates == simplified.gate_order == "zn"
    assert after.saved_blocks == (("gates", 3), ("m", 1))
    assert LSTM.choose(peephole=True).shapes(2, 5)["peephole"] == (3, 5)
    assert MinGRU.variant().shapes(2, 5) == {"Wx": (2, 10), "b": (10,)}
    assert [plain.letters(weight) for weight in plain.weights] == ["(D, 3H)", "(H, 3H)", "(3H,)"]


@every_cell
def test_copies_are_the_same_object(cell):
    variant = cell.variant()
    for thing in (cell, variant):
        assert pickle.loads(pickle.dumps(thing)) is thing
        assert copy.deepcopy(thing) is thing


def test_native_code_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="native code has no cell 'unknown'"):
        _engine.Cell("unknown", (0,), {})
    with pytest.raises(ValueError, match="native code has no cell 'elman'"):
        replace(CELLS["rnn"], name="elman", _variants={}).variant()
