"""Attention in one kernel: of single nodes, and ONNX's own operator; which kernel takes a layer. Files are named as what they launch in kernels/."""
