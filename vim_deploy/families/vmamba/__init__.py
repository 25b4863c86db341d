"""VMamba (arXiv 2401.10166): a pyramid of levels whose blocks scan a map in four directions."""
