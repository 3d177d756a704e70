"""The kernels that Attention has for itself, within registers and without spilling."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from probe.engine.build import compile_model
from probe.engine.device.cuda.compiling import compile as compiling
from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.device import CudaDevice
from probe.model import load
from tests.engine.cuda.assembled import assembled
from tests.engine.cuda.attention_op_cases import ATTENTION
from tests.engine.cuda.null_backend import NullBackend

pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-python is not installed")
try:
    compiling.nvrtc_version()
except RuntimeError as error:
    pytest.skip(f"NVRTC cannot be loaded: {error}", allow_module_level=True)

BUDGETS = {"attention_empty": 64, "attention_few": 128, "attention_few_join": 64}


@cache
def sources() -> list[Source]:
    """What the cases launch of them, in FP16 and FP32."""
    backend = NullBackend()
    with TemporaryDirectory() as folder:
        for case in ATTENTION:
            path, feeds = case.save(Path(folder))
            for precision in ("fp16", "fp32"):
                engine = compile_model(load(path), precision=precision, passes="none", fusion="none")
                engine.device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
                engine(feeds)
    return list(dict.fromkeys(source for source, _ in backend.launched if source.entry in BUDGETS))


@pytest.mark.parametrize(
    "arch",
    ["sm_90a", *(pytest.param(one, marks=pytest.mark.slow) for one in ("sm_80", "sm_120"))],
)
def test_they_are_within_their_budgets(arch):
    found = [
        one
        for name in BUDGETS
        for one in [one for one in sources() if one.entry == name][:: 3 if arch == "sm_90a" else 6]
    ]
    assert {one.entry for one in sources()} == set(BUDGETS)
    for source in found:
        _, used = assembled(source, arch)
        assert used.registers <= BUDGETS[source.entry] and not used.spilled_bytes, (str(source), used)
