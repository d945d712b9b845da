"""Test the package that is installed, whether pytest was started as ``pytest`` or as ``python -m pytest``.

The second puts the checkout in front of the path. The package there has its compiled module only if it was built in
place.
"""

import sys
from pathlib import Path

CHECKOUT = Path(__file__).parent

if not list((CHECKOUT / "rnncore").glob("_engine.*.so")) and not list((CHECKOUT / "rnncore").glob("_engine*.pyd")):
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != CHECKOUT]
