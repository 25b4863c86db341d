"""Segmentation and detection models around the Vim backbone, loading official checkpoints."""
