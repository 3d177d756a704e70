"""The example of ``probe.check/1`` that is published beside its schema."""

from __future__ import annotations

from probe.results.check import CheckFinding, CheckResult
from probe.results.tensors import InputInfo


def example_check(model_sha256: str, given: InputInfo, environment: dict[str, str]) -> CheckResult:
    """Of an encoder in FP16: an overflow that ends in finite and wrong values, a mask that does no harm, a piece of advice."""
    square = "/layer.3/norm/Pow_output_0"
    return CheckResult(
        verdict="errors", model="model.onnx", model_sha256=model_sha256, precision="fp16", golden="ort",
        findings=(
            CheckFinding(
                "overflow", "error", f"{square} overflows: golden reaches 91204, fp16 ends at 65504 (1.39 times too large)", square,
                "/layer.3/norm/Pow", "Pow", low=0.0, high=91204.0, absmax=91204.0, margin=0.7182, input_id="cat", inputs=1,
                index=(0, 4, 17), elements=3,
                downstream="in /layer.3/norm/Div (Div): x / Inf = 0: finite but wrong; with all else in FP32 it reaches the output logits: off "
                "by 0.31 of its range there",
                output="logits", output_error=0.31,
                cure=f"keep {square} in FP32 (or the whole network in bf16, which reaches 3.39e+38); or scale down before the square (a "
                "normalisation does not see it, with epsilon scaled by its square)",
                keep=(square, "/layer.4/norm/Pow_output_0"), like=("/layer.4/norm/Pow_output_0",),
            ),
            CheckFinding(
                "mask", "warning", "the mask /mask/min is -3.4028e+38 and becomes -Inf in fp16; it goes into /mask/Where (Where)", "/mask/min",
                "/mask/Where", "Where", low=-3.4028234663852886e38, high=-3.4028234663852886e38, absmax=3.4028234663852886e38,
                margin=1.925e-34, input_id="cat", inputs=1, index=(), elements=1,
                downstream="it ends in /layer.0/Softmax (Softmax): the results there are right",
                cure="use a mask that fp16 has, such as -1e+04, or keep it and what it flows into in FP32", keep=("/mask/min", "mask"),
            ),
            CheckFinding(
                "channels", "lint", "/head/Gemm (Gemm) has 10 columns: tensor cores take multiples of 8 in fp16, so it is padded or slower",
                "logits", "/head/Gemm", "Gemm", cure="pad to 16 when the network is trained or exported",
            ),
        ),
        rules=("overflow", "near_overflow", "constant_overflow", "channels"), nodes=118, tensors=96, inputs=(given,),
        environment=environment, command="probe check model.onnx --precision fp16 --inputs cat.npz",
        seconds={"graph": 0.01, "golden": 0.08, "rules": 0.11},
    )  # fmt: skip
