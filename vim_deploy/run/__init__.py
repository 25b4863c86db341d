"""Runners: one way to call PyTorch, ONNX Runtime and engines."""
