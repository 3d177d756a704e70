"""Tensors in device memory: formats, shapes and strides, where elements lie, copies, weights."""
