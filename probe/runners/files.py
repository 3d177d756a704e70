"""``files:PATH``: a recording played back, so that it can be compared, converted or cut like a live run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from probe.errors import InputError
from probe.results.tensors import RunHeader, TensorInfo
from probe.runners.protocol import Array, RunnerTensor
from probe.runners.provenance import Provenance
from probe.store.feeds import hash_feeds
from probe.store.opening import open_source, read_array

if TYPE_CHECKING:
    from probe.model.model import Model

_NO_STATISTICS = {
    "data": None, "offset": None, "bytes": None, "sha256": None, "min": None, "max": None, "absmax_finite": None,
    "min_abs_nonzero": None, "mean": None, "nan": None, "inf": None,
}  # fmt: skip


class FilesRunner:
    """Plays a recording of any format probe reads.

    Which of its input sets belongs to given feeds is decided by their hash, where the recording knows it. Where it does not (an ``.npz``,
    Polygraphy JSON), by the input's id, or there is only one; a note then says that nothing proves they belong together.

    Raises:
        InputError: nothing readable at ``path``.
    """

    name = "files"

    def __init__(self, path: str, model: Model | None = None) -> None:
        self._source = open_source(path)
        self._path = path
        self._provenance = Provenance(model)
        self._notes: list[str] = []
        self._rows: dict[str, list[TensorInfo]] = {}
        for row in self._source.rows():
            if row.role != "input" and not (not self._source.roles_known and self._provenance.is_input(row.name)):
                self._rows.setdefault(row.input_id, []).append(row)

    @property
    def header(self) -> RunHeader:
        """That of the recording, inputs left to whoever records again."""
        header = self._source.header
        return replace(
            header, runner=f"files:{self._path}", inputs=(), stats_only=False, notes=(*header.notes, *self._notes)
        )

    def run(self, feeds: Mapping[str, Array], input_id: str) -> Iterator[RunnerTensor]:
        """As ``Runner.run``.

        Raises:
            InputError: the recording was made with other inputs, holds statistics only, or is damaged.
        """
        recorded_id = self._recorded_id(feeds, input_id)
        for row in self._rows[recorded_id]:
            if row.status == "stats_only":
                raise InputError(
                    f"{self._path} was recorded with --stats-only, there are no values to play back",
                    hint="record it again without --stats-only",
                )
            if row.status != "recorded":
                yield RunnerTensor(replace(row, input_id=input_id), None)
            elif self._source.roles_known:
                yield RunnerTensor(replace(row, input_id=input_id, **_NO_STATISTICS), read_array(self._source, row))
            else:
                yield self._provenance.tensor(row.name, read_array(self._source, row), input_id)

    def _recorded_id(self, feeds: Mapping[str, Array], input_id: str) -> str:
        known = {info.sha256: info.id for info in self._source.header.inputs}
        if known:
            recorded = known.get(hash_feeds(feeds))
            if recorded is not None and recorded in self._rows:
                return recorded
            raise InputError(
                f"{self._path} was not recorded with input {input_id!r}",
                where=f"it holds {', '.join(repr(i.id) for i in self._source.header.inputs)}; none has this hash",
                hint=f"take the inputs from the recording itself: --inputs {self._path}",
            )
        if input_id in self._rows:
            recorded = input_id
        elif len(self._rows) == 1:
            (recorded,) = self._rows
        else:
            held = ", ".join(map(repr, self._rows)) or "no tensors"
            raise InputError(f"{self._path} holds nothing for input {input_id!r}", where=f"it holds {held}")
        note = f"{self._path} does not say what inputs it was made with; nothing proves that they are the same"
        if note not in self._notes:
            self._notes.append(note)
        return recorded

    def close(self) -> None:
        self._source.close()
