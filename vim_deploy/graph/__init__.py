"""From a torch module to the exported ONNX file."""
