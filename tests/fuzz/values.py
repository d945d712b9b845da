"""Hostile values: what stands in the place of a valid argument.

Each function takes the random generator, the valid value and the other arguments of the call, and returns the value
that takes its place. SHAPES are those whose error may name another argument, the one that they no longer fit.
"""

import datetime
import decimal
import fractions
import types

import numpy as np
from support.layouts import set_shape


class HostileError(Exception):
    """What a hostile object raises: this very error may come out of a call."""


# ---- objects that misbehave -----------------------------------------------------------------------------------------


def _raise(*arguments, **keywords):
    raise HostileError("raised by the argument itself")


class Raising:
    """Every protocol that a library may ask for raises."""

    __array__ = __len__ = __index__ = __float__ = __int__ = __iter__ = __getitem__ = __contains__ = _raise
    __bool__ = __call__ = __fspath__ = __complex__ = __enter__ = items = keys = _raise


class RaisingComparison:
    __eq__ = __lt__ = __gt__ = __le__ = __ge__ = _raise
    __hash__ = object.__hash__


class RaisingAttribute:
    def __getattr__(self, name):
        raise HostileError(name)


class WrongTypes:
    """Every protocol returns something of a wrong type."""

    def __array__(self, dtype=None, copy=None):
        return [1.0]

    def __len__(self):
        return "three"

    def __index__(self):
        return 1.5

    def __float__(self):
        return "1.0"

    def __iter__(self):
        return 3

    def __bool__(self):
        return "yes"

    def __fspath__(self):
        return 3


class NegativeLength:
    def __len__(self):
        return -1

    def __getitem__(self, index):
        raise IndexError(index)


class HugeLength:
    """Claims to be long, holds nothing."""

    def __len__(self):
        return 2**62

    def __getitem__(self, index):
        raise IndexError(index)


class Changing:
    """An array of another shape each time that it is asked for, of the right one first."""

    def __init__(self, array):
        self.array, self.asked = array, 0
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __array__(self, dtype=None, copy=None):
        self.asked += 1
        return self.array if self.asked == 1 else np.zeros((2,) * (self.asked % 4), self.array.dtype)

    def __len__(self):
        return len(self.array)


class Saboteur:
    """Changes the other arrays of the call while it is converted itself."""

    def __init__(self, array, others):
        self.array, self.others = array, others

    def __array__(self, dtype=None, copy=None):
        for other in self.others:
            overwrite(other)
        return self.array

    def __len__(self):
        return len(self.array)


class SabotagingInteger:
    def __init__(self, value, others):
        self.value, self.others = value, others

    def __index__(self):
        for other in self.others:
            overwrite(other)
        return self.value


class Interface:
    """The array interface, with what is no memory."""

    def __init__(self, interface):
        self.__array_interface__ = interface


class Exchange:
    """DLPack that raises."""

    __dlpack__ = __dlpack_device__ = _raise


class Subclass(np.ndarray):
    """Says that it has another shape."""

    shape = property(lambda self: (2**40, 1, 1))
    __len__ = lambda self: 2**40  # noqa: E731
    __getitem__ = _raise


class Integer(int):
    def __index__(self):
        return 2**62


class Text(str):
    __len__ = lambda self: 2**62  # noqa: E731
    __iter__ = _raise


class Dict(dict):
    __getitem__ = keys = items = values = _raise


def overwrite(array):
    """Give an array, if it is one, other values and another shape, in place."""
    if not isinstance(array, np.ndarray) or not array.flags.writeable or array.dtype.kind not in "iuf":
        return
    array[...] = 2**40 if array.dtype == np.int64 else 100
    try:
        set_shape(array, (array.size, 1))
    except (AttributeError, ValueError):
        pass


# ---- arrays -----------------------------------------------------------------------------------------------------


def _misaligned(a):
    buffer = np.zeros(a.nbytes + 1, np.uint8)[1:]
    copy = buffer[: a.nbytes].view(a.dtype).reshape(a.shape) if a.size else a
    copy[...] = a
    return copy


def _read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def _overlapping(a):
    """Steps of one item along all axes: rows that share memory."""
    flat = np.resize(a.ravel(), sum(a.shape) + 1) if a.size else np.zeros(sum(a.shape) + 1, a.dtype)
    return np.lib.stride_tricks.as_strided(flat, a.shape, (a.itemsize,) * a.ndim)


def _sparse(a):
    return np.repeat(a, 2, axis=-1)[..., ::2] if a.ndim else a


def _masked(a):
    return np.ma.masked_array(a, mask=np.arange(a.size).reshape(a.shape) % 2 == 0)


def _memmap(a):
    import tempfile

    mapped = np.memmap(tempfile.TemporaryFile(), a.dtype, "w+", shape=a.shape or (1,))
    mapped[...] = a
    return mapped


