"""The kinds of cases: which sound files, which damage, which judge. A case is a kind and a seed, and nothing else."""

from __future__ import annotations

import base64
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz import bases
from tests.fuzz.mutate import damage_bytes, damage_json, damage_lines

Judge = Callable[[Path, Path, Path, int], tuple[str, str]]  # original, damaged, work folder, seed


@dataclass(frozen=True, slots=True)
class Kind:
    """``make`` writes the sound files into a folder; ``damage`` changes a copy of one and says how."""

    make: Callable[[Path], list[Path]]
    damage: Callable[[Path, random.Random], str]
    judge: Judge
    share: int  # of a hundred cases in a campaign


# What decides about a verdict, and is lost among dozens of other fields.
_ROW_FIELDS = ("name", "input_id", "role", "status", "dtype", "shape", "offset", "bytes", "sha256")
_RESULT_FIELDS = ("verdict", "role", "status", "name", "range_rel", "nonfinite_mismatch", "tensors", "metrics")


def _recording(*, sealed: bool) -> Judge:
    def judge(original: Path, damaged: Path, work: Path, seed: int) -> tuple[str, str]:
        from tests.fuzz.judge import judge_recording

        return judge_recording(original, damaged, work, seed, sealed=sealed)

    return judge


def _inputs(original: Path, damaged: Path, work: Path, seed: int) -> tuple[str, str]:
    from probe.errors import InputError
    from probe.store.feeds import read_input_sets

    before = read_input_sets(original)
    try:
        after = read_input_sets(damaged)
    except InputError as error:
        return "refused", error.what
    return ("same" if [one.sha256 for one in before] == [one.sha256 for one in after] else "different"), ""


def _result(original: Path, damaged: Path, work: Path, seed: int) -> tuple[str, str]:
    from tests.fuzz.judge_results import judge_result

    return judge_result(original, damaged, seed)


def _model(original: Path, damaged: Path, work: Path, seed: int) -> tuple[str, str]:
    from tests.fuzz.judge_models import judge_model

    return judge_model(original, damaged, work, seed)


def _damage_file(path: Path, rng: random.Random) -> str:
    """Bytes of one file; of a folder, one of its files."""
    files = sorted(x for x in path.rglob("*") if x.is_file()) if path.is_dir() else [path]
    file = rng.choice(files)
    if path.is_dir() and rng.random() < 0.05:
        file.unlink()
        return "file deleted"
    data, label = damage_bytes(file.read_bytes(), rng)
    file.write_bytes(data)
    return label


def _damage_rows(path: Path, rng: random.Random) -> str:
    """Lines or fields of a manifest, with its own hash made right again; sometimes data too."""
    lines = (path / "manifest.jsonl").read_bytes().splitlines(keepends=True)[:-1]
    label = ""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if rng.random() < 0.15 and len(lines) > 2:
            body, label = damage_lines(lines[1:], rng)
            lines = [lines[0], *body]
            continue
        number = rng.randrange(len(lines)) if rng.random() < 0.9 else 0
        tree, label = damage_json(json.loads(lines[number]), rng, _ROW_FIELDS)
        lines[number] = json.dumps(tree).encode() + b"\n"
    if rng.random() < 0.15:
        _reuse_hash(path, lines, rng)
        label = "data with a right hash"
    bases.reseal(path, lines)
    return f"rows: {label}"


def _reuse_hash(path: Path, lines: list[bytes], rng: random.Random) -> None:
    """Change the stored bytes of a tensor and its hash with them: nothing is damaged, the values are others."""
    import hashlib

    number = rng.randrange(len(lines))
    try:
        row = json.loads(lines[number])
        with (path / "data-000.bin").open("r+b") as file:
            file.seek(row["offset"])
            payload = bytearray(file.read(row["bytes"]))
            payload[rng.randrange(len(payload))] ^= 1 << rng.randrange(8)
            file.seek(row["offset"])
            file.write(payload)
        row["sha256"] = hashlib.sha256(payload).hexdigest()
        lines[number] = json.dumps(row).encode() + b"\n"
    except (KeyError, TypeError, ValueError, OSError, AttributeError):
        return  # this line is no such row any more


def _damage_tree(path: Path, rng: random.Random) -> str:
    """Fields of a JSON file, or its bytes."""
    if rng.random() < 0.4:
        return _damage_file(path, rng)
    tree = json.loads(path.read_text())
    label = ""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        tree, label = damage_json(tree, rng, _RESULT_FIELDS)
    path.write_text(json.dumps(tree))
    return f"fields: {label}"


