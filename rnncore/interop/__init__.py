"""Weights and modules of other frameworks: PyTorch, Keras, ONNX, safetensors."""

from __future__ import annotations
