"""``Call``: one node to compute, its inputs as they are stored, and the formats its outputs are wanted in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from probe import ir
from probe.engine.assignment import EXACT
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.layers.chain import Step
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import F32, Format

if TYPE_CHECKING:
    from probe.engine.device.cuda.layers.pointwise import Reading
    from probe.engine.device.cuda.tensors.tensor import Tensor

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """A node to compute.

    Attributes:
        inputs: None where omitted.
        formats: of each output; None for outputs without a name.
        tactic: how products accumulate.
        tf32: what a product multiplies is stored in FP32, but was rounded to TF32.
    """

    node: ir.Node
    inputs: Sequence[Tensor | None]
    formats: Sequence[Format | None]
    opset: int
    tactic: str = EXACT
    tf32: bool = False

    def data(self, position: int) -> Tensor:
        """An input that must be there and on the device.

        Raises:
            Unsupported: it is not, or of a type that kernels do not know.
        """
        found = self.given(position)
        if found is None or found.format is None:
            raise Unsupported(f"{self.node.op_type} on an input that kernels do not know")
        return found

    def given(self, position: int) -> Tensor | None:
        return self.inputs[position] if position < len(self.inputs) else None

    def store(self, position: int = 0) -> Format:
        """What an output is stored in."""
        return self.formats[position] or F32

    def like(self, x: Tensor) -> Format:
        """What the first output is stored in where it holds elements of ``x``: floats as wanted, others as they are."""
        assert x.format is not None
        return self.store() if x.format.is_float else x.format

    def stored(self, queue: Queue, position: int) -> Tensor:
        """An input, as ``data``, in the format of ``like``."""
        x = self.data(position)
        return queue.convert(x, self.like(x))

    def int(self, name: str, default: int) -> int:
        return int(self.node.attributes.get_int(name, default))

    def float(self, name: str, default: float) -> float:
        return float(self.node.attributes.get_float(name, default))

    def text(self, name: str, default: str) -> str:
        return self.node.attributes.get_string(name, default)

    def ints(self, name: str) -> list[int] | None:
        found = self.node.attributes.get_ints(name, None)
        return None if found is None else [int(one) for one in found]

    def numbers(self, position: int, queue: Queue) -> list[int] | None:
        """An input that is a list of integers: axes, shapes, starts; None where omitted."""
        found = self.given(position)
        return None if found is None else [int(one) for one in found.array(queue.backend).reshape(-1)]


Compute = Callable[[Queue, Call], "list[Tensor | None]"]
Readings = Sequence[tuple[str, "Reading"]]  # what is read, by the name that steps call it
Tailed = Callable[[Queue, Call, Readings, Sequence[Step]], "list[Tensor]"]


@dataclass(frozen=True, slots=True)
class Op:
    """An operator with kernels.

    Attributes:
        compute: its outputs, in the call's formats.
        tailed: what ``steps`` store, of its output's shape, where the output itself is a register named ``sum``: the operator and the pointwise
            nodes behind it as one kernel. Raises Unsupported, before anything is launched, where one kernel cannot. None: it never can.
    """

    names: tuple[str, ...]
    compute: Compute
    tailed: Tailed | None = None
