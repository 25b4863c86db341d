"""Optional packages: each is imported in one module here and nowhere else."""
