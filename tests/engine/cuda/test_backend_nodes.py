"""The node tests of the ONNX standard on kernels: those whose layers all have one, against what onnx expects and against the CPU device.

``python tests/engine/cuda/test_backend_nodes.py`` prints what has no kernel, by operator and reason.

In FP32 a case is judged as onnx judges it. In FP16 both devices store each tensor rounded once and compute in FP32, so that for one node they
may differ by one rounding that flipped, a unit of FP16, and by what the order of an FP32 sum moves: 2^-20 of the largest element. In an expanded
function each node's flip passes through those behind it: a unit in the last place of the largest element for every node.
"""

from __future__ import annotations

import tempfile
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from probe.engine.build import compile_model
from probe.engine.device.cuda.device import CudaDevice
from probe.engine.engine import Engine
from probe.errors import InputError
from probe.model import load
from tests.engine.cuda.null_backend import NullBackend
from tests.engine.test_backend_nodes import RANDOM, Arrays, cases, judged, named

# Operators all of whose cases run on kernels (or need none), and of the others how many cases do not.
WHOLE = """
Abs Acos Acosh Add AffineGrid And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool Ceil Celu CenterCropPad
Clip Concat ConstantOfShape Conv ConvInteger Cos Cosh DepthToSpace DequantizeLinear Det Div
DynamicQuantizeLinear Elu Equal Erf Exp Expand Flatten Floor Gather GatherElements GatherND Gelu Gemm
GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid HardSwish Hardmax
InstanceNormalization IsInf IsNaN LRN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization
LpPool MatMul MatMulInteger MaxPool Mean MeanVarianceNormalization Mish Mod Mul Neg NegativeLogLikelihoodLoss
NonMaxSuppression NonZero OneHot Or PRelu Pad QLinearConv QLinearMatMul QuantizeLinear RMSNormalization Range
Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu
Reshape Resize ReverseSequence RoiAlign RotaryEmbedding Round Scatter ScatterElements ScatterND Selu Shape Shrink
Sigmoid Sign Sin Sinh Size Slice Softmax SoftmaxCrossEntropyLoss Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub
Sum Swish Tan Tanh TensorScatter ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
""".split()
PARTLY = {
    "BatchNormalization": 2, "CastLike": 48, "ConvTranspose": 1, "CumProd": 7, "CumSum": 7, "EyeLike": 1, "GRU": 1, "Identity": 1, "LSTM": 2, "Max": 1,
    "Min": 1, "Pow": 4, "RNN": 1,
}  # fmt: skip
SHARDS = 6  # for workers of the GPU tests
QUICK = (  # on the host: what cases.py leaves to onnx
    "test_lstm_defaults", "test_gru_seq_length", "test_simple_rnn_with_initial_bias", "test_layer_normalization_4d_axis2",
    "test_rms_normalization_3d_axis1_epsilon", "test_convtranspose_pads", "test_conv_with_autopad_same",
    "test_averagepool_2d_same_lower", "test_maxpool_2d_dilations", "test_resize_downsample_scales_nearest", "test_resize_upsample_sizes_nearest",
    "test_scatter_elements_with_negative_indices", "test_gather_elements_1", "test_gathernd_example_int32_batch_dim1", "test_scatternd",
    "test_gemm_all_attributes", "test_matmul_bcast", "test_softmax_large_number", "test_logsoftmax_axis_1", "test_quantizelinear_axis",
    "test_dequantizelinear_axis", "test_reduce_mean_keepdims_random",
)  # fmt: skip


@dataclass
class Ran:
    """What became of a case.

    Attributes:
        how: native, without kernels (it launches none), fallback, refused.
        why: of a fallback or a refusal.
    """

    how: str
    why: tuple[str, ...]
    engine: Engine | None = None
    outputs: Arrays | None = None


def run(case: Any, backend: Any, precision: str, folder: Path) -> Ran:
    """A case on the CUDA device, nothing fused. Cases that the CPU device cannot run either are refused."""
    path = folder / "case.onnx"
    path.write_bytes(case.model.SerializeToString())
    try:
        engine = compile_model(load(path), precision=precision, passes="none", fusion="none", threads=1)
        device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
        cpu, engine.device = engine.device, device
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they divide by zero on purpose
            outputs = engine.run(named(case.model.graph.input, case.data_sets[0][0]))
        engine.device = cpu
    except InputError as error:
        return Ran("refused", (error.what,))
    if device.fallen:
        return Ran("fallback", tuple(sorted(set(device.fallen.values()))))
    return Ran("native" if sum(device.queue.launches.values()) else "without kernels", (), engine, outputs)


def wrong(case: Any, ran: Ran, precision: str) -> str:
    """What is wrong with a case that ran on kernels; ""."""
    assert ran.outputs is not None and ran.engine is not None
    wanted = named(case.model.graph.output, case.data_sets[0][1])
    said = judged(case, ran.outputs, wanted, upcast=True) if precision == "fp32" else ""
    if precision == "fp32" and not said:
        return ""
    try:
        on_cpu = ran.engine.run(named(case.model.graph.input, case.data_sets[0][0]))
    except InputError:  # of an opset that ONNX Runtime does not know yet
        return said
    if precision == "fp32":
        return said if not judged(case, on_cpu, wanted, upcast=True) else ""
    return apart(ran.outputs, on_cpu, len(case.model.graph.node))