def _damage_polygraphy(path: Path, rng: random.Random) -> str:
    """Fields, bytes, or the array inside one of the base64 texts."""
    if rng.random() < 0.7:
        return _damage_tree(path, rng)
    tree = json.loads(path.read_text())
    arrays: list[dict[str, str]] = []

    def walk(node: object) -> None:
        if isinstance(node, dict) and isinstance(node.get("array"), str):
            arrays.append(node)
        for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            walk(child)

    walk(tree)
    one = rng.choice(arrays)
    data, label = damage_bytes(base64.b64decode(one["array"]), rng)
    one["array"] = base64.b64encode(data).decode()
    path.write_text(json.dumps(tree))
    return f"array: {label}"


def _damage_archive(path: Path, rng: random.Random) -> str:
    """Bytes of the archive; or of a member, with the archive's checksums made right again."""
    import zipfile

    if rng.random() < 0.5:
        return _damage_file(path, rng)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(sorted(members))
    content = members[name]
    head = 10 + int.from_bytes(content[8:10], "little")
    inside, label = damage_bytes(content[:head], rng) if rng.random() < 0.7 else damage_bytes(content, rng)
    members[name] = inside + (content[head:] if len(inside) <= head + 64 else b"")
    if rng.random() < 0.1:
        members[rng.choice(("in/logits.npy", "logits", "x/../y.npy", "out/.npy"))] = content
    with zipfile.ZipFile(path, "w") as archive:
        for key, value in members.items():
            archive.writestr(key, value)
    return f"member: {label}"


def _damage_safetensors(path: Path, rng: random.Random) -> str:
    if rng.random() < 0.5:
        return _damage_file(path, rng)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    tree, label = damage_json(json.loads(content[8 : 8 + length]), rng)
    header = json.dumps(tree).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])
    return f"fields: {label}"


def _damage_model(path: Path, rng: random.Random) -> str:
    way = rng.random()
    if path.is_dir() or way < 0.4:
        return _damage_file(path, rng)
    from tests.fuzz.mutate_models import damage_model
    from tests.model.mutations import mutate_message

    if way < 0.6:
        path.write_bytes(mutate_message(path.read_bytes(), rng))
        return "message fields"
    data, label = damage_model(path.read_bytes(), rng)
    path.write_bytes(data)
    return f"graph: {label}"


def _make(*functions: Callable[[Path], Path]) -> Callable[[Path], list[Path]]:
    return lambda folder: [function(folder) for function in functions]


def _dumps(folder: Path) -> list[Path]:
    return [
        bases.dump(folder / "dump"), bases.simple_dump(folder / "simple"), bases.dump(folder / "stats", stats_only=True),
        bases.simple_dump(folder / "simple-stats", stats_only=True),
    ]  # fmt: skip


KINDS: dict[str, Kind] = {
    "dump": Kind(
        _dumps,
        _damage_file, _recording(sealed=True), 12,
    ),
    "dump rows": Kind(
        _dumps,
        _damage_rows, _recording(sealed=False), 22,
    ),
    "npz": Kind(
        _make(lambda f: bases.npz(f / "plain.npz", roles=False), lambda f: bases.npz(f / "small.npz", roles=True, compressed=True)),
        _damage_file, _recording(sealed=True), 8,
    ),
    "npz members": Kind(
        _make(lambda f: bases.npz(f / "plain.npz", roles=False), lambda f: bases.npz(f / "roles.npz", roles=True)),
        _damage_archive, _recording(sealed=False), 8,
    ),
    "npy folder": Kind(_make(lambda f: bases.npy_folder(f / "npy")), _damage_file, _recording(sealed=False), 6),
    "safetensors": Kind(_make(lambda f: bases.safetensors(f / "x.safetensors")), _damage_safetensors, _recording(sealed=False), 7),
    "polygraphy": Kind(_make(lambda f: bases.polygraphy(f / "o.json")), _damage_polygraphy, _recording(sealed=False), 9),
    "polygraphy inputs": Kind(_make(lambda f: bases.polygraphy_inputs(f / "i.json")), _damage_polygraphy, _inputs, 3),
    "saved results": Kind(lambda f: list(bases.results(f)), _damage_tree, _result, 9),
    "models": Kind(lambda f: list(bases.small_models(f)), _damage_model, _model, 24),
    "real models": Kind(lambda _: list(bases.real_models().values()), _damage_model, _model, 6),
}  # fmt: skip


def prepare(kind: str, seed: int, originals: list[Path], work: Path) -> tuple[Path, Path, str]:
    """Copy one of the sound files into ``work`` and damage the copy: original, damaged copy, what was done."""
    rng = random.Random(f"{kind} {seed}")  # a text: its hash is the same in every process
    original = originals[seed % len(originals)]
    home = (
        original.parent if original.name == "model.onnx" else None
    )  # a model with external data comes with its folder
    if home is not None:
        shutil.copytree(home, work / home.name)
        damaged, target = work / home.name / original.name, work / home.name
    elif original.is_dir():
        damaged = target = Path(shutil.copytree(original, work / original.name))
    else:
        damaged = target = Path(shutil.copyfile(original, work / original.name))
    return original, damaged, KINDS[kind].damage(target, rng)
