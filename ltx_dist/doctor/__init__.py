"""What this machine has, what will not work, and what to do about it. Each check stands alone: none can end another."""
