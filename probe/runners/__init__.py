"""Whatever turns network inputs into named tensors: ONNX Runtime, a recording, a Python callable, a command, somebody's plugin."""
