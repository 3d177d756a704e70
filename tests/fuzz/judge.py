"""Is the answer right? Damaged recordings are read a second time, by a few lines that share nothing with probe."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import ml_dtypes
import numpy as np

from probe import api
from probe.debug.convert import convert
from probe.debug.inspect import inspect_recording
from probe.errors import InputError
from probe.report.terminal import render
from probe.results.diff import DiffResult
from probe.results.json import dumps, loads
from probe.store.feeds import read_input_sets
from probe.store.opening import open_source, read_array
from tests.fuzz.sandbox import WrongError

Array = np.ndarray[Any, Any]
Key = tuple[str, str]  # name, input id


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a recording says: every value, what it says of tensors without values, and which are outputs (None: any may be)."""

    values: dict[Key, Array]
    claims: dict[Key, tuple[Any, ...]]
    outputs: set[str] | None
    ids: tuple[str, ...]


def judge_recording(original: Path, damaged: Path, work: Path, seed: int, *, sealed: bool) -> tuple[str, str]:
    """Read ``damaged`` in every way there is and compare it with ``original`` both ways round.

    Args:
        sealed: the format has a checksum over everything that matters, so damage that goes unnoticed is a finding.

    Raises:
        WrongError: read as something that it does not hold, or passed though an output differs.
    """
    golden = meaning(original)
    try:
        found = meaning(damaged)
    except InputError as error:
        _refused_everywhere(damaged, original, seed)
        return "refused", error.what
    independent = read_independently(damaged)
    if independent is not None:
        _same_values(found.values, independent)
    changed = not _equal(golden, found)
    if changed and sealed:
        raise WrongError(f"damage went unnoticed: {_difference(golden, found)}")
    for actual, reference, a, g in ((damaged, original, found, golden), (original, damaged, golden, found)):
        for accept in ((), ("max_abs<=0",)):
            try:
                result = api.diff(actual, reference, accept=accept, precision="fp32")
            except InputError:
                if not changed:
                    raise WrongError("nothing that matters was changed, and the comparison is refused") from None
                continue
            if bool(accept) == (actual == damaged):  # two of the four are enough
                _shown(result)
            if result:
                _no_wrong_pass(a, g, result, exact=bool(accept))
            elif not changed and result.verdict == "failed":
                raise WrongError(f"nothing that matters was changed, and it fails: {result.reasons}")
    _other_ways(damaged, work, seed, found)
    return ("different" if changed else "same"), ""


def meaning(path: Path) -> Meaning:
    """Everything probe reads from a recording.

    Raises:
        InputError: any of it cannot be read.
    """
    with closing(open_source(path)) as source:
        rows = list(source.rows())
        values = {(row.name, row.input_id): read_array(source, row) for row in rows if row.status == "recorded"}
        for row in rows:
            if row.status == "recorded" and values[row.name, row.input_id].shape != row.shape:
                raise WrongError(
                    f"{row.name!r} is announced as {row.shape} and read as {values[row.name, row.input_id].shape}"
                )
        outputs = {row.name for row in rows if row.role == "output"} if source.roles_known else None
        claims = {
            (row.name, row.input_id): (row.status, row.role, row.dtype, row.shape, row.sha256, row.nan, row.inf)
            for row in rows
            if row.status != "recorded"
        }
        return Meaning(values, claims, outputs, tuple(dict.fromkeys(row.input_id for row in rows)))


def _refused_everywhere(damaged: Path, original: Path, seed: int) -> None:
    """What one way of reading refuses, a comparison must not pass. It may fail or be judged on what was not damaged."""
    try:
        result = api.diff(damaged, original, accept=("max_abs<=0",))
    except InputError:
        return
    _shown(result)
    # One damaged tensor is refused by itself; tensors that are never compared (network inputs) are not read by a comparison.
    bad = set()
    with closing(open_source(damaged)) as source:
        for row in source.rows():
            try:
                if row.status == "recorded":
                    read_array(source, row)
            except InputError:
                bad.add((row.name, row.role))
    if result and any(role != "input" for _, role in bad):
        raise WrongError(f"passed with tensors that cannot be read: {sorted(bad)[:3]}")


def _shown(result: DiffResult) -> None:
    text = dumps(result)
    if dumps(loads(text)) != text:
        raise WrongError("a saved result does not come back as it was")
    render(result)
    render(result, all_metrics=True, verbose=True)
    render(result, quiet=True)


