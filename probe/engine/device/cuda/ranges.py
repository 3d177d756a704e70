"""NVTX ranges, which profilers show beside what the GPU does: through the C API, and only when somebody asks."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from probe.errors import InputError

_NAMES = ("libnvtx3interop.so.1", "libnvToolsExt.so.1", "nvtx3interop.dll", "nvToolsExt64_1.dll")
_WHEELS = ("nvidia/cu13/lib", "nvidia/nvtx/lib", "nvidia/cu13/bin", "nvidia/nvtx/bin")  # where they put it


class Ranges:
    """Named ranges of the calling thread.

    Raises:
        InputError: there is no library.
    """

    def __init__(self) -> None:
        library = _library()
        self._push, self._pop = library.nvtxRangePushA, library.nvtxRangePop
        self._push.argtypes = [ctypes.c_char_p]
        self._layer = ""

    @contextmanager
    def range(self, name: str) -> Iterator[None]:
        """Everything that the block does."""
        self._push(name.encode())
        try:
            yield
        finally:
            self.layer("")
            self._pop()

    def layer(self, name: str) -> None:
        """What comes next belongs to a layer; "": to none. Within ``range``."""
        if name == self._layer:
            return
        if self._layer:
            self._pop()
        if name:
            self._push(name.encode())
        self._layer = name


def _library() -> ctypes.CDLL:
    places = [Path(one) / folder for one in sys.path if one for folder in _WHEELS]
    for name in _NAMES:
        for place in ("", *map(str, places)):
            try:
                return ctypes.CDLL(str(Path(place) / name) if place else name)
            except OSError:
                continue
    raise InputError(
        "no NVTX library is installed", where="--nvtx", hint="pip install nvidia-nvtx, or leave --nvtx out"
    )
