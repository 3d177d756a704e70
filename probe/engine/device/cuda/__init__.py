"""The CUDA device: kernels compiled by NVRTC, launched through the driver. The only room that imports ``cuda``."""
