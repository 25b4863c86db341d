"""What a file is: exported ONNX files and engines, read once."""
