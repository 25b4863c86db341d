"""How fast and how large: latency, throughput and memory, measured in turns in one run."""