def apart(actual: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], nodes: int) -> str:
    """Where two runs in FP16 differ by more than flipped roundings explain."""
    if actual.keys() != expected.keys():
        return f"outputs {sorted(actual)} instead of {sorted(expected)}"
    for name, wanted in expected.items():
        got = actual[name]
        if got.shape != wanted.shape or got.dtype != wanted.dtype:
            return f"{name}: {got.dtype} {got.shape} instead of {wanted.dtype} {wanted.shape}"
        if wanted.dtype.kind != "f":
            if nodes == 1 and not np.array_equal(got, wanted):
                return f"{name}: {np.sum(got != wanted)} of {got.size} differ"
            continue
        finite = np.isfinite(wanted) & np.isfinite(got)
        if not np.array_equal(got[~finite], wanted[~finite], equal_nan=True):
            return f"{name}: other NaN or Inf"
        size = np.abs(np.where(finite, wanted, 0)).astype(np.float64)
        top = size.max(initial=0.0)
        unit = 2.0 ** (np.floor(np.log2(np.maximum(size, 2.0**-14))) - 10)
        allowed = unit + 2.0**-20 * top + (nodes * 2.0**-10 * top if nodes > 1 else 0)
        off = np.where(finite, np.abs(np.where(finite, got, 0).astype(np.float64) - np.where(finite, wanted, 0)), 0)
        if (off > allowed).any():
            at = np.argmax(off / allowed)
            return f"{name}: {got.flat[at]!r} instead of {wanted.flat[at]!r}, {(off / allowed).max():.3g} times what is allowed"
    return ""


def surveyed(found: list[Any], backend: Any, precision: str, folder: Path) -> tuple[Counter[str], dict[str, str]]:
    """How the cases ran, and what is wrong with those that ran on kernels."""
    how: Counter[str] = Counter()
    faults = {}
    for case in found:
        ran = run(case, backend, precision, folder)
        how[ran.how] += 1
        if ran.how == "native" and not case.name.startswith(RANDOM) and (why := wrong(case, ran, precision)):
            faults[case.name] = why
    return how, faults


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("shard", range(SHARDS))
def test_what_has_kernels_is_right(gpu, tmp_path, shard, precision):
    how, faults = surveyed(cases()[shard::SHARDS], gpu, precision, tmp_path)
    assert faults == {}
    assert how["native"] > 600 / SHARDS, how


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_some_on_the_host(host, tmp_path, precision):
    """Half of them in each precision."""
    found = [case for case in quick_cases() if case.name in QUICK][precision == "fp16" :: 2]
    how, faults = surveyed(found, host, precision, tmp_path)
    assert faults == {} and set(how) == {"native"} and len(found) > len(QUICK) // 3, how


def fallen(found: list[Any], folder: Path) -> dict[str, Counter[str]]:
    """Of every operator, why cases of one node would not run on kernels: seen on a device that computes nothing. Cases newer than ONNX Runtime
    are left out."""
    why: dict[str, Counter[str]] = {}
    for case in found:
        if len(case.model.graph.node) == 1:
            op = case.model.graph.node[0].op_type
            ran = run(case, NullBackend(), "fp32", folder)
            if ran.how != "refused":
                why.setdefault(op, Counter()).update(ran.why)
    return why


@pytest.mark.slow
def test_no_kernel_is_lost(tmp_path):
    why = fallen(quick_cases(), tmp_path)
    assert {op: dict(why[op]) for op in WHOLE if why.get(op)} == {}
    assert {op: dict(why[op]) for op, most in PARTLY.items() if op in why and sum(why[op].values()) > most} == {}
    assert [op for op in WHOLE if op not in why] == [] or onnx.__version__ < "1.23"


def on_null(folder: Path, body: str) -> tuple[Engine, CudaDevice]:
    text = f'<ir_version: 8, opset_import: ["" : 18]> g (float[3,4] x, int64[3] i) => (float y) {{ {body} }}'
    made = onnx.parser.parse_model(text)
    made.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(made, folder / "m.onnx")
    engine = compile_model(load(folder / "m.onnx"), precision="fp32", passes="none", fusion="none")
    device = engine.device = CudaDevice(engine.network, engine.top_layers, engine.rounding, NullBackend())
    return engine, device


FEEDS = {"x": np.ones((3, 4), np.float32), "i": np.array([4, 3, 0])}


def test_what_nobody_reads_is_not_computed(tmp_path):
    """An integer layer without a reader runs on the host, where no names of outputs would mean all of them."""
    engine, device = on_null(tmp_path, "s = Shape (x)  t = Concat <axis = 0> (s, s)  y = Neg (x)")
    assert engine.run(FEEDS)["y"].shape == (3, 4) and not device.fallen


def test_an_axis_that_is_not_there_cannot_be_kept(tmp_path):
    engine, _ = on_null(tmp_path, "y = Reshape (x, i)")
    with pytest.raises(InputError, match="Reshape"):
        engine.run(FEEDS)


def quick_cases() -> list[Any]:
    return [case for case in cases() if not case.name.endswith("_expanded")]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        for operator, reasons in sorted(fallen(quick_cases(), Path(made)).items()):
            if reasons:
                print(operator, *(f"{count} x {reason}" for reason, count in reasons.items()), sep="; ")
