"""Timing a network: latency and throughput, layers against the machine's ceilings, memory."""
