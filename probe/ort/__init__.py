"""ONNX Runtime as a means: session settings, values, what its errors mean. Used by the runner of that name and by the CPU device."""
