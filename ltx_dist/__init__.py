"""Render batches of prompts with LTX-Video on one or many GPUs. Importing this loads no torch and no ray."""

import os

__version__ = "0.1.0"

# Read by OpenMP when torch loads it, so it must stand before that, in every process of ours. Waiting OpenMP threads
# spin by default; where another process wants the core, two threads are then 30 times slower than one
# (docs/decisions.md).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Read by CUDA when it starts. Its own order is the fastest card first; nvidia-smi, by which plans are made, and Ray
# number cards by their slots. On a machine with unequal cards a stage would find itself on another one than planned.
os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
