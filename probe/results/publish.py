"""Write the published JSON Schemas and one example file a command: ``python -m probe.results.publish [FOLDER]``.

A test fails when ``schemas/`` and ``examples/`` beside this file are not what this writes.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from probe.results.convert_result import CastAdded, ConvertResult, ExportProof, HandOver
from probe.results.diff import (
    Criterion,
    DiffResult,
    Finding,
    Metrics,
    SourceInfo,
    Suggestion,
    TensorDiff,
    WorstElement,
)
from probe.results.example_bench import example_bench
from probe.results.example_blame import examples_of_blame
from probe.results.example_build import example_build
from probe.results.example_check import example_check
from probe.results.example_detail import example_detail
from probe.results.example_find import example_find
from probe.results.example_regression import example_regression
from probe.results.example_tactics import examples_of_tactics
from probe.results.inspect import (
    DumpResult,
    InspectResult,
    ModelReport,
    OpCount,
    PortReport,
    RecordingReport,
    TensorValues,
    WeightCount,
)
from probe.results.json import class_of, dumps, schema_names, schema_of
from probe.results.ops import FallbackReport, OpReport, OpsResult
from probe.results.run import (
    AsWritten,
    CureTried,
    GoldenInfo,
    LayerError,
    ObserverCheck,
    OtherInterior,
    OutputVerdict,
    RepeatCheck,
    RunFinding,
    RunResult,
)
from probe.results.tensors import InputInfo, RunHeader, TensorInfo

HERE = Path(__file__).parent
_DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_INPUT = InputInfo("cat", _DIGEST, "file cat.npz")
_ENVIRONMENT = {"probe": "0.1.0", "python": "3.11.9", "numpy": "2.4.0"}


def files() -> dict[str, str]:
    """Relative path -> text of everything that is published."""
    published = {
        f"schemas/{file_name(name)}.schema.json": _pretty(schema_of(class_of(name))) for name in schema_names()
    }
    return published | {f"examples/{name}.json": dumps(result) for name, result in examples().items()}


def file_name(schema: str) -> str:
    """``probe.diff/1`` -> ``probe.diff-1``."""
    return schema.replace("/", "-")


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"


def example_metrics(**changed: Any) -> Metrics:
    """Metrics of a healthy FP16 tensor of 1,000 elements; name what differs."""
    healthy = Metrics(
        count=1000, compared=1000, range=21.4, max_abs=0.0086, mean_abs=0.0011, max_rel=0.012, mean_rel=0.0007, range_rel=0.0004,
        range_rel_item=None, rmse=0.0014, nmse=2.1e-8, sqnr_db=76.8, psnr_db=83.6, cosine=0.99999998, kl=None, kl_max=None, ulp_max=3.0,
        ulp_p99=1.0, ulp_over_1=6, mismatched=0, mismatch_fraction=0.0, p50=0.0009, p90=0.0024, p99=0.0051, p999=0.0081, top1=None,
        top5=None, channel_worst=0.0011, channel=17, channel_axis=1, max_steps=None, item=None, nonfinite_mismatch=0, nan_actual=0,
        inf_actual=0, nan_golden=0, inf_golden=0, sentinels=0, sentinel_value=None, sentinel_mismatch=0, actual_min=-8.1, actual_max=21.4,
        golden_min=-8.1, golden_max=21.4,
    )  # fmt: skip
    return replace(healthy, **changed)


def example_tensor(name: str, **changed: Any) -> TensorDiff:
    """A compared float tensor, a passed output unless ``changed`` says otherwise."""
    plain = TensorDiff(
        name=name, actual_name=name, status="compared", role="output", verdict="passed", dtype_actual="float16", dtype_golden="float32",
        shape=(1, 1000), shape_actual=(1, 1000), precision="fp16", metrics=example_metrics(), inputs=1,
    )  # fmt: skip
    return replace(plain, **changed)


def example_diff() -> DiffResult:
    """A failed FP16 run: an overflow in a normalisation makes NaN, one name has no partner."""
    criteria = (
        Criterion("range_rel", "<=", 0.05, source="default fp16"),
        Criterion("cosine", ">=", 0.995, source="default fp16"),
        Criterion("range_rel", "<=", 0.01, level="warn", source="default fp16"),
    )
    broken = example_metrics(
        max_abs=math.inf, range_rel=math.inf, cosine=math.nan, rmse=math.nan, sqnr_db=math.nan, nonfinite_mismatch=1000, nan_actual=1000,
        compared=0, actual_min=math.nan, actual_max=math.nan,
    )  # fmt: skip
    squared = example_metrics(
        range_rel=math.inf, max_abs=math.inf, nonfinite_mismatch=2, inf_actual=2, cosine=0.91, golden_max=91204.0
    )
    return DiffResult(
        verdict="failed",
        reasons=("logits: 1000 NaN where golden has none",),
        actual=SourceInfo("engine-fp16", "dump", "python:engine.run", "", "", "fp16", "", (_INPUT,)),
        golden=SourceInfo("golden", "dump", "ort", "model.onnx", _DIGEST, "", "as_is", (_INPUT,)),
        acceptance=criteria,
        tensors=(
            example_tensor("/norm/Pow_output_0", role="internal", verdict="failed", beyond=True, nodes=("/norm/Pow",), reads=("x",),
                           metrics=squared, worst=(WorstElement((0, 3), math.inf, 91204.0, math.inf, "cat"),),
                           detail=example_detail()),
            example_tensor("/norm/Div_output_0", role="internal", status="missing", verdict="failed", actual_name=None, dtype_actual=None,
                           shape_actual=None, precision=None, metrics=None, inputs=0),
            example_tensor("logits", verdict="failed", beyond=True, nodes=("/head/MatMul",), reads=("/norm/Div_output_0",), metrics=broken,
                           worst_input="cat", failing_inputs=("cat",), reasons=("1000 NaN where golden has none",)),
            example_tensor("norm.div", role="internal", status="extra", verdict="not_judged", dtype_golden=None, metrics=None, inputs=0),
        ),
        first_divergence=("/norm/Pow_output_0",),
        findings=(
            Finding("overflow", "2 Inf first appear in /norm/Pow_output_0; golden reaches 91204, float16 ends at 65504",
                    "/norm/Pow_output_0", "/norm/Pow", "keep this tensor in fp32", fatal=True),
        ),
        suggestions=(Suggestion("norm.div", "/norm/Div_output_0", 0.61, same_shape=True),),
        environment=_ENVIRONMENT,
        command="probe diff engine-fp16 golden --json diff.json",
        seconds=0.21,
    )  # fmt: skip


def example_model() -> InspectResult:
    """A small classifier."""
    report = ModelReport(
        path="model.onnx", sha256=_DIGEST, bytes=26454, external_bytes=0, external_files=(), ir_version=8, producer="pytorch 2.5.1",
        opset={"": 17}, numerics="float32", inputs=(PortReport("image", "float32", ("batch", 1, 28, 28)),),
        outputs=(PortReport("logits", "float32", ("batch", 10)),), nodes=9, nodes_in_bodies=0, unnamed_nodes=0,
        ops=(OpCount("Conv", "", 3), OpCount("Relu", "", 3), OpCount("Gemm", "", 2), OpCount("Flatten", "", 1)),
        weights=(WeightCount("float32", 10, 5998, 23992),), control_flow=(), custom_domains=(),
    )  # fmt: skip
    return InspectResult(kind="model", model=report, command="probe inspect model.onnx --json model.json")


def _header() -> RunHeader:
    return RunHeader(runner="ort", command="probe dump model.onnx -o golden", model="model.onnx", model_sha256=_DIGEST, golden="as_is",
                     device="cpu", inputs=(_INPUT,), environment=_ENVIRONMENT)  # fmt: skip


def example_recording() -> InspectResult:
    """A dump of two tensors."""
    image = TensorInfo("image", "float32", (1, 1, 28, 28), "cat", role="input", data=0, offset=0, bytes=3136, sha256=_DIGEST, min=0.0,
                       max=1.0, absmax_finite=1.0, min_abs_nonzero=0.004, mean=0.13, nan=0, inf=0)  # fmt: skip
    logits = TensorInfo("logits", "float32", (1, 10), "cat", role="output", nodes=("Gemm_8",), reads=("hidden",), data=0, offset=4096,
                        bytes=40, sha256=_DIGEST, min=-8.25, max=21.5, absmax_finite=21.5, min_abs_nonzero=0.5, mean=0.1, nan=0, inf=0)  # fmt: skip
    report = RecordingReport(
        path="golden", kind="dump", header=_header(), roles_known=True, total_tensors=2, total_bytes=3176, statuses={"recorded": 2},
        tensors=(image, logits), values=(TensorValues("logits", "cat", (-8.25, 21.5, 0.5)),),
    )  # fmt: skip
    return InspectResult(
        kind="recording", recording=report, command="probe inspect golden --values 3 --json golden.json"
    )


def example_dump() -> DumpResult:
    """A recording just made, one branch not run."""
    skipped = TensorInfo("else_out", "float32", (), "cat", status="not_run", note="the condition of If_4 was true")
    return DumpResult(
        path="golden", kind="dump", header=_header(), tensors=12, statuses={"recorded": 11, "not_run": 1}, not_recorded=(skipped,),
        bytes=48211, nonfinite=(), inputs=(_INPUT,), random_inputs=False, environment=_ENVIRONMENT, seconds=0.31,
        command="probe dump model.onnx --inputs cat.npz -o golden",
    )  # fmt: skip


def example_layer(name: str, **changed: Any) -> LayerError:
    """A healthy FP16 layer of one node, unless ``changed`` says otherwise."""
    plain = LayerError(
        name=name, kind="matmul", pattern="", nodes=(name,), reads=("x",), outputs=(f"{name}_output_0",), precision="fp16", tactic="exact",
        accumulated=0.0006, local=0.0002, injected=0.0003, floor=2e-7, gain=0.9, worst_output=f"{name}_output_0",
    )  # fmt: skip
    return replace(plain, **changed)


def example_run() -> RunResult:
    """The network of ``example_diff``, compiled: the square overflows inside a normalisation that was fused."""
    diff = example_diff()
    norm = "/norm/Pow + /norm/ReduceMean + /norm/Sqrt + /norm/Div"
    return RunResult(
        verdict="failed",
        reasons=diff.reasons,
        model="model.onnx",
        model_sha256=_DIGEST,
        precision="fp16",
        device="cpu: FP16 storage, FP32 accumulation, emulated",
        golden=GoldenInfo("ort", replace(diff.golden, path="made now by ort", kind="tape"), {"logits": 4e-7},
                          "the engine in FP32 against this golden, with the same passes and fusion"),
        acceptance=diff.acceptance,
        outputs={"logits": OutputVerdict("failed", example_metrics(range_rel=1.0, cosine=0.31), 4e-7, ("range_rel 1 > 0.05",))},
        layers=(
            example_layer("/stem/MatMul"),
            example_layer(norm, kind="norm", pattern="rms_norm", nodes=tuple(norm.split(" + ")), accumulated=1.0, local=1.0, injected=1.0,
                          gain=1.1, beyond=True, outputs=("/norm/Div_output_0",), worst_output="/norm/Div_output_0"),
            example_layer("/head/Reshape", kind="move", accumulated=1.0, local=None, injected=None, floor=None, gain=None, beyond=True,
                          reads=("/norm/Div_output_0",), note="moves data: no error of its own"),
            example_layer("/head/MatMul", accumulated=math.inf, local=0.0002, gain=None, beyond=True, nonfinite=1000, outputs=("logits",),
                          reads=("/head/Reshape_output_0",), worst_output="logits"),
        ),
        tensors=(
            replace(diff.tensors[0], layer=norm),
            example_tensor("/norm/Sub_output_0", role="internal", status="folded", verdict="not_judged", actual_name=None, metrics=None,
                           dtype_actual=None, shape_actual=None, precision=None, inputs=0, reasons=("by constant_folding",)),
            diff.tensors[2],
        ),
        first_divergence=(norm,),
        findings=(
            RunFinding("overflow", "/norm/Pow_output_0 overflows: golden reaches 91204, fp16 ends at 65504 (1.39 times too large); "
                       "in /norm/Div (Div): x / Inf = 0: finite but wrong",
                       tensor="/norm/Pow_output_0", node="/norm/Pow", layer=norm, range=91204.0, margin=65504 / 91204,
                       where="2 of 1,000 elements, first [0,3]", cure="keep /norm/Pow_output_0 in FP32", keep=("/norm/Pow_output_0",),
                       fatal=True),
        ),
        other_interior=OtherInterior("fp32", "passed", differs=True),
        as_written=AsWritten("failed", differs=False, changes=3, by=("constant_folding", "batch_norm"), range_rel=0.21),
        cure=CureTried(("/norm/Pow_output_0",), "passed"),
        observer=ObserverCheck(identical=True, outputs=1),
        repeats=RepeatCheck(identical=True, runs=3, tensors=212),
        inputs=(_INPUT,),
        environment=_ENVIRONMENT,
        command="probe run model.onnx --precision fp16 --inputs cat.npz --json run.json",
        seconds={"golden": 0.11, "compile": 0.06, "run": 0.09, "local error": 0.21},
    )  # fmt: skip


def example_convert() -> ConvertResult:
    """The network of ``example_run`` with its cure: written, proved, handed over."""
    diff = example_diff()
    kept, nodes = ("/norm/Pow_output_0",), ("/norm/Pow", "/norm/ReduceMean")
    return ConvertResult(
        verdict="passed", reasons=(), model="model.onnx", model_sha256=_DIGEST, path="mixed.onnx", precision="fp16", keep=kept,
        kept_tensors=kept, lifted=nodes, fp32_nodes=(), without_low={"/pos/Range": "Range has no float16 in opset 17"}, spared=(),
        shape_nodes=(), low_nodes=61, bytes_before=4_200_000, bytes_after=2_110_000,
        casts=(CastAdded("image", "fp16"), CastAdded("/norm/Sub_output_0", "fp32"), CastAdded("/norm/ReduceMean_output_0_fp32", "fp16"),
               CastAdded("logits_fp16", "fp32")),
        outputs={"logits": OutputVerdict("passed", example_metrics(range_rel=0.0012, cosine=0.999996), None)},
        proofs=(ExportProof("typed", fp16_honoured=True, verdict="passed", metric=0.0012, passed=True),
                ExportProof("ort", fp16_honoured=False, verdict="passed", metric=0.0009, passed=True)),
        handed_over=(HandOver("tensors", kept, "passed", 0.0012), HandOver("nodes", nodes, "passed", 0.0011)),
        autocast=("^/norm/Pow$", "^/norm/ReduceMean$"),
        trtexec=("--precisionConstraints=obey", "--layerPrecisions=/norm/Pow:fp32,/norm/ReduceMean:fp32",
                 "--layerOutputTypes=/norm/Pow:fp32,/norm/ReduceMean:fp32"),
        golden=diff.golden, acceptance=diff.acceptance, inputs=(_INPUT,), notes=("constant /eps: 1e-12 becomes 0 in fp16",),
        environment=_ENVIRONMENT, command="probe convert model.onnx -o mixed.onnx --keep '^/norm/Pow_output_0$' --inputs cat.npz",
        seconds={"convert": 0.09, "golden": 0.05, "proof": 0.14, "hand-over": 0.12},
    )  # fmt: skip


def example_ops() -> OpsResult:
    """Of a model: an operator with a kernel, one that runs on the reference, one that nothing runs."""
    return OpsResult(
        model="model.onnx", model_sha256=_DIGEST, opset=22, device="cpu: kernels of ONNX Runtime 1.31.1",
        ops=(
            OpReport("Conv", "", 22, "conv", "rounds", "kernel", ("exact", "acc16"), nodes=12),
            OpReport("RoiAlign", "", 22, "pool", "rounds", "reference", ("exact",), nodes=2, falls_back=2),
            OpReport("Deskew", "com.example", 0, "other", "rounds", "none", ("exact",), nodes=1, falls_back=1),
        ),
        fallbacks=(
            *(
                FallbackReport(f"/head/RoiAlign_{at}", "RoiAlign",
                               "ONNX Runtime 1.31.1 has no kernel for RoiAlign (since opset 22) with these types", "reference")
                for at in range(2)
            ),
            FallbackReport("/head/Deskew", "Deskew", "ONNX Runtime 1.31.1 does not know the operator com.example:Deskew; onnx's reference "
                           "implementation does not either: Node type 'Deskew' from domain 'com.example' is unknown", "nothing"),
        ),
        environment=_ENVIRONMENT,
        command="probe inspect ops model.onnx --json ops.json",
    )  # fmt: skip


def examples() -> dict[str, Any]:
    """File stem -> result: what each command's ``--json`` file looks like."""
    return {
        "diff": example_diff(),
        "diff-results": example_regression(_DIGEST, _INPUT, _ENVIRONMENT),
        "inspect-model": example_model(),
        "inspect-recording": example_recording(),
        "dump": example_dump(),
        "inspect-ops": example_ops(),
        "run": example_run(),
        "convert": example_convert(),
        "build": example_build(_DIGEST, _ENVIRONMENT),
        "bench": example_bench(_DIGEST, _INPUT, _ENVIRONMENT),
        "check": example_check(_DIGEST, _INPUT, _ENVIRONMENT),
        "find": example_find(example_convert(), example_run().findings),
        **examples_of_tactics(_DIGEST, _INPUT, example_metrics(), _ENVIRONMENT),
        **examples_of_blame(_DIGEST, _INPUT, _ENVIRONMENT),
    }


def main(folder: Path = HERE) -> None:
    """Write every file below ``folder``, and remove those of schemas that are gone."""
    published = files()
    for place in ("schemas", "examples"):
        (folder / place).mkdir(exist_ok=True)
        for old in (folder / place).glob("*.json"):
            if f"{place}/{old.name}" not in published:
                old.unlink()
    for name, text in published.items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
