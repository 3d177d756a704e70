"""Sizes for dynamic dimensions: what the user gave, what weights imply, and sensible defaults by name and role."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from probe.errors import InputError
from probe.model.roles import Role

Dims = Sequence[int | str | None]

BATCH, SEQUENCE, PAST, SIDE, SECOND, FRAME = 1, 16, 16, 224, 16000, 512

_BATCH = frozenset("batch batchsize n b bs bsz".split())
_HEIGHT_OR_WIDTH = frozenset("height width h w".split())
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv,
    ast.Div: operator.floordiv, ast.Mod: operator.mod,
}  # fmt: skip


def fix_symbols(declared: Mapping[str, Dims], given: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """What shapes that the user gave say about symbols: equal names are equal sizes.

    Raises:
        InputError: another rank, another fixed extent, or one symbol given two sizes.
    """
    symbols: dict[str, int] = {}
    owner: dict[str, str] = {}
    for name, shape in given.items():
        dims = declared[name]
        if len(dims) != len(shape):
            raise InputError(
                f"input {name!r} has {_axes(len(dims))}, a shape with {_axes(len(shape))} was given",
                where=f"declared {spell(dims)}, given {spell(shape)}",
            )
        for axis, (dim, extent) in enumerate(zip(dims, shape, strict=True)):
            if isinstance(dim, int) and dim != extent:
                raise InputError(
                    f"input {name!r} has {dim} elements on axis {axis}, not {extent}",
                    where=f"declared {spell(dims)}, given {spell(shape)}",
                    hint="only dimensions with a name or none can be chosen",
                )
            if isinstance(dim, str) and dim.isidentifier():
                if symbols.setdefault(dim, extent) != extent:
                    raise InputError(
                        f"dimension {dim!r} cannot be {symbols[dim]} in {owner[dim]!r} and {extent} in {name!r}",
                        hint="the model gives both the same name, so they are the same size",
                    )
                owner.setdefault(dim, name)
    return symbols


def resolve(
    declared: Mapping[str, Dims],
    roles: Mapping[str, Role],
    implied: Mapping[str, Mapping[int, int]],
    given: Mapping[str, Sequence[int]],
) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    """A concrete shape for every input, and the sizes chosen for named dimensions (those of ``given`` excluded).

    Args:
        declared: per input, extents as the model declares them.
        implied: per input, extents by axis that weights imply.
    """
    fixed = fix_symbols(declared, given)
    symbols = dict(fixed)
    # Weights know best, wherever a symbol occurs; then names and roles.
    for name, dims in declared.items():
        for axis, dim in enumerate(dims):
            if isinstance(dim, str) and dim.isidentifier() and axis in implied.get(name, {}):
                symbols.setdefault(dim, implied[name][axis])
    for name, dims in declared.items():
        for axis, dim in enumerate(dims):
            if isinstance(dim, str) and dim.isidentifier():
                symbols.setdefault(dim, _default(dim, axis, dims, roles[name]))
    shapes: dict[str, tuple[int, ...]] = {}
    for name, dims in declared.items():
        if name in given:
            shapes[name] = tuple(given[name])
            continue
        shapes[name] = tuple(
            dim if isinstance(dim, int)
            else symbols[dim] if dim in symbols
            else implied.get(name, {}).get(axis) or _evaluated(dim, symbols) or _default(dim or "", axis, dims, roles[name])
            for axis, dim in enumerate(dims)
        )  # fmt: skip
    return shapes, {symbol: size for symbol, size in symbols.items() if symbol not in fixed}


def _evaluated(expression: str | None, symbols: dict[str, int]) -> int | None:
    """Exporters write ``past_length + length``; unknown names in it get their own defaults. None where it is no arithmetic."""
    if expression is None:
        return None
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
        for identifier in _IDENTIFIER.findall(expression):
            symbols.setdefault(identifier, _default(identifier, 1, (None, None), Role("integers", "")))
        size = _value(tree, symbols)
    except (SyntaxError, KeyError, ZeroDivisionError, ValueError, RecursionError, MemoryError):
        return None
    return size if size > 0 else None


def _value(node: ast.expr, symbols: Mapping[str, int]) -> int:
    match node:
        case ast.Constant(value=int(number)):
            return number
        case ast.Name(id=name):
            return symbols[name]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(left, symbols), _value(right, symbols))
    raise ValueError(ast.dump(node))


def _default(symbol: str, axis: int, dims: Dims, role: Role) -> int:
    words = {word for word in re.split(r"[^a-z]+", symbol.lower()) if word}
    rank = len(dims)
    if words & _BATCH or words == {"batch", "size"}:
        return BATCH
    if role.kind == "image":
        channel = role.layout.find("C")
        spatial = (role.layout.find("H"), role.layout.find("W"))
        return SIDE if axis in spatial else 3 if axis == channel else BATCH
    if "past" in words:
        return PAST
    if "total" in words:
        return PAST + SEQUENCE
    if words & _HEIGHT_OR_WIDTH:
        return SIDE
    if role.kind in ("audio", "audio_frame"):
        return BATCH if axis < rank - 1 else SECOND if role.kind == "audio" else FRAME
    if role.kind == "state" and rank >= 3 and axis == 1:
        return BATCH  # [layers, batch, hidden]
    if axis == 0 and (rank > 1 or not words & {"seq", "sequence", "length", "len", "tokens"}):
        return BATCH
    return SEQUENCE


def spell(dims: Sequence[int | str | None]) -> str:
    """``[batch, 3, ?]``."""
    return "[" + ", ".join("?" if dim is None else str(dim) for dim in dims) + "]"


def _axes(count: int) -> str:
    return f"{count} axis" if count == 1 else f"{count} axes"
