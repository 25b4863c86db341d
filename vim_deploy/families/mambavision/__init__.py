"""MambaVision (arXiv 2407.08083): convolutions, then windows with mixers and attention."""