def _turned(a):
    return a[(slice(None, None, -1),) * a.ndim]


#: Layouts: the same values, which every call must take.
LAYOUTS = {
    "fortran": np.asfortranarray,
    "backwards": _turned,
    "sparse": _sparse,
    "overlapping": _overlapping,
    "misaligned": _misaligned,
    "read_only": _read_only,
    "swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "broadcast": lambda a: np.broadcast_to(a.flat[0] if a.size else a, a.shape),
    "masked": _masked,
    "memmap": _memmap,
    "subclass": lambda a: a.view(Subclass),
    "matrix_of_lists": lambda a: a.tolist(),
    "float16": lambda a: a.astype(np.float16) if a.dtype.kind == "f" else a.astype(np.int8),
    "other_width": lambda a: (
        a.astype(np.float32 if a.dtype == np.float64 else np.float64) if a.dtype.kind == "f" else a.astype(np.uint64)
    ),
}

#: Dtypes that no call takes, or takes by converting.
DTYPES = {
    "complex": lambda a: a.astype(complex),
    "object": lambda a: a.astype(object),
    "objects": lambda a: (
        np.array([None] * max(a.size, 1), object).reshape(a.shape or (1,)) if a.size else a.astype(object)
    ),
    "bool": lambda a: a.astype(bool),
    "as_integers": lambda a: a.astype(np.int32),
    "as_floats": lambda a: a.astype(np.float64) + 0.5,
    "longdouble": lambda a: a.astype(np.longdouble),
    "str": lambda a: a.astype("U8"),
    "bytes": lambda a: a.astype("S8"),
    "datetime": lambda a: np.zeros(a.shape, "M8[s]"),
    "timedelta": lambda a: np.zeros(a.shape, "m8[s]"),
    "void": lambda a: np.zeros(a.shape, "V8"),
    "structured": lambda a: np.zeros(a.shape, [("a", "f8"), ("b", "i4")]),
}

#: Shapes: errors may name the argument that they do not fit.
SHAPES = {
    "scalar": lambda a: a.dtype.type(1),
    "no_axes": lambda a: np.array(1, a.dtype),
    "flat": lambda a: a.ravel(),
    "more_axes": lambda a: a[None],
    "axis_at_end": lambda a: a[..., None],
    "fewer_axes": lambda a: a[0] if a.ndim and len(a) else a,
    "transposed": lambda a: a.T,
    "empty": lambda a: a[:0] if a.ndim else a.reshape(1)[:0],
    "empty_last": lambda a: a[..., :0] if a.ndim else a.reshape(1)[:0],
    "all_empty": lambda a: np.zeros((0,) * a.ndim, a.dtype),
    "shorter": lambda a: a[:-1] if a.ndim else a,
    "narrower": lambda a: a[..., :-1] if a.ndim else a,
    "longer": lambda a: np.concatenate([a, a]) if a.ndim else a,
    "wider": lambda a: np.concatenate([a, a], axis=-1) if a.ndim else a,
    "huge_first": lambda a: np.broadcast_to(a.dtype.type(1), (2**40,) + (1,) * max(a.ndim - 1, 0)),
    "huge_last": lambda a: np.broadcast_to(a.dtype.type(1), (1,) * max(a.ndim - 1, 0) + (2**40,)),
    "huge_rows": lambda a: np.broadcast_to(a[:1] if a.ndim and len(a) else a, (2**40, *a.shape[1:])),
    "huge_columns": lambda a: np.broadcast_to(
        a[..., :1] if a.size and a.ndim else a.dtype.type(1), (*a.shape[:-1], 2**40)
    ),
    "huge_empty": lambda a: np.zeros((2**40, 0) + (1,) * max(a.ndim - 2, 0), a.dtype),
    "many_axes": lambda a: np.zeros((1,) * 64, a.dtype),
}

EDGES = (-1, 2, 3, 4, 5, 6, 7, 2**7, 2**15, 2**31 - 1, 2**31, 2**32, 2**63 - 1, -(2**31), -(2**63))
FLOATS = (np.nan, np.inf, -np.inf, -0.0, 5e-324, 1e38, -1e38, 1e300, -1e300)


def _edge(rng, a):
    """One element at an edge of what it may be."""
    a = a.copy()
    if a.size and a.dtype.kind in "iuf":
        edge = rng.choice(FLOATS) if a.dtype.kind == "f" else rng.choice(EDGES)
        with np.errstate(all="ignore"):
            a.flat[rng.randrange(a.size)] = np.array(edge).astype(a.dtype)
    elif a.dtype == bool:
        a[...] = True
    return a


