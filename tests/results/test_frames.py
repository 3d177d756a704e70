"""Results as tables: what polars and other tools read."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from probe.compare.diff import diff_sources
from probe.errors import InputError
from probe.results.diff import DiffResult, Metrics
from probe.results.frames import save_frame
from probe.results.publish import example_run
from probe.results.run import LayerError
from probe.results.tensors import InputInfo, RunHeader, TensorInfo
from probe.store.opening import open_source
from probe.store.writer import DumpWriter


@pytest.fixture
def result(tmp_path: Path) -> DiffResult:
    golden = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    for name, error in (("golden", 0.0), ("actual", 0.01)):
        header = RunHeader(inputs=(InputInfo("a", "1", ""), InputInfo("b", "2", "")))
        with DumpWriter(tmp_path / name, header) as writer:
            for input_id, more in (("a", 1.0), ("b", math.nan)):
                writer.add(TensorInfo("h,1", "", (), input_id, nodes=("N1", "N2")), golden)
                writer.add(TensorInfo("y", "", (), input_id, "output"), golden + np.float32(error and error * more))
    return diff_sources(open_source(tmp_path / "actual"), open_source(tmp_path / "golden"))


def test_a_row_a_tensor_and_one_more_for_each_input_of_an_output(result: DiffResult) -> None:
    frame = result.frame()
    assert frame.select("name", "input").rows() == [("h,1", None), ("y", None), ("y", "a"), ("y", "b")]
    assert set(Metrics.__dataclass_fields__) <= set(frame.columns)
    whole = frame.row(1, named=True)
    assert result.tensors[1].metrics is not None
    assert whole["max_abs"] == result.tensors[1].metrics.max_abs
    assert (whole["count"], whole["inputs"], whole["shape"]) == (24, 2, "3x4")
    assert frame.row(0, named=True)["nodes"] == "N1 + N2"
    assert frame.row(0, named=True)["kl"] is None
    assert frame.filter(input="b").row(0, named=True)["nonfinite_mismatch"] == 12


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_saved_tables_read_back(result: DiffResult, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"table{suffix}"
    save_frame(result, path)
    read = pl.read_parquet(path) if suffix == ".parquet" else pl.read_csv(path)
    assert read["name"].to_list() == result.frame()["name"].to_list()
    assert not list(tmp_path.glob(".*partial*"))


def test_other_suffixes_are_refused(result: DiffResult, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="parquet"):
        save_frame(result, tmp_path / "table.xlsx")


def test_layers_of_a_run() -> None:
    run = example_run()
    frame = run.frame()
    assert frame.columns == [f.name for f in fields(LayerError)]
    assert frame["name"].to_list() == [layer.name for layer in run.layers]
    norm = frame.row(1, named=True)
    assert norm["nodes"] == "/norm/Pow + /norm/ReduceMean + /norm/Sqrt + /norm/Div"
    assert (norm["local"], norm["beyond"], norm["nonfinite"]) == (1.0, True, 0)
    assert frame.row(2, named=True)["local"] is None and frame.row(3, named=True)["accumulated"] == math.inf
    assert run.statuses == {"compared": 2, "folded": 1}
    assert not run
