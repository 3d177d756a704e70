"""Results as JSON: one file format a ``schema`` name, NaN and infinities as strings, files that appear whole or not at all.

Standard JSON has no NaN and no infinity: they are written ``"NaN"``, ``"Infinity"``, ``"-Infinity"`` wherever a number may stand, and
read back as numbers. ``schema`` comes first in every file and says which dataclass it holds; fields a reader does not know are ignored,
so that a later version may add some.
"""

from __future__ import annotations

import codecs
import json
import math
import os
import types
import typing
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from probe.errors import InputError

NON_FINITE = ("NaN", "Infinity", "-Infinity")
LARGE = 1 << 20  # characters without spaces: a text longer than this is not indented

# Where each schema lives. A module is imported when one of its files is read, not before.
_HOMES = {
    "probe.diff/1": ("probe.results.diff", "DiffResult"),
    "probe.regression/1": ("probe.results.regression", "RegressionResult"),
    "probe.inspect/1": ("probe.results.inspect", "InspectResult"),
    "probe.dump/1": ("probe.results.inspect", "DumpResult"),
    "probe.ops/1": ("probe.results.ops", "OpsResult"),
    "probe.run/1": ("probe.results.run", "RunResult"),
    "probe.bench/1": ("probe.results.bench", "BenchResult"),
    "probe.build/1": ("probe.results.build", "BuildResult"),
    "probe.engine/1": ("probe.results.build", "SavedEngine"),
    "probe.check/1": ("probe.results.check", "CheckResult"),
    "probe.convert/1": ("probe.results.convert_result", "ConvertResult"),
    "probe.find/1": ("probe.results.find", "FindResult"),
    "probe.tactics/1": ("probe.results.tactics", "TacticFile"),
    "probe.tactics-record/1": ("probe.results.tactics", "TacticsRecordResult"),
    "probe.tactics-replay/1": ("probe.results.tactics", "TacticsReplayResult"),
    "probe.tactics-log/1": ("probe.results.tactics", "TacticsLogResult"),
    "probe.tactics-diff/1": ("probe.results.blame", "TacticsDiffResult"),
    "probe.tactics-bisect/1": ("probe.results.blame", "TacticsBisectResult"),
    "probe.tactics-table/1": ("probe.results.blame", "TacticsTableResult"),
    "probe.builds/1": ("probe.results.blame", "BuildsResult"),
}


def schema_names() -> tuple[str, ...]:
    """Every schema this version writes and reads, such as ``probe.diff/1``."""
    return tuple(_HOMES)


def class_of(schema: str) -> type[Any]:
    """The dataclass behind a schema name.

    Raises:
        InputError: this version does not know the schema.
    """
    import importlib

    try:
        module, name = _HOMES[schema]
    except (KeyError, TypeError):
        raise InputError(
            f"unknown schema {schema!r}",
            hint=f"this version reads {', '.join(_HOMES)}; a file of a newer probe needs a newer probe",
        ) from None
    return getattr(importlib.import_module(module), name)


# --- writing


def dumps(result: Any) -> str:
    """JSON text of a result, ``schema`` first, ASCII only (any name survives any terminal or file system): two spaces an indent, or, beyond
    ``LARGE`` characters, a line a field and a line an item of lists, at half the size."""
    import msgspec

    plain = _plain(result)
    if "schema" in plain:
        plain = {"schema": plain.pop("schema"), **plain}
    compact = _compact(plain)
    if len(compact) > LARGE:
        return _in_lines(plain)
    try:
        return msgspec.json.format(compact, indent=2) + "\n"
    except msgspec.DecodeError:  # it refuses lone surrogates, which hostile names hold; the standard library is slower
        return json.dumps(plain, allow_nan=False, indent=2) + "\n"


def _compact(plain: Any) -> str:
    return json.dumps(plain, allow_nan=False, separators=(",", ":"))


def _in_lines(plain: dict[str, Any]) -> str:
    written = []
    for key, value in plain.items():
        several = isinstance(value, list) and len(value) > 1
        text = "[\n" + ",\n".join(map(_compact, value)) + "\n]" if several else _compact(value)
        written.append(f"{_compact(key)}:{text}")
    return "{\n" + ",\n".join(written) + "\n}\n"


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if is_dataclass(value):
        return {name: _plain(getattr(value, name)) for name in _field_names(type(value))}
    if hasattr(value, "item"):  # a numpy scalar
        return _plain(value.item())
    raise TypeError(f"a result cannot hold a {type(value).__name__}")


@cache
def _field_names(cls: type) -> tuple[str, ...]:
    return tuple(f.name for f in fields(cls))


def save(result: Any, path: str | Path) -> None:
    """Write a result to ``path``: the file appears whole, by rename, or not at all. A device or pipe is written to directly.

    Raises:
        InputError: the folder does not exist or is read-only, the disk is full, or ``path`` is a folder.
    """
    write_text(dumps(result), path)


def write_text(text: str, path: str | Path) -> None:
    """``save`` for text that is already made."""
    check_target(path)
    target = Path(os.path.realpath(path))  # through a link: the link stays, its file is replaced
    data = text.encode("utf-8")
    if target.exists() and not target.is_file():
        _refusing(path, lambda: target.write_bytes(data))
        return
    temporary = target.with_name(f".{target.name[:200]}.{os.getpid()}.partial")

    def write() -> None:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)

    try:
        _refusing(path, write)
    finally:
        temporary.unlink(missing_ok=True)


