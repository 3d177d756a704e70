"""Attributes of nodes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from probe.ir.types import AttributeType, Shape, Type

if TYPE_CHECKING:
    from probe.ir.graph import Graph
    from probe.ir.tensors import Tensor

T = TypeVar("T")


class TypeAndShape(NamedTuple):
    """What an attribute says of a value's type."""

    type: Type | None
    shape: Shape | None


class Attr:
    """An attribute: a name and a value, never changed; or a reference to an attribute of the function around it."""

    __slots__ = ("name", "ref_attr_name", "type", "value")

    def __init__(self, name: str, type: AttributeType, value: Any, ref_attr_name: str | None = None) -> None:  # noqa: A002
        self.name = name
        self.type = type
        self.value = value
        self.ref_attr_name = ref_attr_name

    def is_ref(self) -> bool:
        return self.ref_attr_name is not None

    def as_int(self) -> int:
        return self._as(AttributeType.INT)

    def as_float(self) -> float:
        return self._as(AttributeType.FLOAT)

    def as_string(self) -> str:
        text = self._as(AttributeType.STRING)
        if not isinstance(text, str):  # bytes that are no UTF-8
            raise TypeError(f"the attribute {self.name!r} is no text")
        return text

    def as_tensor(self) -> Tensor:
        return self._as(AttributeType.TENSOR)

    def as_graph(self) -> Graph:
        return self._as(AttributeType.GRAPH)

    def as_ints(self) -> tuple[int, ...]:
        return self._as(AttributeType.INTS)

    def as_floats(self) -> tuple[float, ...]:
        return self._as(AttributeType.FLOATS)

    def as_strings(self) -> tuple[str, ...]:
        return self._as(AttributeType.STRINGS)

    def as_graphs(self) -> tuple[Graph, ...]:
        return self._as(AttributeType.GRAPHS)

    def _as(self, wanted: AttributeType) -> Any:
        if self.type != wanted or self.is_ref():
            raise TypeError(f"the attribute {self.name!r} is of type {self.type}, not {wanted}")
        return self.value

    def __repr__(self) -> str:
        return f"Attr({self.name!r}, {self.type}, {f'@{self.ref_attr_name}' if self.is_ref() else repr(self.value)})"


def attribute(name: str, value: Any) -> Attr:
    """An attribute of a Python value: an int, a float, a str, or a sequence of one of them. Floats among ints make all of them floats.

    Raises:
        TypeError: the value is none of these.
    """
    if isinstance(value, str):
        return Attr(name, AttributeType.STRING, value)
    if isinstance(value, int):
        return Attr(name, AttributeType.INT, int(value))
    if isinstance(value, float):
        return Attr(name, AttributeType.FLOAT, value)
    if isinstance(value, Sequence) and value:
        if all(isinstance(one, str) for one in value):
            return Attr(name, AttributeType.STRINGS, tuple(value))
        if all(isinstance(one, int) for one in value):
            return Attr(name, AttributeType.INTS, tuple(map(int, value)))
        if all(isinstance(one, (int, float)) for one in value):
            return Attr(name, AttributeType.FLOATS, tuple(map(float, value)))
    raise TypeError(f"{value!r} is no value of an attribute")


def AttrInt64s(name: str, value: Iterable[int]) -> Attr:  # noqa: N802 - a kind of Attr; a list may be empty, so that its type is said
    return Attr(name, AttributeType.INTS, tuple(map(int, value)))


class Attributes(dict[str, Attr]):
    """The attributes of a node by name. The readers return the default where there is none."""

    __slots__ = ()

    def get_int(self, name: str, default: T = None) -> int | T:
        return self[name].as_int() if name in self else default

    def get_float(self, name: str, default: T = None) -> float | T:
        return self[name].as_float() if name in self else default

    def get_string(self, name: str, default: T = None) -> str | T:
        return self[name].as_string() if name in self else default

    def get_tensor(self, name: str, default: T = None) -> Tensor | T:
        return self[name].as_tensor() if name in self else default

    def get_ints(self, name: str, default: T = None) -> tuple[int, ...] | T:
        return self[name].as_ints() if name in self else default

    def get_floats(self, name: str, default: T = None) -> tuple[float, ...] | T:
        return self[name].as_floats() if name in self else default

    def get_strings(self, name: str, default: T = None) -> tuple[str, ...] | T:
        return self[name].as_strings() if name in self else default
