"""Code generated for attention (kernels/attention.cu): the pointwise nodes before, between and after its products, in registers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from probe.engine.device.cuda.chain import Step
from probe.engine.device.cuda.compile import kernel_text
from probe.engine.device.cuda.formats import Format
from probe.engine.device.cuda.layout import Strides

FILE = "attention.cu"


@dataclass(frozen=True, slots=True)
class Beside:
    """Something that steps read.

    Attributes:
        rounding: Format name to round to when read; "" for none.
        rows: whether it differs from row to row of a matrix of scores.
        walk: along a row: ``fixed`` (one value), ``pair`` (neighbours lie side by side, on whole accesses), ``each``.
    """

    name: str
    format: Format
    rounding: str
    rows: bool
    walk: str

    @property
    def is_scalar(self) -> bool:
        """Whether a whole matrix of scores sees one value."""
        return self.walk == "fixed" and not self.rows


def beside(name: str, stored: Format, rounding: str, strides: Strides, keys: int) -> Beside:
    """What lies so.

    Args:
        strides: batch axes, row, column.
    """
    *outer, row, col = strides
    even = keys % 2 == 0 and not any(step % 2 for step in (*outer, row))
    walk = "fixed" if col == 0 else "pair" if col == 1 and even else "each"
    return Beside(name, stored, rounding, row != 0, walk)


@dataclass(frozen=True, slots=True)
class Steps:
    """The nodes at one place of a layer.

    Attributes:
        reads: names of what they read from outside.
        steps: call what they begin with ``sum``; the last one's value goes on.
    """

    reads: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class Around:
    """All that is generated for a kernel."""

    read: tuple[Beside, ...]
    queries: Steps
    keys: Steps
    between: Steps
    after: Steps

    @property
    def stored(self) -> list[Step]:
        """In the order of the kernel's arguments."""
        return [step for step in (*self.between.steps, *self.after.steps) if step.store is not None]

    @property
    def macros(self) -> tuple[tuple[str, int], ...]:
        plain = len(self.after.steps) == 1 and not any(step.store is not None for step in self.after.steps)
        return (
            ("PLAIN_AFTER", int(plain)),
            ("BEFORE_Q", int(bool(self.queries.steps))),
            ("BEFORE_K", int(bool(self.keys.steps))),
        )


@lru_cache(maxsize=1024)
def text_of(around: Around, *, even: bool) -> str:
    """kernels/attention.cu with ``struct Beside`` in front of it.

    Args:
        even: the number of keys is: neighbours are stored by one access.
    """
    read, stored = around.read, [(step.name, step.store.name) for step in around.stored if step.store is not None]
    pointers = [(f"const {one.format.name}*", f"{one.name}_at") for one in read]
    pointers += [("Along", f"{one.name}_s") for one in read]
    pointers += [(f"{kind}*", f"{name}_at") for name, kind in stored]
    lines = [
        '#include "pointwise.cuh"', '#include "attention.cuh"',
        f"#define BESIDE_PARAMETERS {' '.join(f'{kind} {name},' for kind, name in pointers)}",
        f"#define BESIDE_ARGUMENTS {', '.join(name for _, name in pointers)}",
        "struct Beside {", *(f"    {kind} {name};" for kind, name in pointers),
        "    Rows rows;",
        *(f"    {one.format.register} {one.name};" for one in read if one.is_scalar),
        *(f"    const {one.format.name}* {one.name}_row[2];" for one in read if not one.is_scalar),
        *(f"    {kind}* {name}_row[2];" for name, kind in stored),
        "    __device__ __forceinline__ void begin(i64 b0, i64 b1, i64 scores, const Rows& mine) {",
        "        rows = mine;",
    ]  # fmt: skip
    for one in read:
        lines.append(f"        {one.name}_at += b0 * {one.name}_s.b0 + b1 * {one.name}_s.b1;")
        if one.is_scalar:
            lines.append(f"        {one.name} = {_rounded(f'read(*{one.name}_at)', one.rounding)};")
        else:
            lines.append(
                f"        for (int half = 0; half < 2; ++half) {one.name}_row[half] = {one.name}_at + rows.at(half) * {one.name}_s.row;"
            )
    for name, _ in stored:
        lines.append(
            f"        for (int half = 0; half < 2; ++half) {name}_row[half] = {name}_at + scores + (i64)rows.at(half) * rows.keys;"
        )
    lines += ["    }", *_before("before_q", around.queries), *_before("before_k", around.keys)]
    by_name = {one.name: one for one in read}
    for place, steps in (("between", around.between), ("after", around.after)):
        lines += _quad(place, [by_name[name] for name in steps.reads], steps.steps, even=even)
    return "\n".join([*lines, "};", ""]) + kernel_text(FILE)


