"""Kernels that begin before those before them have ended: each waits before it touches memory that another one may be writing."""

from __future__ import annotations

import re

import pytest

from probe.engine.build import compile_model
from probe.engine.device.cuda.compiling.compile import Source, headers_of, kernel_folder, kernel_text, options_of
from probe.engine.device.cuda.device import CudaDevice
from probe.engine.device.cuda.layers.chain import Operand, Step, chain_source, plan_walk
from probe.engine.device.cuda.tensors.formats import F32
from probe.model import load
from tests.engine.cuda import cases, more_cases
from tests.engine.cuda.null_backend import NullBackend

ENTRY = re.compile(r"__global__[^{;]*\{(?P<body>.*?)\n\}", re.DOTALL)
WAITS = re.compile(r"\b(?:take_turn|wait_for_previous)\(\);")
MEMORY = re.compile(
    r"\b(?:ld\.global|st\.global|ld\.volatile|atom|red\.|cp\.async(?!\.(?:wait|commit)))|\bld\.(?!param|shared|const|local)"
)
TABLES = {**vars(cases), **vars(more_cases)}
FAMILIES = ("SOFTMAX", "NORMS", "REDUCTIONS", "MOVES", "PRODUCTS", "CONVOLUTIONS", "POOLS", "INDEXED", "RECURRENT")


def entries(text: str) -> list[str]:
    """What each kernel of a source does, as text."""
    return [found["body"] for found in ENTRY.finditer(text)]


def test_every_kernel_waits():
    files = sorted(path.name for path in kernel_folder().glob("*.cu"))
    assert len(files) > 10
    lacking = [name for name in files for body in entries(kernel_text(name)) if not WAITS.search(body)]
    assert not lacking
    counted = sum(len(entries(kernel_text(name))) for name in files)
    assert counted == sum(kernel_text(name).count("__global__") for name in files)


def test_generated_chains_wait():
    walk = plan_walk((64,), [(1,)], 4, 64)
    source = chain_source((Operand("x", F32, "", "dense"),), (Step("y", "float", "x", "", F32),), walk, (True,))
    (body,) = entries(source.code)
    assert WAITS.search(body)


def ptx_of(source: Source, arch: str) -> list[str]:
    """The instructions of a kernel, as NVRTC makes them before the assembler."""
    from cuda.bindings import nvrtc  # pyright: ignore[reportAttributeAccessIssue] - compiled, without stubs

    headers = headers_of(source.code)
    texts, names = [text.encode() for text in headers.values()], [name.encode() for name in headers]
    _, program = nvrtc.nvrtcCreateProgram(source.code.encode(), b"kernel.cu", len(texts), texts, names)
    flags = [option.encode() for option in options_of(source, arch)]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(flags), flags)
    assert status == nvrtc.nvrtcResult.NVRTC_SUCCESS
    _, size = nvrtc.nvrtcGetPTXSize(program)
    text = b" " * size
    nvrtc.nvrtcGetPTX(program, text)
    nvrtc.nvrtcDestroyProgram(program)
    return text.decode().partition(".entry")[2].splitlines()


@pytest.mark.usefixtures("nvrtc")
@pytest.mark.parametrize("family", FAMILIES)
def test_no_access_above_the_wait(tmp_path, family):
    # `const __restrict__` would allow the compiler to read early: that it does not is looked at, not assumed
    case = next(one for one in TABLES[family] if "f16" not in str(one))
    path, feeds = case.save(tmp_path)
    engine = compile_model(load(path), precision="fp16", passes="none", fusion="none")
    backend = NullBackend()
    engine.device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    engine(feeds)
    sources = list(dict.fromkeys(source for source, _ in backend.launched))
    for source in sources[:3]:
        lines = ptx_of(source, "sm_90")
        (wait,) = (at for at, line in enumerate(lines) if "griddepcontrol.wait" in line)
        touched = [at for at, line in enumerate(lines) if MEMORY.search(line)]
        assert touched, source
        assert min(touched) > wait, lines[min(touched)]


@pytest.mark.usefixtures("nvrtc")
def test_older_architectures_know_no_such_thing():
    walk = plan_walk((64,), [(1,)], 4, 64)
    source = chain_source((Operand("x", F32, "", "dense"),), (Step("y", "float", "x", "", F32),), walk, (True,))
    assert not any("griddepcontrol" in line for line in ptx_of(source, "sm_80"))
