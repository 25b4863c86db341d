"""Packages: an artifact with all that serving it needs, and a manifest that proves it whole."""
