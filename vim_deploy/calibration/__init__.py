"""From a folder of pictures to what a model is quantized with, and that as a file."""
