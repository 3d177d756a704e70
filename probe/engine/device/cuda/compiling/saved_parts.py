"""Compiled kernels as parts of a saved engine: one index, one stretch of machine code."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import astuple

from probe.engine.device.cuda.compiling.compile import Compiler, Program, Resources, Source, nvrtc_version
from probe.errors import InputError

INDEX, CODE = "kernels.json", "kernels"
_AGAIN = "build it again: probe build MODEL -o FILE --device cuda"


def kernel_parts(compiler: Compiler, sources: Iterable[Source], gpu: str) -> dict[str, bytes]:
    """Machine code of kernels, with what it was compiled for.

    Args:
        gpu: name of the one that kernels were chosen for.

    Raises:
        CompileError: NVRTC refuses one that was not compiled yet.
    """
    rows, code = [], bytearray()
    for key, program in sorted((compiler.key(source), compiler(source)) for source in sources):
        rows.append([key, len(code), len(program.cubin), list(astuple(program.resources))])
        code += program.cubin
    facts = {"arch": compiler.arch, "gpu": gpu, "nvrtc": list(nvrtc_version()), "kernels": rows}
    return {INDEX: json.dumps(facts).encode("ascii"), CODE: bytes(code)}


def read_kernels(compiler: Compiler, parts: Mapping[str, memoryview], gpu: str) -> dict[str, Program]:
    """What ``kernel_parts`` made, by key; nothing for an engine that was saved before it ran.

    Raises:
        InputError: kernels for another GPU or by another compiler, or parts that are not as they were written.
    """
    if INDEX not in parts:
        return {}
    try:
        facts = json.loads(bytes(parts[INDEX]))
        built = {"GPU": facts["gpu"], "architecture": facts["arch"], "NVRTC": ".".join(map(str, facts["nvrtc"]))}
        code = parts[CODE]
        found = {
            key: Program(bytes(code[start : start + size]), Resources(*resources), cached=True)
            for key, start, size, resources in facts["kernels"]
        }
        whole = all(
            len(one.cubin) == size for one, (_, _, size, _) in zip(found.values(), facts["kernels"], strict=True)
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"the engine's kernels cannot be read: {type(error).__name__}: {error}", hint=_AGAIN
        ) from error
    if not whole:
        raise InputError("the engine's kernels cannot be read: some are cut short", hint=_AGAIN)
    here = {"GPU": gpu, "architecture": compiler.arch, "NVRTC": ".".join(map(str, nvrtc_version()))}
    for what, then in built.items():
        if then != here[what]:
            raise InputError(
                f"the engine's kernels were chosen and compiled for {what} {then}; here is {here[what]}", hint=_AGAIN
            )
    return found
