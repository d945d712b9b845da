"""Drop-in replacements for well-known NumPy RNN, GRU and LSTM code, on the engine: change one import."""

from __future__ import annotations
