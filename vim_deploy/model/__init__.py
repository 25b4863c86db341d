"""The Vision Mamba model, its checkpoints and its one scan op."""
