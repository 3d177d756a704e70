"""``Ending``: what becomes of the sums of a product or convolution: stored, or first taken through a tail of pointwise nodes, in registers."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

from probe.engine.device.cuda.backend import Argument
from probe.engine.device.cuda.compiling.compile import Source, kernel_text
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.layers.chain import Operand, Step, loop_lines, walk_of
from probe.engine.device.cuda.layers.divisors import divisors
from probe.engine.device.cuda.layers.neighbours import format_of_all
from probe.engine.device.cuda.tensors.formats import Format
from probe.engine.device.cuda.tensors.layout import Shape, Strides, spread

if TYPE_CHECKING:
    from probe.engine.device.cuda.layers.pointwise import Reading
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.tensors.tensor import Tensor

_READ = re.compile(r"\b(\w+)_in\b")
_AXES = ("b0", "b1", "row", "col")
_TOGETHER = 8  # neighbours of a row that kernels hand over at once


class Spread(ctypes.Structure):
    """The struct Strides of kernels/out.cuh."""

    _fields_ = tuple((name, ctypes.c_longlong) for name in _AXES)


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a kernel whose sums have ``shape``, or the same elements in another grouping of axes.

    Attributes:
        stored: what is written, in order.
        readings: what a tail reads, by the name that its steps call it.
        steps: of the tail, which call a sum ``sum``; none: the sums are stored.
    """

    shape: Shape
    stored: tuple[Tensor, ...]
    readings: tuple[tuple[str, Reading], ...] = ()
    steps: tuple[Step, ...] = ()

    def strides(self, shape: Shape) -> list[Strides]:
        """Of everything the tail reads, along the axes of another grouping.

        Raises:
            Unsupported: one of them has no single stride along an axis of it.
        """
        return [regrouped(self.shape, spread(one.tensor.shape, self.shape), shape) for _, one in self.readings]

    def source(
        self, file: str, entry: str, macros: Sequence[tuple[str, str | int]], strides: Sequence[Strides], cols: int
    ) -> Source:
        """The kernel with this ending.

        Args:
            strides: of what the tail reads, columns last.
            cols: of the matrices.
        """
        if not self.steps:
            (only,) = self.stored
            assert only.format
            return Source(file, entry, (*macros, ("TY", only.format.name)))
        operands = []
        for (name, reading), own in zip(self.readings, strides, strict=True):
            if reading.tensor.format is None:
                raise Unsupported("a tensor of a type that kernels do not know")
            walk = walk_of(own)
            if walk == "dense" and cols % _TOGETHER == 0 and any(step % _TOGETHER for step in own[:-1]):
                walk = "strided"  # its rows do not begin on whole accesses
            operands.append(Operand(name, reading.tensor.format, reading.rounding, walk))
        axes = tuple(tuple(name for name, step in zip(_AXES, own, strict=True) if step) for own in strides)
        return Source(file, entry, tuple(macros), _text(file, tuple(operands), axes, self.steps), contract=False)

    def arguments(self, queue: Queue, strides: Sequence[tuple[int, int, int, int]]) -> list[Argument]:
        """What a kernel takes in place of ``OUT_PARAMETERS``."""
        read = [queue.at(one.tensor) for _, one in self.readings]
        return [*read, *map(queue.at, self.stored), *(Spread(*own) for own in strides)]


def storing(queue: Queue, shape: Shape, format: Format) -> Ending:  # noqa: A002 - the word of the room
    """Sums stored as they are, rounded to a format."""
    return Ending(shape, (queue.empty(shape, format),))


def through(queue: Queue, shape: Shape, readings: Sequence[tuple[str, Reading]], steps: Sequence[Step]) -> Ending:
    """Sums taken through a tail."""
    stored = tuple(queue.empty(shape, step.store) for step in steps if step.store is not None)
    return Ending(shape, stored, tuple(readings), tuple(steps))


