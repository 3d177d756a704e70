"""Code generated for attention (kernels/attention.cu): the pointwise nodes before, between and after its products, in registers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from probe.engine.device.cuda.compiling.compile import kernel_text
from probe.engine.device.cuda.layers.chain import Step
from probe.engine.device.cuda.tensors.formats import B8, F16, F32, Format
from probe.engine.device.cuda.tensors.layout import Strides

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
        pairs: the expression of each step on two neighbours in one register, where the hardware rounds as the step does; "" where it does not.
    """

    reads: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    pairs: tuple[str, ...] = ()

    def in_pairs(self, read: Sequence[Beside], stored: str) -> bool:
        """Whether they run on two values in one register: all of them are rounded to it, and all they read is."""
        for one in read:
            fits = (
                stored in (one.format.name, one.rounding)
                if one.format.is_float
                else one.format is B8 and not one.is_scalar
            )
            if one.name in self.reads and not fits:
                return False
        rounded = all(
            step.rounding == stored and (step.store is None or step.store.name == stored) for step in self.steps
        )
        return len(self.pairs) == len(self.steps) and all(self.pairs) and rounded


@dataclass(frozen=True, slots=True)
class Around:
    """All that is generated for a kernel.

    Attributes:
        skips: keys that no query of a block looks at are not read.
    """

    read: tuple[Beside, ...]
    queries: Steps
    keys: Steps
    values: Steps
    between: Steps
    after: Steps
    skips: bool = False

    @property
    def stored(self) -> list[Step]:
        """In the order of the kernel's arguments."""
        return [step for step in (*self.between.steps, *self.after.steps) if step.store is not None]

    @property
    def is_plain(self) -> bool:
        """Whether nothing but a rounding lies between the softmax and its product with the values."""
        return len(self.after.steps) == 1

    @property
    def stores_weights(self) -> bool:
        return any(step.store is not None for step in self.after.steps)

    @property
    def unstored(self) -> Around:
        """The same, and nothing of it is stored."""
        between, after = (
            replace(steps, steps=tuple(replace(one, store=None) for one in steps.steps))
            for steps in (self.between, self.after)
        )
        return replace(self, between=between, after=after)

    @property
    def macros(self) -> tuple[tuple[str, int], ...]:
        return (
            ("PLAIN_AFTER", int(self.is_plain and not self.stores_weights)),
            ("BEFORE_Q", int(bool(self.queries.steps))),
            ("BEFORE_K", int(bool(self.keys.steps))),
            ("BEFORE_V", int(bool(self.values.steps))),
            *((("SKIPS", 1),) if self.skips else ()),
        )


@lru_cache(maxsize=1024)
def text_of(around: Around, stored_as: str, *, even: bool, file: str = FILE) -> str:
    """kernels/attention.cu, or another ``file``, with ``struct Beside`` in front of it.

    Args:
        stored_as: format of the operands.
        even: the number of keys is: neighbours are stored by one access.
    """
    read, stored = around.read, [(step.name, step.store.name) for step in around.stored if step.store is not None]
    pairs = stored_as != F32.name
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
        *(f"    unsigned {one.name}_2;" for one in read if one.is_scalar and one.format.is_float and pairs),
        *(f"    const {one.format.name}* {one.name}_row[2];" for one in read if not one.is_scalar),
        *(f"    {kind}* {name}_row[2];" for name, kind in stored),
        "    __device__ __forceinline__ void begin(i64 b0, i64 b1, i64 scores, const Rows& mine) {",
        "        rows = mine;",
    ]  # fmt: skip
    for one in read:
        lines.append(f"        {one.name}_at += b0 * {one.name}_s.b0 + b1 * {one.name}_s.b1;")
        if one.is_scalar:
            lines.append(f"        {one.name} = {_rounded(f'read(*{one.name}_at)', one.rounding)};")
            if one.format.is_float and pairs:
                lines.append(f"        {one.name}_2 = side_by_side({one.name}, {one.name}, {stored_as}());")
        else:
            lines.append(
                f"        for (int half = 0; half < 2; ++half) {one.name}_row[half] = {one.name}_at + rows.at(half) * {one.name}_s.row;"
            )
    for name, _ in stored:
        lines.append(
            f"        for (int half = 0; half < 2; ++half) {name}_row[half] = {name}_at + scores + (i64)rows.at(half) * rows.keys;"
        )
    lines.append("    }")
    by_name = {one.name: one for one in read}
    for place, steps in (("before_q", around.queries), ("before_k", around.keys), ("before_v", around.values)):
        in_pairs = steps.in_pairs([by_name[name] for name in steps.reads], stored_as)
        lines += _before(place, steps, stored_as, in_pairs=in_pairs)
    for place, steps in (("between", around.between), ("after", around.after)):
        beside_it = [by_name[name] for name in steps.reads]
        lines += _quad(place, beside_it, steps, stored_as if steps.in_pairs(beside_it, stored_as) else "", even=even)
    return "\n".join([*lines, "};", ""]) + kernel_text(file)


def _rounded(value: str, rounding: str) -> str:
    return f"round_{rounding}({value})" if rounding else value


