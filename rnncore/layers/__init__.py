"""Layers: recurrent (stacked, bidirectional), embedding, dense. They hold parameters, gradients and nothing else.

Every layer has ``params`` and ``grads``, dicts with the same keys whose arrays keep their identity: change them in
place. ``forward`` returns a cache for ``backward``, which adds to ``grads``; calling a layer is inference.
"""

from __future__ import annotations

from . import base, recurrent, simple, stack, stream
from .base import *  # noqa: F403
from .recurrent import *  # noqa: F403
from .simple import *  # noqa: F403
from .stack import *  # noqa: F403
from .stream import *  # noqa: F403

__all__: list[str] = []
__all__ += base.__all__
__all__ += recurrent.__all__
__all__ += simple.__all__
__all__ += stack.__all__
__all__ += stream.__all__
