"""``HostBackend``: kernels compiled by g++ and run on the host, a fiber a CUDA thread. The same sources, but for the PTX conversions."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from copy import copy
from pathlib import Path
from random import Random
from threading import Lock
from typing import Any

import numpy as np

from probe.engine.device.cuda.backend import Batch, Shape
from probe.engine.device.cuda.compiling.compile import Source, kernel_folder
from probe.engine.device.cuda.library.routine import Routine
from probe.engine.device.cuda.runs.given import handle_of
from probe.engine.device.cuda.tensors.maps import TileMap
from tests.engine.cuda.host_maps import host_map

HOST = Path(__file__).with_name("host")
GUARD = 256  # bytes of canary before and behind every allocation


class Replayed:
    """A graph that launches one by one, batches in an order of its own among those that their lanes and waits allow."""

    def __init__(self, backend: Any, batches: Sequence[Batch]) -> None:
        self._backend, self._batches, self._random = backend, tuple(batches), Random(len(batches))

    def launch(self) -> None:
        left, done = list(range(len(self._batches))), set()
        while left:
            first = {self._batches[at].lane: at for at in reversed(left)}  # of each lane
            ready = [at for at in first.values() if set(self._batches[at].after) <= done]
            at = self._random.choice(ready)
            for one in self._batches[at].launches:
                self._backend.launch(one.source, one.shape, one.arguments, one.what)
            left.remove(at)
            done.add(at)

    def seconds(self) -> list[tuple[str, float]]:
        return [(one.what, 1e-6) for batch in self._batches for one in batch.launches]


class Noted:
    """An event on the host's clock."""

    at = 0.0

    def note(self) -> None:
        self.at = time.perf_counter()

    def until(self, later: Noted) -> float:
        return later.at - self.at

    def wait(self) -> None:
        assert self.at, "noted before"


