"""Frozen values that commands return, and their JSON. No imports from the rest of probe but errors and precision."""
