"""How a call is run: its instruction set, and threads among which even the smallest call is cut."""

from dataclasses import dataclass, field

from support.isas import DEFAULT

import rnncore as rc
from rnncore import _engine

# How the work is cut: rows only, hidden units only, both.
RULES = [
    {"flops": 1, "rows": 1, "products": 10**9, "cores": 64},
    {"flops": 1, "rows": 10**9, "products": 1, "units": 5, "cores": 64},
    {"flops": 1, "rows": 3, "products": 1, "units": 32, "cores": 64},
]


@dataclass(frozen=True)
class Machine:
    """What a ``with`` block runs on."""

    isa: str
    threads: int = 1
    rule: int | None = None  # index of RULES; None leaves small calls to one thread
    _before: list = field(default_factory=list, repr=False)

    def __enter__(self):
        self._before.append(rc.get_num_threads())
        rc.use_isa(self.isa)
        rc.set_num_threads(self.threads)
        _engine.set_cost_rule(**({} if self.rule is None else RULES[self.rule]))
        return self

    def __exit__(self, *error):
        rc.use_isa(DEFAULT)
        rc.set_num_threads(self._before.pop())
        _engine.set_cost_rule()