def _before(name: str, steps: Steps, kind: str, *, in_pairs: bool) -> list[str]:
    """Steps on two values of an operand side by side, or on one FP32 value. They read nothing but scalars."""
    lines = [f"    __device__ __forceinline__ unsigned {name}(unsigned sum_2) const {{"]
    if in_pairs or not steps.steps:
        lines += [
            f"        unsigned {one.name}_2 = {text};" for one, text in zip(steps.steps, steps.pairs, strict=True)
        ]
        return [*lines, f"        return {steps.steps[-1].name if steps.steps else 'sum'}_2;", "    }"]
    if kind == F32.name:
        lines.append("        float sum = __uint_as_float(sum_2);")
        lines += [f"        {one.type} {one.name} = {_rounded(one.expression, one.rounding)};" for one in steps.steps]
        return [*lines, f"        return __float_as_uint({steps.steps[-1].name});", "    }"]
    lines.append(f"        float both[2] = {{lower(sum_2, {kind}()), higher(sum_2, {kind}())}};")
    lines.append("        for (int i = 0; i < 2; ++i) {")
    lines.append("            float sum = both[i];")
    lines += [f"            {one.type} {one.name} = {_rounded(one.expression, one.rounding)};" for one in steps.steps]
    lines += [f"            both[i] = {steps.steps[-1].name};", "        }"]
    return [*lines, f"        return side_by_side(both[0], both[1], {kind}());", "    }"]


def _quad(place: str, read: Sequence[Beside], whole: Steps, pairs_of: str, *, even: bool) -> list[str]:
    """Steps on four scores of a thread: neighbours from column ``col`` on in two rows.

    Args:
        pairs_of: the format of two values in one register; "": one by one.
    """
    walked = [one for one in read if not one.is_scalar]
    stored = [(step.name, step.store.name) for step in whole.steps if step.store is not None]
    return [
        f"    __device__ __forceinline__ void {place}(float (&s)[4], int col) const {{",
        *_loads(walked),
        *(f"        Pack<{kind}, 2> {name}_out[2];" for name, kind in stored),
        *(_in_pairs(walked, whole, pairs_of) if pairs_of else _one_by_one(walked, whole.steps)),
        *_stores(stored, even=even),
        "    }",
    ]


def _loads(walked: Sequence[Beside]) -> list[str]:
    lines = []
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
                    at = "0" if one.walk == "fixed" else f"rows.column(col + {e}) * {name}_s.col"
                    lines.append(f"        {name}_in[{half}].lane[{e}] = {name}_row[{half}][{at}];")
    return lines


def _one_by_one(walked: Sequence[Beside], steps: Sequence[Step]) -> list[str]:
    lines = ["#pragma unroll", "        for (int i = 0; i < 4; ++i) {", "            float sum = s[i];"]
    for one in walked:
        value = _rounded(f"read({one.name}_in[i / 2].lane[i % 2])", one.rounding)
        lines.append(f"            {one.format.register} {one.name} = {value};")
    for step in steps:
        lines.append(f"            {step.type} {step.name} = {_rounded(step.expression, step.rounding)};")
        if step.store is not None:
            lines.append(f"            write({step.name}_out[i / 2].lane[i % 2], {step.name});")
    return [*lines, f"            s[i] = {steps[-1].name};", "        }"]


def _in_pairs(walked: Sequence[Beside], whole: Steps, kind: str) -> list[str]:
    lines = ["#pragma unroll", "        for (int half = 0; half < 2; ++half) {"]
    lines.append(f"            unsigned sum_2 = side_by_side(s[half * 2], s[half * 2 + 1], {kind}());")
    for one in walked:
        value = f"{one.name}_in[half]"
        if one.format.is_float:
            lanes = ", ".join(f"read({value}.lane[{e}])" for e in range(2))
            value = f"side_by_side({value})" if one.format.name == kind else f"side_by_side({lanes}, {kind}())"
            lines.append(f"            unsigned {one.name}_2 = {value};")
        else:
            lines.append(f"            const Pack<b8, 2>& {one.name}_2 = {value};")
    for step, expression in zip(whole.steps, whole.pairs, strict=True):
        lines.append(f"            unsigned {step.name}_2 = {expression};")
        if step.store is not None:
            lines.append(f"            *(unsigned*)&{step.name}_out[half] = {step.name}_2;")
    last = whole.steps[-1].name
    lines += [
        f"            s[half * 2] = lower({last}_2, {kind}());",
        f"            s[half * 2 + 1] = higher({last}_2, {kind}());",
    ]
    return [*lines, "        }"]


def _stores(stored: Sequence[tuple[str, str]], *, even: bool) -> list[str]:
    lines = []
    for name, kind in stored:
        lines.append("        for (int half = 0; half < 2; ++half) {")
        if even:
            within = "rows.has(half) && col < rows.keys"
            lines.append(f"            if ({within}) *(Pack<{kind}, 2>*)({name}_row[half] + col) = {name}_out[half];")
        else:
            within = "rows.has(half) && col + e < rows.keys"
            each = f"if ({within}) {name}_row[half][col + e] = {name}_out[half].lane[e];"
            lines.append(f"            for (int e = 0; e < 2; ++e) {each}")
        lines.append("        }")
    return lines


def pair_expression(op: str, arguments: Sequence[str], kind: str) -> str:
    """A node on two neighbours in one register of a format; "" where it has none that rounds alike.

    Args:
        arguments: names of steps and of what they read; ``=1.5`` for a number.
    """
    if op == "Where":
        return f"pair_where({', '.join(f'{one}_2' for one in arguments)})"
    function = {"Mul": "pair_times", "Add": "pair_plus", "Sub": "pair_minus"}.get(op)
    if function is None:
        return ""
    given = [_both(float(one[1:]), kind) if one[0] == "=" else f"{one}_2" for one in arguments]
    return f"{function}({', '.join(given)}, {kind}())"


def _both(number: float, kind: str) -> str:
    """A number twice, as bits; it is one of the format."""
    bits = (
        int(np.float16(number).view(np.uint16)) if kind == F16.name else int(np.float32(number).view(np.uint32)) >> 16
    )
    return f"{bits << 16 | bits:#x}u"
