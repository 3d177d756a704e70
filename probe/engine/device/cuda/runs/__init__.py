"""Runs: recorded while they are made, planned into one block of memory, repeated as CUDA graphs; contexts side by side."""
