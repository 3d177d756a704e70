"""Code for a chain of pointwise nodes as one kernel: each input read once, each output written once, what lies between in registers.

A tensor inside the chain that the plan rounds is rounded in its register, so a fused chain gives the bits that a kernel a node would.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.layers.divisors import divided_by, divisors, rounded
from probe.engine.device.cuda.layers.neighbours import both_lines, format_of_all
from probe.engine.device.cuda.tensors.formats import Format
from probe.engine.device.cuda.tensors.layout import Shape, Strides, contiguous, width

THREADS = 256
_ACCESS = 16  # bytes a thread moves at once
_SMALL = 1 << 31  # elements that a 32-bit index reaches


@dataclass(frozen=True, slots=True)
class Operand:
    """Something read from memory.

    Attributes:
        rounding: Format name to round to when read; "" for none.
        walk: how it lies along the last axis: ``dense``, ``fixed`` (one value for all) or ``strided``.
    """

    name: str
    format: Format
    rounding: str
    walk: str

    @property
    def values(self) -> str:
        """The format that its values have when they are read."""
        return self.rounding or self.format.name


@dataclass(frozen=True, slots=True)
class Step:
    """One node: ``type name = expression``, then rounded; then stored, when ``store`` is a format."""

    name: str
    type: str  # in a register: float, i64, i32, bool...
    expression: str
    rounding: str = ""
    store: Format | None = None


@dataclass(frozen=True, slots=True)
class Walk:
    """How a chain runs over its elements.

    Attributes:
        extents: of the joined axes.
        lanes: elements of the last axis a thread takes at once.
        wide: whether indices need 64 bits.
    """

    extents: Shape
    lanes: int
    wide: bool

    @property
    def form(self) -> Walk:
        """The walk without its sizes: all that the code depends on."""
        return Walk((0,) * self.rank, self.lanes, self.wide)

    @property
    def rank(self) -> int:
        return len(self.extents)

    @property
    def vectors(self) -> int:
        """Threads that have work; the last one may have less."""
        return math.prod(self.extents[:-1]) * -(-self.extents[-1] // self.lanes)


def plan_walk(extents: Shape, strides: list[Strides], widest: int, size: int, firsts: Sequence[int] = ()) -> Walk:
    """How to run over joined axes.

    Args:
        strides: of every operand, along ``extents``.
        widest: bytes of the widest element that is read or written.
        size: elements of the largest tensor.
        firsts: element of its memory that each operand begins with.
    """
    lanes, last = max(_ACCESS // widest, 1), extents[-1]
    if len(extents) > 1:  # every row begins on a boundary of whole accesses; one long row may end inside one
        lanes = width(lanes, last, *(s for one in strides if one[-1] == 1 for s in one[:-1]))
    elif last < lanes:
        lanes = 1
    return Walk(extents, width(lanes, *firsts), wide=size >= _SMALL)


def walk_of(strides: Strides) -> str:
    """How an operand lies along the last axis."""
    return {0: "fixed", 1: "dense"}.get(strides[-1], "strided")


def same_as_output(strides: Strides, extents: Shape) -> bool:
    return strides == contiguous(extents)


def chain_source(
    operands: tuple[Operand, ...], steps: tuple[Step, ...], walk: Walk, straight: tuple[bool, ...]
) -> Source:
    """The kernel for a walk, whatever its extents: see ``_source``."""
    return _source(operands, steps, walk.form, straight)


@lru_cache(maxsize=4096)
def _source(operands: tuple[Operand, ...], steps: tuple[Step, ...], walk: Walk, straight: tuple[bool, ...]) -> Source:
    """The kernel ``chain``.

    Its arguments: a pointer an operand, a pointer a stored step, ``vectors``, the last extent, the extents in vectors but the first, then the
    strides of every operand that does not lie as the output does.

    Args:
        straight: of each operand: whether it lies in memory as the output does.
    """
    index = "i64" if walk.wide else "unsigned"
    stored = [step for step in steps if step.store is not None]
    parameters = [f"const {one.format.name}* __restrict__ {one.name}_at" for one in operands]
    parameters += [f"{step.store.name}* __restrict__ {step.name}_at" for step in stored if step.store is not None]
    parameters += [f"{index} vectors", f"{index} last", *(f"{index} e{axis}" for axis in range(1, walk.rank))]
    for one, lies in zip(operands, straight, strict=True):
        if not lies:
            parameters += [f"{index} {one.name}_s{axis}" for axis in range(walk.rank)]
    places = [f"{index} {one.name}_o" for one, lies in zip(operands, straight, strict=True) if not lies]
    signature = ",\n    ".join(
        [f"const {one.format.name}* __restrict__ {one.name}_at" for one in operands]
        + [f"{step.store.name}* __restrict__ {step.name}_at" for step in stored if step.store is not None]
        + [f"{index} at", *places]
        + [f"{index} {one.name}_step" for one, lies in zip(operands, straight, strict=True) if not lies and one.walk == "strided"]
    )  # fmt: skip
    text = [
        '#include "narrow.cuh"', "",
        "// N elements of the last axis, from element `at` of the output",
        "template <int N> __device__ __forceinline__ void run(", f"    {signature}) {{",
        *_loads(operands, straight), *_packs(stored), *(f"    {line}" for line in loop_lines(operands, steps)),
        *(f"    *(Pack<{s.store.name}, N>*)({s.name}_at + at) = {s.name}_out;" for s in stored if s.store is not None),
        "}", "",
        f'extern "C" __global__ void __launch_bounds__({THREADS}) chain(', f"    {(',' + chr(10) + '    ').join(parameters)}) {{",
        "    take_turn();",
        f"    {index} vector = ({index})blockIdx.x * {THREADS} + threadIdx.x;",
        "    if (vector >= vectors) return;",
        *_positions(operands, straight, walk, index),
        *_calls(operands, straight, stored, walk),
        "}", "",
    ]  # fmt: skip
    return Source("chain.cu", "chain", text="\n".join(text), contract=False)


def _loads(operands: tuple[Operand, ...], straight: tuple[bool, ...]) -> list[str]:
    lines = []
    for one, lies in zip(operands, straight, strict=True):
        kind = one.format.name
        if lies or one.walk == "dense":
            place = "at" if lies else f"{one.name}_o"
            lines.append(f"    auto {one.name}_in = *(const Pack<{kind}, N>*)({one.name}_at + {place});")
        elif one.walk == "fixed":
            lines.append(f"    {kind} {one.name}_in = {one.name}_at[{one.name}_o];")
    return lines


def _packs(stored: list[Step]) -> list[str]:
    return [f"    Pack<{step.store.name}, N> {step.name}_out;" for step in stored if step.store is not None]


def loop_lines(
    operands: tuple[Operand, ...], steps: tuple[Step, ...], given: Sequence[str] = (), ready: Sequence[str] = ()
) -> list[str]:
    """The code of ``N`` neighbours: two at once where tensors are rounded to 16 bits.

    Args:
        given: floats that lie in arrays ``NAMEs``.
        ready: operands of which divisors have been made.
    """
    kind = format_of_all(steps)
    read = [one for one in operands if one.name not in ready]
    before = [f"const {made} {name} = {value};" for made, name, value in divisors(read, steps, kind)]
    one_by_one = _loop(1, [*(f"float {name} = {name}s[n];" for name in given), *body_lines(operands, steps)])
    if not kind:
        return [*before, *one_by_one]
    lines = [*_indented(_loop(2, both_lines(operands, steps, given))), "} else {", *_indented(one_by_one)]
    return [*before, "if constexpr (N % 2 == 0) {", *lines, "}"]


def _loop(step: int, lines: Sequence[str]) -> list[str]:
    return ["#pragma unroll", f"for (int n = 0; n < N; n += {step}) {{", *_indented(lines), "}"]


def _indented(lines: Sequence[str]) -> list[str]:
    return [line if line.startswith("#") else f"    {line}" for line in lines]


def body_lines(operands: tuple[Operand, ...], steps: tuple[Step, ...]) -> list[str]:
    """The code of one element, ``n``: every operand read into a register of its name, then every step."""
    lines = []
    for one in operands:
        value = {
            "dense": f"{one.name}_in.lane[n]",
            "fixed": f"{one.name}_in",
            "strided": f"{one.name}_at[{one.name}_o + n * {one.name}_step]",
        }[one.walk]
        value = rounded(f"read({value})", one.rounding)
        lines.append(f"{one.format.register} {one.name} = {value};")
    fixed = {one.name for one in operands if one.walk == "fixed"}
    for step in steps:
        value = rounded(divided_by(step.expression, fixed), step.rounding)
        lines.append(f"{step.type} {step.name} = {value};")
        if step.store is not None:
            lines.append(f"write({step.name}_out.lane[n], {step.name});")
    return lines


def _positions(operands: tuple[Operand, ...], straight: tuple[bool, ...], walk: Walk, index: str) -> list[str]:
    lines = []
    if walk.rank == 1:
        lines.append("    " + f"{index} i0 = vector;")
    else:
        lines.append(f"    {index} rest = vector;")
        lines += [f"    {index} i{axis} = rest % e{axis}; rest /= e{axis};" for axis in range(walk.rank - 1, 0, -1)]
        lines.append(f"    {index} i0 = rest;")
    for one, lies in zip(operands, straight, strict=True):
        if not lies:
            terms = [
                f"i{axis}{f' * {walk.lanes}' if axis == walk.rank - 1 and walk.lanes > 1 else ''} * {one.name}_s{axis}"
                for axis in range(walk.rank)
            ]
            lines.append(f"    {index} {one.name}_o = {' + '.join(terms)};")
    return lines


def _calls(operands: tuple[Operand, ...], straight: tuple[bool, ...], stored: list[Step], walk: Walk) -> list[str]:
    pointers = [f"{one.name}_at" for one in operands] + [f"{step.name}_at" for step in stored]
    last = walk.rank - 1
    steps = [
        f"{one.name}_s{last}"
        for one, lies in zip(operands, straight, strict=True)
        if not lies and one.walk == "strided"
    ]

    def call(lanes: int, at: str, shift: str) -> str:
        places = [
            f"{one.name}_o{f' + {shift} * {one.name}_s{last}' if shift else ''}"
            for one, lies in zip(operands, straight, strict=True)
            if not lies
        ]
        return f"run<{lanes}>({', '.join([*pointers, at, *places, *steps])});"

    if walk.lanes == 1:
        return [f"    {call(1, 'vector', '')}"]
    if walk.rank > 1:
        return [f"    {call(walk.lanes, f'vector * {walk.lanes}', '')}"]
    return [
        f"    if (vector * {walk.lanes} + {walk.lanes} <= last) {call(walk.lanes, f'vector * {walk.lanes}', '')}",
        f"    else for (unsigned n = 0; vector * {walk.lanes} + n < last; ++n) {call(1, f'vector * {walk.lanes} + n', 'n')}",
    ]
