"""Vision Mamba (arXiv 2401.09417, hustvl/Vim): classifiers, segmentation networks, detectors."""
