"""CUDA C++ to machine code: compiled by NVRTC, many at once, ahead of a run, kept on disk and in saved engines."""