def _other_ways(damaged: Path, work: Path, seed: int, found: Meaning) -> None:
    try:
        render(inspect_recording(damaged, values=3), verbose=True)
        dumps(inspect_recording(damaged))
    except InputError as error:
        raise WrongError(f"every tensor can be read, and inspect refuses: {error.what}") from None
    try:
        for one in read_input_sets(damaged):
            assert len(one.sha256) == 64
    except InputError:
        pass  # no inputs in it
    if seed % 4 == 0:
        try:
            convert(damaged, work / "copy")
        except InputError as error:
            if "not Unicode text" not in error.what:
                raise WrongError(f"every tensor can be read, and a copy is refused: {error.what}") from None
        else:
            _same_values(meaning(work / "copy").values, found.values)
    if seed % 8 == 1:
        _command_line(["inspect", str(damaged), "-q"], (0,))
        _command_line(["diff", str(damaged), str(damaged), "-q", "--accept", "max_abs<=0"], (0, 1, 2))


def _command_line(arguments: list[str], expected: tuple[int, ...]) -> None:
    from probe.cli.main import main

    try:
        main(arguments)
    except SystemExit as end:
        if end.code not in expected:
            raise WrongError(f"probe {' '.join(arguments[:1])} left with exit code {end.code}") from None


def _no_wrong_pass(actual: Meaning, golden: Meaning, result: DiffResult, *, exact: bool) -> None:
    """Every output of golden has its equal in actual, unless the result says that an input was left out."""
    left_out = any(finding.kind == "inputs_left_out" for finding in result.findings)
    outputs = golden.outputs if golden.outputs is not None else actual.outputs
    compared = 0
    for (name, input_id), g in golden.values.items():
        if outputs is not None and name not in outputs:
            continue
        candidates = [array for (other, _), array in actual.values.items() if other == name]
        if any(alike(array, g, exact=exact) for array in candidates):
            compared += 1
        elif not (left_out and input_id not in actual.ids):
            raise WrongError(f"{result.verdict}, and output {name!r} of input {input_id!r} differs")
    for (name, input_id), claim in golden.claims.items():
        if claim[1] != "output":
            continue
        recorded = [hashed(array) for (other, _), array in actual.values.items() if other == name]
        claimed = [other[4] for key, other in actual.claims.items() if key[0] == name and other[0] == "stats_only"]
        if claim[0] == "stats_only" and claim[4] in (*recorded, *claimed):
            compared += 1
        elif not (left_out and input_id not in actual.ids):
            raise WrongError(
                f"{result.verdict}, and output {name!r} of input {input_id!r} has no values that could be compared"
            )
    if not compared:
        raise WrongError(f"{result.verdict}, and no output was compared")
    names = {name for name, _ in golden.values}
    extra = [name for name in (actual.outputs or ()) if name not in names and any(name == n for n, _ in actual.values)]
    if extra and golden.outputs is not None:
        raise WrongError(f"{result.verdict}, and actual has outputs that golden has not: {extra[:3]}")


def alike(a: Array, g: Array, *, exact: bool) -> bool:
    """Equal values, NaN equal to NaN; or, not ``exact``, within a thousandth of the range or a mask on both sides."""
    if a.shape != g.shape or _kind(a) != _kind(g):
        return False
    if object in (a.dtype, g.dtype):
        return a.tolist() == g.tolist()
    if a.dtype.kind in "iub" and g.dtype.kind in "iub":
        return [int(x) for x in a.reshape(-1)] == [int(x) for x in g.reshape(-1)]
    with np.errstate(all="ignore"):
        wide = np.complex128 if "c" in (a.dtype.kind, g.dtype.kind) else np.float64
        x, y = a.astype(wide).reshape(-1), g.astype(wide).reshape(-1)
        same = (x == y) | (np.isnan(x) & np.isnan(y))
        if not exact and wide is np.float64:
            finite = np.isfinite(y)
            reach = float(np.abs(y[finite]).max()) if finite.any() else 0.0
            coarse = (
                0.05
                if "float16" in (a.dtype.name, g.dtype.name) or "bfloat16" in (a.dtype.name, g.dtype.name)
                else 1e-3
            )
            mask = (np.abs(x) >= 1e4) & (np.abs(y) >= 1e4) & (np.sign(x) == np.sign(y))
            same |= (np.abs(x - y) <= 1.01 * coarse * reach) | mask
    return bool(same.all())


