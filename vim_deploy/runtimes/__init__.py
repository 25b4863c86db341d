"""Runtimes: one folder each, with what it can do, how it builds and how it runs."""
