"""The compiler and its runtime: ONNX in, layers fused, a precision and a tactic per layer chosen at run time. Read ``build.py`` first."""
