"""What a file that is not an ONNX model probably is, and what to do about it."""

from __future__ import annotations

from pathlib import Path

# (offset, magic bytes, what it is, what to do), first match wins. Only formats people really pass by mistake.
_EXPORT = "export the network to ONNX and pass the .onnx file"
_ENGINE = (
    "a TensorRT engine: compiled for one GPU and one version, opaque: its network cannot be read back",
    'pass the ONNX model the engine was built from; what the engine computes is recorded by probe dump MODEL --runner "command: ..."',
)
_SAVED = (
    "an engine that probe build saved",
    "run, bench and inspect take it, and dump with --runner engine; here, pass the ONNX model it was built from",
)
_MAGIC: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"ftrt", *_ENGINE),
    (0, b"\x89PROBE\r\n", *_SAVED),
    (0, b"version https://git-lfs", "a Git LFS pointer, the model itself was not downloaded", "run `git lfs pull`"),
    (4, b"ORTM", "an ONNX Runtime .ort model", "pass the .onnx model it was converted from"),
    (4, b"TFL3", "a TensorFlow Lite model", "convert it with tf2onnx: python -m tf2onnx.convert --tflite MODEL --output model.onnx"),
    (0, b"PK\x03\x04", "a zip archive, perhaps a PyTorch checkpoint or a Keras model", _EXPORT),
    (0, b"\x89HDF", "an HDF5 file, perhaps Keras weights", _EXPORT),
    (0, b"\x80\x02", "a Python pickle, perhaps a PyTorch checkpoint", _EXPORT),
    (0, b"\x80\x03", "a Python pickle", _EXPORT),
    (0, b"\x80\x04", "a Python pickle", _EXPORT),
    (0, b"GGUF", "a GGUF model", _EXPORT),
    (0, b"\x93NUMPY", "a numpy array", "pass the .onnx file here, and arrays with --inputs"),
    (0, b"\x1f\x8b", "gzip-compressed", "decompress it first: gunzip FILE"),
    (0, b"BZh", "bzip2-compressed", "decompress it first: bunzip2 FILE"),
    (0, b"\xfd7zXZ", "xz-compressed", "decompress it first: unxz FILE"),
    (0, b"\x28\xb5\x2f\xfd", "zstd-compressed", "decompress it first: unzstd FILE"),
)  # fmt: skip
_SUFFIXES: dict[str, tuple[str, str]] = dict.fromkeys((".engine", ".plan", ".trt"), _ENGINE) | {
    ".pt": ("a PyTorch file", _EXPORT),
    ".pth": ("a PyTorch file", _EXPORT),
    ".pb": ("perhaps a TensorFlow graph or a serialised ONNX tensor", _EXPORT),
    ".safetensors": ("safetensors: weights without a network", _EXPORT),
}


def recognise(path: Path, head: bytes) -> tuple[str, str] | None:
    """``(what the file is, what to do)`` from its first bytes, then its suffix; None when nothing fits.

    Args:
        path: the file, for its suffix only.
        head: its first few hundred bytes.
    """
    for offset, magic, what, hint in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return what, hint
    if path.suffix.lower() in _SUFFIXES:
        return _SUFFIXES[path.suffix.lower()]
    text = _as_text(head)
    if text is None:
        return None
    stripped = text.lstrip()
    if stripped.startswith(("<!DOCTYPE", "<html", "<HTML")):
        return "a web page, perhaps an error page saved in place of the download", "download the model again"
    if stripped.startswith(("{", "[")):
        return "JSON text", "pass the binary .onnx file"
    if stripped.startswith(("ir_version", "<ir_version", "<")) and "ir_version" in stripped:
        hint = 'write the binary form: onnx.save(onnx.parser.parse_model(text), "model.onnx"), or onnx.load(FILE, format="textproto")'
        return "an ONNX model in text form", hint
    return "text", "pass the binary .onnx file"


def _as_text(head: bytes) -> str | None:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # the last character may merely have been cut
            return None
        text = head[: error.start].decode("utf-8")
    return text if text and all(c.isprintable() or c in "\t\r\n\f" for c in text) else None
