"""Damage: to bytes, to JSON trees, to lines. Each function draws everything from ``rng`` and says in a word what it did."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

# What breaks parsers, sums and allocations.
NUMBERS = [
    -1, 0, 1, 2, 7, 255, 256, 4095, 4096, 65536, 2**31 - 1, 2**31, -(2**31), 2**32, 2**53 + 1, 2**60, 2**63 - 1, 2**63, -(2**63), 2**64,
    10**30, -(10**30),
]  # fmt: skip
VALUES: list[Any] = [
    *NUMBERS, 0.5, -0.0, 1e308, 5e-324, "", "x", "0", "-1", "NaN", "Infinity", "float32", "string", "int4", "recorded", "stats_only", "not_run",
    "output", "input", "internal", "../x", "\u0000", "\ud800", "é" * 40, None, True, False, [], {}, [[]], [0], [2**60, 0], [-1], ["a"], {"a": 1},
]  # fmt: skip


def damage_bytes(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """One kind of damage somewhere in ``data``."""
    name = rng.choice(list(_BYTES))
    return _BYTES[name](data, rng), name


def _flip(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8)) if out else 0):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def _overwrite(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4)) if out else 0):
        out[rng.randrange(len(out))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(out)


def _truncate(data: bytes, rng: random.Random) -> bytes:
    return (
        data[: rng.randrange(len(data) + 1)] if rng.random() < 0.7 else data[: max(0, len(data) - rng.randrange(1, 40))]
    )


def _behead(data: bytes, rng: random.Random) -> bytes:
    return data[rng.randrange(min(len(data), 64) + 1) :]


def _extend(data: bytes, rng: random.Random) -> bytes:
    return data + rng.choice((rng.randbytes(rng.randrange(1, 100)), data[:50], b"\0" * 4096, b"\n"))


def _span(data: bytes, rng: random.Random) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.choice((1, 2, 4, 8, 64, 512, 4096)))


def _delete(data: bytes, rng: random.Random) -> bytes:
    start, stop = _span(data, rng)
    return data[:start] + data[stop:]


def _duplicate(data: bytes, rng: random.Random) -> bytes:
    start, stop = _span(data, rng)
    return data[:stop] + data[start:stop] + data[stop:]


def _insert(data: bytes, rng: random.Random) -> bytes:
    start, _ = _span(data, rng)
    return data[:start] + rng.randbytes(rng.choice((1, 2, 4, 16))) + data[start:]


def _zero(data: bytes, rng: random.Random) -> bytes:
    start, stop = _span(data, rng)
    return data[:start] + bytes(stop - start) + data[stop:]


def _swap(data: bytes, rng: random.Random) -> bytes:
    first, second = sorted((_span(data, rng), _span(data, rng)))
    if first[1] > second[0]:
        return data[first[0] :] + data[: first[0]]
    return (
        data[: first[0]] + data[slice(*second)] + data[first[1] : second[0]] + data[slice(*first)] + data[second[1] :]
    )


def _number(data: bytes, rng: random.Random) -> bytes:
    """Another number in place of one written in digits."""
    found = list(re.finditer(rb"-?\d+", data))
    if not found:
        return _flip(data, rng)
    place = rng.choice(found)
    return data[: place.start()] + str(rng.choice(NUMBERS)).encode() + data[place.end() :]


_BYTES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "bit flips": _flip, "byte changes": _overwrite, "truncated": _truncate, "beheaded": _behead, "extended": _extend, "chunk deleted": _delete,
    "chunk duplicated": _duplicate, "bytes inserted": _insert, "chunk zeroed": _zero, "chunks swapped": _swap, "number changed": _number,
}  # fmt: skip


def damage_lines(lines: list[bytes], rng: random.Random) -> tuple[list[bytes], str]:
    """Lines swapped, deleted, duplicated or moved."""
    out = list(lines)
    if len(out) < 2:
        return out[:-1], "line deleted"
    one, other = rng.sample(range(len(out)), 2)
    match rng.randrange(4):
        case 0:
            out[one], out[other] = out[other], out[one]
            return out, "lines swapped"
        case 1:
            del out[one]
            return out, "line deleted"
        case 2:
            out.insert(other, out[one])
            return out, "line duplicated"
        case _:
            out.insert(other, out.pop(one))
            return out, "line moved"


def damage_json(tree: Any, rng: random.Random, favoured: tuple[str, ...] = ()) -> tuple[Any, str]:
    """One change in a JSON tree, anywhere, a third of the time in one of the ``favoured`` fields; in place where it can be."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, value in list(items):
            places.append((node, key))
            walk(value)

    walk(tree)
    if not places:
        return rng.choice(VALUES), "replaced"
    # Depth first reaches numbers in long lists far more often than the fields around them: every field name gets the same chance.
    keys = sorted({str(key) for _, key in places})
    often = [key for key in favoured if key in keys]
    wanted = rng.choice(often if often and rng.random() < 0.33 else keys)
    node, key = rng.choice([place for place in places if str(place[1]) == wanted])
    change = rng.choice(("value", "value", "value", "delete", "near", "type", "rename", "twice", "swap", "deep"))
    return tree, _change(node, key, change, rng)


def _change(node: Any, key: Any, change: str, rng: random.Random) -> str:
    old = node[key]
    if change == "delete":
        del node[key]
        return "field deleted" if isinstance(node, dict) else "element deleted"
    if change == "near" and isinstance(old, (int, float)) and not isinstance(old, bool):
        node[key] = rng.choice((old + 1, old - 1, -old, old * 2))
        return "number nearby"
    if change == "type":
        node[key] = str(old) if not isinstance(old, str) else [old] if rng.random() < 0.5 else len(old)
        return "other type"
    if change == "rename" and isinstance(node, dict):
        node[rng.choice((f"{key}x", "", "kind", "name"))] = node.pop(key)
        return "field renamed"
    if change == "twice" and isinstance(node, list):
        node.insert(key, old)
        return "element twice"
    if change == "swap" and isinstance(node, list) and len(node) > 1:
        other = rng.randrange(len(node))
        node[key], node[other] = node[other], old
        return "elements swapped"
    if change == "swap" and isinstance(node, dict):
        other = rng.choice(list(node))
        node[key], node[other] = node[other], old
        return "fields swapped"
    if change == "deep" and rng.random() < 0.3:
        deep: Any = 0
        for _ in range(rng.choice((50, 500))):
            deep = [deep]
        node[key] = deep
        return "deep nesting"
    node[key] = rng.choice(VALUES)
    return "value replaced"
