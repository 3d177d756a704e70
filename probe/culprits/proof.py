"""What is known of an answer beyond the search: the model that says it, on the inputs of the search and on others."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from probe.debug.convert_model import ConvertOptions, convert_network
from probe.errors import InputError
from probe.model.load import load
from probe.results.convert_result import ConvertResult, ExportProof
from probe.results.find import Exported
from probe.runners.protocol import RunnerOptions, open_runner
from probe.store.opening import read_array

if TYPE_CHECKING:
    from probe.culprits.judge import Judged
    from probe.model.model import Model
    from probe.store.feeds import InputSet
    from probe.store.source import TensorSource

Array = np.ndarray[Any, Any]
Outputs = Mapping[str, Mapping[str, Array]]  # input id -> output -> array
T = TypeVar("T")
JudgeOutputs = Callable[[Outputs, Mapping[str, str]], "Judged"]


def export(
    model: Model,
    out: Path | None,
    sets: Sequence[InputSet],
    options: ConvertOptions,
    *,
    then: Callable[[Path], T],
    progress: Callable[[str, str], None],
) -> tuple[Exported, T]:
    """Convert, write and prove. Without ``out`` the model is written to a temporary folder, and gone afterwards.

    Args:
        then: asked with the written model while it is there; what it says is returned, too.

    Raises:
        InputError: the model cannot be converted, or not written there.
    """
    if out is not None:
        result = convert_network(model, out, sets, options, progress=progress)
        return _exported(result, str(out)), then(out)
    with tempfile.TemporaryDirectory(prefix="probe-find-") as folder:
        path = Path(folder) / "mixed.onnx"
        result = convert_network(model, path, sets, options, progress=progress)
        return _exported(result, ""), then(path)


def _exported(result: ConvertResult, path: str) -> Exported:
    return Exported(path, result.proofs, bool(result), result)


def run_typed(path: Path, sets: Sequence[InputSet], options: RunnerOptions) -> tuple[Outputs, dict[str, str]]:
    """Graph outputs of a written model, each tensor rounded to the type it declares; and per input why it did not run.

    Raises:
        InputError: it cannot be re-imported.
    """
    written = load(path)
    outputs = {port.name for port in written.outputs}
    made: dict[str, dict[str, Array]] = {}
    failures: dict[str, str] = {}
    with closing(open_runner("typed", written, options)) as runner:
        for one in sets:
            found: dict[str, Array] = {}
            try:
                for tensor in runner.run(one.feeds, one.id):
                    name = tensor.info.name
                    if tensor.array is not None and (name in outputs or name.rpartition("[")[0] in outputs):
                        found[name] = tensor.array
            except InputError as error:
                failures[one.id] = error.what
                continue
            made[one.id] = found
    return made, failures


def prove_typed(path: Path, sets: Sequence[InputSet], options: RunnerOptions, judge: JudgeOutputs) -> ExportProof:
    """A written model on inputs, judged as the search judges."""
    try:
        judged = judge(*run_typed(path, sets, options))
    except InputError as error:
        return ExportProof(
            "typed", fp16_honoured=True, verdict="failed", metric=None, passed=False, reasons=(error.what,)
        )
    return ExportProof("typed", True, judged.verdict, judged.worst, judged.passed, judged.reasons)


def judged_source(source: TensorSource, judge: JudgeOutputs) -> Judged:
    """Recorded outputs, judged as the search judges."""
    made: dict[str, dict[str, Array]] = {}
    for row in source.rows():
        if row.role != "input" and row.status == "recorded":
            made.setdefault(row.input_id, {})[row.name] = read_array(source, row)
    return judge(made, {})
