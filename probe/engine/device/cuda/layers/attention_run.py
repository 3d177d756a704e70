"""``AttentionRun``: an attention layer as one kernel, or node by node where that kernel does not take it."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace

from probe import ir
from probe.engine.assignment import EXACT
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.layers.chain import Step
from probe.engine.device.cuda.layers.expressions import is_pointwise, literal
from probe.engine.device.cuda.layers.layer_run import LayerRun
from probe.engine.device.cuda.layers.pointwise import Reading, steps_of
from probe.engine.device.cuda.ops.attention.attention import Attention, View, attend, view
from probe.engine.device.cuda.ops.attention.attention_code import Steps, pair_expression
from probe.engine.device.cuda.ops.attention.attention_parts import Way, parts_of
from probe.engine.device.cuda.tensors.copies import transposed
from probe.engine.device.cuda.tensors.formats import F32, Format
from probe.engine.device.cuda.tensors.tensor import Tensor
from probe.engine.fusion.kinds import is_movement
from probe.engine.fusion.pattern import scalar_value


class AttentionRun(LayerRun):
    """Computes one attention layer once. Scores stay on the chip, whoever looks: what is wanted of them is stored beside."""

    def run(self) -> dict[int, Tensor]:
        self._queue.layer = self._layer.name
        try:
            self._attention()
        except Unsupported as why:
            self._queue.apart[self._layer.name] = str(why)
            return super().run()
        return {id(v): self._tensors[id(v)] for v in self._layer.tensors if id(v) in self._wanted}

    def _attention(self) -> None:
        """All nodes of an attention layer as one kernel. What somebody wants of them that the kernel has no use for - transposed and scaled
        operands - is computed beside it.

        Raises:
            Unsupported: the kernel does not take it.
        """
        parts = parts_of(self._layer.nodes)
        tf32 = self._multiplies_tf32(parts.product) and self._multiplies_tf32(parts.output)
        if self._precision == "tf32" and not tf32:
            raise Unsupported("a product in FP32 and one in TF32")
        if self._tactic != EXACT:
            raise Unsupported(f"{self._tactic}: one kernel adds up in FP32")
        core = [parts.product, *parts.between, parts.softmax, *parts.after, parts.output]
        readings, roundings, stores = self._described(core, [*parts.between, *parts.after])
        (weights, *_), made = parts.output.inputs, parts.output.outputs[0]
        moved = parts.move.outputs[0] if parts.move is not None else made
        rounds = self._rounds(made) or self._rounds(moved)
        if id(made) in self._wanted and self._rounds(made) is not rounds:
            raise Unsupported("a result that is rounded where it is transposed")
        views = [
            self._operand(way, node, "" if self._low is F32 else self._low.name)
            for way, node in ((parts.q, parts.product), (parts.k, parts.product), (parts.v, parts.output))
        ]
        scaling = [node for way in (parts.q, parts.k) for node in way.nodes if is_pointwise(node)]
        for node in scaling:
            readings |= {id(v): self._reading(node, v) for v in node.inputs if v is not None and v.is_initializer()}
        names = {key: f"x{at}" for at, key in enumerate(readings)}
        scaled = {id(node.outputs[0]): self._low.name for node in scaling if not tf32}
        # A number that multiplies operands and is not followed by a rounding multiplies their product instead
        later = [node for node in scaling if not tf32 and not self._rounds(node.outputs[0])]
        for way in (parts.q, parts.k):
            first = next((at for at, node in enumerate(way.nodes) if node in later), len(way.nodes))
            if any(self._rounds(node.outputs[0]) for node in way.nodes[first:]):
                raise Unsupported("an operand that is rounded only some time after it is scaled")
        factors = [_factor(at, node, names, f"f{at - 1}" if at else "sum") for at, node in enumerate(later)]

        def behind(node: ir.Node, before: Sequence[Step], nodes: Sequence[ir.Node], prefix: str) -> Steps:
            value, last = node.outputs[0], before[-1].name if before else "sum"
            begin = Step(f"{prefix}_", "float", last, roundings.get(id(value), ""), stores.get(id(value)))
            found = self._steps((*before, begin), value, nodes, names, roundings, stores, prefix)
            reads = dict.fromkeys(
                (*(names[id(v)] for one in later for v in one.inputs if before and id(v) in names), *found.reads)
            )
            return replace(found, reads=tuple(reads))

        def of(way: Way, prefix: str) -> Steps:
            found = self._steps((), way.source, way.nodes, names, scaled, {}, prefix, later)
            if not tf32:
                return found
            last = found.steps[-1].name if found.steps else "sum"
            return replace(found, steps=(*found.steps, Step(f"{prefix}_", "float", last, "tf32")))

        whole = Attention(
            views[0], views[1].swapped, views[2], tuple((names[key], one) for key, one in readings.items()),
            of(parts.q, "q"), of(parts.k, "k"), behind(parts.product, factors, parts.between, "s"),
            behind(parts.softmax, (), parts.after, "w"), id(weights) not in roundings and not tf32, of(parts.v, "v"), tf32,
        )  # fmt: skip
        order = parts.move.attributes.get_ints("perm", None) if parts.move is not None else None
        result, kept = attend(self._queue, whole, self._low if rounds else F32, order)
        stored = [id(one.outputs[0]) for one in core[:-1] if id(one.outputs[0]) in stores]
        self._tensors.update(zip(stored, kept, strict=True))
        self._tensors[id(moved)] = result
        if order is not None and id(made) in self._wanted:
            back = tuple(list(order).index(at) for at in range(len(order)))
            self._tensors[id(made)] = transposed(self._queue, result, back)
        for node in (
            node for way in (parts.q, parts.k, parts.v) for node in way.nodes if id(node.outputs[0]) in self._wanted
        ):
            self._chain([node]) if is_pointwise(node) else self._single(node)

    def _operand(self, way: Way, product: ir.Node, rounding: str) -> View:
        """A tensor as it is multiplied but for what scales it: transposed without moving. FP32 holds what any format does."""
        first = way.nodes[0] if way.nodes else product
        reading = self._reading(first, way.source)
        if self._low is F32:  # rounded in the kernel
            reading = Reading(reading.tensor)
        rounded = next((node for node in way.nodes if self._rounds(node.outputs[0])), None)
        rounds = reading.rounding or (rounded is not None and is_movement(first))
        is_low = reading.tensor.format is self._low
        if not is_low and not rounds and rounding:
            raise Unsupported("an operand that is not rounded before it is multiplied")
        found = view(reading.tensor if is_low else self._queue.convert(reading.tensor, self._low, rounding))
        for node in way.nodes:
            if not is_pointwise(node):
                found = found.transposed(node.attributes.get_ints("perm", None) or range(len(found.shape))[::-1])
        return found

    def _steps(
        self,
        begin: Sequence[Step],
        value: ir.Value,
        nodes: Sequence[ir.Node],
        names: Mapping[int, str],
        roundings: Mapping[int, str],
        stores: Mapping[int, Format],
        prefix: str,
        passing: Container[ir.Node] = (),
    ) -> Steps:
        """Pointwise nodes behind a value.

        Args:
            begin: what makes the value; nothing: it is there already.
            prefix: begins the names of steps.
            passing: nodes whose value is, here, what they read; so is a transposed one.
        """
        known = {**names, id(value): begin[-1].name if begin else "sum"}
        found, pairs = list(begin), ["sum_2" if len(begin) == 1 else ""] * len(begin)
        for at, node in enumerate(nodes):
            if node.op_type == "Transpose" or node in passing:
                (before,) = (one for one in node.inputs if one is not None and not one.is_initializer())
                known[id(node.outputs[0])] = known[id(before)]
                continue
            (step,) = steps_of([node], known, roundings, stores)
            op, given = node.op_type, [known[id(v)] for v in node.inputs if v is not None]
            inverse = _inverse_power(node)
            if inverse is not None:  # the same bits, without a division a score
                step = replace(step, expression=f"op_mul({given[0]}, {literal(inverse)})")
                op, given = "Mul", [given[0], f"={inverse!r}"]
            pairs.append(pair_expression(op, given, self._low.name))
            found.append(replace(step, name=f"{prefix}{at}"))
            known[id(node.outputs[0])] = f"{prefix}{at}"
        reads = dict.fromkeys(names[id(v)] for node in nodes for v in node.inputs if v is not None and id(v) in names)
        return Steps(tuple(reads), tuple(found), tuple(pairs))


def _inverse_power(node: ir.Node) -> float | None:
    """What a node multiplies by that divides by a stored power of two; None for other nodes."""
    number = scalar_value(node.inputs[1]) if node.op_type == "Div" else None
    if number is None or math.frexp(number)[0] != 0.5 or not 2.0**-14 <= number <= 2.0**15:
        return None
    return 1 / number


def _factor(at: int, node: ir.Node, names: Mapping[int, str], before: str) -> Step:
    """What a node does that scales an operand, done to the product."""
    number = next((names[id(v)] for v in node.inputs if v is not None and v.is_initializer()), None)
    function = {"Mul": "op_mul", "Div": "op_div"}.get(node.op_type)
    divides = node.op_type == "Div" and node.inputs[0] is not None and node.inputs[0].is_initializer()
    if function is None or number is None or divides:
        raise Unsupported(f"{node.op_type} before a product, and no rounding between")
    return Step(f"f{at}", "float", f"{function}({before}, {number})")
