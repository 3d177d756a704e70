"""What a run is judged against: made now by ONNX Runtime or in float64, or a recording that is already there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from probe.debug.record import record
from probe.errors import InputError
from probe.runners.protocol import RunnerOptions, open_runner
from probe.store.memory import Arrays
from probe.store.opening import is_recording, open_source
from probe.store.tape import DEFAULT_LIMIT, Tape

if TYPE_CHECKING:
    from probe.model.model import Model
    from probe.results.tensors import TensorInfo
    from probe.store.feeds import InputSet
    from probe.store.opening import Sink
    from probe.store.source import Array, TensorSource

GoldenKind = Literal["ort", "fp64", "file"]
_MADE: dict[str, GoldenKind] = {"ort": "ort", "fp64": "fp64"}
Golden = Any  # a str, Path, Mapping of arrays by output name, or an open TensorSource


def golden_kind(golden: Golden) -> GoldenKind:
    """Whether a golden is made now, and by what.

    Raises:
        InputError: neither a runner that makes goldens nor a recording.
    """
    if isinstance(golden, str) and golden in _MADE:
        return _MADE[golden]
    if isinstance(golden, (str, Path)) and not is_recording(golden):
        raise InputError(
            f"there is no golden {str(golden)!r}", where="--golden",
            hint="ort, fp64, or a recording: a folder made by probe dump, .npz, .npy, .safetensors, Polygraphy JSON",
        )  # fmt: skip
    return "file"


def open_golden(
    golden: Golden,
    model: Model,
    sets: Sequence[InputSet],
    opened: ExitStack,
    *,
    threads: int = 0,
    custom_op_libs: Sequence[Path] = (),
    outputs_only: bool = False,
    memory_limit: int = DEFAULT_LIMIT,
    progress: Callable[[str], None] | None = None,
) -> TensorSource:
    """The golden as a source; whatever is opened here closes with ``opened``.

    Args:
        golden: ``ort``, ``fp64``, the path of a recording, arrays by output name, or an open source, which stays open.
        outputs_only: when it is made now, make the graph outputs alone.
        memory_limit: bytes of tensors held in memory when the golden is made now; above, they go to a temporary folder.

    Raises:
        InputError: the runner fails, or the recording cannot be read.
    """
    if golden_kind(golden) == "file":
        if isinstance(golden, Mapping):
            return Arrays(golden, "golden arrays in memory")
        if not isinstance(golden, (str, Path)):
            return golden
        return opened.enter_context(closing(open_source(golden)))
    assert isinstance(golden, str)
    tape = opened.enter_context(closing(Tape(f"made now by {golden}", memory_limit=memory_limit)))
    outputs = {port.name for port in model.outputs}
    select = (lambda name: name in outputs) if outputs_only else None
    options = RunnerOptions(threads=threads, custom_op_libs=tuple(custom_op_libs), select=select)
    with closing(open_runner(golden, model, options)) as runner, tape:
        record(runner, sets, tape if progress is None else cast("Sink", _Told(tape, progress)))
    return tape


def inputs_of_golden(golden: Golden) -> Sequence[str]:
    """The path of a golden that holds the inputs it was made with; () where it holds none."""
    if not isinstance(golden, (str, Path)) or golden_kind(golden) != "file":
        return ()
    with closing(open_source(golden)) as source:
        return (str(golden),) if any(row.role == "input" for row in source.rows()) else ()


class _Told:
    """A sink that says what it is given."""

    def __init__(self, inner: Sink, tell: Callable[[str], None]) -> None:
        self._inner, self._tell = inner, tell

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def add(self, info: TensorInfo, array: Array | None) -> TensorInfo:
        self._tell(info.name)
        return self._inner.add(info, array)