def _edges(rng, a):
    """All elements."""
    with np.errstate(all="ignore"):
        values = [rng.choice(FLOATS if a.dtype.kind == "f" else EDGES) for _ in range(a.size)]
        return np.array(values).astype(a.dtype).reshape(a.shape) if a.dtype.kind in "iuf" else ~a


def _unsigned(rng, a):
    return np.full(a.shape, 2**64 - 1, np.uint64)


def _other_memory(rng, a, others):
    """In the memory of another argument."""
    arrays = [o for o in others if type(o) is np.ndarray and o.nbytes >= a.nbytes and o.flags.c_contiguous]
    if not arrays or not a.size or a.dtype.hasobject:
        return a
    other = rng.choice(arrays)
    if other.dtype.hasobject:
        return a
    memory = other.reshape(-1).view(np.uint8)
    begin = rng.choice([0, (memory.size - a.nbytes) // a.itemsize * a.itemsize])
    return memory[begin : begin + a.nbytes].view(a.dtype).reshape(a.shape)


# ---- plain values -----------------------------------------------------------------------------------------------

#: Of any type: what is there for every argument.
ANYTHING = {
    "none": lambda: None,
    "text": lambda: "hostile",
    "empty_text": lambda: "",
    "surrogate": lambda: "\ud800",
    "nul": lambda: "a\0b",
    "bytes": lambda: b"hostile",
    "bytearray": lambda: bytearray(8),
    "memoryview": lambda: memoryview(bytearray(8)),
    "complex": lambda: 1 + 2j,
    "set": lambda: {1, 2},
    "dict": lambda: {"a": 1},
    "empty_dict": dict,
    "empty_list": list,
    "empty_tuple": tuple,
    "ragged": lambda: [[1.0, 2.0], [3.0]],
    "nested": lambda: [[[[]]]],
    "deep": lambda: [[[[[[[[[[1.0]]]]]]]]]],
    "mixed": lambda: [1.0, "a", None],
    "generator": lambda: (i for i in range(3)),
    "range": lambda: range(3),
    "object": object,
    "class": lambda: int,
    "module": lambda: np,
    "function": lambda: len,
    "ellipsis": lambda: ...,
    "true": lambda: True,
    "zero": lambda: 0,
    "minus_one": lambda: -1,
    "float": lambda: 1.5,
    "nan": lambda: float("nan"),
    "infinity": lambda: float("inf"),
    "huge": lambda: 10**400,
    "negative_huge": lambda: -(10**30),
    "decimal": lambda: decimal.Decimal("1e400"),
    "decimal_nan": lambda: decimal.Decimal("sNaN"),
    "fraction": lambda: fractions.Fraction(10**400, 3),
    "date": lambda: datetime.date(2020, 1, 1),
    "datetime64": lambda: np.datetime64("2020-01-01"),
    "numpy_integer": lambda: np.int8(-1),
    "numpy_unsigned": lambda: np.uint64(2**64 - 1),
    "numpy_float": lambda: np.float32(np.nan),
    "numpy_bool": lambda: np.True_,
    "numpy_str": lambda: np.str_("hostile"),
    "numpy_void": lambda: np.void(b"abc"),
    "longdouble": lambda: np.longdouble(1.5),
    "zero_axes": lambda: np.array(1),
    "array": lambda: np.array([1.0, 2.0]),
    "integers": lambda: np.array([1, 2]),
    "dtype": lambda: np.dtype("f4"),
    "namespace": lambda: types.SimpleNamespace(shape=(1,), dtype=np.dtype("f8")),
    "raising": Raising,
    "raising_comparison": RaisingComparison,
    "raising_attribute": RaisingAttribute,
    "wrong_types": WrongTypes,
    "negative_length": NegativeLength,
    "huge_length": HugeLength,
    "interface_of_text": lambda: Interface("text"),
    "interface_without_shape": lambda: Interface({"version": 3}),
    "interface_of_a_short_buffer": lambda: Interface({"version": 3, "shape": (9,), "typestr": "<f8", "data": b"abc"}),
    "exchange": Exchange,
    "dict_that_raises": lambda: Dict(a=1),
    "text_that_lies": lambda: Text("abc"),
}

INTEGERS = (0, -1, 1, 2, 3, 7, 2**31 - 1, 2**31, 2**32 + 1, 2**62, 2**63 - 1, 2**63, 2**64, -(2**63), 10**30)


def hostile_array(rng, valid, others):
    """-> kind, name, value"""
    kind = rng.choice(("layout", "layout", "dtype", "shape", "shape", "value", "value", "object", "anything"))
    if kind == "anything" or valid.dtype.hasobject:
        return anything(rng)
    if kind == "value":
        name, make = rng.choice([("edge", _edge), ("edges", _edges), ("unsigned", _unsigned)])
        return "value", name, make(rng, valid)
    if kind == "object":
        arrays = [value for value in others if value is not valid]
        name = rng.choice(("changing", "saboteur", "other_memory", "list", "lists"))
        made = {
            "changing": lambda: Changing(valid),
            "saboteur": lambda: Saboteur(valid, arrays),
            "other_memory": lambda: _other_memory(rng, valid, arrays),
            "list": lambda: list(valid) if valid.ndim else [valid],
            "lists": lambda: tuple(valid.tolist()) if valid.ndim else valid.item(),
        }[name]()
        return "layout", name, made
    table = {"layout": LAYOUTS, "dtype": DTYPES, "shape": SHAPES}[kind]
    name = rng.choice(list(table))
    with np.errstate(all="ignore"):
        return kind, name, table[name](valid)


#: Which are data to some calls, only of another shape.
DATA = {
    "ragged",
    "array",
    "integers",
    "nested",
    "deep",
    "range",
    "mixed",
    "generator",
    "empty_list",
    "empty_tuple",
    "set",
    "true",
    "zero",
    "numpy_bool",
    "none",
    "bytearray",
    "memoryview",
}


def anything(rng):
    name = rng.choice(list(ANYTHING))
    return "shape" if name in DATA else "type", name, ANYTHING[name]()


def hostile(rng, valid, others, *, bounded=False):
    """Return the kind and name of a hostile value in the place of ``valid``, and the value.

    ``bounded``: numbers are work that is asked for, such as epochs, and must stay small.
    """
    if isinstance(valid, np.ndarray):
        return hostile_array(rng, valid, others)
    if rng.random() < 0.4:
        return _bounded(rng, bounded)
    if isinstance(valid, (bool, np.bool_)):
        return _bounded(rng, bounded)
    if isinstance(valid, int):
        if rng.random() < 0.2:
            name, value = rng.choice(
                [
                    ("sabotaging", SabotagingInteger(valid, others)),
                    ("lying", Integer(valid)),
                    ("scalar", np.int16(valid)),
                ]
            )
            if bounded and name == "lying":
                value = -1
            return "layout" if name == "sabotaging" else "value", name, value
        value = rng.choice(INTEGERS[:6] if bounded else INTEGERS)
        return "value", f"integer {value}", value
    if isinstance(valid, float):
        value = rng.choice((*FLOATS, 0.0, 1.0, 2.0, -1.0, 1e-300))
        if bounded and value > 1:
            value = 0.0
        return "value", f"float {value}", value
    if isinstance(valid, dict) and valid:
        return _hostile_dict(rng, valid, others)
    if isinstance(valid, (list, tuple)) and valid:
        return _hostile_sequence(rng, valid, others, bounded)
    return _bounded(rng, bounded)


def _bounded(rng, bounded):
    kind, name, value = anything(rng)
    if bounded and name in ("huge", "numpy_unsigned", "infinity", "decimal", "fraction"):
        return kind, "minus_one", -1
    return kind, name, value


def _hostile_dict(rng, valid, others):
    copy, key = dict(valid), rng.choice(list(valid))
    change = rng.choice(("value", "value", "missing", "extra", "key", "pairs"))
    if change == "value":
        kind, name, copy[key] = hostile(rng, valid[key], [*others, *valid.values()])
        return kind, f"[{key!r}] {name}", copy
    if change == "missing":
        del copy[key]
    elif change == "extra":
        copy["extra"] = copy[key]
    elif change == "key":
        copy[rng.choice((3, None, (1, 2), b"a"))] = copy.pop(key)
    else:
        return "type", "pairs", list(valid.items())
    return "value", f"{change} {key!r}", copy


def _hostile_sequence(rng, valid, others, bounded):
    items, place = list(valid), rng.randrange(len(valid))
    change = rng.choice(("item", "item", "item", "shorter", "longer", "turned", "nested", "dict", "iterator"))
    if change == "item":
        before = items[place]
        kind, name, items[place] = hostile(rng, before, [*others, *items], bounded=bounded)
        if isinstance(before, str) and isinstance(items[place], str):
            kind = "shape"  # another text
        return kind, f"[{place}] {name}", _like(valid, items)
    if change == "shorter":
        del items[place]
    elif change == "longer":
        items.append(items[place])
    elif change == "turned":
        items.reverse()
    elif change == "nested":
        items = [items]
    elif change == "dict":
        return "type", "dict", dict(enumerate(items))
    else:
        return "type", "iterator", iter(items)
    return "shape", change, _like(valid, items)


def _like(valid, items):
    return tuple(items) if isinstance(valid, tuple) else items


def overwrite_values(array):
    if array.dtype.kind in "iuf":
        array[...] = 2**40 if array.dtype == np.int64 else 100
