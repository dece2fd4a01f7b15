"""The probes of `benchmarks/gpu.py`: functions that yield rows, each of which runs in a process of its own."""
