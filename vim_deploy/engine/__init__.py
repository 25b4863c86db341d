"""From an ONNX file to an engine and its record."""
