"""What can be exported: architectures, recipes and requests."""
