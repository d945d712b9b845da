"""Weights and modules of other frameworks: PyTorch, Keras, ONNX, safetensors."""
