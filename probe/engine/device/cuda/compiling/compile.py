"""CUDA C++ to machine code for one architecture, through NVRTC; results kept on disk by what went into them, up to a bound."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from probe.engine.device.cuda.compiling.pruning import note_use, prune
from probe.engine.device.cuda.errors import CompileError

_INCLUDE = re.compile(r'^#include "([\w.]+)"', re.MULTILINE)
_ENTRY = re.compile(
    r"Compiling entry function '(?P<entry>\w+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?:.*?(?P<shared>\d+) bytes smem)?",
    re.DOTALL,
)
_PRUNED_EVERY = 256  # kernels that a process writes, and with the first: looking through ten thousand takes 40 ms


@dataclass(frozen=True, slots=True)
class Source:
    """A kernel to compile.

    Attributes:
        file: of kernels/, or of generated ``text``.
        entry: the ``extern "C" __global__`` function.
        defines: macros, in order; what makes a variant of a family.
        text: generated code; "" reads the file.
        contract: let the compiler make one fused multiply-add of a product and a sum.
    """

    file: str
    entry: str
    defines: tuple[tuple[str, str | int], ...] = ()
    text: str = ""
    contract: bool = True

    def __str__(self) -> str:
        return f"{self.entry}({', '.join(f'{name}={value}' for name, value in self.defines)})"

    @property
    def code(self) -> str:
        """What is compiled, without what it includes."""
        macros = "".join(f"#define {name} {value}\n" for name, value in self.defines)
        return f"{macros}#line 1\n{self.text or kernel_text(self.file)}"


@dataclass(frozen=True, slots=True)
class Resources:
    """What ptxas says a kernel needs, for a thread; shared memory (static, bytes) for a block."""

    registers: int
    spilled_bytes: int
    stack_bytes: int
    shared_bytes: int


@dataclass(frozen=True, slots=True)
class Program:
    """Machine code."""

    cubin: bytes
    resources: Resources
    cached: bool = False


@cache
def kernel_folder() -> Path:
    """Where the CUDA sources lie: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).parents[4]
    inside = package / "_kernels"
    return inside if inside.is_dir() else package.parent / "kernels"


@cache
def kernel_text(name: str) -> str:
    return (kernel_folder() / name).read_text(encoding="utf-8")


def headers_of(text: str) -> dict[str, str]:
    """The files of kernels/ that a source includes, directly or not, each once."""
    found: dict[str, str] = {}
    waiting = _INCLUDE.findall(text)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = kernel_text(name)
            waiting += _INCLUDE.findall(found[name])
    return dict(sorted(found.items()))


def options_of(source: Source, arch: str) -> tuple[str, ...]:
    """NVRTC's options for a kernel. Its own cache is off: what it takes from there comes without the report of ptxas."""
    fused = "true" if source.contract else "false"
    return (f"--gpu-architecture={arch}", "--std=c++17", f"--fmad={fused}", "--no-cache", "--ptxas-options=-v")


