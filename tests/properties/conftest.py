"""The profile of all property tests: the same examples in every run, unless RNNCORE_TEST_EXAMPLES asks for more.

RNNCORE_TEST_EXAMPLES=n pytest tests/properties: n times as many examples, drawn anew in every run.
"""

import os

from hypothesis import HealthCheck, settings

factor = os.environ.get("RNNCORE_TEST_EXAMPLES")
settings.register_profile(
    "rnncore",
    max_examples=100 * int(factor or 1),
    derandomize=factor is None,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("rnncore")
