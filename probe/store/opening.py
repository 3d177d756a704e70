"""Which reader or writer a path needs: decided by what is there, never by trying one after the other."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from probe.errors import InputError
from probe.precision import numpy_dtype
from probe.results.tensors import RunHeader, TensorInfo
from probe.store.source import Array, TensorSource

WINDOW = 1 << 22  # elements read at a time: 16 MiB of float32

_READS = "a folder made by probe dump, .npz, .npy, a folder of .npy, Polygraphy JSON or .safetensors"


class Sink(Protocol):
    """Where a recording goes. A context manager; leaving it by an exception leaves nothing behind."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def add(self, info: TensorInfo, array: Array | None) -> TensorInfo: ...
    def replace_header(self, header: RunHeader) -> None: ...


def is_recording(path: str | Path) -> bool:
    """Whether ``open_source`` has a reader for this path; decided by name and first bytes, nothing is read in full."""
    path = Path(path)
    if is_folder(path):
        return (path / "manifest.jsonl").exists() or any(path.rglob("*.npy")) or any(path.glob("*.json"))
    return _file_and_pick(path)[0].suffix in (".npz", ".npy", ".safetensors", ".json")


def open_source(path: str | Path) -> TensorSource:
    """Open a recording of any format probe reads. ``FILE.json#RUNNER`` picks one runner of a Polygraphy file.

    Raises:
        InputError: nothing there, or no format probe knows.
    """
    path = Path(path)
    if is_folder(path):
        if (path / "manifest.jsonl").exists():
            from probe.store.dump import Dump

            return Dump(path)
        if any(path.glob("*.json")) and not any(path.rglob("*.npy")):
            from probe.store.polygraphy import PolygraphyFolder

            return PolygraphyFolder(path)
        from probe.store.numpy_files import NpyFolder

        return NpyFolder(path)
    file, pick = _file_and_pick(path)
    if not _is_file(file):
        raise InputError(f"{path} does not exist", hint=f"name {_READS}")
    match file.suffix:
        case ".npz":
            from probe.store.numpy_files import Npz

            return Npz(file)
        case ".npy":
            from probe.store.numpy_files import NpyFile

            return NpyFile(file)
        case ".safetensors":
            from probe.store.safetensors_file import Safetensors

            return Safetensors(file)
        case ".json":
            from probe.store.polygraphy import PolygraphyJson

            return PolygraphyJson(file, runner=pick)
    raise InputError(f"{path} is no recording probe can read", hint=f"name {_READS}")


def _file_and_pick(path: Path) -> tuple[Path, str]:
    """``FILE#PICK`` taken apart at the '#' before which there is a file; a name of Polygraphy's runners may hold '/' and '#'."""
    text = str(path)
    cuts = [at for at, letter in enumerate(text) if letter == "#"]
    for at in cuts if not _is_file(path) else ():
        if _is_file(Path(text[:at])):
            return Path(text[:at]), text[at + 1 :]
    return path, ""


def is_folder(path: Path) -> bool:
    """Whether there is a folder; also for names that the file system calls too long."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long for the file system
        return False


def open_sink(path: str | Path, header: RunHeader, *, overwrite: bool = False, stats_only: bool = False) -> Sink:
    """A writer for ``path``: ``.npz``, ``.safetensors``, else a dump folder.

    Raises:
        InputError: the target exists and ``overwrite`` is off, or ``stats_only`` was asked of a format without statistics.
    """
    path = Path(path)
    if path.suffix not in (".npz", ".safetensors"):
        from probe.store.writer import DumpWriter

        return DumpWriter(path, header, overwrite=overwrite, stats_only=stats_only)
    if stats_only:
        raise InputError(f"{path.suffix} files hold no statistics", hint="name a folder with -o for --stats-only")
    if path.suffix == ".npz":
        from probe.store.numpy_files import NpzWriter

        return NpzWriter(path, overwrite=overwrite)
    from probe.store.safetensors_file import SafetensorsWriter

    return SafetensorsWriter(path, overwrite=overwrite)


def read_array(source: TensorSource, row: TensorInfo) -> Array:
    """The whole tensor in its own type and shape, its hash checked where the format has one."""
    import numpy as np

    reader = source.open(row)
    array = np.empty(row.count, numpy_dtype(reader.dtype))
    for start in range(0, row.count, WINDOW):
        stop = min(start + WINDOW, row.count)
        array[start:stop] = reader.window(start, stop)
    reader.close()
    return array.reshape(row.shape)
