"""OpenVINO: runs exported ONNX files on the CPU."""
