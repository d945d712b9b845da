from typing import Any

import numpy as np

KINDS: dict[str, int]
ACTIVATIONS: dict[str, int]
OUTPUT_ACTIVATIONS: dict[str, int]
FORMS: dict[str, int]
UPDATES: dict[str, int]
PEEPHOLES: dict[str, int]
RULES: dict[str, int]

# Specialised by element type: sample["float"], sample["double"]; see src/_engine.pyx for the arguments.
sample: Any
square_sum: Any

class Block:
    def __init__(self, size: int) -> None: ...

class Stream:
    def __init__(self, cells: list[tuple], N: int, h: np.ndarray, c: np.ndarray | None) -> None: ...
    def try_step(self, x: object, out: object) -> bool: ...
    def step(self, x: np.ndarray | None, ids: np.ndarray | None, out: np.ndarray) -> None: ...

def available_isas() -> list[str]: ...
def use_isa(name: str) -> None: ...
def current_isa() -> str: ...
def set_num_threads(n: int) -> None: ...
def get_num_threads() -> int: ...
def set_cost_rule(flops: float = 12e6, rows: int = 4, products: int = 50_000, units: int = 32) -> None: ...
def fits(
    G: int,
    x: object,
    Wx: object,
    Wh: object,
    b: object,
    h0: object,
    c0: object,
    bhn: object,
    peephole: object,
) -> bool: ...
def forward(*calls: tuple) -> None: ...
def backward(*calls: tuple) -> None: ...
def affine(
    x: np.ndarray,
    W: np.ndarray,
    b: np.ndarray | None,
    y: np.ndarray | None,
    targets: np.ndarray | None,
    weights: np.ndarray | None,
    losses: np.ndarray | None,
    dx: np.ndarray | None,
    dW: np.ndarray | None,
    db: np.ndarray | None,
) -> None: ...
def optimizer_step(
    rule: int,
    constants: tuple[float, ...],
    g: np.ndarray,
    p: np.ndarray,
    m: np.ndarray | None,
    v: np.ndarray | None,
) -> None: ...
def read(a: np.ndarray) -> float: ...
def softmax_cross_entropy(logits: np.ndarray, targets: np.ndarray, weights: np.ndarray, losses: np.ndarray) -> None: ...
def time_first(source: np.ndarray, target: np.ndarray) -> None: ...
def are_ids(ids: np.ndarray, size: int) -> bool: ...
def scatter_add(ids: np.ndarray, rows: np.ndarray, table: np.ndarray) -> None: ...
