"""The CUDA driver and runtime from Python, and memory on the GPU."""
