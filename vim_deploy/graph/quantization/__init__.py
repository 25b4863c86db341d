"""Products in 8 bits: which there are, how each is quantized, and the graph rewritten so."""
