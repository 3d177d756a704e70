"""``typed``: a strongly typed model run as its types say, each tensor rounded to the type it declares. The judge of exports on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from probe.model.elements import UNKNOWN
from probe.model.feeds import check_feeds, element_type
from probe.model.typed import Typed, makers_of, typed_model
from probe.precision import numpy_dtype
from probe.results.tensors import RunHeader
from probe.runners.ort import OrtRunner
from probe.runners.protocol import DEFAULT_OPTIONS, Array, RunnerOptions, RunnerTensor

if TYPE_CHECKING:
    from probe.model.model import Model

_NOTES_SHOWN = 5


class TypedRunner:
    """ONNX Runtime in FP32 on a re-import with the roundings that the types imply made explicit: FP16 and BF16 storage, FP32 accumulation.

    Tensors have the names of the model; rows of those stored in half precision hold the rounded values as float32, and say so in
    ``precision``. Operators that round inside (a fused attention in FP16) are FP32 inside here.

    Raises:
        InputError: the model cannot be re-imported so.
    """

    name = "typed"

    def __init__(self, model: Model, options: RunnerOptions = DEFAULT_OPTIONS) -> None:
        self._typed: Typed = typed_model(model)
        self._original = model
        self._makers = makers_of(self._typed.original)
        self._outputs = {port.name for port in model.outputs}
        known = {*self._makers, *self._outputs}
        select = options.select
        # The Casts are what is to be run: upcasting would take them out again.
        mine = replace(options, as_is=True, select=lambda name: name in known and (select is None or select(name)))
        self._inner = OrtRunner(self._typed.model, mine)
        self._notes: list[str] = []
        if self._typed.unknown:
            shown = ", ".join(self._typed.unknown[:_NOTES_SHOWN])
            self._notes.append(f"{len(self._typed.unknown)} tensors of unknown type are not rounded: {shown}")
        if not self._typed.stored:
            self._notes.append("the model declares no FP16 or BF16 tensor: nothing is rounded")

    @property
    def header(self) -> RunHeader:
        inner = self._inner.header
        return replace(
            inner, runner="typed", model=str(self._original.path), model_sha256=self._original.sha256, precision="as typed",
            golden="", notes=(*(note for note in inner.notes if not note.startswith("run as typed")), *self._notes),
        )  # fmt: skip

    def run(self, feeds: Mapping[str, Array], input_id: str) -> Iterator[RunnerTensor]:
        """As ``Runner.run``. Rows as those of ``ort``, without the Casts that round.

        Raises:
            InputError: the inputs do not fit, or ONNX Runtime fails.
        """
        said: list[str] = []
        checked = check_feeds(self._original, feeds, notes=said)
        self._notes += [note for note in said if note not in self._notes]
        types = {port.name: element_type(port) for port in self._typed.model.inputs}
        given = {
            name: array.astype(numpy_dtype(types.get(name, types.get(name.partition("[")[0], array.dtype.name))))
            for name, array in checked.items()
        }
        for tensor in self._inner.run(given, input_id):
            info = tensor.info
            base = info.name if info.name in self._makers else info.name.rpartition("[")[0] or info.name
            nodes, reads = self._makers.get(base, ((), ()))
            precision = self._typed.stored.get(base) if info.dtype != UNKNOWN else None
            yield RunnerTensor(replace(info, nodes=nodes, reads=reads, precision=precision), tensor.array)

    def close(self) -> None:
        self._inner.close()
