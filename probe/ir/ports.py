"""What a graph is fed, stores and returns: containers whose values know that they are in them."""
# ruff: noqa: SLF001 - values, nodes and graphs keep each other's links

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, SupportsIndex

if TYPE_CHECKING:
    from probe.ir.graph import Graph, Value


class Ports(list["Value"]):
    """The inputs or the outputs of a graph: a list whose values know that they are."""

    __slots__ = ("_count", "_graph")

    def __init__(self, graph: Graph, count: str, values: Iterable[Value]) -> None:
        super().__init__()
        self._graph, self._count = graph, count
        for value in values:
            self.append(value)

    def append(self, value: Value) -> None:
        value._enter(self._graph)
        setattr(value, self._count, getattr(value, self._count) + 1)
        super().append(value)

    def pop(self, index: SupportsIndex = -1) -> Value:
        value = super().pop(index)
        self._let_go(value)
        return value

    def clear(self) -> None:
        while self:
            self.pop()

    def __setitem__(self, index: Any, value: Any) -> None:
        value._enter(self._graph)
        setattr(value, self._count, getattr(value, self._count) + 1)
        old = self[index]
        super().__setitem__(index, value)
        self._let_go(old)

    def _let_go(self, value: Value) -> None:
        setattr(value, self._count, getattr(value, self._count) - 1)
        value._leave()


class Initializers(dict[str, "Value"]):
    """The stored tensors of a graph by name: a dict whose values know that they are."""

    __slots__ = ("_graph",)

    def __init__(self, graph: Graph, values: Iterable[Value]) -> None:
        super().__init__()
        self._graph = graph
        for value in values:
            self.add(value)

    def add(self, value: Value) -> None:
        """Add a value, in the place of one of that name."""
        assert value.name, "an initialiser needs a name"
        self[value.name] = value

    def rename(self, value: Value, name: str) -> None:
        """Move a value to the end, under another name.

        Raises:
            ValueError: there is one of that name.
        """
        if name in self:
            raise ValueError(f"two initialisers would be called {name!r}")
        super().__delitem__(value.name or "")
        super().__setitem__(name, value)

    def __setitem__(self, name: str, value: Value) -> None:
        if value.producer() is not None:
            raise ValueError(f"{name!r} is made by a node")
        value._enter(self._graph)
        old = self.get(name)
        value._is_initializer = True
        super().__setitem__(name, value)
        if old is not None and old is not value:
            self._let_go(old)

    def __delitem__(self, name: str) -> None:
        self._let_go(self[name])
        super().__delitem__(name)

    def _let_go(self, value: Value) -> None:
        value._is_initializer = False
        value._leave()
