from typing import Any, NamedTuple

class Hypothesis(NamedTuple):
    sequence: Any
    log_prob: float
    score: float

class Beam(NamedTuple):
    hypotheses: list[Hypothesis]
    steps: list[list[tuple[int, str, float, bool]]]
    best: tuple[int, int]
