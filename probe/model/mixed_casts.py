"""Carry out a ``MixedPlan``: Casts, converted weights, types. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import onnx_ir as ir

from probe.model.annotated import Annotated, values_of
from probe.model.graphs import graphs_of
from probe.model.lost import lost_in
from probe.model.mixed_plan import MixedPlan
from probe.model.mixed_weights import converted, tensor_of
from probe.model.movement import is_standard
from probe.model.schemas import TYPE_ATTRIBUTES, is_float

_SUFFIX = {
    ir.DataType.FLOAT: "fp32",
    ir.DataType.DOUBLE: "fp64",
    ir.DataType.FLOAT16: "fp16",
    ir.DataType.BFLOAT16: "bf16",
}
_LOOSE_INITIALISERS = 4  # from this IR version on an initialiser need not be a graph input
Form = Literal["stored", "low", "wide", "rounded"]
_FORMS: tuple[Form, ...] = ("low", "rounded", "wide")


class CastWriter:
    """Rewrites a graph in place.

    Args:
        precision: fp16 or bf16.
        port_types: element types of the graph's float inputs and outputs, by name.

    Attributes:
        casts: (tensor, type) of every Cast added.
        lost: constants that rounding destroys, in words.
        spared: constants that it would destroy and that stay FP32 where a node that runs in FP32 reads them.
        repeated: tensors that are rounded between two nodes that both run in FP32.
    """

    def __init__(self, made: Annotated, plan: MixedPlan, precision: str, port_types: Mapping[str, ir.DataType]) -> None:
        self.casts: list[tuple[str, str]] = []
        self.lost: list[str] = []
        self.spared: list[str] = []
        self.repeated: list[str] = []
        self._made, self._plan, self._precision, self._port_types = made, plan, precision, port_types
        self._low = ir.DataType.FLOAT16 if precision == "fp16" else ir.DataType.BFLOAT16
        self._graphs = list(graphs_of(made.ir.graph))
        self._floats = [value for graph in self._graphs for value in values_of(graph) if is_float(value)]
        self._wide = {id(value): value.type.dtype for value in self._floats if value.type is not None}
        self._taken = {value.name for graph in self._graphs for value in values_of(graph)}
        self._taken |= {node.name for graph in self._graphs for node in graph}
        self._forms: dict[tuple[int, Form], ir.Value] = {}
        self._last: dict[int, ir.Node] = {}  # producer (or graph) -> the last Cast put behind it
        self._raw: dict[int, ir.Value] = {}

    def write(self) -> None:
        uses: list[tuple[ir.Node, int, ir.Value, Form]] = [
            (node, at, value, self._plan.wants.get((id(node), at), "stored"))
            for graph in self._graphs for node in graph for at, value in enumerate(node.inputs)
            if value is not None and id(value) in self._wide
        ]  # fmt: skip
        returns: list[tuple[ir.Graph, int, ir.Value, Form]] = [
            (graph, at, value, self._plan.returns.get((id(graph), at), "stored"))
            for graph in self._graphs[1:] for at, value in enumerate(graph.outputs) if id(value) in self._wide
        ]  # fmt: skip
        wanted: dict[int, set[Form]] = {}
        for _, _, value, want in (*uses, *returns):
            wanted.setdefault(id(value), set()).add(want)
        for value in self._floats:
            if tensor_of(value) is not None:
                self._weight(value, wanted.get(id(value), set()))
            else:
                self._store(value)
        self._graph_outputs()
        for node, at, value, want in uses:
            if (form := self._form(value, want)) is not value:
                node.replace_input_with(at, form)
        for graph, at, value, want in returns:
            graph.outputs[at] = self._form(value, want)
        self._type_attributes()
        self.repeated = [
            name for value in self._floats
            if (name := self._raw_name(value)) and wanted.get(id(value), set()) <= {"rounded", "wide"}
        ]  # fmt: skip

    def _raw_name(self, value: ir.Value) -> str:
        """The tensor's name where an FP32 node makes it and it is rounded as it is stored; else ""."""
        return (self._forms[id(value), "stored"].name or "") if id(value) in self._raw else ""

    # --- values

    def _store(self, value: ir.Value) -> None:
        """Give a value the type it is made in, and a Cast where it is stored in another."""
        key = id(value)
        wide = self._wide[key]
        made = self._low if key in self._plan.low_made else wide
        stored = self._low if key in self._plan.low_stored else wide
        fed = value.producer() is None and value.graph is self._graphs[0]
        if fed:
            made = self._port_types.get(value.name or "", made)
        value.type = ir.TensorType(made)
        if made == stored:
            self._forms[key, "stored"] = value
            return
        if fed:
            self._forms[key, "stored"] = self._cast(value, value, stored, self._fresh(value.name, stored))
            return
        name, value.name = value.name or "", self._fresh(value.name, made)
        self._raw[key] = value
        self._forms[key, "stored"] = self._cast(value, value, stored, name)

    def _graph_outputs(self) -> None:
        """Outputs keep their names: where their type is another than the one stored, a Cast makes them."""
        graph = self._graphs[0]
        for at, value in enumerate(graph.outputs):
            key, name = id(value), value.name or ""
            stored = self._forms.get((key, "stored"))
            if stored is None or value.is_graph_input() or tensor_of(value) is not None:
                continue
            name = stored.name or ""
            wanted = self._port_types.get(name, self._wide[key])
            assert stored.type is not None
            if stored.type.dtype == wanted:
                graph.outputs[at] = stored
                continue
            stored.name = self._fresh(name, stored.type.dtype)
            graph.outputs[at] = self._cast(value, stored, wanted, name)
            if wanted == self._wide[key] and key in self._plan.low_stored:
                self._forms[key, "wide"] = self._forms[key, "rounded"] = graph.outputs[at]

    def _form(self, value: ir.Value, want: Form) -> ir.Value:
        key = id(value)
        if (key, want) in self._forms:
            return self._forms[key, want]
        stored = self._forms[key, "stored"]
        is_low = key in self._plan.low_stored
        if want == "low":
            made = stored if is_low else self._cast(value, stored, self._low, self._fresh(stored.name, self._low))
        elif want == "wide" or key in self._plan.kept or is_low:
            made = stored
            if is_low:
                made = self._cast(value, stored, self._wide[key], self._fresh(stored.name, self._wide[key]))
                self._forms[key, "wide"] = self._forms[key, "rounded"] = made
        else:
            low = self._form(value, "low")
            made = self._cast(value, low, self._wide[key], self._fresh(low.name, self._wide[key]))
        self._forms[key, want] = made
        return made

    def _cast(self, value: ir.Value, source: ir.Value, to: ir.DataType, name: str) -> ir.Value:
        """A Cast right behind what makes ``value``, after the Casts that are there already."""
        self._taken.add(name)
        made = ir.Value(name=name, type=ir.TensorType(to), shape=value.shape)
        node = ir.node("Cast", [source], {"to": int(to)}, outputs=[made], name=self._unused(f"Cast_{name}"))
        producer, graph = value.producer(), value.graph
        assert graph is not None, f"{value.name} belongs to no graph"
        anchor = producer if producer is not None else graph
        last = self._last.get(id(anchor), producer)
        if last is not None:
            graph.insert_after(last, node)
        elif len(graph):
            graph.insert_before(graph[0], node)
        else:
            graph.append(node)
        self._last[id(anchor)] = node
        self.casts.append((source.name or "", _SUFFIX[to]))
        return made

    # --- weights

    def _weight(self, value: ir.Value, wanted: set[Form]) -> None:
        """Each type that some reader needs, as a weight of its own: no Cast is ever made for one."""
        key = id(value)
        original = tensor_of(value)
        assert original is not None
        if key in self._plan.kept or not wanted - {"stored"}:
            forms: list[Form] = ["wide"]
        else:
            lost = lost_in(original, self._precision, value.name or "") if wanted & {"low", "rounded"} else ""
            if lost and "rounded" in wanted:
                # A node that runs in FP32 is not given what rounding destroys, such as an epsilon that becomes 0.
                self.spared.append(value.name or "")
                wanted = {"wide", *(wanted - {"rounded"})}
            if lost and "low" in wanted:
                self.lost.append(f"{value.name}: {lost}")
            forms = [form for form in _FORMS if form in wanted]
            if value.is_graph_output() and value.graph is self._graphs[0]:
                forms = ["wide", *(form for form in forms if form != "wide")]
        for at, form in enumerate(forms):
            self._forms[key, form] = self._weight_as(value, original, form, first=at == 0)
        self._forms[key, "stored"] = value
        self._forms.setdefault((key, "rounded"), self._forms.get((key, "wide"), value))
        for form in _FORMS:
            self._forms.setdefault((key, form), value)

    def _weight_as(self, value: ir.Value, original: ir.TensorProtocol, form: Form, *, first: bool) -> ir.Value:
        """The weight in one form: the first takes its place, further ones stand beside it."""
        dtype = self._low if form == "low" else original.dtype
        name = value.name or ""
        if not first:
            name = self._fresh(self._fresh(name, self._low, take=False) if form == "rounded" else name, dtype)
        tensor = (
            original if form == "wide" else converted(original, self._precision, widened=form == "rounded", name=name)
        )
        node, graph = value.producer(), value.graph
        if first:
            value.type = ir.TensorType(dtype)
            if node is None:
                value.const_value = tensor
            else:
                _set_constant(node, tensor)
            return value
        twin = ir.Value(name=name, type=ir.TensorType(dtype), shape=value.shape)
        assert graph is not None, f"{value.name} belongs to no graph"
        if node is None:
            twin.const_value = _renamed(tensor, name)
            graph.register_initializer(twin)
            self._made.ir.ir_version = max(self._made.ir.ir_version or 0, _LOOSE_INITIALISERS)
        else:
            copy = ir.node("Constant", [], outputs=[twin], name=self._unused(f"Constant_{name}"))
            _set_constant(copy, tensor)
            graph.insert_after(node, copy)
        return twin

    # --- the rest

    def _type_attributes(self) -> None:
        """Attributes that name the type of what a node makes."""
        for graph in self._graphs:
            for node in graph:
                value = next(iter(node.outputs), None)
                if (
                    node.op_type not in TYPE_ATTRIBUTES
                    or not is_standard(node)
                    or value is None
                    or id(value) not in self._wide
                ):
                    continue
                assert value.type is not None
                dtype = value.type.dtype
                name = TYPE_ATTRIBUTES[node.op_type]
                if name != "value":
                    node.attributes[name] = ir.AttrInt64(name, int(dtype))
                elif dtype == self._low:
                    fill = (
                        node.attributes[name].as_tensor()
                        if name in node.attributes
                        else ir.tensor(np.zeros(1, np.float32))
                    )
                    lost = lost_in(fill, self._precision, node.name or "")
                    self.lost += [f"{node.name}: {lost}"] if lost else []
                    low = converted(fill, self._precision, widened=False, name="")
                    node.attributes[name] = ir.AttrTensor(name, low)

    def _fresh(self, name: str | None, dtype: ir.DataType, *, take: bool = True) -> str:
        return self._unused(f"{name}_{_SUFFIX[dtype]}", take=take)

    def _unused(self, wanted: str, *, take: bool = True) -> str:
        fresh, number = wanted, 1
        while fresh in self._taken:
            number += 1
            fresh = f"{wanted}_{number}"
        if take:
            self._taken.add(fresh)
        return fresh


def _set_constant(node: ir.Node, tensor: ir.TensorProtocol) -> None:
    for name in ("value", "value_float", "value_floats"):
        node.attributes.pop(name, None)
    node.attributes["value"] = ir.AttrTensor("value", tensor)


def _renamed(tensor: ir.TensorProtocol, name: str) -> ir.TensorProtocol:
    """The same data under another name, nothing copied."""
    return ir.LazyTensor(
        lambda: ir.tensor(tensor.numpy()), dtype=tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=name
    )
