"""PyTorch, the reference of every comparison."""
