"""Names of libraries' algorithms: read on any machine, one meaning each, numerics in words."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.engine.tactics import is_known, tactic_of
from probe.engine.tactics.library import NOTES, DnnPlan, LtAlgorithm, dnn_plan, library_tactic, lt_algorithm

LT = "cublaslt_130100_32f_A66_T20_S36_K1_R0_W0_C0_I0_G2"
DNN = "cudnn_91900_last_E11_k2v0_k6v1_nT"
small = st.integers(0, 9999)


@given(
    st.integers(1, 999999),
    st.sampled_from(["32f", "32fpedantic", "tf32", "16f"]),
    st.tuples(*[small] * 4),
    st.sampled_from([0, 1, 2, 4]),
    st.tuples(*[small] * 4),
)
def test_names_of_cublaslt_read_back(version, mode, before, reduction, behind):
    made = LtAlgorithm(version, mode, (*before, reduction, *behind))
    assert lt_algorithm(str(made)) == made
    row = tactic_of(str(made))
    assert row.name == str(made) and row.device == "cuda" and row.accumulator == ("fp16" if mode == "16f" else "fp32")


@given(
    st.integers(1, 999999), st.sampled_from(["first", "last"]), small, st.dictionaries(st.integers(1, 40), st.integers(-1, 99), max_size=6),
    st.sets(st.sampled_from(sorted(NOTES))),
)  # fmt: skip
def test_names_of_cudnn_read_back(version, order, engine, knobs, notes):
    made = DnnPlan(version, order, engine, tuple(sorted(knobs.items())), tuple(one for one in NOTES if one in notes))
    assert dnn_plan(str(made)) == made
    row = tactic_of(str(made))
    assert (
        row.layout == order
        and row.deterministic == ("X" not in notes)
        and (row.algorithm == "winograd") == ("W" in notes)
    )


@pytest.mark.parametrize(
    "name",
    [
        LT.replace("_32f_", "_64f_"), LT.replace("_R0_", "_R3_"), LT.replace("_A66", "_A066"), LT + "_", LT.replace("_G2", ""), "cublaslt", "cublaslt_",
        LT.replace("13", "１３"), DNN.replace("last", "nhwc"), DNN.replace("_k2v0_k6v1", "_k6v1_k2v0"), DNN.replace("_k2v0", "_k0v0"), DNN + "Q",
        DNN.replace("_nT", "_nST"), DNN.replace("_nT", ""), DNN.replace("_nT", "_nTT"), DNN.replace("_k2v0", "_k2v0_k2v1"), f" {DNN}", "cudnn_91900",
    ],
)  # fmt: skip
def test_what_is_no_name(name):
    assert library_tactic(name) is None and not is_known(name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (LT, "cuBLASLt 13.1.0, algorithm 66: products and sums in FP32; rounded once where it is stored"),
        (LT.replace("_K1_R0", "_K4_R2"), "k in 4 ranges, whose sums are added in the type of the sums"),
        (LT.replace("_K1_R0", "_K4_R4"), "k in 4 ranges, whose sums are rounded to the result's type and added"),
        (LT.replace("32f", "tf32"), "products of operands rounded to TF32, sums in FP32"),
        (LT.replace("32f", "16f"), "products and sums in FP16"),
        (DNN, "cuDNN 9.19.0, engine 11: products and sums in FP32, on tensor cores; rounded once where it is stored"),
        (DNN.replace("_nT", "_nTW6X"), "on tensor cores, by Winograd's algorithm, tiles of 6 x 6, in an order that differs from run to run"),
        (DNN.replace("_nT", "_nDR"), "inputs rounded to a lower type, partial sums rounded below FP32"),
    ],
)  # fmt: skip
def test_numerics_in_words(name, words):
    assert words in tactic_of(name).numerics


def test_winograd_and_fp16_are_said_to_be_so():
    assert (tactic_of(DNN.replace("_nT", "_nW6")).algorithm, tactic_of(DNN.replace("_nT", "_nW6")).tile) == (
        "winograd",
        4,
    )
    assert tactic_of(LT.replace("32f", "16f")).precisions == ("fp16",) and tactic_of(
        LT.replace("32f", "tf32")
    ).precisions == ("tf32",)
    assert tactic_of(DNN.replace("_nT", "_nR")).accumulator == "fp16"


def test_reading_a_name_imports_no_library():
    code = f"from probe.engine.tactics import tactic_of; import sys; tactic_of({LT!r}); print([n for n in sys.modules if n in ('nvmath', 'cudnn', 'cuda')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
