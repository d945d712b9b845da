"""Between the public functions and native code: the table of cells, cleaning of arguments, packing, caches, calls."""

from __future__ import annotations

from . import settings as settings
