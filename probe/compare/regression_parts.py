"""Two results laid side by side along the network: layers that compute the same ONNX nodes are one part, whatever was fused."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from probe.results.diff import DiffResult
from probe.results.regression import ChangeStatus, PartChange, PartLayer, What
from probe.results.run import LayerError, RunResult

Judge = Callable[[float | None, float | None], ChangeStatus]  # errors before and after -> what became of them


@dataclass(frozen=True, slots=True)
class Laid:
    """A layer with the tensors that it writes for others."""

    layer: PartLayer
    outputs: tuple[str, ...]


def layers_of(result: RunResult | DiffResult) -> tuple[Laid, ...]:
    """The layers of a result in execution order; of a diff, those that its recordings name."""
    if isinstance(result, RunResult):
        instead = {one.layer: f"{one.by}: {one.reason}" for one in result.fallbacks}
        return tuple(_of_run(one, instead.get(one.name, "")) for one in result.layers)
    written: dict[str, list[str]] = defaultdict(list)
    nodes: dict[str, dict[str, None]] = defaultdict(dict)
    made: dict[str, tuple[str, str]] = {}
    for tensor in result.tensors:
        if tensor.layer and tensor.role != "input":
            written[tensor.layer].append(tensor.name)
            nodes[tensor.layer].update(dict.fromkeys(tensor.nodes))
            made.setdefault(tensor.layer, (tensor.precision or "", tensor.tactic or ""))
    return tuple(Laid(PartLayer(name, tuple(nodes[name]), *made[name]), tuple(written[name])) for name in written)


def _of_run(one: LayerError, fallback: str) -> Laid:
    layer = PartLayer(
        one.name, one.nodes, one.precision, one.tactic, one.pattern, fallback, one.accumulated, one.injected, one.local
    )
    return Laid(layer, one.outputs)


def parts_of(
    before: Sequence[Laid],
    after: Sequence[Laid],
    errors: tuple[Mapping[str, float], Mapping[str, float]],
    starts: tuple[Collection[str], Collection[str]],
    judge: Judge,
) -> tuple[PartChange, ...]:
    """Every part of the network in the order of ``after``; parts that only ``before`` has stand where they ran.

    Args:
        errors: tensor -> range_rel, before and after; only what was compared.
        starts: layers or tensors where error first exceeds the acceptance, before and after.
    """
    if not before or not after:
        return ()
    groups = _groups(before, after)
    return tuple(_part([before[i] for i in old], [after[i] for i in new], errors, starts, judge) for old, new in groups)


def _groups(before: Sequence[Laid], after: Sequence[Laid]) -> list[tuple[list[int], list[int]]]:
    """Connected components of layers that share an ONNX node, or write the same tensor: the finest cut that both sides respect."""
    root = list(range(len(before) + len(after)))

    def find(at: int) -> int:
        while root[at] != at:
            root[at] = root[root[at]]
            at = root[at]
        return at

    for marks in (lambda one: one.layer.nodes, lambda one: one.outputs):
        first, second = _only_place(before, marks), _only_place(after, marks)
        for key, at in first.items():
            if key in second:
                root[find(at)] = find(len(before) + second[key])
    members: dict[int, tuple[list[int], list[int]]] = {}
    for at in range(len(root)):
        old, new = members.setdefault(find(at), ([], []))
        (old if at < len(before) else new).append(at if at < len(before) else at - len(before))
    reached, order = -1, {}
    for at in range(len(before)):  # a part that is gone stands behind the last one that is not
        old, new = members[find(at)]
        reached = new[0] if new else reached
        order.setdefault(find(at), (new[0], 0, 0) if new else (reached, 1, at))
    for key, (_, new) in members.items():
        if key not in order:
            order[key] = (new[0], 0, 0)
    return [members[key] for key in sorted(members, key=lambda key: order[key])]


def _only_place(layers: Sequence[Laid], marks: Callable[[Laid], Iterable[str]]) -> dict[str, int]:
    """Mark -> the one layer that has it. What several layers have (a node that each of them repeats) ties nothing together."""
    counted = Counter(mark for one in layers for mark in set(marks(one)))
    return {mark: at for at, one in enumerate(layers) for mark in marks(one) if counted[mark] == 1}


def _part(
    before: Sequence[Laid],
    after: Sequence[Laid],
    errors: tuple[Mapping[str, float], Mapping[str, float]],
    starts: tuple[Collection[str], Collection[str]],
    judge: Judge,
) -> PartChange:
    written = {name for one in before for name in one.outputs}
    boundary = tuple(name for one in after for name in one.outputs if name in written)
    compared = [name for name in boundary if name in errors[0] and name in errors[1]]
    first, second = (max((side[name] for name in compared), default=None) for side in errors)
    if not compared and written == {name for one in after for name in one.outputs}:
        first, second = _largest(before, "accumulated"), _largest(after, "accumulated")
    own_first, own_second = _own(before), _own(after)
    status: ChangeStatus = "only_before" if not after else "only_after" if not before else judge(first, second)
    own = judge(own_first, own_second) if own_first is not None and own_second is not None else "unknown"
    assert own in ("same", "better", "worse", "unknown")
    return PartChange(
        name=max((one.layer for one in (*after, *before)), key=lambda layer: len(layer.nodes)).name,
        status=status,
        own=own,
        boundary=boundary,
        before=first,
        after=second,
        ratio=ratio_of(first, second),
        own_before=own_first,
        own_after=own_second,
        layers_before=tuple(one.layer for one in before),
        layers_after=tuple(one.layer for one in after),
        changed=_changed(before, after) if before and after else (),
        starts_before=_starts(before, starts[0]),
        starts_after=_starts(after, starts[1]),
    )


def ratio_of(before: float | None, after: float | None) -> float | None:
    """after / before; None where one is not known, or nothing finite divides."""
    if before is None or after is None or not 0 < before < float("inf"):
        return None
    return after / before


def _largest(layers: Sequence[Laid], which: str) -> float | None:
    known = [value for one in layers if (value := getattr(one.layer, which)) is not None]
    return max(known, default=None)


def _own(layers: Sequence[Laid]) -> float | None:
    """What the layers add by themselves: the largest of them."""
    injected = _largest(layers, "injected")
    return injected if injected is not None else _largest(layers, "local")


def _changed(before: Sequence[Laid], after: Sequence[Laid]) -> tuple[What, ...]:
    """What is not as before: node by node, so that it is known where the fusions differ, too."""
    changed: list[What] = []
    if _cut(before) != _cut(after):
        changed.append("fusion")
    what: What
    for what in ("precision", "tactic", "fallback"):
        old, new = _by_node(before, what), _by_node(after, what)
        if any(old[node] != new[node] for node in old.keys() & new.keys()):
            changed.append(what)
    return tuple(changed)


def _cut(layers: Sequence[Laid]) -> set[frozenset[str]]:
    return {frozenset(one.layer.nodes or (one.layer.name,)) for one in layers}


def _by_node(layers: Sequence[Laid], what: What) -> dict[str, object]:
    return {
        node: bool(one.layer.fallback) if what == "fallback" else getattr(one.layer, what)
        for one in layers
        for node in one.layer.nodes or one.outputs
    }


def _starts(layers: Sequence[Laid], starts: Collection[str]) -> bool:
    return any(one.layer.name in starts or any(name in starts for name in one.outputs) for one in layers)
