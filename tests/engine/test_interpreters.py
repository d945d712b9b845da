"""What the engine tells Python about interpreters beside the first one, and about running without the GIL."""

import ctypes
import sys

import pytest
from support.functions import in_new_python

from rnncore import _engine

# Py_mod_gil and Py_MOD_GIL_USED, in Include/moduleobject.h; a Python that always has a lock needs no such slot.
GIL, GIL_USED = 4, 0


class Slot(ctypes.Structure):
    _fields_ = [("slot", ctypes.c_int), ("value", ctypes.c_void_p)]


class Definition(ctypes.Structure):
    """PyModuleDef, whose slots end with one of number 0."""

    _fields_ = [
        ("head", ctypes.c_char * (object.__basicsize__ + 3 * ctypes.sizeof(ctypes.c_void_p))),
        *((name, ctypes.c_void_p) for name in ("name", "doc", "size", "methods")),
        ("slots", ctypes.POINTER(Slot)),
    ]


def slots():
    find = ctypes.pythonapi.PyModule_GetDef
    find.restype, find.argtypes = ctypes.POINTER(Definition), [ctypes.py_object]
    found, k = {}, 0
    array = find(_engine).contents.slots
    while array[k].slot:
        found[array[k].slot] = array[k].value or 0
        k += 1
    return found


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="reads a structure of CPython")
@pytest.mark.skipif(sys.version_info >= (3, 15), reason="modules may have another definition")
def test_the_engine_does_not_claim_to_run_without_the_lock():
    """The pool of memory relies on the GIL: a Python that runs without it turns it on at import."""
    assert slots().get(GIL, GIL_USED) == GIL_USED
    if hasattr(sys, "_is_gil_enabled"):
        assert sys._is_gil_enabled()


IN_ANOTHER = """
import sys
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
if {first}:
    import rnncore
other = interpreters.create()
code = "import sys; sys.path[:0] = " + repr(sys.path) + "; import rnncore"
try:
    failure = interpreters.run_string(other, code)
    print(getattr(failure, "formatted", None))
except interpreters.RunFailedError as error:
    print(error)
import rnncore
print(rnncore.get_num_threads() > 0)
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python cannot refuse it")
@pytest.mark.parametrize("first", [False, True])
def test_another_interpreter_gets_an_import_error(tmp_path, first):
    result = in_new_python(tmp_path, IN_ANOTHER.format(first=first), PYTHONWARNINGS="ignore")
    assert result.returncode == 0, result.stderr
    message, works = result.stdout.splitlines()
    assert "ImportError" in message
    assert "rnncore._engine does not support loading in subinterpreters" in message
    assert works == "True"
