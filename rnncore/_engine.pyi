from typing import Any

import numpy as np

KINDS: dict[str, int]
ACTIVATIONS: dict[str, int]
OUTPUT_ACTIVATIONS: dict[str, int]
FORMS: dict[str, int]
UPDATES: dict[str, int]
PEEPHOLES: dict[str, int]

# Specialised by element type: forward["float"], forward["double"]; see src/_engine.pyx for the arguments.
forward: Any
backward: Any
sample: Any
affine_forward: Any
affine_backward: Any

class Block:
    def __init__(self, size: int) -> None: ...

class Stream:
    def __init__(
        self,
        cells: list[tuple],
        N: int,
        H: int,
        is_double: bool,
        packed: np.ndarray,
        h: np.ndarray,
        c: np.ndarray | None,
        scratch: np.ndarray,
    ) -> None: ...
    def step(self, x: np.ndarray | None, ids: np.ndarray | None, out: np.ndarray) -> None: ...

def available_isas() -> list[str]: ...
def use_isa(name: str) -> None: ...
def current_isa() -> str: ...
def forward_scratch(kind: int, gates: int, T: int, N: int, D: int, H: int, ids: bool, keep: bool) -> int: ...
def backward_scratch(gates: int, L: int, N: int, D: int, H: int) -> int: ...
def packed_weights(gates: int, D: int, H: int) -> int: ...
def affine_scratch(L: int, D: int, K: int) -> int: ...
def softmax_cross_entropy(logits: np.ndarray, targets: np.ndarray, weights: np.ndarray, losses: np.ndarray) -> None: ...
def scatter_add(ids: np.ndarray, rows: np.ndarray, table: np.ndarray) -> None: ...
