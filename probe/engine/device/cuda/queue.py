"""``Queue``: what operators use to get memory, to launch kernels and to change formats."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.engine.device.cuda.backend import Argument, Shape
from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.errors import OutOfMemory, Unsupported
from probe.engine.device.cuda.layers.chain import THREADS, Operand, Step, chain_source, plan_walk
from probe.engine.device.cuda.tensors.formats import Format
from probe.engine.device.cuda.tensors.tensor import Buffer, Tensor, host_tensor

if TYPE_CHECKING:
    from probe.engine.device.cuda.backend import Backend
    from probe.engine.device.cuda.library.routine import Routine

Array = np.ndarray[Any, Any]
MAX_BLOCKS = (1 << 31) - 1


def apart_in_words(apart: Mapping[str, str]) -> list[str]:
    """``Queue.apart`` in sentences, one a reason."""
    by_reason: dict[str, list[str]] = {}
    for layer, why in apart.items():
        by_reason.setdefault(why, []).append(layer)
    return [
        f"{names[0]}{f' and {len(names) - 1:,} layers like it' if names[1:] else ''}: node by node, not by one kernel: {why}"
        for why, names in by_reason.items()
    ]


@dataclass(slots=True)
class Queue:
    """Launches for one network, in order.

    Attributes:
        opset: version of the standard operators.
        layer: whose kernels are being launched; for errors.
        launches: made so far, by kernel.
        faults: where kernels say that an index is out of range, when nobody could look at the indices before: one integer on the device.
        may_fault: such a kernel was launched.
        recording: what is launched will be repeated with other values.
        outside: while recording: a queue that does not.
        sources: kernels launched so far.
        apart: layers computed node by node that one kernel could have computed otherwise, and why.
        offers: where products and convolutions tell, one after the other, which tactics of this device compute them; None: nobody asks.
    """

    backend: Backend
    opset: int
    layer: str = ""
    launches: dict[str, int] = field(default_factory=dict)
    faults: Tensor | None = None
    may_fault: bool = False
    recording: bool = False
    outside: Queue | None = None
    sources: set[Source] = field(default_factory=set)
    apart: dict[str, str] = field(default_factory=dict)
    offers: list[list[str]] | None = None

    def empty(self, shape: tuple[int, ...], format: Format) -> Tensor:  # noqa: A002
        """A tensor whose memory nobody has written yet."""
        made = Tensor(shape, format)
        try:
            return Tensor(shape, format, buffer=Buffer(self.backend, made.nbytes))
        except OutOfMemory as full:
            raise full.at(f"layer {self.layer}") from full

    def at(self, tensor: Tensor | None) -> ctypes.c_void_p:
        """A tensor as an argument of a kernel; null where there is none."""
        return ctypes.c_void_p(tensor.address(self.backend) if tensor is not None else None)

    @property
    def aside(self) -> Queue:
        """For what is made once and kept (weights in another order): launches that no recording repeats."""
        return self.outside or self

    def known(self, tensor: Tensor) -> Array | None:
        """A tensor's values, where what is launched may depend on them; None where they may be others when it is repeated."""
        return tensor.constant if self.recording else tensor.array(self.backend)

    def fault(self) -> ctypes.c_void_p:
        """Where a kernel notes that an index is out of range."""
        if self.faults is None:
            self.faults = host_tensor(np.zeros(1, np.int32))
        self.may_fault = True
        return self.at(self.faults)

    def launch(self, source: Source, blocks: int, threads: int, *arguments: Argument, shared_bytes: int = 0) -> None:
        """Launch a kernel on a one-dimensional grid; nothing for no blocks.

        Raises:
            Unsupported: more blocks than a grid has.
        """
        if not blocks:
            return
        if blocks > MAX_BLOCKS:
            raise Unsupported(f"{source.entry} would need {blocks} blocks")
        self.launches[source.entry] = self.launches.get(source.entry, 0) + 1
        self.sources.add(source)
        self.backend.launch(source, Shape((blocks, 1, 1), threads, shared_bytes), arguments, self.layer)

    def call(self, routine: Routine, *arguments: Argument) -> None:
        """Call a library where otherwise a kernel is launched."""
        self.launches[routine.entry] = self.launches.get(routine.entry, 0) + 1
        self.backend.launch(routine, Shape((1, 1, 1), 1), arguments, self.layer)

    def convert(self, tensor: Tensor, format: Format, rounding: str = "") -> Tensor:  # noqa: A002
        """A tensor in another format, rounded on the way; the same one when there is nothing to do."""
        assert tensor.format is not None
        if tensor.format is format and rounding in ("", format.name):
            return tensor
        if tensor.lies is not None:
            from probe.engine.device.cuda.layers.pointwise import Reading, run_steps

            (found,) = run_steps(
                self, tensor.shape, [("x", Reading(tensor, rounding))], [Step("y", "float", "x", "", format)]
            )
            return found
        made = self.empty(tensor.shape, format)
        walk = plan_walk((max(tensor.size, 1),), [(1,)], max(tensor.format.bytes, format.bytes), tensor.size)
        operand = Operand("x", tensor.format, rounding, "dense")
        source = chain_source((operand,), (Step("y", "float", "x", "", format),), walk, (True,))
        if tensor.size:
            index = ctypes.c_longlong if walk.wide else ctypes.c_uint
            self.launch(
                source, -(-walk.vectors // THREADS), THREADS, self.at(tensor), self.at(made), index(walk.vectors),
                index(walk.extents[-1]),
            )  # fmt: skip
        return made
