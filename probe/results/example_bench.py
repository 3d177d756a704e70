"""The example of ``probe.bench/1`` that is published beside its schema."""

from __future__ import annotations

from typing import Any

from probe.results.bench import BenchResult, Ceilings, InferenceTimes, LayerTime, MemoryPlan, Spread
from probe.results.inspect import PortReport
from probe.results.tensors import InputInfo

_ROOF, _BANDWIDTH = 150e9, 20e9


def example_bench(model_sha256: str, given: InputInfo, environment: dict[str, str]) -> BenchResult:
    """Of a small classifier in FP32 on two cores: a convolution that computes, a layer that moves memory, a branch that did not run."""
    layers = (
        example_layer_time("conv1 + relu1", "conv", 0.00412, flops=231_211_008, moved=6_460_416, live_bytes=5_619_712, share=0.53),
        example_layer_time("pool1", "pool", 0.00174, flops=7_225_344, moved=4_014_080, live_bytes=4_014_080, share=0.224),
        example_layer_time("fc + softmax", "gemm", 0.00191, flops=51_380_224, moved=30_105_216, live_bytes=816_640, share=0.246),
        example_layer_time("If_1/else_branch/Mul_2", "pointwise", None, flops=1000, moved=8000, live_bytes=None, share=None,
                           scope="If_1/else_branch"),
    )  # fmt: skip
    return BenchResult(
        status="unstable",
        warnings=("the machine was busy: other programs kept 0.7 of 2 cores working meanwhile",),
        model="model.onnx", model_sha256=model_sha256, precision="fp32", device="cpu: FP32, nothing rounded",
        executor="one session for the whole network", emulated=False, streams=1,
        latency=Spread(4, 0.00731, 0.007475, 0.00748, 0.007603, 0.0076215, 0.0076363, 0.00764, 0.000141),
        compute=Spread(4, 0.00725, 0.00741, 0.007415, 0.007537, 0.0075535, 0.0075667, 0.00757, 0.000139),
        input_copy=Spread(4, 3.1e-05, 3.25e-05, 3.2e-05, 3.41e-05, 3.455e-05, 3.491e-05, 3.5e-05, 1.7e-06),
        output_copy=Spread(4, 2.9e-05, 3.25e-05, 3.3e-05, 3.47e-05, 3.485e-05, 3.497e-05, 3.5e-05, 2.6e-06),
        enqueue=None, throughput=133.6, batch=1, layers=layers, layers_sum=0.00777, layers_whole=0.00744, call_seconds=2.4e-05,
        ceilings=Ceilings(_ROOF, _BANDWIDTH,
                          "the best of several runs: FP32 products of 512 x 512 and 1024 x 1024 matrices; 134 MB moved, half read and half written"),
        memory=MemoryPlan(5_619_712, 5_619_712, "conv1 + relu1", 102_447_168, 4,
                          note="ONNX Runtime allocates by itself on the CPU; this is the plan of a device with one block"),
        times=tuple(
            InferenceTimes(0, begin, begin + 3.2e-05, begin + 0.00742, begin + 0.00745)
            for begin in (0.0, 0.00747, 0.01494, 0.02241)
        ),
        inferences=4, warmup_inferences=70, measured_seconds=0.02994, other_load=0.7, load_seconds=0.012,
        compile_seconds={"read": 0.04, "passes": 0.02, "fusion": 0.01, "gated session": 0.13}, inputs=(given,),
        tensors=(PortReport("image", "float32", (1, 3, 224, 224)), PortReport("relu1_out", "float32", (1, 64, 112, 112)),
                 PortReport("pool1_out", "float32", (1, 64, 56, 56)), PortReport("softmax_out", "float32", (1, 1000))),
        graph_inputs=("image",), graph_outputs=("softmax_out",),
        environment=environment, command="probe bench model.onnx --inputs cat.npz --iterations 4",
        seconds={"compile": 0.21, "latency": 0.55, "layers": 1.1, "ceilings": 1.2},
    )  # fmt: skip


def example_layer_time(
    name: str,
    kind: str,
    seconds: float | None,
    *,
    flops: int,
    moved: int,
    live_bytes: int | None,
    share: float | None,
    scope: str = "",
) -> LayerTime:
    """A layer, its rates and its place under the roofs of the example; ``seconds`` None: it did not run."""
    row: dict[str, Any] = {
        "name": name, "kind": kind, "pattern": "conv_activation" if "relu" in name else "", "nodes": tuple(name.split(" + ")),
        "outputs": (f"{name.rsplit(' + ', maxsplit=1)[-1]}_out",), "precision": "fp32", "tactic": "exact", "flops": flops, "bytes": moved,
        "live_bytes": live_bytes, "scope": scope, "reads": ("image",) if "conv1" in name else ("relu1_out",),
    }  # fmt: skip
    if seconds is None:
        return LayerTime(**row, runs=0)
    compute, memory = flops / _ROOF, moved / _BANDWIDTH
    floor = max(compute, memory)
    return LayerTime(
        **row, runs=10, min=seconds * 0.97, mean=seconds * 1.01, median=seconds, share=share, flops_per_second=flops / seconds,
        bytes_per_second=moved / seconds, floor=floor, roofline=floor / seconds, bound="compute" if compute >= memory else "memory",
    )  # fmt: skip
