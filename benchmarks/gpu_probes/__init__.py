"""What `benchmarks/gpu.py` measures: each probe is a function that yields rows, and runs in a process of its own."""
