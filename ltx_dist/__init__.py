"""Render batches of prompts with LTX-Video on one or many GPUs. Importing this loads no torch and no ray."""

__version__ = "0.1.0"
