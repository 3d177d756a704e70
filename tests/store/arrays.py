"""Arrays to store: every type, every layout in memory, names that try to be something else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from probe.precision import ML_DTYPES, NUMPY_NATIVE, numpy_dtype
from probe.results.tensors import RunHeader, TensorInfo
from probe.store.dump import Dump
from probe.store.opening import Sink, read_array
from probe.store.writer import DumpWriter

Array = np.ndarray[Any, Any]
ROOT = Path(__file__).resolve().parents[2]

NUMERIC: list[str] = sorted(NUMPY_NATIVE | ML_DTYPES)
ANY_BITS = [
    name for name in NUMERIC if name != "bool" and "int4" not in name and "int2" not in name and "float4" not in name
]

HOSTILE_NAMES = [
    "", " ", ".", "..", "../../etc/passwd", "/", "/abs/olute", "a/b/c", "a//b", "x:0", "C:\\x", "con", "new\nline", "tab\t", "cr\r\n",
    'quote"', "back\\slash", "'single'", "{json}", "[1,2]", "null", "#", "%2F", "*?<>|", "x" * 300, "é", "日本語", "🧨", "a\u2028b",
    "\u202egnp.exe", "\x00", "a\x00b", "\x7f", "\ufeff", "manifest.jsonl", "data-000.bin", "rows", "__metadata__", "in/x", "out/y",
    "a.npy", "a.npz", " @ ", "NaN",
]  # fmt: skip


def bits(array: Array) -> bytes:
    """The elements' bytes in C order, little-endian: equal means equal to the last bit, NaN payloads included."""
    native = array if array.dtype.isnative else array.byteswap()  # not astype, which might quieten a signalling NaN
    return np.ascontiguousarray(native).tobytes()


def texts(array: Array) -> list[str]:
    return [str(x) for x in array.reshape(-1)]


@st.composite
def numeric(draw: st.DrawFn, names: list[str] = NUMERIC, max_side: int = 4) -> Array:
    """An array of any type, shape and layout; types that allow it are filled with arbitrary bits."""
    name = draw(st.sampled_from(names))
    shape = tuple(draw(st.lists(st.integers(0, max_side), max_size=4)))
    dtype = numpy_dtype(name)
    count = int(np.prod(shape, dtype=np.int64))
    if name in ANY_BITS:
        payload = draw(st.binary(min_size=count * dtype.itemsize, max_size=count * dtype.itemsize))
        array = np.frombuffer(payload, dtype).reshape(shape)
    else:
        low, high = {"bool": (0, 1), "uint4": (0, 15), "uint2": (0, 3), "int2": (-2, 1)}.get(name, (-8, 7))
        values = draw(st.lists(st.integers(low, high), min_size=count, max_size=count))
        array = np.array(values, np.int64).astype(dtype).reshape(shape)
    return draw(st.sampled_from(LAYOUTS))(array)


def _swapped(array: Array) -> Array:
    """The same values in big-endian order; types of other packages have none."""
    if array.dtype.name in ML_DTYPES:
        return array
    # Not astype: converting a signalling NaN to another byte order may quieten it.
    return array.byteswap().view(array.dtype.newbyteorder(">"))


def _strided(array: Array) -> Array:
    wide = np.repeat(array, 2, axis=-1) if array.ndim else array
    return wide[..., ::2] if array.ndim else wide


LAYOUTS = [
    lambda x: x,
    np.asfortranarray,
    _strided,
    lambda x: x[..., ::-1] if x.ndim else x,
    lambda x: x.T,
    lambda x: np.broadcast_to(x, (3, *x.shape)),
    _swapped,
]


@st.composite
def text(draw: st.DrawFn) -> Array:
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    count = int(np.prod(shape, dtype=np.int64))
    elements = draw(st.lists(st.text(), min_size=count, max_size=count))
    array = np.empty(count, object)
    array[:] = elements
    return array.reshape(shape)


def record(path: Path, tensors: dict[str, Any], *, header: RunHeader | None = None, **options: Any) -> Path:
    """A dump of named arrays, all outputs of one unnamed input."""
    with DumpWriter(path, header or RunHeader(), **options) as writer:
        for name, array in tensors.items():
            writer.add(TensorInfo(name, "", (), role="output"), np.asarray(array))
    return path


def fill(sink: Sink, rows: list[TensorInfo]) -> None:
    """Record zeros for every row."""
    with sink:
        for row in rows:
            sink.add(row, np.zeros(1))


def contents(path: Path) -> dict[tuple[str, str], Array]:
    """Every recorded tensor of a dump, by (name, input id)."""
    dump = Dump(path)
    try:
        return {(row.name, row.input_id): read_array(dump, row) for row in dump.rows() if row.status == "recorded"}
    finally:
        dump.close()


def leftovers(folder: Path) -> list[str]:
    """Hidden entries that a writer made and did not remove."""
    return sorted(entry.name for entry in folder.iterdir() if entry.name.startswith("."))


def fresh_python(code: str, *arguments: str) -> str:
    """What ``code`` prints in a fresh process that knows nothing but this checkout."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
