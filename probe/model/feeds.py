"""Feeds against a network's inputs: names, types, ranks and extents, with an error that says what to change."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.errors import InputError
from probe.precision import dtype_name, kind_of, numpy_dtype
from probe.store.memory import as_array

if TYPE_CHECKING:
    from probe.model.model import Model, Port

Array = np.ndarray[Any, Any]

_ELEMENT = re.compile(r"(?P<name>.+)\[(?P<index>\d+)\]", re.DOTALL)
_EXTENT_LIMIT = 1 << 40  # elements: beyond this a shape is a slip of the keyboard


def parse_shapes(texts: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """``["x:[1,3,224,224]"]`` -> ``{"x": (1, 3, 224, 224)}``. Names may hold ':'; the last ``:[`` counts.

    Raises:
        InputError: not of that form, a negative extent, or one name twice.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, inside = _name_and_list(text, "--input-shapes", 'NAME:[EXTENT,...], such as "x:[1,3,224,224]"')
        extents = [part.strip() for part in inside.split(",")] if inside.strip() else []
        if not name or not all(part.isascii() and part.isdigit() for part in extents):
            raise InputError(
                f"{text!r} is not a shape",
                where="--input-shapes",
                hint='write NAME:[EXTENT,...], such as "x:[1,3,224,224]"',
            )
        shape = tuple(int(part) for part in extents)
        if math.prod(shape) > _EXTENT_LIMIT:
            raise InputError(f"{text!r} has more than 2**40 elements", where="--input-shapes")
        if name in shapes:
            raise InputError(f"two shapes for input {name!r}", where="--input-shapes")
        shapes[name] = shape
    return shapes


def parse_ranges(texts: Iterable[str]) -> dict[str, tuple[float, float]]:
    """``["[-1,1]", "ids:[0,99]"]`` -> ``{"": (-1.0, 1.0), "ids": (0.0, 99.0)}``; "" stands for every other input.

    Raises:
        InputError: not of that form, not finite, low above high, or one name twice.
    """
    ranges: dict[str, tuple[float, float]] = {}
    usage = 'write [LOW,HIGH] or NAME:[LOW,HIGH], such as "[-1,1]"'
    for text in texts:
        name, inside = _name_and_list(text, "--val-range", usage)
        try:
            low, high = (float(part) for part in inside.split(","))
        except ValueError:
            raise InputError(f"{text!r} is not a range", where="--val-range", hint=usage) from None
        if not (math.isfinite(low) and math.isfinite(high)) or low > high:
            raise InputError(
                f"{text!r}: LOW and HIGH are finite numbers, LOW not above HIGH", where="--val-range", hint=usage
            )
        if name in ranges:
            raise InputError(f"two ranges for {name!r}" if name else "two ranges for all inputs", where="--val-range")
        ranges[name] = (low, high)
    return ranges


def _name_and_list(text: str, option: str, usage: str) -> tuple[str, str]:
    head, opening, tail = text.strip().rpartition("[")
    if not opening or not tail.endswith("]") or (head and not head.endswith(":")):
        raise InputError(f"{text!r} cannot be read", where=option, hint=usage)
    return head[:-1] if head else "", tail[:-1]


def known_input(model: Model, name: str, where: str) -> str:
    """``name`` if the model has such an input.

    Raises:
        InputError: it has not; the nearest names are suggested.
    """
    names = [port.name for port in model.inputs]
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, 3, 0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"inputs: {_some(names)}"
    raise InputError(f"the model has no input {name!r}", where=where, hint=hint)


def element_type(port: Port) -> str:
    """Type name of an input's tensor, of a sequence's elements or of what an optional holds; holds "(" where that is no tensor."""
    for prefix in ("seq(", "optional("):
        if port.dtype.startswith(prefix):
            return port.dtype.removeprefix(prefix).removesuffix(")")
    return port.dtype


def check_feeds(model: Model, feeds: Mapping[str, Array], *, notes: list[str] | None = None) -> dict[str, Array]:
    """The feeds in the model's types, C order and native byte order, in the order of its inputs.

    A sequence-typed input is fed by its elements, ``NAME[0]``, ``NAME[1]``, ...; an optional input may be left out. Types: integers and
    floats are cast within their kind. A cast that changes no value is silent, one that rounds floats is stated in ``notes``.

    Raises:
        InputError: arrays without names, a name missing or unknown, another rank, another fixed extent, one symbol with two sizes, another
            kind of type, or a cast that would overflow.
    """
    ports = {port.name: port for port in model.inputs}
    if not isinstance(feeds, Mapping):
        example = f'{{"{next(iter(ports), "x")}": array}}'
        raise InputError(f"inputs are given by name, not as {type(feeds).__name__}", hint=f"such as {example}")
    grouped = _grouped(model, ports, feeds)
    missing = [name for name, port in ports.items() if name not in grouped and not _may_be_absent(port)]
    if missing:
        given = f"given: {_some(list(feeds))}" if feeds else "nothing was given"
        raise InputError(
            f"no data for input {_some(missing)}", where=str(model.path), hint=f"{given}; feed every input by its name"
        )
    checked: dict[str, Array] = {}
    sizes: dict[str, tuple[int, str]] = {}
    for name, port in ports.items():
        for key, array in grouped.get(name, ()):
            dtype = element_type(port)
            if "(" in dtype:
                raise InputError(
                    f"input {name!r} of type {port.dtype} cannot be fed",
                    hint="probe feeds tensors and sequences of tensors",
                )
            array = as_array(array, key)
            if port.shape is not None and not port.dtype.startswith("seq("):
                _check_shape(key, port.shape, array.shape, sizes)
            checked[key] = _typed(key, dtype, array, notes)
    return checked


def _grouped(model: Model, ports: Mapping[str, Port], feeds: Mapping[str, Array]) -> dict[str, list[tuple[str, Array]]]:
    grouped: dict[str, list[tuple[str, Array]]] = {}
    elements: dict[str, dict[int, str]] = {}
    for key in feeds:
        if not isinstance(key, str):
            raise InputError(f"inputs are given by name, and {key!r} is none", hint=f"inputs: {_some(list(ports))}")
        match = _ELEMENT.fullmatch(key)
        if key in ports:
            if ports[key].dtype.startswith("seq("):
                raise InputError(f"input {key!r} is a sequence", hint=f"feed its elements: {key}[0], {key}[1], ...")
            grouped[key] = [(key, feeds[key])]
        elif match and match["name"] in ports and ports[match["name"]].dtype.startswith("seq("):
            elements.setdefault(match["name"], {})[int(match["index"])] = key
        else:
            known_input(model, key, "inputs")
    for name, keys in elements.items():
        if sorted(keys) != list(range(len(keys))):
            raise InputError(
                f"elements of sequence {name!r} are not numbered 0..{len(keys) - 1}",
                hint=f"given: {_some(list(keys.values()))}",
            )
        grouped[name] = [(keys[i], feeds[keys[i]]) for i in range(len(keys))]
    return grouped


def _may_be_absent(port: Port) -> bool:
    return port.dtype.startswith(("optional(", "seq("))  # no elements: the empty sequence


def _check_shape(
    name: str, dims: Sequence[int | str | None], shape: tuple[int, ...], sizes: dict[str, tuple[int, str]]
) -> None:
    from probe.model.dims import spell

    where = f"declared {spell(dims)}, given {spell(shape)}"
    if len(dims) != len(shape):
        hint = "add a batch axis" if len(dims) == len(shape) + 1 else ""
        raise InputError(f"input {name!r} has rank {len(dims)}, the data has rank {len(shape)}", where=where, hint=hint)
    for axis, (dim, extent) in enumerate(zip(dims, shape, strict=True)):
        if isinstance(dim, int) and dim != extent:
            raise InputError(f"input {name!r} has {dim} elements on axis {axis}, the data has {extent}", where=where)
        if isinstance(dim, str) and dim.isidentifier():
            size, owner = sizes.setdefault(dim, (extent, name))
            if size != extent:
                raise InputError(
                    f"dimension {dim!r} is {size} in {owner!r} and {extent} in {name!r}",
                    where=where,
                    hint="the model gives both the same name, so they are the same size",
                )


def _typed(name: str, dtype: str, array: Array, notes: list[str] | None) -> Array:
    given = dtype_name(array.dtype)
    if given == "string" and kind_of(dtype) == "string":
        return array.astype(object)
    target = numpy_dtype(dtype)
    if given == dtype:
        return np.ascontiguousarray(array, target).reshape(array.shape)  # 0-d stays 0-d
    if kind_of(given) != kind_of(dtype):
        raise InputError(
            f"input {name!r} is {dtype}, the data is {given}",
            where="inputs",
            hint=f"convert it on purpose: array.astype({dtype!r})" if given != "string" else "",
        )
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        cast = np.ascontiguousarray(array.astype(target)).reshape(array.shape)
    if kind_of(dtype) == "int":
        if not np.array_equal(cast.astype(np.int64, copy=False), array.astype(np.int64, copy=False)) or _sign_lost(
            cast, array
        ):
            raise InputError(f"input {name!r} is {dtype}, and the {given} data does not fit", where="inputs")
        return cast
    changed = int(np.count_nonzero(~((cast.astype(array.dtype) == array) | np.isnan(array))))
    if changed:
        overflowed = np.isfinite(array.astype(np.float64)) & ~np.isfinite(cast.astype(np.float64))
        if overflowed.any():
            raise InputError(
                f"input {name!r} is {dtype}, and {int(overflowed.sum())} values of the {given} data overflow it",
                where="inputs",
            )
        if notes is not None:
            notes.append(f"input {name!r}: {given} data rounded to {dtype}, {changed} of {array.size} values changed")
    return cast


def _sign_lost(cast: Array, array: Array) -> bool:
    """uint64 against int64: equal bits, other numbers."""
    return bool(((cast < 0) != (array < 0)).any()) if array.size else False


def _some(names: Sequence[str], limit: int = 5) -> str:
    shown = ", ".join(map(repr, names[:limit]))
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
