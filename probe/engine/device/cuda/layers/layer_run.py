"""One layer on the device: which tensor is rounded where, which nodes share a kernel, what is written to memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from probe import ir
from probe.engine.assignment import EXACT
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.layers.chain import Step
from probe.engine.device.cuda.layers.expressions import is_pointwise
from probe.engine.device.cuda.layers.pointwise import Reading, run_chain, steps_of
from probe.engine.device.cuda.layers.shown import Shown, shown
from probe.engine.device.cuda.ops.call import Call, Readings
from probe.engine.device.cuda.ops.products.product_shape import product_shape
from probe.engine.device.cuda.ops.table import OPS
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.channels_last import in_its_order
from probe.engine.device.cuda.tensors.copies import placed, rounded_late
from probe.engine.device.cuda.tensors.formats import F32, Format, format_of, storage_of
from probe.engine.device.cuda.tensors.layout import broadcast
from probe.engine.device.cuda.tensors.lying import Lying
from probe.engine.device.cuda.tensors.tensor import Tensor
from probe.engine.fusion.kinds import VIEWS, is_movement
from probe.engine.layers import Layer
from probe.engine.rounding import Plan, Sites, data_inputs, multiplies
from probe.engine.tactics import tactic_of

Weigh = Callable[[ir.Value, str], Tensor]  # a weight rounded to a precision, or as it is ("")


# Functions of dozens of instructions: the few warps of a product, whose registers hold its sums, take longer over them than a kernel of their own
# takes with reading and writing once more (3152 x 3072 x 768 with erf GELU on an H200: 113 us; the product alone 28).
LONG = frozenset(
    "Erf Tanh Gelu Softplus Mish Sin Cos Tan Asin Acos Atan Sinh Cosh Asinh Acosh Atanh Log Selu Elu Celu".split()
)
# Those of them that take a dozen where tensors have 16 bits (kernels/narrow.cuh): the same with its erf GELU 32 us, apart 39; 256 x 3072 x 768 with
# a GELU by tanh 6.6, apart 8.7. In TF32 they take as many as in FP32, but apart a product of tensor cores writes and reads four bytes an element for
# them: 1024 x 3072 x 768 with its erf GELU 22.0, apart 25.4; 256 x 3072 x 768 with a GELU by tanh 9.8, apart 12.4.
SHORT = frozenset(("Erf", "Tanh"))


@dataclass(frozen=True, slots=True)
class Tail:
    """A product and what comes behind it, before it is computed.

    Attributes:
        readings: by the name that steps call them.
        stored: ``id`` of every value that is written, and how it lies in what is made, unless that is it.
        taken: nodes behind the product.
    """

    call: Call
    readings: Readings
    steps: tuple[Step, ...]
    stored: tuple[tuple[int, Lying | None], ...]
    taken: int

    def seen(self, queue: Queue, made: Sequence[Tensor]) -> dict[int, Tensor]:
        """What was written, by ``id`` of the value."""
        return {
            key: tensor if lies is None else placed(queue, replace(lies, base=tensor))
            for (key, lies), tensor in zip(self.stored, made, strict=True)
        }


class LayerRun:
    """Computes one layer once.

    Node by node, pointwise nodes of one shape together. Where the plan rounds a tensor it is stored low; what stays inside a kernel is
    rounded in its register. So what is computed does not depend on which nodes share a kernel, nor on who looks.

    Args:
        reads: what it reads from outside, as stored, by ``id`` of the value.
        wants_interior: keep everything it makes, not only what others read.
    """

    def __init__(
        self,
        queue: Queue,
        layer: Layer,
        plan: Plan,
        sites: Sites,
        reads: Mapping[int, Tensor],
        weigh: Weigh,
        *,
        wants_interior: bool,
    ) -> None:
        self._queue, self._layer, self._weigh = queue, layer, weigh
        self._precision, self._tactic = plan.choice.precision, plan.choice.tactic
        self._is_own_tactic = bool(tactic_of(self._tactic).device)
        self._low = storage_of(self._precision)
        self._on = {
            (kind, id(value)): gate
            for (kind, value), gate in zip(sites.gates, plan.gates, strict=True)
        } if plan.gates else {}  # fmt: skip
        self._tensors = dict(reads)
        self._rounded: dict[int, Tensor] = {}
        self._wanted = {id(v) for v in (layer.tensors if wants_interior else layer.outputs)}

    def run(self) -> dict[int, Tensor]:
        """Tensors it makes, by ``id``.

        Raises:
            Unsupported: a kernel does not take these shapes.
        """
        self._queue.layer = self._layer.name
        waiting = deque(segments(self._layer.nodes))
        while waiting:
            nodes = waiting.popleft()
            if is_pointwise(nodes[0]):
                for part in self._of_one_shape(nodes):
                    self._chain(part)
                continue
            moves = self._moves_behind(nodes[0], waiting)
            if moves:
                taken = self._with_tail(nodes[0], waiting[len(moves)], moves)
                if taken is not None:
                    for _ in moves:
                        waiting.popleft()
                    behind = waiting.popleft()
                    if behind[taken:]:
                        waiting.appendleft(behind[taken:])
                    continue
            behind = waiting.popleft() if waiting and is_pointwise(waiting[0][0]) else []
            taken = self._with_tail(nodes[0], behind) if behind or self._is_last(nodes[0].outputs[0]) else None
            if taken is None:
                self._single(nodes[0])
            if behind[taken or 0 :]:
                behind = behind[taken or 0 :]
                waiting.appendleft(behind)
        return {id(v): self._tensors[id(v)] for v in self._layer.tensors if id(v) in self._wanted}

    def product(self) -> Tail:
        """All nodes as one product and its tail.

        Raises:
            Unsupported: they are something else.
        """
        self._queue.layer = self._layer.name
        first, *behind = self._layer.nodes
        if is_movement(first) or OPS[first.op_type].tailed is None or not all(is_pointwise(node) for node in behind):
            raise Unsupported("more than a product")
        tail = self._tail_of(first, behind)
        if tail.taken != len(behind):
            raise Unsupported("nodes of several shapes")
        return tail

    # --- what is read ------------------------------------------------------------------------------------------------

    def _reading(self, node: ir.Node, value: ir.Value) -> Reading:
        """A tensor as a node reads it, rounding still to be done."""
        key = id(value)
        if self._precision == "tf32":
            concerned = multiplies(node) and any(value is one for one in data_inputs(node))
            if value.is_initializer():
                return Reading(self._weigh(value, "tf32" if concerned and self._on.get(("weight", key)) else ""))
            return Reading(self._tensors[key], "tf32" if concerned and self._on.get(("read", key)) else "")
        if value.is_initializer():
            return Reading(self._weigh(value, self._precision if self._on.get(("weight", key)) else ""))
        tensor = self._tensors[key]
        rounds = self._on.get(("read", key)) and tensor.format is not self._low
        return Reading(tensor, self._low.name if rounds else "")

    def _input(self, node: ir.Node, value: ir.Value | None) -> Tensor | None:
        """A tensor as a node reads it, rounded into a copy of its own where it must be."""
        if value is None:
            return None
        reading = self._reading(node, value)
        if not reading.rounding:
            return reading.tensor
        key = id(value)
        if key not in self._rounded:
            self._rounded[key] = in_its_order(
                self._queue, reading.tensor, lambda one: rounded_late(self._queue, one, self._low, reading.rounding)
            )
        return self._rounded[key]

    # --- what is made ------------------------------------------------------------------------------------------------

    def _rounds(self, value: ir.Value) -> bool:
        return bool(self._on.get(("store", id(value))))

    def _call(self, node: ir.Node) -> Call:
        inputs = [self._input(node, value) for value in node.inputs]
        wide = moved_format(inputs) if is_movement(node) else F32
        formats: list[Format | None] = []
        for value in node.outputs:
            own = format_of(value) if value.name else None
            formats.append((self._low if self._rounds(value) else wide) if own is not None and own.is_float else own)
        return Call(
            node, inputs, formats, self._queue.opset, self._tactic_of(node, inputs), self._multiplies_tf32(node)
        )

    def _tactic_of(self, node: ir.Node, inputs: Sequence[Tensor | None]) -> str:
        """The layer's, but for products of which a kept tensor leaves an operand wide: a tactic of this device says nothing of those."""
        if not self._is_own_tactic or not multiplies(node):
            return self._tactic
        tf32 = self._precision == "tf32" and not self._multiplies_tf32(node)
        wide = any(one is not None and one.format is not self._low for one in inputs[:2])
        return EXACT if tf32 or wide else self._tactic

    def _multiplies_tf32(self, node: ir.Node) -> bool:
        """Whether both operands of a product have been rounded to TF32."""
        return (
            self._precision == "tf32"
            and multiplies(node)
            and all(
                value is not None and self._on.get(("weight" if value.is_initializer() else "read", id(value)))
                for value in node.inputs[:2]
            )
        )

    def _single(self, node: ir.Node) -> None:
        made = OPS[node.op_type].compute(self._queue, self._call(node))
        for value, tensor in zip(node.outputs, made, strict=False):
            if value.name and tensor is not None:
                self._tensors[id(value)] = tensor

    @staticmethod
    def _moves_behind(node: ir.Node, waiting: Sequence[Sequence[ir.Node]]) -> list[ir.Node]:
        """What shows a node's output under another shape or transposed, one behind the other, where pointwise nodes come then; else nothing."""
        found: list[ir.Node] = []
        for first, *_ in waiting:
            if is_pointwise(first):
                return found
            if (first.op_type not in VIEWS and first.op_type != "Transpose") or first.inputs[0] is not node.outputs[0]:
                return []
            found.append(node := first)
        return []

    def _with_tail(self, node: ir.Node, behind: Sequence[ir.Node], moves: Sequence[ir.Node] = ()) -> int | None:
        """A product and the pointwise nodes behind it of its shape as one kernel.

        Args:
            moves: lie between them: the product under other shapes, or transposed.

        Returns:
            how many of them it took; None when no kernel does, and then nothing was computed.
        """
        tailed = OPS[node.op_type].tailed
        if tailed is None or is_movement(node):
            return None
        try:
            tail = self._tail_of(node, behind, moves)
            found = tailed(self._queue, tail.call, tail.readings, tail.steps)
        except Unsupported:
            return None
        self._tensors.update(tail.seen(self._queue, found))
        return tail.taken

    def _tail_of(self, node: ir.Node, behind: Sequence[ir.Node], moves: Sequence[ir.Node] = ()) -> Tail:
        """What one kernel would compute of a product and the nodes behind it.

        Raises:
            Unsupported: none could.
        """
        call, made = self._call(node), [*(one.outputs[0] for one in (node, *moves))]
        seen = self._moved(shown(call), moves) if moves else None
        shape = seen.last.shape if seen is not None else product_shape(call)
        tail = self._worth_taking(node, made[-1], next(self._of_one_shape(behind, {id(made[-1]): shape}), []))
        if behind and not tail:
            raise Unsupported("functions that are computed faster apart")
        if tail and not any(value is made[-1] for one in tail for value in one.inputs):
            raise Unsupported("nodes that read something else")
        nodes = [node, *moves, *tail]
        readings, roundings, stores = self._described(nodes, tail)
        if not stores:
            raise Unsupported("nodes that nobody reads")  # dead ones stay where no pass may remove them
        if broadcast(shape, *(one.tensor.shape for one in readings.values())) != shape:
            raise Unsupported("nodes that make more of a product than it has elements")
        if seen is not None:
            readings = {key: seen.reading(self._queue, one) for key, one in readings.items()}
        names = {key: f"x{at}" for at, key in enumerate(readings)}
        steps = [
            Step(f"p{at}", "float", f"p{at - 1}" if at else "sum", roundings.get(id(value), ""), stores.get(id(value)))
            for at, value in enumerate(made)
        ]
        steps += steps_of(tail, {**names, id(made[-1]): steps[-1].name}, roundings, stores)
        places = {id(value): lies for value, lies in zip(made, seen.lies if seen is not None else (), strict=False)}
        stored = tuple(
            (id(one.outputs[0]), places.get(id(one.outputs[0]), seen.last if seen is not None else None))
            for one in nodes
            if id(one.outputs[0]) in stores
        )
        call = seen.call if seen is not None else call
        return Tail(call, tuple((names[key], one) for key, one in readings.items()), tuple(steps), stored, len(tail))

    def _moved(self, seen: Shown, moves: Sequence[ir.Node]) -> Shown:
        """A product as the last of some movements shows it, before anything is computed.

        Raises:
            Unsupported: it does not lie evenly then.
        """
        for move in moves:
            shape = seen.last.shape
            if move.op_type == "Transpose":
                seen = seen.transposed(move.attributes.get_ints("perm", None) or range(len(shape))[::-1])
            else:
                seen = seen.viewed(self._shown(move, shape))
        return seen

    def _worth_taking(self, product: ir.Node, made: ir.Value, nodes: Sequence[ir.Node]) -> Sequence[ir.Node]:
        """Of the nodes behind a product those before the first long function, up to where least has to be stored."""
        long = LONG - SHORT if self._low is not F32 or self._multiplies_tf32(product) else LONG
        before = next((at for at, node in enumerate(nodes) if node.op_type in long), None)
        if before is None:
            return nodes

        def stored(count: int) -> int:
            inside = {id(node) for node in nodes[:count]}
            values = [made, *(node.outputs[0] for node in nodes[:count])]
            return sum(any(id(one) not in inside for one in value.consumers()) for value in values)

        return nodes[: min(range(before + 1), key=lambda count: (stored(count), -count))]

    def _shown(self, view: ir.Node, shape: tuple[int, ...]) -> tuple[int, ...]:
        """What a shape becomes under a view, before anything is computed."""
        inputs = [Tensor(shape, F32), *(self._input(view, value) for value in view.inputs[1:])]
        (found, *_) = OPS[view.op_type].compute(self._queue, Call(view, inputs, [F32], self._queue.opset))
        if found is None:
            raise Unsupported(f"{view.op_type} of a product")
        return found.shape

    def _of_one_shape(
        self, nodes: Sequence[ir.Node], before: Mapping[int, tuple[int, ...]] | None = None
    ) -> Iterator[list[ir.Node]]:
        """Neighbours whose outputs have the same shape: what one launch computes.

        Args:
            before: shapes of tensors that are not computed yet, by ``id``.
        """
        shapes = dict(before or {})
        part: list[ir.Node] = []
        last: tuple[int, ...] | None = None
        for node in nodes:
            known = [
                shapes[id(v)] if id(v) in shapes else self._reading(node, v).tensor.shape
                for v in node.inputs
                if v is not None
            ]
            shape = broadcast(*known)
            shapes[id(node.outputs[0])] = shape
            if part and shape != last:
                yield part
                part = []
            part.append(node)
            last = shape
        yield part

    def _chain(self, nodes: Sequence[ir.Node]) -> None:
        self._tensors.update(run_chain(self._queue, nodes, *self._described(nodes, nodes)))

    def _described(
        self, nodes: Sequence[ir.Node], pointwise: Sequence[ir.Node]
    ) -> tuple[dict[int, Reading], dict[int, str], dict[int, Format]]:
        """Of nodes computed by one kernel: what the pointwise ones read from outside, the roundings and the stores of all."""
        inside = {id(node.outputs[0]) for node in nodes}
        members = {id(node) for node in nodes}
        readings: dict[int, Reading] = {}
        roundings: dict[int, str] = {}
        stores: dict[int, Format] = {}
        for node in pointwise:
            for value in node.inputs:
                if value is not None and id(value) not in inside and id(value) not in readings:
                    readings[id(value)] = self._reading(node, value)
        for node in nodes:
            value = node.outputs[0]
            own = format_of(value)
            if own is None:
                raise Unsupported(f"{node.op_type} of a type that kernels do not know")
            low = own.is_float and self._rounds(value)
            if low:
                roundings[id(value)] = self._low.name
            readers = [reader for reader in value.consumers() if id(reader) not in members]
            if id(value) in self._wanted or any(reader in self._layer.nodes for reader in readers):
                stores[id(value)] = self._low if low and not self._is_last(value) else own
        return readings, roundings, stores

    @staticmethod
    def _is_last(value: ir.Value) -> bool:
        """Whether nobody reads it but whoever called the network, who is given floats: rounded, but stored wide, it need not be widened."""
        return value.is_graph_output() and not value.consumers()


def moved_format(inputs: Sequence[Tensor | None]) -> Format:
    """What movement hands on: the inputs' storage where they agree, else FP32."""
    found = {
        one.format.name: one.format
        for one in inputs
        if one is not None and one.format is not None and one.format.is_float
    }
    return next(iter(found.values())) if len(found) == 1 else F32


def segments(nodes: Sequence[ir.Node]) -> Iterator[list[ir.Node]]:
    """Pointwise neighbours together, every other node alone."""
    run: list[ir.Node] = []
    for node in nodes:
        if is_pointwise(node):
            run.append(node)
            continue
        if run:
            yield run
            run = []
        yield [node]
    if run:
        yield run
