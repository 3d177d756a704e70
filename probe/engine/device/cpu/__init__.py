"""The CPU device: low-precision storage on ONNX Runtime's FP32 kernels, and odd tactics in numpy."""
