"""Passes that turn the traced graph into the deployed one; ``run.PASSES`` is their order."""
