"""The CUDA plugin library from Python: built, found, loaded, tested."""
