"""Operators on the device, a file a family: shapes and launches; the arithmetic is in kernels/."""