class Compiler:
    """Compiles for one architecture.

    Args:
        arch: ``sm_80``, ``sm_90a``...
        folder: of compiled kernels, kept below a gigabyte (``pruning``); None keeps them for this process alone. A folder that cannot be
            written is named in ``note``, not used.
    """

    def __init__(self, arch: str, folder: Path | None) -> None:
        self.arch, self.folder = arch, folder
        self.note = "" if folder is not None else "compiled kernels are not kept: there is no folder for them"
        self.compiled = self.found = 0  # kernels compiled, kernels that were there already
        self._given: dict[str, Program] = {}
        self._prune_at = 1

    def __call__(self, source: Source) -> Program:
        """
        Raises:
            CompileError: NVRTC refuses the source.
        """
        code = source.code
        headers, options = headers_of(code), options_of(source, self.arch)
        key = _key(code, headers, options)
        path = self._path(key)
        program = self._given.get(key) or _read(path)
        if program is not None:
            self.found += 1
            return program
        program = compile_source(source, code, headers, options)
        self.compiled += 1
        if path is not None:
            try:
                _write(path, program)
                if self.compiled >= self._prune_at:
                    self._prune_at = self.compiled + _PRUNED_EVERY
                    prune(path.parent)
            except OSError as error:
                self.folder, self.note = (
                    None,
                    f"compiled kernels are not kept, and compiled again by every process: {error}",
                )
        if self.folder is None:
            self._given[key] = program  # the next who asks has it from here
        return program

    def missing(self, sources: Iterable[Source]) -> list[Source]:
        """Those that are not there yet, each once."""
        found = []
        for source in dict.fromkeys(sources):
            key = self.key(source)
            path = self._path(key)
            if key not in self._given and (path is None or not path.exists()):
                found.append(source)
        return found

    def key(self, source: Source) -> str:
        """A hash of everything that decides on a kernel's machine code."""
        return _key(source.code, headers_of(source.code), options_of(source, self.arch))

    def take(self, programs: Mapping[str, Program]) -> None:
        """Kernels that were compiled elsewhere, by their key: they are not compiled again, with or without a folder."""
        self._given.update(programs)

    def _path(self, key: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{key}.kernel"


def _key(code: str, headers: dict[str, str], options: Iterable[str]) -> str:
    text = json.dumps([code, headers, list(options), nvrtc_version()])
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def nvrtc_version() -> tuple[int, int]:
    from cuda.bindings import nvrtc  # pyright: ignore[reportAttributeAccessIssue] - compiled, without stubs

    _, major, minor = nvrtc.nvrtcVersion()
    return major, minor


def compile_source(source: Source, code: str, headers: dict[str, str], options: Iterable[str]) -> Program:
    """One kernel, compiled; works without a GPU.

    Raises:
        CompileError: with NVRTC's log.
    """
    from cuda.bindings import nvrtc  # pyright: ignore[reportAttributeAccessIssue] - compiled, without stubs

    fine = nvrtc.nvrtcResult.NVRTC_SUCCESS
    texts, names = [text.encode() for text in headers.values()], [name.encode() for name in headers]
    status, program = nvrtc.nvrtcCreateProgram(code.encode(), source.file.encode(), len(texts), texts, names)
    if status != fine:
        raise CompileError(f"NVRTC does not start: {status.name}")
    try:
        flags = [option.encode() for option in options]
        (status,) = nvrtc.nvrtcCompileProgram(program, len(flags), flags)
        _, size = nvrtc.nvrtcGetProgramLogSize(program)
        raw = b" " * size
        nvrtc.nvrtcGetProgramLog(program, raw)
        log = raw.rstrip(b"\0 ").decode(errors="replace")
        if status != fine:
            first = next((line for line in log.splitlines() if "error" in line), log[:200])
            where = f"kernel {source}, {' '.join(options)}"
            raise CompileError(f"{status.name}: {first.strip()}", where=where, log=log)
        _, size = nvrtc.nvrtcGetCUBINSize(program)
        cubin = b"\0" * size
        nvrtc.nvrtcGetCUBIN(program, cubin)
    finally:
        nvrtc.nvrtcDestroyProgram(program)
    return Program(cubin, resources_of(log, source.entry))


def resources_of(log: str, entry: str) -> Resources:
    """The report of ``ptxas -v`` on one kernel.

    Raises:
        CompileError: the log does not name it.
    """
    for found in _ENTRY.finditer(log):
        if found["entry"] == entry:
            spilled = int(found["stores"]) + int(found["loads"])
            return Resources(int(found["registers"]), spilled, int(found["stack"]), int(found["shared"] or 0))
    raise CompileError(f"ptxas reports nothing about {entry}", log=log)


def _read(path: Path | None) -> Program | None:
    """What a file holds; None for one that is absent, cut short or damaged, which is then written anew."""
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            modified = os.fstat(file.fileno()).st_mtime
            head, _, cubin = file.read().partition(b"\n")
        note_use(path, modified)
        facts = json.loads(head)
        if facts["sha256"] != hashlib.sha256(cubin).hexdigest():
            return None
        return Program(cubin, Resources(*facts["resources"]), cached=True)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(path: Path, program: Program) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    known = program.resources
    facts = {
        "sha256": hashlib.sha256(program.cubin).hexdigest(),
        "resources": [known.registers, known.spilled_bytes, known.stack_bytes, known.shared_bytes],
    }
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(json.dumps(facts).encode() + b"\n" + program.cubin)
        os.replace(name, path)  # a reader sees all of it or nothing
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise


def default_folder() -> Path | None:
    """``$XDG_CACHE_HOME/probe/kernels``, by default below ``~/.cache``; None for users without a home."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "probe" / "kernels"
    except RuntimeError:  # as in a container that runs under a number nobody knows
        return None
