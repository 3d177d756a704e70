"""Every operator of the standard, in the graphs that onnx's own backend tests are made of: converted, and accepted by the checker."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import onnx
import pytest

from probe.errors import InputError
from probe.model import load
from probe.model.mixed import convert_mixed
from probe.model.typed import typed_model
from tests.thorough import chosen

_PARTS = 8


@pytest.fixture(scope="module")
def cases() -> list[Any]:
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [case for case in load_model_tests(kind="node") if case.model is not None]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("part", range(_PARTS))
def test_every_operator_converts(part: int, precision: Any, cases: list[Any], tmp_path: Path) -> None:
    converted = 0
    one_in = 2 if precision == "fp16" else 4  # the same rules, another type
    mine = [case for case in cases[part::_PARTS] if chosen(case.name, one_in)]
    for case in mine:
        path = tmp_path / "m.onnx"
        path.write_bytes(case.model.SerializeToString())
        try:
            source = load(path)
        except InputError:
            continue  # not a model that probe reads
        try:
            mixed = convert_mixed(source, precision)
        except InputError as error:
            assert precision == "bf16" and "bfloat16 from opset 13" in error.what, f"{case.name}: {error}"
            continue
        made = mixed.model()
        onnx.checker.check_model(made.proto_bytes(), full_check=_is_sound(case.model))
        assert typed_model(made).original.opset == made.opset, case.name
        converted += 1
    assert converted > 0.75 * len(mine)


def _is_sound(model: onnx.ModelProto) -> bool:
    """Whether the graph as it comes passes the full check; a few of them do not."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    return True
