from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

#: Words of the optimisers' rules.
RULES: dict[str, int]

# Specialised by element type: sample["float"], sample["double"]; see src/_engine.pyx for the arguments.
sample: Any
square_sum: Any

#: Compiler and flags.
build: str

#: Bytes of the smallest block that the pool keeps.
SMALLEST_POOLED: int

class Block:
    def __init__(self, size: int) -> None: ...
    def __buffer__(self, flags: int) -> memoryview: ...

class Cell:
    def __init__(self, name: str, places: tuple[int, ...], options: dict[str, Any]) -> None: ...

#: Rows of the largest int8 matrix whose sums fit 32 bits.
LARGEST_QUANTIZED: int

class PackedWeights:
    sizes: tuple[int, int]
    takes_ids_only: bool
    def read(self, of_Wh: bool, ids: NDArray[np.int64], out: Array) -> None: ...

class QuantizedMatrix:
    shape: tuple[int, int]
    is_double: bool
    def __init__(self, values: Array, scales: Array | None, is_double: bool) -> None: ...
    def read(self, ids: NDArray[np.int64], out: Array) -> None: ...

class Weights:
    packed: PackedWeights | None
    Wx: Array | None
    Wh: Array | None
    b: Array | None
    bhn: Array | None
    peephole: Array | None
    def __init__(
        self,
        Wx: Array | None = None,
        Wh: Array | None = None,
        b: Array | None = None,
        bhn: Array | None = None,
        peephole: Array | None = None,
    ) -> None: ...
    def by_name(self) -> dict[str, Array]: ...
    def views(self) -> Weights: ...
    def pack(self, cell: Cell) -> None: ...
    def pack_quantized(
        self,
        cell: Cell,
        Wx: tuple[Array | None, Array | None],
        Wh: tuple[Array | None, Array | None],
        x_scale: float,
    ) -> None: ...

class Batch:
    T: int
    N: int
    rows: Array | None
    offset: Array | None
    resets: Array | None
    mask: Array | None
    reverse: bool
    def __init__(
        self,
        T: int,
        N: int,
        rows: Array | None = None,
        offset: Array | None = None,
        resets: Array | None = None,
        reverse: bool = False,
        mask: Array | None = None,
    ) -> None: ...

class ForwardCall:
    cell: Cell
    weights: Weights
    batch: Batch
    x: Array | None
    ids: Array | None
    h0: Array | None
    c0: Array | None
    gates: Array | None
    c: Array | None
    m: Array | None
    h: Array | None
    h_n: Array | None
    c_n: Array | None
    def __init__(
        self,
        cell: Cell,
        weights: Weights,
        batch: Batch,
        *,
        x: Array | None = None,
        ids: Array | None = None,
        h0: Array | None = None,
        c0: Array | None = None,
        gates: Array | None = None,
        c: Array | None = None,
        m: Array | None = None,
        h: Array | None = None,
        h_n: Array | None = None,
        c_n: Array | None = None,
    ) -> None: ...
    def saved(self) -> dict[str, Array | None]: ...

class BackwardCall:
    forward: ForwardCall
    dweights: Weights
    adds: bool
    dh: Array | None
    dx: Array | None
    dh0: Array | None
    dc0: Array | None
    def __init__(
        self,
        forward: ForwardCall,
        dweights: Weights,
        adds: bool,
        *,
        dh: Array | None = None,
        dx: Array | None = None,
        dh0: Array | None = None,
        dc0: Array | None = None,
        shards: int = 1,
        shard_step: int = 0,
    ) -> None: ...

class Stack:
    count: int
    input_size: int
    hidden_size: int
    is_double: bool
    takes_ids_only: bool
    def __init__(
        self, cells: list[tuple[Cell, Weights, bool]], directions: int, has_c: bool, state_axes: int
    ) -> None: ...
    def try_run(self, x: object, state: object) -> tuple[Array, Any] | None: ...

class Stream:
    def __init__(self, stack: Stack, N: int, h: Array, c: Array | None = None) -> None: ...
    def try_step(self, x: object, out: object) -> bool: ...
    def step(self, x: Array | None, ids: Array | None, out: Array) -> None: ...

def compiled_isas() -> list[str]: ...
def add_isa(name: str, capsule: object) -> None: ...
def is_supported(name: str) -> bool: ...
def set_isa(name: str) -> None: ...
def get_isa() -> str: ...
def kernels_of(name: str, is_double: bool) -> object: ...
def set_usable_cores(count: int) -> None: ...
def set_cost_rule(
    flops: float = 12e6, rows: int = 4, products: int = 50_000, units: int = 32, cores: int = 0
) -> None: ...
def set_max_threads(n: int) -> None: ...
def set_main_thread(thread: int | None) -> None: ...
def get_max_threads() -> int: ...
def fits(
    cell: Cell,
    x: object,
    Wx: object,
    Wh: object,
    b: object,
    h0: object,
    c0: object,
    bhn: object,
    peephole: object,
) -> bool: ...
def forward(first: ForwardCall, second: ForwardCall | None = None) -> None: ...
def backward(first: BackwardCall, second: BackwardCall | None = None) -> None: ...
def affine(
    x: Array,
    W: Array | QuantizedMatrix,
    b: Array | None,
    y: Array | None,
    targets: NDArray[np.int64] | None,
    weights: NDArray[np.float64] | None,
    losses: NDArray[np.float64] | None,
    dx: Array | None,
    dW: Array | None,
    db: Array | None,
    shards: int = 1,
    shard_step: int = 0,
) -> None: ...
def optimizer_step(
    rule: int, constants: tuple[float, ...], g: Array, p: Array, m: Array | None, v: Array | None
) -> None: ...
def read(a: Array) -> float: ...
def softmax_cross_entropy(
    logits: Array, targets: NDArray[np.int64], weights: NDArray[np.float64], losses: NDArray[np.float64]
) -> None: ...
def attention(
    lengths: NDArray[np.int64],
    memory_lengths: NDArray[np.int64],
    q: Array,
    k: Array | None,
    v: Array | None,
    memory: Array,
    weights: Array,
    context: Array | None,
    dcontext: Array | None = None,
    dq: Array | None = None,
    dk: Array | None = None,
    dv: Array | None = None,
    dmemory: Array | None = None,
) -> None: ...
def ctc(
    logits: Array,
    lengths: NDArray[np.int64],
    labels: NDArray[np.int64],
    begins: NDArray[np.int64],
    blank: int,
    weights: NDArray[np.float64],
    losses: NDArray[np.float64],
    dlogits: Array | None,
) -> None: ...
def crf(
    emissions: Array,
    lengths: NDArray[np.int64],
    A: NDArray[np.float64],
    tags: NDArray[np.int64] | None,
    weights: NDArray[np.float64] | None,
    losses: NDArray[np.float64] | None,
    demissions: Array | None,
    dA: NDArray[np.float64] | None,
) -> None: ...
def time_first(source: Array, target: Array) -> None: ...
def are_ids(ids: NDArray[np.int64], size: int) -> bool: ...
def scatter_add(ids: NDArray[np.int64], rows: Array, table: Array) -> None: ...