def regrouped(shape: Shape, strides: Strides, target: Shape) -> Strides:
    """Strides along the axes of another shape of the same elements in the same order: axes are joined where they lie evenly, and split.

    Raises:
        Unsupported: an axis of ``target`` has no single stride.
    """
    left = [(extent, step) for extent, step in zip(shape, strides, strict=True) if extent != 1]
    found = []
    for wanted in target:
        pieces: list[tuple[int, int]] = []
        while wanted > 1:
            extent, step = left.pop(0) if left else (0, 0)
            if extent and wanted % extent == 0:
                pieces.append((extent, step))
                wanted //= extent
            elif extent and extent % wanted == 0:
                pieces.append((wanted, step * (extent // wanted)))
                left.insert(0, (extent // wanted, step))
                wanted = 1
            else:
                raise Unsupported(f"axes of {shape} across those of {target}")
        if any(step != extent * inner for (_, step), (extent, inner) in pairwise(pieces)):
            raise Unsupported("something that does not lie evenly along rows or columns")
        found.append(pieces[-1][1] if pieces else 0)
    return tuple(found)


@lru_cache(maxsize=1024)
def _text(file: str, operands: tuple[Operand, ...], axes: tuple[tuple[str, ...], ...], steps: tuple[Step, ...]) -> str:
    """A file of kernels/ with ``put`` in front of it: the tail of N neighbours of a row.

    Args:
        axes: along which an operand moves; none: a single value, which is read once, and what is divided by it made then.
    """
    places = {
        one.name: " + ".join(
            f"spot.{axis}" if axis == "col" and one.walk == "dense" else f"spot.{axis} * out.{one.name}_s.{axis}"
            for axis in own
        )
        for one, own in zip(operands, axes, strict=True)
    }
    stored = [(step.name, step.store.name) for step in steps if step.store is not None]
    members = [f"const {one.format.name}* __restrict__ {one.name}_at" for one in operands]
    members += [f"{kind}* __restrict__ {name}_at" for name, kind in stored]
    spreads = [f"{one.name}_s" for one in operands]
    parameters = [*members, *(f"Strides {name}" for name in spreads)]
    arguments = [*(f"{one.name}_at" for one in operands), *(f"{name}_at" for name, _ in stored), *spreads]
    once = [one for one in operands if not places[one.name]]  # read when an ``Out`` is made
    made = divisors(once, steps, format_of_all(steps))
    arguments += [f"*{one.name}_at" for one in once] + [_READ.sub(r"*\1_at", value) for *_, value in made]
    values = [f"{one.format.name} {one.name}_in" for one in once] + [f"{kind} {name}" for kind, name, _ in made]
    lines = [
        '#include "narrow.cuh"', "#define TAIL 1", '#include "out.cuh"',
        f"#define OUT_PARAMETERS {', '.join(parameters)}", f"#define OUT_ARGUMENTS {', '.join(arguments)}",
        f"struct Out {{ {' '.join(f'{one};' for one in [*members, *(f'Strides {name}' for name in spreads), *values])} }};",
        "template <int N> struct Beside {",
    ]  # fmt: skip
    ahead = [one for one in operands if one.walk != "strided" and places[one.name]]
    packs = {"dense": "Pack<{}, N>", "fixed": "{}"}
    loads = {"dense": "neighbours<N>({})", "fixed": "*({})"}
    lines += [f"    {packs[one.walk].format(one.format.name)} {one.name}_in;" for one in ahead]
    lines += [
        "};",
        "// `in`: inside the tensors; what is read where it is not means nothing",
        "template <int N> __device__ __forceinline__ Beside<N> fetch(const Out& out, const Spot& spot, bool in = true) {",
        "    Beside<N> beside;",
    ]
    for one in ahead:
        at = f"in ? out.{one.name}_at + {places[one.name]} : out.{one.name}_at"
        lines.append(f"    beside.{one.name}_in = {loads[one.walk].format(at)};")
    whole = "const Out& out, const float (&sums)[N]"
    lines += [
        "    return beside;",
        "}",
        f"template <int N> __device__ __forceinline__ void put({whole}, const Beside<N>& beside, const Spot& spot, bool in = true) {{",
    ]
    for one in operands:
        name = one.name
        if one.walk == "strided":
            lines.append(f"    auto {name}_at = in ? out.{name}_at + {places[name]} : out.{name}_at;")
            lines.append(f"    i64 {name}_o = 0, {name}_step = in ? out.{name}_s.col : 0;")
        else:
            lines.append(f"    auto {name}_in = {'beside' if places[name] else 'out'}.{name}_in;")
    lines += [f"    const {kind}& {name} = out.{name};" for kind, name, _ in made]
    lines += [f"    Pack<{kind}, N> {name}_out;" for name, kind in stored]
    lines += [f"    {line}" for line in loop_lines(operands, steps, ("sum",), [one.name for one in once])]
    lines += [*(f"    store(out.{name}_at + spot.at, {name}_out, in);" for name, _ in stored), "}"]
    at_once = "put(out, sums, fetch<N>(out, spot), spot);"
    lines += [f"template <int N> __device__ __forceinline__ void put({whole}, const Spot& spot) {{ {at_once} }}", ""]
    return "\n".join(lines) + kernel_text(file)