def _rounded(value: str, rounding: str) -> str:
    return f"round_{rounding}({value})" if rounding else value


def _before(name: str, steps: Steps) -> list[str]:
    """Steps on a query or key, which read nothing but scalars."""
    lines = [f"    __device__ __forceinline__ float {name}(float sum) const {{"]
    lines += [f"        {step.type} {step.name} = {_rounded(step.expression, step.rounding)};" for step in steps.steps]
    return [*lines, f"        return {steps.steps[-1].name if steps.steps else 'sum'};", "    }"]


def _quad(place: str, read: Sequence[Beside], steps: Sequence[Step], *, even: bool) -> list[str]:
    """Steps on four scores of a thread: neighbours from column ``col`` on in two rows."""
    lines = [f"    __device__ __forceinline__ void {place}(float (&s)[4], int col) const {{"]
    walked = [one for one in read if not one.is_scalar]
    if any(one.walk == "pair" for one in walked):
        lines.append("        int pair = col < rows.keys ? col : rows.keys - 2;")
    for one in walked:
        name, kind = one.name, one.format.name
        lines.append(f"        Pack<{kind}, 2> {name}_in[2];")
        for half in range(2):
            if half and not one.rows:
                lines.append(f"        {name}_in[1] = {name}_in[0];")
            elif one.walk == "pair":
                lines.append(f"        {name}_in[{half}] = *(const Pack<{kind}, 2>*)({name}_row[{half}] + pair);")
            else:
                for e in range(2):
                    place_of = "0" if one.walk == "fixed" else f"rows.column(col + {e}) * {name}_s.col"
                    lines.append(f"        {name}_in[{half}].lane[{e}] = {name}_row[{half}][{place_of}];")
    stored = [(step.name, step.store.name) for step in steps if step.store is not None]
    lines += [f"        Pack<{kind}, 2> {name}_out[2];" for name, kind in stored]
    lines += ["#pragma unroll", "        for (int i = 0; i < 4; ++i) {", "            float sum = s[i];"]
    for one in walked:
        value = _rounded(f"read({one.name}_in[i / 2].lane[i % 2])", one.rounding)
        lines.append(f"            {one.format.register} {one.name} = {value};")
    for step in steps:
        lines.append(f"            {step.type} {step.name} = {_rounded(step.expression, step.rounding)};")
        if step.store is not None:
            lines.append(f"            write({step.name}_out[i / 2].lane[i % 2], {step.name});")
    lines += [f"            s[i] = {steps[-1].name};", "        }"]
    for name, kind in stored:
        lines.append("        for (int half = 0; half < 2; ++half) {")
        if even:
            lines.append(
                f"            if (rows.has(half) && col < rows.keys) *(Pack<{kind}, 2>*)({name}_row[half] + col) = {name}_out[half];"
            )
        else:
            lines.append(
                f"            for (int e = 0; e < 2; ++e) if (rows.has(half) && col + e < rows.keys) {name}_row[half][col + e] = {name}_out[half].lane[e];"
            )
        lines.append("        }")
    return [*lines, "    }"]
