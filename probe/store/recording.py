"""A recording as Python programs want it: ``recording["conv1"]`` is an array."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Self

from probe.errors import InputError
from probe.results.tensors import TensorInfo
from probe.store.opening import read_array
from probe.store.source import Array, TensorReader, TensorSource


class Recording(Mapping[str, Array]):
    """Tensors by name, read when asked for; itself a ``TensorSource``. A context manager.

    Of a recording with several inputs, ``recording[name]`` is the tensor of the first; ``read(name, input_id)`` reads another's.
    Iterating goes through the names in recorded (execution) order.
    """

    def __init__(self, source: TensorSource) -> None:
        self._source = source
        self.path = source.path
        self.kind = source.kind
        self.header = source.header  # where it came from: runner, model, precision, inputs, environment
        self.roles_known = source.roles_known
        self._by_key: dict[tuple[str, str], TensorInfo] = {}
        self._by_name: dict[str, TensorInfo] = {}
        for row in source.rows():
            self._by_key[row.name, row.input_id] = row
            self._by_name.setdefault(row.name, row)

    @property
    def input_ids(self) -> tuple[str, ...]:
        """The inputs recorded, in order; ``("",)`` for formats that hold one unnamed input."""
        return tuple(dict.fromkeys(row.input_id for row in self._source.rows()))

    def rows(self) -> Sequence[TensorInfo]:
        return self._source.rows()

    def open(self, row: TensorInfo) -> TensorReader:
        return self._source.open(row)

    def info(self, name: str, input_id: str | None = None) -> TensorInfo:
        """Type, shape, role, producing nodes and value range of a tensor; nothing is read.

        Raises:
            KeyError: no such tensor, or not for this input.
        """
        return self._by_name[name] if input_id is None else self._by_key[name, input_id]

    def read(self, name: str, input_id: str | None = None) -> Array:
        """The whole tensor in its own type and shape.

        Raises:
            KeyError: no such tensor, or not for this input.
            InputError: only statistics were recorded, or the stored bytes are not those that were recorded.
        """
        row = self.info(name, input_id)
        if row.status != "recorded":
            raise InputError(f"no values of {name!r} were recorded: {row.note or row.status}", where=self.path)
        return read_array(self._source, row)

    def __getitem__(self, name: str) -> Array:
        return self.read(name)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def __repr__(self) -> str:
        return f"<Recording {self.path!r} ({self.kind}): {len(self)} tensors of {len(self.input_ids)} input(s)>"

    def close(self) -> None:
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
