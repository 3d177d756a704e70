"""Results as polars frames: one row a tensor, a layer, an evaluation or a finding, ready for ``write_parquet`` or a notebook. polars is imported only here, when asked."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from probe.errors import InputError
from probe.results.bench import BenchResult, LayerTime
from probe.results.check import CheckFinding, CheckResult
from probe.results.diff import DiffResult, Metrics, TensorDiff
from probe.results.find import FindResult, SearchStep
from probe.results.run import LayerError, RunResult

if TYPE_CHECKING:
    import polars as pl

_TEXT = (
    "name",
    "input",
    "role",
    "status",
    "verdict",
    "precision",
    "dtype_actual",
    "dtype_golden",
    "layer",
    "nodes",
    "tactic",
)
_WHOLE = frozenset(f.name for f in fields(Metrics) if "int" in str(f.type))


class Framed(Protocol):
    """A result that can be a table."""

    def frame(self) -> pl.DataFrame: ...


def diff_frame(result: DiffResult) -> pl.DataFrame:
    """Columns: identity and status, ``shape`` as text, then every metric by its name; null where a metric is not defined.

    ``input`` is null in the row of the merged inputs. Rows of single inputs (outputs of datasets) hold range_rel, cosine, max_abs
    and nonfinite_mismatch.
    """
    import polars as pl

    rows = [row for tensor in result.tensors for row in _rows(tensor)]
    schema: dict[str, Any] = dict.fromkeys(_TEXT, pl.String)
    schema |= {"shape": pl.String, "inputs": pl.Int64}
    schema |= {f.name: pl.Int64 if f.name in _WHOLE else pl.Float64 for f in fields(Metrics)}
    return pl.DataFrame(rows, schema=schema, orient="row")


def layer_frame(result: RunResult) -> pl.DataFrame:
    """A row a layer in execution order: every field of ``LayerError``, lists joined with " + "; null where it was not measured."""
    return _frame(LayerError, result.layers)


def evaluation_frame(result: FindResult) -> pl.DataFrame:
    """A row an evaluation in the order they were made: every field of ``SearchStep``."""
    return _frame(SearchStep, result.steps)


def finding_frame(result: CheckResult) -> pl.DataFrame:
    """A row a finding in the order of ``findings``: every field of ``CheckFinding``, lists joined with " + "."""
    return _frame(CheckFinding, result.findings)


def time_frame(result: BenchResult) -> pl.DataFrame:
    """A row a layer in execution order: every field of ``LayerTime``, lists joined with " + "; null where it was not measured."""
    return _frame(LayerTime, result.layers)


def _frame(kind: type[Any], items: Sequence[Any]) -> pl.DataFrame:
    """A row an item, a column a field."""
    import polars as pl

    types: dict[str, Any] = {
        "float | None": pl.Float64, "int": pl.Int64, "int | None": pl.Int64, "bool": pl.Boolean,
    }  # fmt: skip
    schema = {f.name: types.get(str(f.type), pl.String) for f in fields(kind)}
    rows = [{name: _cell(getattr(item, name)) for name in schema} for item in items]
    return pl.DataFrame(rows, schema=schema, orient="row")


def _cell(value: Any) -> Any:
    return " + ".join(map(str, value)) if isinstance(value, tuple) else value


def save_frame(result: Framed, path: str | Path) -> None:
    """Write the frame as ``.parquet`` or ``.csv``, whole or not at all.

    Raises:
        InputError: another suffix, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix not in (".parquet", ".csv"):
        raise InputError(f"{path}: a table is written as .parquet or .csv")
    frame, text = result.frame(), io.BytesIO()
    (frame.write_parquet if path.suffix == ".parquet" else frame.write_csv)(
        text
    )  # polars' own errors say nothing of a full disk
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        partial.write_bytes(text.getbuffer())
        os.replace(partial, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def _rows(tensor: TensorDiff) -> list[dict[str, Any]]:
    identity = {name: getattr(tensor, name) for name in _TEXT if name not in ("input", "nodes")}
    identity["nodes"] = " + ".join(tensor.nodes)
    identity["shape"] = "x".join(map(str, tensor.shape))
    merged = asdict(tensor.metrics) if tensor.metrics is not None else {}
    rows = [{**identity, "input": None, "inputs": tensor.inputs, **merged}]
    for one in tensor.per_input:
        numbers = {k: v for k, v in asdict(one).items() if k not in ("input_id", "verdict")}
        rows.append({**identity, "input": one.input_id, "inputs": 1, "verdict": one.verdict, **numbers})
    return rows
