"""The ops of the contract: what they are, what they mean as ONNX functions and in float64."""
