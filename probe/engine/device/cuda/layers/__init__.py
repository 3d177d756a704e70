"""One layer on the device: which nodes share a kernel, chains, attention, siblings, what falls back to the host."""
