"""Which tensor of actual belongs to which of golden, and which input to which. By name, or by the user's map; never by position."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from probe.errors import InputError
from probe.results.diff import Finding, Suggestion
from probe.results.tensors import TensorInfo
from probe.store.feeds import hash_feeds
from probe.store.opening import read_array
from probe.store.source import TensorSource

MAX_SUGGESTIONS = 20
_MAX_NAMES = 2000  # edit distances of more unmatched names than this would take longer than the comparison


@dataclass(frozen=True, slots=True)
class InputPair:
    """Recordings of one input on both sides."""

    actual: str
    golden: str

    @property
    def label(self) -> str:
        return self.golden or self.actual


def pair_inputs(actual: TensorSource, golden: TensorSource) -> tuple[list[InputPair], list[Finding]]:
    """Pairs of input ids: the only one of each side, else equal content (SHA-256), else equal ids.

    Findings say when paired inputs differ in content, which makes a comparison of runners meaningless, and which were left out.

    Raises:
        InputError: no input of one side is on the other.
    """
    ids_a, ids_g = _input_ids(actual), _input_ids(golden)
    hashes_a, hashes_g = _hashes(actual, ids_a), _hashes(golden, ids_g)
    if len(ids_a) == 1 and len(ids_g) == 1:
        pairs = [InputPair(ids_a[0], ids_g[0])]
    else:
        by_hash = {sha: one for one, sha in reversed(hashes_a.items()) if one in ids_a}
        partner = {g: by_hash.get(hashes_g.get(g, ""), g) for g in ids_g}
        pairs = [InputPair(a, g) for g, a in partner.items() if a in ids_a]
    if not pairs:
        raise InputError(
            "the two recordings have no input in common",
            where=f"actual: {', '.join(ids_a[:5])}; golden: {', '.join(ids_g[:5])}",
            hint="record both with the same --inputs",
        )
    return pairs, [*_different(pairs, hashes_a, hashes_g), *_left_out(pairs, ids_a, ids_g)]


def _different(pairs: Sequence[InputPair], hashes_a: Mapping[str, str], hashes_g: Mapping[str, str]) -> list[Finding]:
    wrong = [
        p for p in pairs if p.actual in hashes_a and p.golden in hashes_g and hashes_a[p.actual] != hashes_g[p.golden]
    ]
    if not wrong:
        return []
    which = f"input {wrong[0].label!r}" if len(pairs) > 1 else "the input"
    return [
        Finding(
            "inputs_differ",
            f"{which} is not the same on both sides (SHA-256 {hashes_a[wrong[0].actual][:12]} and "
            f"{hashes_g[wrong[0].golden][:12]}): this compares two inputs, not two runs",
            cure="record both sides with the same --inputs or --seed",
        )
    ]


def _left_out(pairs: Sequence[InputPair], ids_a: Sequence[str], ids_g: Sequence[str]) -> list[Finding]:
    golden_only = [g for g in ids_g if g not in {p.golden for p in pairs}]
    actual_only = [a for a in ids_a if a not in {p.actual for p in pairs}]
    return [
        Finding("inputs_left_out", f"{len(ids)} inputs are in {side} only and were not compared: {', '.join(ids[:5])}")
        for side, ids in (("golden", golden_only), ("actual", actual_only))
        if ids
    ]


def _input_ids(source: TensorSource) -> list[str]:
    ids = list(dict.fromkeys(row.input_id for row in source.rows()))
    if not ids:
        raise InputError(f"{source.path} holds no tensors")
    return ids


def _hashes(source: TensorSource, ids: Sequence[str]) -> dict[str, str]:
    """Content hash of every input: recorded, or computed from the input tensors where a format holds them."""
    known = {one.id: one.sha256 for one in source.header.inputs if one.sha256}
    if known:
        return known
    feeds: dict[str, list[TensorInfo]] = {}
    for row in source.rows():
        if row.role == "input" and row.status == "recorded":
            feeds.setdefault(row.input_id, []).append(row)
    return {one: hash_feeds({row.name: read_array(source, row) for row in feeds[one]}) for one in ids if one in feeds}


def read_map(path: str | Path) -> dict[str, str]:
    """The user's names: a JSON object {"name in actual": "name in golden"}.

    Raises:
        InputError: not such a file, or two names go to one.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the map {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"cannot read the map {path}: {error}", hint='{"name in actual": "name in golden"}') from error
    if not isinstance(content, dict) or not all(isinstance(v, str) for v in content.values()):
        raise InputError(f"{path} is not an object of names", hint='{"name in actual": "name in golden"}')
    targets = list(content.values())
    twice = next((t for t in targets if targets.count(t) > 1), None)
    if twice is not None:
        raise InputError(f"two names of actual go to {twice!r}", where=str(path))
    return content


def match_names(
    actual: Sequence[str], golden: Sequence[str], name_map: Mapping[str, str] | None = None
) -> dict[str, str]:
    """golden name -> actual name, for names that are equal or mapped. The map wins over equality.

    Raises:
        InputError: the map speaks of names that do not exist.
    """
    present_a, present_g = set(actual), set(golden)
    matched: dict[str, str] = {}
    for name, target in (name_map or {}).items():
        for side, names, which in (("actual", present_a, name), ("golden", present_g, target)):
            if which not in names:
                near = difflib.get_close_matches(which, list(names), n=3)
                hint = f"did you mean {' or '.join(near)}?" if near else ""
                raise InputError(f"--map names {which!r}, which is no tensor of {side}", hint=hint)
        matched[target] = name
    taken = set(matched.values())
    matched.update({name: name for name in golden if name in present_a and name not in matched and name not in taken})
    return matched


def suggest(unmatched_a: Sequence[TensorInfo], unmatched_g: Sequence[TensorInfo]) -> tuple[Suggestion, ...]:
    """Likely partners for names without one: similar names first, equal shapes above unequal ones. Only ever shown."""
    if not unmatched_a or not unmatched_g or len(unmatched_a) * len(unmatched_g) > _MAX_NAMES**2 // 4:
        return ()
    scored: list[tuple[bool, float, TensorInfo, TensorInfo]] = []
    for golden in unmatched_g:
        matcher = difflib.SequenceMatcher(autojunk=False, b=_plain(golden.name))
        for actual in unmatched_a:
            same_shape = actual.shape == golden.shape
            matcher.set_seq1(_plain(actual.name))
            if matcher.real_quick_ratio() < 0.5 and not same_shape:
                continue
            similarity = matcher.ratio()
            if similarity >= 0.6 or (same_shape and similarity >= 0.3):
                scored.append((same_shape, similarity, actual, golden))
    scored.sort(key=lambda one: (one[0] + one[1], one[1]), reverse=True)
    found: list[Suggestion] = []
    seen_a: set[str] = set()
    seen_g: set[str] = set()
    for same_shape, similarity, actual, golden in scored:
        if actual.name not in seen_a and golden.name not in seen_g:
            seen_a.add(actual.name)
            seen_g.add(golden.name)
            found.append(Suggestion(actual.name, golden.name, round(similarity, 3), same_shape))
    return tuple(found[:MAX_SUGGESTIONS])


def _plain(name: str) -> str:
    """A name without what frameworks add to it: output indices, scopes' separators, case."""
    return name.lower().removesuffix(":0").replace("/", ".").replace("::", ".")[-120:]
