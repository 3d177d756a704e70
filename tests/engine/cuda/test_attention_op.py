"""ONNX's own Attention and RotaryEmbedding on kernels, against the CPU device."""

from __future__ import annotations

import pytest

from tests.engine.cuda.attention_op_cases import ATTENTION, LONG, ROTARY
from tests.engine.cuda.compared import check, table


@pytest.mark.parametrize(("place", "case", "precision"), table(*ATTENTION))
def test_attention_computes_what_the_cpu_does(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)


@pytest.mark.parametrize(("place", "case", "precision"), table(*ROTARY))
def test_heads_are_turned_as_the_cpu_does(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp16", "fp32", "bf16"])
@pytest.mark.parametrize("case", LONG, ids=str)
def test_long_rows(gpu, tmp_path, case, precision):
    check(gpu, case, precision, tmp_path)
