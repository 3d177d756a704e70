"""``probe diff --table``: all tensors times all metrics, for notebooks and spreadsheets."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from tests.cli.program import probe


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_table_is_written_whatever_the_verdict(recordings: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"table{suffix}"
    done = probe("diff", "fails.npz", "golden.npz", "--table", path, cwd=recordings)
    assert done.returncode == 1
    frame = pl.read_parquet(path) if suffix == ".parquet" else pl.read_csv(path)
    row = frame.filter(name="logits").row(0, named=True)
    assert (row["verdict"], row["status"]) == ("failed", "compared")
    assert row["range_rel"] == pytest.approx(0.3, rel=1e-5)


@pytest.mark.parametrize("words", [("table.xlsx",), ("no/such/folder/table.csv",)])
def test_tables_that_cannot_be_written(recordings: Path, tmp_path: Path, words: tuple[str]) -> None:
    done = probe("diff", "same.npz", "golden.npz", "--table", tmp_path / words[0], cwd=recordings)
    assert done.returncode == 2
    assert not list(tmp_path.iterdir())
