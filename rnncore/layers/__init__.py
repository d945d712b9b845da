"""Layers: recurrent (stacked, bidirectional), embedding, dense. They hold parameters, gradients and nothing else.

Every layer has ``params`` and ``grads``, dicts with the same keys whose arrays keep their identity: change them in
place. ``forward`` returns a cache for ``backward``, which adds to ``grads``; calling a layer is inference.
"""

from .attention import *  # noqa: F403
from .base import Layer as Layer
from .base import blank_layers as blank_layers
from .base import dropout_mask as dropout_mask
from .base import glorot_uniform as glorot_uniform
from .base import orthogonal as orthogonal
from .frozen import *  # noqa: F403
from .recurrent import *  # noqa: F403
from .recurrent import RECURRENT as RECURRENT
from .recurrent import LayerCache as LayerCache
from .recurrent import Recurrent as Recurrent
from .simple import *  # noqa: F403
from .stack import Stack as Stack
from .stream import Stream as Stream
