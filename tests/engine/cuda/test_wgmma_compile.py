"""Kernels of sm_90a compile without a GPU: registers, spills, and products that the assembler does not wait for one by one."""

from __future__ import annotations

import itertools
import os

import pytest

from probe import ir
from probe.engine.device.cuda.compiling import compile as compiling
from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.layers.chain import Step
from probe.engine.device.cuda.layers.pointwise import Reading
from probe.engine.device.cuda.ops.call import Call
from probe.engine.device.cuda.ops.products.ending import storing, through
from probe.engine.device.cuda.ops.products.matmul import run
from probe.engine.device.cuda.ops.products.product import Matrices, describe
from probe.engine.device.cuda.ops.products.wgmma import ARCH
from probe.engine.device.cuda.ops.products.wgmma_tactics import TACTICS, Tactic
from probe.engine.device.cuda.ops.table import OPS
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32
from tests.engine.cuda.assembled import assembled
from tests.engine.cuda.null_backend import NullBackend

pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-python is not installed")
try:
    compiling.nvrtc_version()
except RuntimeError as error:
    pytest.skip(f"NVRTC cannot be loaded: {error}", allow_module_level=True)

# Those of two warpgroups have more registers each.
MOST_OF_TWO = 232
MOST = 168  # registers a thread with three warpgroups a block; what is over, consumers take from the copying warps
SHARED = 227 << 10  # bytes of a block
SPILLED = 32  # bytes: addresses, where sums or many warps leave no more registers for an erff and a residual at once


LAYOUTS = [(F16, (0, 0)), (BF16, (1, 1))]
if os.environ.get("PROBE_ALL_KERNELS"):
    LAYOUTS += [(F16, (1, 1)), (BF16, (0, 0))]


def hopper() -> NullBackend:
    backend = NullBackend()
    backend.arch = ARCH
    return backend


def product_source(tactic: Tactic, stored=F16, by=(0, 0), tail: bool = False) -> tuple[Source, int]:
    """A product of one tile on a tactic, and its bytes of shared memory."""
    backend, shape = hopper(), (256, 256)
    queue, k = Queue(backend, 18), 1024
    a, b, beside = queue.empty((256, k), stored), queue.empty((k, 256), stored), queue.empty(shape, stored)
    steps = (Step("p", "float", "sum", stored.name), Step("v", "float", "op_gelu(op_add(p, x0))", stored.name, stored))
    ending = through(queue, shape, [("x0", Reading(beside))], steps) if tail else storing(queue, shape, stored)
    along_m = by[0] and not tactic.swapped  # which takes rows along k alone
    left = Matrices(a, (), *((1, 256) if along_m else (k, 1)))
    right = Matrices(b, (), *((256, 1) if by[1] else (1, k)))
    run(queue, describe(left, right, None, shape, k, ending), tactic)
    ((source, launched),) = backend.launched
    return source, launched.shared_bytes


def fine(source: Source, shared: int, most: int = MOST, spilled: int = 0) -> None:
    log, used = assembled(source)
    assert used.spilled_bytes <= spilled and used.registers <= most, used
    assert used.shared_bytes + shared <= SHARED
    assert "C75" not in log, log  # advice that wgmma is serialised, or that setmaxnreg is not heeded


@pytest.mark.parametrize("tail", [False, True])
@pytest.mark.parametrize("tactic", [Tactic(128, 256), Tactic(128, 128, splits=2), Tactic(64, 192, turns=2)], ids=str)
def test_tactics_are_within_their_budget(tactic, tail):
    fine(*product_source(tactic, by=(0, 1), tail=tail))


@pytest.mark.slow
@pytest.mark.parametrize(("stored", "by"), LAYOUTS, ids=str)
@pytest.mark.parametrize("tactic", TACTICS, ids=str)
def test_every_tactic_is_within_its_budget(tactic, stored, by):
    """FP16 in one layout, with a tail and without, BF16, which differs in one instruction, for one in three; PROBE_ALL_KERNELS=1: everything."""
    if stored is BF16 and TACTICS.index(tactic) % 3 and not os.environ.get("PROBE_ALL_KERNELS"):
        pytest.skip("one in three; PROBE_ALL_KERNELS=1 compiles all")
    most = MOST_OF_TWO if tactic.groups == 1 else MOST
    for tail in (False, True) if stored is F16 or os.environ.get("PROBE_ALL_KERNELS") else (False,):
        spilled = SPILLED if tail and (tactic.swapped or tactic.turns > 2) else 0
        fine(*product_source(tactic, stored, by, tail), most, spilled)


@pytest.mark.parametrize("groups", [1, 64])
def test_convolutions_are_within_their_budget(groups):
    backend = hopper()
    queue = Queue(backend, 18)
    shapes = ((2, 64, 28, 28), (64, 64 // groups, 3, 3), (64,))
    node = ir.node("Conv", [ir.Value(name=name) for name in "xwb"], {"group": groups, "pads": [1, 1, 1, 1]})
    for strides, stored in itertools.product((1, 2), (F16, BF16)):
        node.attributes["strides"] = ir.AttrInt64s("strides", [strides, strides])
        OPS["Conv"].compute(queue, Call(node, [queue.empty(shape, stored) for shape in shapes], [stored], 18))
    found = {source: shape for source, shape in backend.launched if source.entry in ("matmul_wgmma", "conv_depthwise")}
    assert len(found) >= 2  # a type each
    for source, shape in found.items():
        fine(source, shape.shared_bytes)


def test_fp32_stays_where_it_was():
    """wgmma reads 16 bits; nothing is narrowed to get there."""
    backend = hopper()
    queue = Queue(backend, 18)
    a, b = (queue.empty((256, 256), F32) for _ in range(2))
    run(
        queue,
        describe(
            Matrices(a, (), 256, 1), Matrices(b, (), 256, 1), None, (256, 256), 256, storing(queue, (256, 256), F32)
        ),
    )
    assert [source.entry for source, _ in backend.launched] == ["matmul_ffma"]
