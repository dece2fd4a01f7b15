"""Checks of this machine: what it has, what will fail, and the remedies. No check can abort another."""