def check_target(path: str | Path, *, text: bool = True) -> None:
    """Refuse a place ``save`` could not write to, or should not. Commands ask before they work for minutes.

    Args:
        text: is written there: a file that is there and is no text is none that was written before, but a model or someone's data.

    Raises:
        InputError: the parent folder is missing or read-only, or ``path`` is a folder, or not text.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise InputError(f"cannot write a result over the folder {str(path)!r}", hint="name a file")
    if not target.parent.is_dir():
        raise InputError(f"cannot write {str(path)!r}: its folder does not exist", hint=f"mkdir -p {target.parent}")
    device = target.exists() and not target.is_file()
    if not os.access(target if device else target.parent, os.W_OK):
        raise InputError(f"cannot write {str(path)!r}: {'it' if device else 'its folder'} is read-only")
    if text and target.is_file() and not _is_text(target):
        raise InputError(
            f"{str(path)!r} is there and is no text; it will not be overwritten", hint="name another file, or remove it"
        )


def _is_text(target: Path) -> bool:
    try:
        with target.open("rb") as file:
            head = file.read(4096)
    except OSError:  # what cannot be read may still be replaced
        return True
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # a letter may be cut at the end
    except UnicodeDecodeError:
        return False
    return b"\0" not in head


def _refusing(path: str | Path, write: Callable[[], Any]) -> None:
    try:
        write()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise InputError(f"cannot write {str(path)!r}: {error.strerror or error}") from error


# --- reading


def load(path: str | Path) -> Any:
    """The result saved in ``path``: a ``DiffResult``, ``RegressionResult``, ``InspectResult``, ``DumpResult`` or ``RunResult``, by its
    ``schema``.

    Raises:
        InputError: not readable, not JSON or cut short, no or an unknown schema, a field missing or of the wrong type
            (the message names its JSON path).
    """
    where = str(path)
    try:
        text = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the result: {getattr(error, 'strerror', None) or error}", where=where) from error
    return loads(text, where=where)


def loads(text: str | bytes, *, where: str = "") -> Any:
    """``load`` from text already read."""
    import msgspec

    try:
        # The standard library's parser keeps lone surrogates, which ONNX names may hold; msgspec's refuses them.
        tree = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise InputError("not a result of probe: nested too deeply", where=where) from error
    except UnicodeDecodeError as error:
        raise InputError(
            "not a result of probe: the file is not text", where=where, hint="results are written by --json FILE"
        ) from error
    except ValueError as error:
        raise InputError(
            f"not a result of probe: not valid JSON ({error})", where=where, hint="is the file cut short?"
        ) from error
    if not isinstance(tree, dict) or not isinstance(tree.get("schema"), str):
        raise InputError(
            'not a result of probe: it has no "schema"', where=where, hint="results are written by --json FILE"
        )
    try:
        cls = class_of(tree["schema"])
    except InputError as error:
        raise InputError(error.what, where=where, hint=error.hint) from None
    try:
        return msgspec.convert(tree, cls, strict=False)  # not strict: "NaN" and "Infinity" become numbers
    except (ValueError, RecursionError, OverflowError) as error:  # a ValidationError is a ValueError
        raise InputError(f"damaged {tree['schema']} result: {error}", where=where) from error


def is_result(path: str | Path) -> bool:
    """Whether a file looks like a saved result: JSON whose first 4 KiB name a ``probe.`` schema. Reads no more than that."""
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
    except (OSError, ValueError):
        return False
    return head.lstrip()[:1] == b"{" and b'"schema"' in head and b'"probe.' in head


def _refuse_constant(constant: str) -> Any:
    raise ValueError(f"bare {constant}; standard JSON has none")


# --- describing


def schema_of(cls: type[Any]) -> dict[str, Any]:
    """JSON Schema (2020-12) of a result class. Numbers may also be the strings "NaN", "Infinity", "-Infinity".

    Fields without a default, and ``schema``, are required; others may be absent in files of older versions. Unknown fields are allowed.
    """
    definitions: dict[str, Any] = {"number": {"anyOf": [{"type": "number"}, {"enum": list(NON_FINITE)}]}}
    root = _describe_class(cls, definitions)
    names = [f.default for f in fields(cls) if f.name == "schema"]
    head: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    if names:
        head["title"] = names[0]
        root["properties"] = {"schema": {"const": names[0]}} | {
            k: v for k, v in root["properties"].items() if k != "schema"
        }
    return head | root | {"$defs": dict(sorted(definitions.items()))}


def _describe_class(cls: type[Any], definitions: dict[str, Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    properties: dict[str, Any] = {}
    required: list[str] = []
    for f in fields(cls):
        properties[f.name] = _describe(hints[f.name], definitions)
        if f.name == "schema" or (f.default is MISSING and f.default_factory is MISSING):
            required.append(f.name)
    described: dict[str, Any] = {"type": "object"}
    summary = (cls.__doc__ or "").strip().split("\n\n")[0]
    if summary:
        described["description"] = " ".join(summary.split())
    return described | {"properties": properties, "required": required}


def _describe(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return {"enum": list(args)}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_describe(arg, definitions) for arg in args]}
    if origin is tuple:
        if len(args) == 2 and args[1] is Ellipsis:
            return {"type": "array", "items": _describe(args[0], definitions)}
        members = [_describe(arg, definitions) for arg in args]
        return {"type": "array", "prefixItems": members, "minItems": len(args), "maxItems": len(args)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _describe(args[1], definitions)}
    if is_dataclass(hint) and isinstance(hint, type):
        if hint.__name__ not in definitions:
            definitions[hint.__name__] = {}  # claimed before its fields are walked: a class may refer to itself
            definitions[hint.__name__] = _describe_class(hint, definitions)
        return {"$ref": f"#/$defs/{hint.__name__}"}
    if hint is float:
        return {"$ref": "#/$defs/number"}
    simple = {str: "string", bool: "boolean", int: "integer", type(None): "null"}
    if hint in simple:
        return {"type": simple[hint]}
    raise TypeError(f"results cannot be described that hold {hint!r}")
