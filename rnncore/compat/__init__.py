"""The NumPy RNN, GRU and LSTM code that people have, function by function, on the engine: change one import."""

from __future__ import annotations
