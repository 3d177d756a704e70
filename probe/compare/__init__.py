"""Two sets of tensors in, a verdict out."""
