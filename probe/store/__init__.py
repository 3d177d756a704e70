"""Recordings on disk: the dump format, and other people's formats behind one ``TensorSource``. Needs neither onnx nor polars."""