def hashed(array: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest() if array.dtype != object else "text"


def _kind(array: Array) -> str:
    if array.dtype == object:
        return "text"
    if array.dtype.kind in "biufc":
        return "i" if array.dtype.kind == "u" else array.dtype.kind
    return "i" if "int" in array.dtype.name else "f"


def _equal(one: Meaning, other: Meaning) -> bool:
    return not _difference(one, other)


def _difference(one: Meaning, other: Meaning) -> str:
    """The first thing that differs to the last bit; empty when nothing does."""
    if list(one.values) != list(other.values):
        return f"tensors {sorted(set(one.values) ^ set(other.values))[:3]}"
    for key, array in one.values.items():
        if not _identical(array, other.values[key]):
            return f"tensor {key}"
    if (one.outputs, one.ids, one.claims) != (other.outputs, other.ids, other.claims):
        return "roles or inputs"
    return ""


def _identical(one: Array, other: Array) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.dtype == object:
        return one.tolist() == other.tolist()
    return np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(other).tobytes()


def _same_values(found: dict[Key, Array], expected: dict[Key, Array]) -> None:
    if found.keys() != expected.keys():
        raise WrongError(f"read as other tensors than it holds: {sorted(found.keys() ^ expected.keys())[:3]}")
    for key, array in found.items():
        if not _identical(array, expected[key]):
            raise WrongError(f"{key} is read as something that it does not hold")


# --- a second reader for each format


def read_independently(path: Path) -> dict[Key, Array] | None:
    """The tensors of a recording that probe could read; None where the format's own library is all there is."""
    if path.is_dir() and (path / "manifest.jsonl").exists():
        return _dump(path)
    if path.is_dir():
        return {
            (unquote(file.relative_to(path).as_posix()[:-4]), ""): _native(np.load(file))
            for file in path.rglob("*.npy")
        }
    if path.suffix == ".npz":
        with np.load(path) as archive:
            keys = archive.files
            return {(key.partition("/")[2] if _is_role(key, keys) else key, ""): _native(archive[key]) for key in keys}
    if path.suffix == ".safetensors":
        return _safetensors(path.read_bytes())
    return _polygraphy(json.loads(path.read_bytes().decode(errors="surrogateescape")))


def _is_role(key: str, keys: list[str]) -> bool:
    return key.startswith("in/") or (key.startswith("out/") and any(one.startswith("out/") for one in keys))


def _native(array: Array) -> Array:
    if array.dtype.kind in "US":
        texts = [x.decode("utf-8", "surrogateescape") if isinstance(x, bytes) else str(x) for x in array.reshape(-1)]
        out = np.empty(len(texts), object)
        out[:] = texts
        return out.reshape(array.shape)
    return array.astype(array.dtype.newbyteorder("="))


def _dtype(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name)) if hasattr(ml_dtypes, name) else np.dtype(name)


def _dump(path: Path) -> dict[Key, Array]:
    values: dict[Key, Array] = {}
    for line in (path / "manifest.jsonl").read_bytes().split(b"\n")[1:-2]:
        row = json.loads(line)
        if row.get("status", "recorded") != "recorded":
            continue
        payload = b"[]"
        if row["bytes"]:
            payload = (path / f"data-{row['data']:03d}.bin").read_bytes()[row["offset"] :][: row["bytes"]]
        if row["dtype"] == "string":
            array = np.empty(math.prod(row["shape"]), object)
            array[:] = json.loads(payload)
        else:
            array = np.frombuffer(payload if row["bytes"] else b"", _dtype(row["dtype"]))
        values[row["name"], row.get("input_id", "")] = array.reshape(row["shape"])
    return values


_CODES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64", "I64": "int64", "I32": "int32", "I16": "int16",
          "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool", "C64": "complex64",
          "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu", "F8_E4M3FNUZ": "float8_e4m3fnuz",
          "F8_E5M2FNUZ": "float8_e5m2fnuz"}  # fmt: skip


def _safetensors(content: bytes) -> dict[Key, Array]:
    length = int.from_bytes(content[:8], "little")
    entries = json.loads(content[8 : 8 + length])
    entries.pop("__metadata__", None)
    return {
        (name, ""): np.frombuffer(
            content[8 + length :][slice(*one["data_offsets"])], _dtype(_CODES[one["dtype"]])
        ).reshape(one["shape"])
        for name, one in entries.items()
    }


def _polygraphy(tree: Any) -> dict[Key, Array]:
    if isinstance(tree, list):
        iterations = tree
    else:
        ((_, runs),) = tree["lst"]
        iterations = [one["outputs"] for one in runs]
    values: dict[Key, Array] = {}
    for k, one in enumerate(iterations):
        for name, entry in one.items():
            entry = entry if "array" in entry else entry["values"]
            if entry.get("polygraphy_class", "ndarray") == "ndarray":
                array = np.load(io.BytesIO(base64.b64decode(entry["array"])))
                values[name, f"iteration-{k}" if len(iterations) > 1 else ""] = _native(array)
    return values
