"""The instruction sets that tests run on, and what of the promises of equal bits holds for them."""

import rnncore as rc
from rnncore import _engine

#: The one that the suite was started with (RNNCORE_ISA), to go back to.
DEFAULT = _engine.get_isa()

#: Those whose products are the engine's own.
OWN = [isa for isa in rc.available_isas() if isa != "blas"]


def has_equal_bits():
    """Whether the promises of equal bits hold: BLAS sums in an order that depends on the sizes."""
    return _engine.get_isa() != "blas"
