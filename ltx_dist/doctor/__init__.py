"""Checks of this machine: what it has, what will not work, and the remedies. No check can end another."""
