"""Chosen extents for dynamic inputs, and the shapes inside a network that follow from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from probe import ir
from probe.engine.network import Network, values_of
from probe.engine.passes.shapes import infer_shapes
from probe.errors import InputError
from probe.model.dims import fix_symbols
from probe.model.model import Model


def symbols_of(model: Model, given: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """What chosen input shapes say about the symbols in a model's shapes.

    Raises:
        InputError: no such input, another rank, another fixed extent, or one symbol given two sizes.
    """
    declared = {port.name: port.shape for port in model.inputs}
    for name in given:
        if name not in declared:
            known = ", ".join(declared) or "none"
            raise InputError(f"no input is called {name!r}", where="--input-shapes", hint=f"inputs: {known}")
    return fix_symbols({name: declared[name] or (None,) * len(given[name]) for name in given}, given)


def fix_input_shapes(network: Network, given: Mapping[str, Sequence[int]]) -> None:
    """Give inputs their extents, every symbol that stands for one of them its number, and infer what follows.

    Raises:
        InputError: as ``symbols_of``.
    """
    symbols = symbols_of(network.model, given)
    for value in network.graph.inputs:
        if value.name is not None and value.name in given:
            value.shape = ir.Shape(list(given[value.name]))
    for graph in network.graphs():
        for value in values_of(graph):
            if value.shape is not None and not value.shape.is_static() and not value.is_initializer():
                value.shape = ir.Shape([_extent(extent, symbols) for extent in value.shape])
    infer_shapes(network)


def _extent(extent: int | ir.SymbolicDim, symbols: Mapping[str, int]) -> int | ir.SymbolicDim:
    return extent if isinstance(extent, int) else symbols.get(extent.value or "", extent)
