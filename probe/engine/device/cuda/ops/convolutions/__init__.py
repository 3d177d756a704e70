"""Convolutions: which kernel takes one, as images lie; their windows."""
