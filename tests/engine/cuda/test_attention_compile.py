"""Attention's kernel for every architecture, without spilling."""

from __future__ import annotations

import numpy as np
import pytest

from probe.engine.device.cuda import compile as compiling
from probe.engine.device.cuda.chain import Step
from probe.engine.device.cuda.compile import Compiler, Source
from probe.engine.device.cuda.formats import BF16, F16, Format
from probe.engine.device.cuda.ops.attention import Attention, Variant, attend, view
from probe.engine.device.cuda.ops.attention_code import Steps, pair_expression
from probe.engine.device.cuda.pointwise import Reading
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensor import host_tensor
from tests.engine.cuda.null_backend import NullBackend

pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-python is not installed")
try:
    compiling.nvrtc_version()
except RuntimeError as error:
    pytest.skip(f"NVRTC cannot be loaded: {error}", allow_module_level=True)

# elements, keys, variant: registers at most, so that blocks enough fit on a multiprocessor of 65536
TABLE = {
    "one block": (64, 128, Variant(1, 4, 64, 4, 128), 128),
    "bert": (64, 128, Variant(2, 2, 64, 4, 128), 128),
    "vit": (64, 197, Variant(4, 1, 64, 4, 208), 255),
    "longest held": (64, 240, Variant(4, 1, 64, 4, 240), 255),
    "held of 128": (128, 240, Variant(4, 1, 64, 3, 240), 255),
    "long": (64, 512, Variant(4, 1, 64, 2, 0), 184),
    "long of 128": (128, 512, Variant(4, 1, 64, 2, 0), 255),
    "long of 256": (256, 512, Variant(4, 1, 64, 2, 0), 255),
}


def source_of(elements: int, keys: int, variant: Variant, stored: Format) -> Source:
    """Scaled, masked scores between transposed operands."""
    backend = NullBackend()
    queue = Queue(backend, 18)
    heads = (view(queue.empty((2, n, 2, elements), stored)).transposed((0, 2, 1, 3)) for n in (64, keys, keys))
    scale, mask = Reading(host_tensor(np.array(0.5, np.float32), stored)), Reading(queue.empty((2, 1, 1, keys), stored))
    steps = (
        Step("s_", "float", "sum", stored.name), Step("s0", "float", "op_mul(s_, x0)", stored.name),
        Step("s1", "float", "op_add(s0, x1)", stored.name),
    )  # fmt: skip
    pairs = (
        "sum_2",
        pair_expression("Mul", ("s_", "x0"), stored.name),
        pair_expression("Add", ("s0", "x1"), stored.name),
    )
    after = Steps((), (Step("w_", "float", "sum", stored.name),))
    readings = (("x0", scale), ("x1", mask))
    what = Attention(*heads, readings, Steps(), Steps(), Steps(("x0", "x1"), steps, pairs), after)
    attend(queue, what, stored, (0, 2, 1, 3), variant)
    (source,) = (one for one, _ in backend.launched if one.entry == "attention")
    return source


def within_budget(name: str, arch: str, stored: Format) -> None:
    elements, keys, variant, registers = TABLE[name]
    used = Compiler(arch, None)(source_of(elements, keys, variant, stored)).resources
    assert not used.spilled_bytes and used.registers <= registers, used


@pytest.mark.parametrize("name", ["bert", "longest held", "long"])
def test_attention_is_within_its_budget(name):
    within_budget(name, "sm_90a", F16)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["sm_80", "sm_86", "sm_89", "sm_90a", "sm_100", "sm_120"])
def test_attention_is_within_its_budget_everywhere(arch):
    for at, name in enumerate(TABLE):
        within_budget(name, arch, (F16, BF16)[at % 2])
