"""What the assembler says about a kernel: compiled once for all tests, workers and runs, as long as nothing that goes into it changes."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from unittest import mock

from probe.engine.device.cuda.compiling import compile as compiling
from probe.engine.device.cuda.compiling.compile import Compiler, Resources, Source, headers_of, options_of, resources_of

# Beside what pytest keeps: --cache-clear removes it.
FOLDER = Path(__file__).resolve().parents[3] / ".pytest_cache" / "d" / "assembled"


@cache
def assembled(source: Source, arch: str = "sm_90a") -> tuple[str, Resources]:
    """NVRTC's log with the report of ptxas, and what that says of registers, spills and memory.

    Raises:
        CompileError: NVRTC refuses the source.
    """
    kept = FOLDER / f"{Compiler(arch, None).key(source)}.log"
    try:
        log = kept.read_text(encoding="utf-8")
    except OSError:
        log = _compiled(source, arch)
        FOLDER.mkdir(parents=True, exist_ok=True)
        half = kept.with_suffix(f".{os.getpid()}")  # other workers may be at the same kernel
        half.write_text(log, encoding="utf-8")
        half.replace(kept)
    return log, resources_of(log, source.entry)


def _compiled(source: Source, arch: str) -> str:
    logs: list[str] = []

    def heard(log: str, entry: str) -> Resources:
        logs.append(log)
        return resources_of(log, entry)

    with mock.patch.object(compiling, "resources_of", heard):
        compiling.compile_source(source, source.code, headers_of(source.code), options_of(source, arch))
    return logs[0]
