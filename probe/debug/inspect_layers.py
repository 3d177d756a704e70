"""The layers that the engine makes of a model, and what they cost. Nothing is run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from probe.errors import InputError
from probe.model.elements import element_name
from probe.results.inspect import FateReport, LayerReport, LayersReport, PortReport, RefusalReport

if TYPE_CHECKING:
    from probe.engine.fusion import Grouping
    from probe.engine.layers import Layer
    from probe.engine.network import Network
    from probe.model import Model


def inspect_layers(
    model: Model,
    *,
    passes: Literal["none", "safe", "all"],
    fusion: Literal["none", "safe", "full"],
    input_shapes: Mapping[str, Sequence[int]],
) -> tuple[LayersReport | None, str]:
    """The layers of a model, or why there are none: a model that can be read but not compiled is still worth looking at.

    Raises:
        InputError: shapes that do not fit the model's inputs.
    """
    from probe.engine.fusion import group
    from probe.engine.input_shapes import fix_input_shapes, symbols_of
    from probe.engine.layers import all_layers, form_layers
    from probe.engine.network import read_network
    from probe.engine.passes import run_passes

    symbols_of(model, input_shapes)  # what does not fit is said before anything is read
    try:
        network = read_network(model)
    except InputError as error:
        return None, str(error)
    if input_shapes:
        fix_input_shapes(network, input_shapes)
    report = run_passes(network, passes)
    found = group(network, fusion)
    layers = tuple(_layer(layer, found) for layer in all_layers(form_layers(network, found)))
    made = {value.name for graph in network.graphs() for node in graph for value in node.outputs}
    return LayersReport(
        passes=passes,
        fusion=fusion,
        layers=layers,
        changes=dict(Counter(change.by for change in report.changes)),
        fates=tuple(
            FateReport(name, fate.status, fate.by, fate.to) for name, fate in _fates(network) if name not in made
        ),
        refusals=tuple(RefusalReport(one.pattern, one.nodes, one.reason) for one in found.refusals),
        notes=tuple(report.notes),
        input_shapes={name: tuple(shape) for name, shape in input_shapes.items()},
    ), ""


def _layer(layer: Layer, found: Grouping) -> LayerReport:
    from probe.engine.costs import cost_of
    from probe.engine.fusion import launches

    cost = cost_of(layer.nodes, reads=layer.reads, weights=layer.weights, outputs=layer.outputs)
    return LayerReport(
        name=layer.name,
        kind=layer.kind,
        pattern=layer.pattern,
        nodes=layer.origin,
        outputs=tuple(_port(value) for value in layer.outputs),
        works=launches(layer.nodes, found.in_place),
        flops=cost.flops,
        bytes=cost.bytes,
        weights_bytes=cost.weights_bytes,
        scope=layer.scope,
    )


def _port(value: Any) -> PortReport:
    kind = element_name(value.dtype.value) if value.dtype is not None else None
    shape = None
    if value.shape is not None:
        shape = tuple(extent if isinstance(extent, int) else extent.value for extent in value.shape)
    return PortReport(value.name or "", kind or "", shape)


def _fates(network: Network):  # noqa: ANN202 - pairs of a name and its Fate
    for name in network.fates:
        fate = network.fate(name)
        if fate is not None:
            yield name, fate
