"""``Linked``: nodes in order, changed while somebody walks along them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class _Link(Generic[T]):
    __slots__ = ("after", "before", "item")

    def __init__(self, item: T | None) -> None:
        self.item = item  # None: the root, or taken out
        self.before: _Link[T] = self
        self.after: _Link[T] = self


class Linked(Generic[T]):
    """A doubly linked ring of different objects. Whoever walks along it meets what is put behind the place where it stands, and not what
    is taken out: a link that is out still knows the way on."""

    __slots__ = ("_links", "_root")

    def __init__(self) -> None:
        self._root: _Link[T] = _Link(None)
        self._links: dict[int, _Link[T]] = {}

    def __iter__(self) -> Iterator[T]:
        link = self._root.after
        while link is not self._root:
            if link.item is not None:
                yield link.item
            link = link.after

    def __reversed__(self) -> Iterator[T]:
        link = self._root.before
        while link is not self._root:
            if link.item is not None:
                yield link.item
            link = link.before

    def __len__(self) -> int:
        return len(self._links)

    def extend(self, items: Iterable[T]) -> None:
        """Put items at the end, in their order; those that stand elsewhere are moved."""
        for item in items:
            self._put(self._root.before, item)

    def insert_before(self, item: T, new: T) -> None:
        self._put(self._links[id(item)].before, new)

    def remove(self, item: T) -> None:
        link = self._links.pop(id(item))
        link.before.after, link.after.before = link.after, link.before
        link.item = None

    def _put(self, behind: _Link[T], item: T) -> None:
        if behind.item is item:
            return
        if id(item) in self._links:
            self.remove(item)
        link = _Link(item)
        link.before, link.after = behind, behind.after
        behind.after.before = link
        behind.after = link
        self._links[id(item)] = link
