"""Attention's kernel for every architecture, without spilling."""

from __future__ import annotations

import os

import numpy as np
import pytest

from probe.engine.device.cuda.compiling import compile as compiling
from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.layers.chain import Step
from probe.engine.device.cuda.layers.pointwise import Reading
from probe.engine.device.cuda.ops.attention.attention import Attention, Variant, attend, view
from probe.engine.device.cuda.ops.attention.attention_code import Steps, pair_expression
from probe.engine.device.cuda.ops.attention.attention_wgmma import Groups, Held
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32, Format
from probe.engine.device.cuda.tensors.tensor import host_tensor
from tests.engine.cuda.assembled import assembled
from tests.engine.cuda.attention_problem import run, shapes
from tests.engine.cuda.null_backend import NullBackend
from tests.engine.cuda.test_wgmma_compile import SHARED

pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-python is not installed")
try:
    compiling.nvrtc_version()
except RuntimeError as error:
    pytest.skip(f"NVRTC cannot be loaded: {error}", allow_module_level=True)

ARCHS = ("sm_80", "sm_86", "sm_89", "sm_90a", "sm_100", "sm_120")
SPILLED = 96  # bytes, where one more block on a multiprocessor was measured to be worth them
# elements, keys, variant: registers at most, so that blocks enough fit on a multiprocessor of 65536
TABLE = {
    "one block": (64, 128, Variant(1, 4, 64, 4, 128), 128),
    "bert": (64, 128, Variant(4, 1, 64, 4, 128, 128), 128),
    "vit": (64, 197, Variant(4, 1, 64, 4, 208, 168), 168),
    "longest held": (64, 240, Variant(4, 1, 64, 4, 240), 255),
    "held of 128": (128, 240, Variant(4, 1, 64, 3, 240), 255),
    "long": (64, 512, Variant(4, 1, 64, 3, 0, 128), 128),
    "long of 128": (128, 512, Variant(4, 1, 64, 3, 0, 168), 168),
    "long of 256": (256, 512, Variant(4, 1, 32, 2, 0), 255),
    "tf32": (64, 128, Variant(2, 2, 64, 3, 128), 128),
    "tf32 vit": (64, 197, Variant(4, 1, 64, 3, 208), 255),
    "tf32 long": (64, 512, Variant(4, 1, 64, 2, 0), 200),
}


def source_of(
    elements: int, keys: int, variant: Variant, stored: Format, made: Format | None = None, *, wide: bool = False
) -> Source:
    """Scaled, masked scores between transposed operands.

    Args:
        made: what the result is stored in, if not as operands are.
        wide: weights are not rounded.
    """
    backend = NullBackend()
    queue = Queue(backend, 18)
    q, k, v = (view(queue.empty((2, n, 2, elements), stored)).transposed((0, 2, 1, 3)) for n in (64, keys, keys))
    scale, mask = Reading(host_tensor(np.array(0.5, np.float32), stored)), Reading(queue.empty((2, 1, 1, keys), stored))
    tf32, rounding = stored is F32, "" if stored is F32 else stored.name
    steps = (
        Step("s_", "float", "sum", rounding), Step("s0", "float", "op_mul(s_, x0)", rounding),
        Step("s1", "float", "op_add(s0, x1)", rounding),
    )  # fmt: skip
    first = Steps((), (Step("r", "float", "sum", "tf32"),)) if tf32 else Steps()
    pairs = (
        "sum_2",
        pair_expression("Mul", ("s_", "x0"), stored.name),
        pair_expression("Add", ("s0", "x1"), stored.name),
    )
    after = Steps((), (Step("w_", "float", "sum", rounding),))
    readings = (("x0", scale), ("x1", mask))
    between = Steps(("x0", "x1"), steps, pairs)
    what = Attention(q, k, v, readings, first, first, between, after, wide, first, tf32)
    attend(queue, what, made or stored, (0, 2, 1, 3), variant)
    (source,) = (one for one, _ in backend.launched if one.entry == "attention")
    return source


def within_budget(name: str, arch: str, stored: Format) -> None:
    elements, keys, variant, registers = TABLE[name]
    _, used = assembled(source_of(elements, keys, variant, stored), arch)
    assert used.spilled_bytes <= (SPILLED if variant.registers < 255 else 0) and used.registers <= registers, used


