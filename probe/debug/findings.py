"""From evidence to findings: where NaN, Inf and finite errors start, why, what becomes of them, and whether an output suffers."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from probe.compare.explain import reads_any
from probe.debug.causes import Cause, describe_effect, nonfinite_cause
from probe.debug.evidence import Evidence
from probe.debug.finite_causes import INNER_SQUARES, finite_cause, inner_overflow, vanishes
from probe.debug.steps import operator_of
from probe.engine.network import constant
from probe.precision import PRECISIONS
from probe.results.run import LayerError, RunFinding

if TYPE_CHECKING:
    from probe.results.diff import Finding

FP32_FLOOR = 1e-3  # range_rel of a layer in FP32 on golden inputs: the bound that FP32 outputs are judged by
_MANY = 12  # findings of one kind that are explained; more say the same again
_SHOWN = 3
_NEAR = 0.1  # of the limit: half of where the default acceptance begins to warn
_CARRIED = frozenset(
    "sentinels near_threshold dtype_differs failing_inputs quantisation inputs_differ inputs_left_out random_inputs".split()
)


class Findings:
    """Everything noticed about one run."""

    def __init__(
        self,
        evidence: Evidence,
        layers: Sequence[LayerError],
        first_divergence: Sequence[str],
        *,
        threshold: float,
        verdict: str,
        strict: bool = False,
    ) -> None:
        """
        Args:
            threshold: range_rel beyond which an output fails.
            verdict: of the run.
            strict: whether tensors inside count as outputs do.
        """
        self.evidence = evidence
        self.layers = {layer.name: layer for layer in layers}
        self.first_divergence = tuple(first_divergence)
        self.threshold = threshold
        self.failed = verdict == "failed"
        self.doubtful = verdict in ("failed", "warned")
        self.strict = strict
        self.steps = evidence.steps
        self.bad = {name for name in self.steps if self._is_nonfinite(name)}
        self.off = {name for name in self.steps if self._is_beyond(name)}

    def causes(self) -> list[RunFinding]:
        """Where errors start and why, in execution order; each cause once."""
        found = {(f.kind, f.tensor): f for f in reversed([*self._nonfinite(), *self._differing(), *self._finite()])}
        return sorted(found.values(), key=self._position)

    def notes(self, carried: Sequence[Finding] = ()) -> list[RunFinding]:
        """What else is worth knowing; ``carried`` are findings of the comparison."""
        return [
            *self._inner_ranges(),
            *(
                RunFinding(f.kind, f.message, tensor=f.tensor, node=f.node, cure=f.cure, fatal=f.fatal)
                for f in carried
                if f.kind in _CARRIED
            ),
        ]

    def _position(self, finding: RunFinding) -> int:
        layer = self.layers.get(finding.layer or "")
        names = (*(layer.outputs if layer is not None else ()), finding.tensor or "")
        return min((self.steps[name].position for name in names if name in self.steps), default=len(self.steps))

    # --- what is wrong with a tensor

    def _is_nonfinite(self, name: str) -> bool:
        """Whether a tensor holds NaN or Inf that the golden lacks, or that nothing can be compared with."""
        tensor = self.evidence.tensor(name)
        if tensor is not None and tensor.metrics is not None:
            return tensor.metrics.nonfinite_mismatch > 0
        rows = [self.evidence.actual_row(name, one) for one in self.evidence.pairs]
        return any(row is not None and bool((row.nan or 0) + (row.inf or 0)) for row in rows)

    def _is_beyond(self, name: str) -> bool:
        tensor = self.evidence.tensor(name)
        return tensor is not None and tensor.beyond

    def _known(self, name: str) -> bool:
        """Whether anything at all is known of a tensor: what is not handed out is looked through."""
        if name in self.evidence.tensors or name not in self.steps:
            return True
        return any(self.evidence.actual_row(name, one) is not None for one in self.evidence.pairs)

    def _descends(self, name: str, wrong: set[str]) -> bool:
        """Whether what makes a tensor reads something wrong, looking through what is not known."""
        return reads_any(name, wrong, self._known, self.evidence.inputs_of)

    def _downstream(self, start: str, through: set[str]) -> list[str]:
        """What can be reached from a tensor over tensors of ``through`` and unknown ones, in execution order."""
        found, pending = {start}, deque([start])
        while pending:
            for reader in self.evidence.readers.get(pending.popleft(), ()):
                if reader not in found and (reader in through or not self._known(reader)):
                    found.add(reader)
                    pending.append(reader)
        return sorted(found, key=lambda name: self.steps[name].position)

    def _reaches_failure(self, start: str) -> bool:
        """Whether an error can be followed from a tensor to an output that fails."""
        if not self.failed:
            return False
        if self.strict:
            return True
        failing = {
            name for name in self.steps
            if (t := self.evidence.tensor(name)) is not None and t.role == "output" and t.verdict == "failed"
        }  # fmt: skip
        return bool(failing.intersection(self._downstream(start, self.bad | self.off)))

    # --- NaN and Inf

    def _nonfinite(self) -> Iterator[RunFinding]:
        roots = [name for name in self.steps if name in self.bad and not self._descends(name, self.bad)]
        for name in roots[:_MANY]:
            input_id = self._input_with_nonfinite(name)
            step = self.steps[name]
            event = self.evidence.event(name, input_id, on_golden=True)
            if event is None:
                row = self.evidence.actual_row(name, input_id)
                cause = Cause(
                    "unexplained_nonfinite",
                    f"NaN or Inf first appear in {name}, made by {step.identity} ({step.op}); the golden does not have this tensor",
                    name, row.absmax_finite if row is not None else None, cure="record a golden with every tensor: probe dump MODEL -o golden",
                )  # fmt: skip
            else:
                cause = nonfinite_cause(event)
            effect = self._effect(name, input_id)
            found = self._finding(cause, name, self._reaches_failure(name))
            yield replace(found, message=found.message + (f"; {effect}" if effect else "") + self._on(input_id))
        if len(roots) > _MANY:
            yield RunFinding(
                "more_nonfinite", f"NaN or Inf appear independently in {len(roots) - _MANY} more tensors: {', '.join(roots[_MANY:][:_SHOWN])}, ...",
                tensor=roots[_MANY], fatal=any(map(self._reaches_failure, roots[_MANY:])),
            )  # fmt: skip

    def _on(self, input_id: str) -> str:
        return f" (input {input_id})" if len(self.evidence.pairs) > 1 else ""

    def _input_with_nonfinite(self, name: str) -> str:
        for one in self.evidence.pairs:
            ours, theirs = self.evidence.actual_row(name, one), self.evidence.golden_row(name, one)
            if (
                ours is not None
                and (ours.nan or ours.inf)
                and (theirs is None or (ours.nan, ours.inf) != (theirs.nan, theirs.inf))
            ):
                return one
        return self.evidence.worst_input(name)

    def _effect(self, root: str, input_id: str) -> str:
        """What becomes of Inf on its way: where it first turns into something finite and wrong, and where into NaN."""
        carriers, effects = {root}, list[str]()
        for name in self._downstream(root, self.bad | self.off)[1:]:
            step = self.steps[name]
            if not carriers.intersection(step.reads):
                continue
            carriers.add(name)
            event = self.evidence.event(name, input_id)
            if event is None:
                continue
            operands = [o.golden if o.actual is None else o.actual for o in event.operands]
            said = describe_effect(operator_of(step.node), operands, event.actual, event.golden)
            if said and (not effects or "NaN" in said):
                effects.append(f"in {step.identity} ({step.op}): {said}")
            if "NaN" in said:
                break
        return "; ".join(effects)

    # --- finite and wrong

    def _differing(self) -> Iterator[RunFinding]:
        """Layers that are off in FP32 on golden inputs: no precision can cure them."""
        wrong = [x for x in self.layers.values() if x.floor is not None and x.floor > FP32_FLOOR]
        for layer in wrong[:_MANY]:
            assert layer.floor is not None
            name = layer.worst_output or layer.outputs[0]
            yield RunFinding(
                "differs_in_fp32",
                f"layer {layer.name} computes something else than the golden even in FP32: range_rel {layer.floor:.3g} on golden inputs; "
                "its weights, its attributes or a transformation of it differ, not its precision",
                tensor=name, node=layer.nodes[0] if layer.nodes else None, layer=layer.name, range=layer.floor,
                cure="compare the two models: probe inspect MODEL --select the node; with --passes none and --fusion none to rule out probe's own",
                fatal=self._reaches_failure(name),
            )  # fmt: skip

    def _finite(self) -> Iterator[RunFinding]:
        for layer_name in self.first_divergence[:_MANY]:
            layer = self.layers[layer_name]
            if layer.floor is not None and layer.floor > FP32_FLOOR:
                continue  # said above
            inside = (value.name for value in self.evidence.engine.layer(layer_name).tensors)
            if any(name in self.bad or self._descends(name, self.bad) for name in (*layer.outputs, *inside) if name):
                continue  # explained by its NaN or Inf
            yield self._explained(layer)
        if self.doubtful and not self.first_divergence:
            contributors = sorted(self._contributors(list(self.layers)), key=lambda x: -(x.injected or 0.0))
            if contributors:
                yield self._accumulated(contributors, fatal=self.failed, name=contributors[0].outputs[0])

    def _explained(self, layer: LayerError) -> RunFinding:
        """Why a layer is beyond although what it reads is not: its operation, one before it, or the sum of many roundings."""
        name = layer.worst_output or layer.outputs[0]
        fatal = self._reaches_failure(name)
        found = self._cause_in(layer, self.threshold)
        if found is not None:
            return self._finding(found[0], found[1], fatal)
        # Nothing in the layer itself: the largest contributions before it, if one of them has a cause of its own.
        before = sorted(self._contributors(self._ancestors(layer)), key=lambda x: -(x.injected or 0.0))
        for one in before[:_SHOWN]:
            earlier = self._cause_in(one, max((one.injected or 0.0) / 2, self.threshold / 10))
            if earlier is not None:
                return self._finding(earlier[0], earlier[1], fatal)
        if (layer.injected or 0.0) >= min(self.threshold, layer.accumulated or math.inf) / 2:
            return RunFinding(
                "rounding",
                f"layer {layer.name} ({layer.kind}) by itself makes an error of {layer.injected:.3g} of the range of {name} on golden inputs "
                f"(its own arithmetic and storage: {layer.local or 0.0:.3g})",
                tensor=name, node=layer.nodes[0] if layer.nodes else None, layer=layer.name, range=layer.injected,
                cure=f"keep {name} and what the layer reads in FP32", keep=(*layer.reads, name), fatal=fatal,
            )  # fmt: skip
        return self._accumulated(before or [layer], fatal=fatal, name=name, layer=layer)

    def _accumulated(
        self, contributors: Sequence[LayerError], *, fatal: bool, name: str, layer: LayerError | None = None
    ) -> RunFinding:
        listed = ", ".join(f"{x.name} {x.injected:.2g}" for x in contributors[:_SHOWN] if x.injected is not None)
        where = f"{name} is beyond the limit" if layer is not None else self._where_outputs_stand()
        if not listed:
            return RunFinding(
                "accumulated", f"{where}; why is not known: no layer before it was measured by itself", tensor=name,
                layer=layer.name if layer is not None else contributors[0].name,
                cure="record a golden with every tensor: probe dump MODEL -o golden", fatal=fatal,
            )  # fmt: skip
        gain = (
            f"; {layer.name} multiplies the noise it reads by {layer.gain:.3g}"
            if layer is not None and (layer.gain or 0) > 2
            else ""
        )
        return RunFinding(
            "accumulated",
            f"{where} by accumulation, not by one layer: the largest contributions on golden inputs are {listed}{gain}",
            tensor=name, layer=layer.name if layer is not None else contributors[0].name,
            cure="keep the largest contributors in FP32 one by one (--keep), or use a precision with more mantissa bits", fatal=fatal,
        )  # fmt: skip

    def _where_outputs_stand(self) -> str:
        """Of outputs that are not in order although no layer is beyond: near the limit on range_rel, or judged by something else (top-1)."""
        found = [self.evidence.tensor(value.name or "") for value in self.evidence.engine.network.graph.outputs]
        worst = max(
            (one.metrics.range_rel or 0.0 for one in found if one is not None and one.metrics), default=math.inf
        )
        if worst > self.threshold * _NEAR:
            return "an output is near or beyond the limit"
        return (
            f"the outputs' errors are small ({worst:.2g} of their range at most, the limit is {self.threshold:.2g}), yet something else that is "
            "judged, such as top-1, changed: they come"
        )

    def _cause_in(self, layer: LayerError, threshold: float) -> tuple[Cause, str] | None:
        """The first node of a layer whose operation explains an error, those with a tensor beyond first; and that tensor."""
        names = [value.name or "" for value in self.evidence.engine.layer(layer.name).tensors]
        for name in sorted(names, key=lambda one: one not in self.off):
            event = self.evidence.event(name, self.evidence.worst_input(name))
            cause = finite_cause(event, threshold) if event is not None else None
            if cause is not None:
                return cause, name
        return None

    def _ancestors(self, layer: LayerError) -> list[str]:
        """Names of the layers before one, over all that it depends on."""
        pending, seen, found = list(layer.reads), set[str](), dict[str, None]()
        while pending:
            one = pending.pop()
            if one in seen or one not in self.steps:
                continue
            seen.add(one)
            found[self.steps[one].layer.name] = None
            pending.extend(self.evidence.inputs_of(one))
        return list(found)

    def _contributors(self, names: Sequence[str]) -> list[LayerError]:
        return [self.layers[name] for name in names if name in self.layers and self.layers[name].injected]

    # --- wording and cure

    def _finding(self, cause: Cause, name: str, fatal: bool) -> RunFinding:
        step = self.steps[name]
        keep = self._keep(cause, name)
        cure, message = cause.cure, cause.message
        if cause.kind == "flushed_to_zero" and len(keep) > 1:
            message += f"; the constant {keep[1]} that should keep it above zero becomes 0 itself"
        if cause.kind == "coarse_argument" and len(keep) > 1:
            message += f"; {keep[0]} already, of which it is a scaled copy, loses these differences"
        if len(keep) > 1 and cause.kind in ("overflow", "constant_overflow", "operand_overflow"):
            cure = f"{cure}; all {len(keep)} tensors that do not fit: --keep"
        return RunFinding(
            cause.kind, message, tensor=cause.tensor, node=step.identity, layer=step.layer.name, range=cause.range,
            margin=cause.margin, where=cause.where, cure=cure, keep=keep, fatal=fatal,
        )  # fmt: skip

    def _keep(self, cause: Cause, name: str) -> tuple[str, ...]:
        """Tensors to keep in FP32: the one to blame, and those it hands values on to that do not fit either."""
        if cause.kind == "overflow_of_error":
            return ()
        keep = dict.fromkeys([cause.tensor])
        if cause.kind in ("overflow", "constant_overflow", "operand_overflow"):
            keep.update(dict.fromkeys(self._too_large(name)))
        if cause.kind == "flushed_to_zero":
            keep.update(dict.fromkeys(self._vanished_constants(cause)))
        if cause.kind == "coarse_argument":
            keep = dict.fromkeys([*self._same_values_before(cause.tensor), cause.tensor])
        if cause.kind == "cancellation":
            keep.update(dict.fromkeys(self.steps[cause.tensor].reads if cause.tensor in self.steps else ()))
        return tuple(keep)

    def _vanished_constants(self, cause: Cause) -> list[str]:
        """Constants that should have kept a tensor above zero and are rounded to zero themselves."""
        step = self.steps.get(cause.tensor)
        if step is None:
            return []
        form = PRECISIONS[self.evidence.assignment.of(step.layer.name).precision]
        held = [(value.name or "", constant(value)) for value in step.node.inputs if value is not None]
        return [name for name, tensor in held if tensor is not None and vanishes(tensor.numpy(), form)]

    def _too_large(self, start: str) -> list[str]:
        """Tensors from ``start`` on whose golden range is beyond the format, connected to it."""
        input_id = self.evidence.worst_input(start)

        def fits(name: str) -> bool:
            form = PRECISIONS[self.evidence.assignment.of(self.steps[name].layer.name).precision]
            return (self.evidence.golden_reach(name, input_id) or 0.0) <= form.max

        if fits(start):
            return [start] if start in self.bad else []
        found, pending = {start}, deque([start])
        while pending:
            for reader in self.evidence.readers.get(pending.popleft(), ()):
                if reader not in found and not fits(reader):
                    found.add(reader)
                    pending.append(reader)
        return sorted(found, key=lambda name: self.steps[name].position)

    def _same_values_before(self, name: str) -> list[str]:
        """Tensors before one that it is a view, a scaled or a shifted copy of: they lose the same bits when they are rounded."""
        chain: list[str] = []
        while (step := self.steps.get(name)) is not None:
            activations = [value for value in step.node.inputs if value is not None and constant(value) is None]
            scaled = step.op in ("Mul", "Div", "Add", "Sub") and len(activations) == 1
            masked = step.op == "Add" and len(activations) == 2
            if not (scaled or masked or step.layer.moves or step.op in ("Where", "Identity", "Cast")):
                break
            sizes = {v.name or "": self._golden_size(v.name or "") for v in activations}
            name = max(sizes, key=lambda one: sizes[one], default="")
            if name not in self.steps:
                break
            chain.insert(0, name)
        return chain

    def _golden_size(self, name: str) -> float:
        size = self.evidence.golden_reach(name, self.evidence.worst_input(name))
        return -1.0 if size is None else size if size < 1e30 else 0.0  # a mask has no bits to lose

    # --- insides

    def _inner_ranges(self) -> Iterator[RunFinding]:
        """Operators that are FP32 inside here, and would overflow in a runtime that computes them in the storage format."""
        found: list[tuple[float, str]] = []
        for name, step in self.steps.items():
            if step.op not in INNER_SQUARES or not step.reads or step.node.outputs[0].name != name:
                continue
            form = PRECISIONS[self.evidence.assignment.of(step.layer.name).precision]
            golden = self.evidence.golden_array(step.reads[0], self.evidence.worst_input(step.reads[0]))
            reach = inner_overflow(step.op, golden, form) if golden is not None else None
            if reach is not None:
                found.append((reach, name))
        if not found:
            return
        found.sort(reverse=True)
        reach, name = found[0]
        step = self.steps[name]
        form = PRECISIONS[self.evidence.assignment.of(step.layer.name).precision]
        more = f"; {len(found) - 1} more like it" if len(found) > 1 else ""
        yield RunFinding(
            "inner_range",
            f"{step.identity} ({step.op}) is computed in FP32 inside; its sum of squares reaches {reach:.4g}, beyond {form.name} ({form.max:.5g}): "
            f"a runtime that sums in {form.name} overflows here{more}",
            tensor=name, node=step.identity, layer=step.layer.name, range=reach, margin=form.max / reach,
            cure="make sure that the runtime accumulates this operator in FP32",
        )  # fmt: skip