class HostBackend:
    """A ``Backend`` without a GPU. Finds writes behind a tensor when its memory is freed.

    Args:
        folder: for what g++ makes; kept between runs, by what went in.
    """

    arch, name, multiprocessors = "host", "host", 4
    imagined = False
    shared_limit = 227 << 10  # host/mma.cuh has room for as much

    def __init__(self, folder: Path) -> None:
        self._folder, self._headers = folder, folder / "include"
        self._headers.mkdir(parents=True, exist_ok=True)
        # The host's convert.cuh takes the place of the real one. Other processes compile meanwhile: no file is ever half there, or another's.
        for name, path in {one.name: one for one in (*kernel_folder().glob("*.cuh"), *HOST.glob("*"))}.items():
            target = self._headers / name
            if not target.exists() or target.read_bytes() != path.read_bytes():
                shutil.copy(path, self._own(target))
                self._own(target).replace(target)
        shim = self._headers / "cudashim.h"
        built = shim.with_suffix(".h.gch")  # parsing the standard library is most of what a compilation takes
        if not built.exists() or built.stat().st_mtime < shim.stat().st_mtime:
            self._gxx("-x", "c++-header", "-o", str(self._own(built)), str(shim))
            self._own(built).replace(built)
        self._texts: dict[str, str] = {}
        self._kernels: dict[Source, Any] = {}
        self._running = Lock()
        self._memory: dict[int, tuple[ctypes.Array[ctypes.c_char], int]] = {}
        self.launches, self.waited = 0, list[int]()

    @staticmethod
    def _own(path: Path) -> Path:
        """Where this process writes a file before it gets its name."""
        return path.with_name(f"{path.name}.{os.getpid()}")

    def enter(self) -> None:
        pass

    def allocate(self, nbytes: int) -> int:
        raw = ctypes.create_string_buffer(nbytes + 3 * GUARD)
        address = -(-ctypes.addressof(raw) // GUARD) * GUARD + GUARD
        # unwritten outputs show, and so does what is written before or behind
        ctypes.memset(address - GUARD, 0xA5, nbytes + 2 * GUARD)
        self._memory[address] = (raw, nbytes)
        return address

    def free(self, address: int) -> None:
        _, nbytes = self._memory[address]
        for where, begin in (("before", address - GUARD), ("behind", address + nbytes)):
            there = ctypes.string_at(begin, GUARD)
            assert there == b"\xa5" * GUARD, f"something wrote {where} a tensor of {nbytes} bytes"
        ctypes.memset(address, 0x5A, nbytes)  # whoever still reads there shows
        del self._memory[address]

    def room(self) -> int:
        return 1 << 32

    def upload(self, address: int, array: np.ndarray) -> None:
        ctypes.memmove(address, array.ctypes.data, array.nbytes)

    def download(self, array: np.ndarray, address: int, *, wait: bool = True) -> None:
        ctypes.memmove(array.ctypes.data, address, array.nbytes)

    def pinned(self, nbytes: int) -> np.ndarray:
        return np.empty(nbytes, np.uint8)

    def capture(self, batches: Sequence[Batch], *, timed: bool = False) -> Replayed:
        return Replayed(self, batches)

    def seconds(self, work: Callable[[], None]) -> float:
        begin = time.perf_counter()
        work()
        return time.perf_counter() - begin

    def event(self) -> Noted:
        return Noted()

    handle = 7  # of the stream: others' are waited for

    def copy(self, to: int, origin: int, nbytes: int) -> None:
        ctypes.memmove(to, origin, nbytes)

    def wait_for(self, handle: int) -> None:
        self.waited.append(handle)

    def beside(self, stream: Any = None) -> HostBackend:
        made = copy(self)
        made.launches, made.waited = 0, []
        if stream is not None:
            made.handle = handle_of(stream)
        return made

    def launch(self, source: Source, shape: Shape, arguments: Sequence[Any], what: str) -> None:
        if isinstance(source, Routine):
            with self._running:
                self._kernels.setdefault(source, source.ready())(arguments, 0)
            return
        taken = [host_map(one) if isinstance(one, TileMap) else one for one in arguments]
        given = (ctypes.c_void_p * len(taken))(*map(ctypes.addressof, taken))
        with self._running:  # shared memory of a block is static there
            if source not in self._kernels:
                self._kernels[source] = self._compile(source)
            self._kernels[source](shape.grid[0], shape.block, given)
        self.launches += 1

    def synchronize(self) -> None:
        pass

    @staticmethod
    def _gxx(*options: str, code: str | None = None) -> None:
        fixed = ("-std=c++17", "-Og", "-w", "-fPIC", "-mf16c", "-mfma", "-ffp-contract=off")
        done = subprocess.run(("g++", *fixed, *options), input=code, text=True, capture_output=True, check=False)
        assert not done.returncode, done.stderr[:3000]

    def _included(self, code: str) -> dict[str, str]:
        """The headers that a source uses, by name: a change of another one leaves what was made of it."""
        found: dict[str, str] = {}
        waiting = re.findall(r'#include "([^"]+)"', code)
        while waiting:
            name = waiting.pop()
            if name not in found:
                if name not in self._texts:
                    self._texts[name] = (self._headers / name).read_text()
                found[name] = self._texts[name]
                waiting += re.findall(r'#include "([^"]+)"', found[name])
        return dict(sorted(found.items()))

    def _compile(self, source: Source) -> Any:
        code = "\n".join(
            (
                '#include "cudashim.h"',
                source.code,
                f"static void all(void** given) {{ invoke({source.entry}, given); }}",
                'extern "C" void probe_launch(unsigned grid, unsigned block, void** given) { run_grid(grid, block, all, given); }',
            )
        )
        used = "".join(self._included(code).values())
        library = self._folder / f"{hashlib.sha256((code + used).encode()).hexdigest()[:32]}.so"
        if not library.exists():
            part = library.with_suffix(f".{os.getpid()}.part")  # other workers may be at the same kernel
            self._gxx("-shared", "-x", "c++", f"-I{self._headers}", "-o", str(part), "-", code=code)
            part.replace(library)
        function = ctypes.CDLL(str(library)).probe_launch
        function.argtypes = (ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p)
        return function