@pytest.mark.parametrize("name", ["bert", "longest held", "long"])
def test_attention_is_within_its_budget(name):
    within_budget(name, "sm_90a", F16)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHS)
def test_attention_is_within_its_budget_everywhere(arch):
    """Every case for sm_90a; a quarter of them in turn for the others, all with PROBE_ALL_KERNELS=1."""
    step = 1 if arch == "sm_90a" or os.environ.get("PROBE_ALL_KERNELS") else 4
    for at, name in list(enumerate(TABLE))[ARCHS.index(arch) % step :: step]:
        within_budget(name, arch, F32 if name.startswith("tf32") else (F16, BF16)[at % 2])


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("made", [F32, F16, BF16])
def test_every_mixture_of_formats_compiles(made, wide):
    """A result that is kept is stored in FP32, weights that are kept are multiplied as two numbers."""
    for stored in (F16, BF16):
        for variant in (Variant(1, 1, 32, 2, 16), Variant(1, 2, 32, 2, 0), Variant(1, 1, 32, 2, 0, 255, 2)):
            if made in (F32, stored):
                source = source_of(16, 16 if variant.held else 40, variant, stored, made, wide=wide)
                assert not assembled(source)[1].spilled_bytes


# elements, variant, weights are not rounded
GROUPS = (
    (64, Groups(2, 64), False), (64, Groups(3, 64), False), (128, Groups(2, 64, holds=True), False), (64, Groups(2, 64, holds=True), True),
    (128, Groups(2, 64), True), (128, Groups(3, 64, sets=1), False), (128, Groups(3, 64, sets=1), True), (64, Held(256, 2), False), (64, Held(256), True),
)  # fmt: skip


@pytest.mark.parametrize(("elements", "variant", "wide"), GROUPS, ids=str)
def test_groups_are_within_their_budget(elements, variant, wide):
    """Registers as the block begins with; the assembler neither spills nor waits for products one by one."""
    backend = NullBackend()
    backend.arch = "sm_90a"
    queue = Queue(backend, 18)
    keys = variant.keys if isinstance(variant, Held) else 512
    problem = (4, 2, 512, keys, elements, 1)
    run(queue, [queue.empty(one, BF16) for one in shapes(problem)], problem, variant, rounds=not wide)
    ((source, launched),) = backend.launched
    blocks, threads = (variant.blocks, 128) if isinstance(variant, Held) else (1, variant.threads)
    most = min((1 << 16) // (blocks * threads) // 8 * 8, 255)
    log, used = assembled(source)
    assert not used.spilled_bytes and used.registers <= most, used
    assert used.shared_bytes + launched.shared_bytes <= SHARED and "C75" not in log, log


@pytest.mark.parametrize(("elements", "variant"), [(64, Groups(2, 64, holds=True)), (128, Groups(2, 64))], ids=str)
def test_groups_of_tf32_are_within_their_budget(elements, variant):
    backend = NullBackend()
    backend.arch = "sm_90a"
    queue, problem = Queue(backend, 18), (4, 2, 512, 600, elements, 1)
    run(queue, [queue.empty(one, F32) for one in shapes(problem)], problem, variant, tf32=True)
    ((source, launched),) = backend.launched
    log, used = assembled(source)
    assert not used.spilled_bytes and used.registers <= (1 << 16) // variant.threads // 8 * 8, used
    assert used.shared_bytes + launched.shared_bytes <= SHARED and "C75" not in log, log


@pytest.mark.parametrize("keys", [128, 197, 256])
def test_held_scores_of_tf32_are_within_their_budget(keys):
    """With a mask, too; a few numbers that are needed once lie in memory meanwhile."""
    backend = NullBackend()
    backend.arch = "sm_90a"
    queue, variant, problem = Queue(backend, 18), Held(-(-keys // 16) * 16), (4, 2, 512, keys, 64, 1)
    run(queue, [queue.empty(one, F32) for one in shapes(problem)], problem, variant, tf32=True)
    ((source, launched),) = backend.launched
    log, used = assembled(source)
    blocks = dict(source.defines)["BLOCKS"]
    assert used.spilled_bytes <= 32 and used.registers <= min((1 << 16) // (int(blocks) * 128) // 8 * 8, 255), used
    assert int(blocks) * (used.shared_bytes + launched.shared_bytes + 1024) <= 228 << 10 and "C75" not in log, log
