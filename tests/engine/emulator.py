"""The contract of design (arithmetic, keeping), written again and plainly: node by node, a rounding wherever the contract says one.

Shares no code with the engine but ``precision.round_to``'s definition, which it does not use either. For graphs without control flow,
without passes and fusion.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import ml_dtypes
import numpy as np
import onnx
import onnxruntime

MOVES = frozenset(
    "Reshape Transpose Squeeze Unsqueeze Flatten Slice Concat Split Gather GatherElements GatherND Expand Tile Identity Dropout Pad "
    "DepthToSpace SpaceToDepth ScatterND ScatterElements Trilu".split()
)
PARAMETERS = {"Resize": (1, 2), "Upsample": (1,), "QuantizeLinear": (1,), "DequantizeLinear": (1,), "OneHot": (1,)}
PRODUCTS = frozenset(("MatMul", "Gemm", "Conv", "ConvTranspose"))


def rounded(x: np.ndarray, precision: str) -> np.ndarray:
    if x.dtype != np.float32 or precision == "fp32":
        return x
    with np.errstate(over="ignore", invalid="ignore"):
        if precision == "fp16":
            return x.astype(np.float16).astype(np.float32)
        if precision == "bf16":
            return x.astype(ml_dtypes.bfloat16).astype(np.float32)
    bits = x.view(np.uint32).astype(np.uint64)  # tf32: 13 bits fewer, to nearest even
    kept = (bits + 0x0FFF + ((bits >> 13) & 1)) & 0xFFFFE000
    return np.where(np.abs(x) < 2.0**100, kept.astype(np.uint32).view(np.float32), x)


def nearest(node: onnx.NodeProto) -> bool:
    """Resizing to the nearest element copies elements."""
    modes = [a.s for a in node.attribute if a.name == "mode"]
    return node.op_type in ("Resize", "Upsample") and modes in ([], [b"nearest"])


def destroyed(x: np.ndarray, precision: str) -> bool:
    """Whether a constant loses more than digits: a finite number becomes Inf, or a scalar 0."""
    low = rounded(x, precision)
    if low.dtype.kind != "f":
        return False
    return bool(np.any(np.isfinite(x) & ~np.isfinite(low)) or (x.size == 1 and np.any((x != 0) & (low == 0))))


class Emulator:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.sessions: dict[int, onnxruntime.InferenceSession] = {}
        self.weights = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}

    def run(
        self,
        feeds: Mapping[str, np.ndarray],
        precision: str,
        *,
        fp32_nodes: Collection[str] = (),
        kept: Collection[str] = (),
    ) -> dict[str, np.ndarray]:
        """All tensors by name. ``fp32_nodes`` by the identity of the node: its name, or OpType(first output)."""
        values = {**self.weights, **{name: np.asarray(x) for name, x in feeds.items()}}
        constants = dict.fromkeys(self.weights, "wide")
        state = {**constants, **dict.fromkeys(feeds, "wide")}  # wide, low, kept
        for name in kept:
            if name in state:
                state[name] = "kept"
        for at, node in enumerate(self.model.graph.node):
            identity = node.name or f"{node.op_type}({node.output[0]})"
            wide = identity in fp32_nodes or precision == "fp32"
            moves = node.op_type in MOVES or nearest(node)
            data = [n for position, n in enumerate(node.input) if position not in PARAMETERS.get(node.op_type, ())]
            lifted = any(n in kept for n in node.output) or any(state.get(n) == "kept" for n in data)
            inputs = []
            for position, name in enumerate(node.input):
                x = values.get(name)
                reads = (
                    name
                    and not wide
                    and not moves
                    and position not in PARAMETERS.get(node.op_type, ())
                    and state.get(name) != "kept"
                    and (precision != "tf32" or node.op_type in PRODUCTS)
                    and not (lifted and name in self.weights and destroyed(x, precision))
                )
                inputs.append(rounded(x, precision) if reads and x is not None else x)
            for name, x in zip(node.output, self._node(at, node, inputs), strict=True):
                if not name:
                    continue
                if moves:
                    states = {state[n] for n in node.input if n and values[n].dtype == np.float32}
                    state[name] = "kept" if "kept" in states else states.pop() if len(states) == 1 else "wide"
                elif wide or precision == "tf32":
                    state[name] = "wide"
                else:
                    state[name] = "low"
                    if name not in kept:
                        x = rounded(x, precision)
                if name in kept:
                    state[name] = "kept"
                values[name] = x
        return values

    def _node(self, at: int, node: onnx.NodeProto, inputs: list[np.ndarray | None]) -> list[np.ndarray]:
        if at not in self.sessions:
            given = [
                onnx.helper.make_tensor_value_info(f"i{k}", onnx.helper.np_dtype_to_tensor_dtype(x.dtype), None)
                for k, x in enumerate(inputs)
                if x is not None
            ]
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.input[:] = [f"i{k}" if x is not None else "" for k, x in enumerate(inputs)]
            copy.output[:] = [f"o{k}" if name else "" for k, name in enumerate(node.output)]
            graph = onnx.GraphProto(
                name="n", node=[copy], input=given, output=[onnx.ValueInfoProto(name=n) for n in copy.output if n]
            )
            whole = onnx.ModelProto(ir_version=10, opset_import=self.model.opset_import, graph=graph)
            settings = onnxruntime.SessionOptions()
            settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            settings.log_severity_level = 4
            settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
            settings.add_session_config_entry("session.disable_prepacking", "1")
            self.sessions[at] = onnxruntime.InferenceSession(whole.SerializeToString(), settings)
        made = iter(self.sessions[at].run(None, {f"i{k}": x for k, x in enumerate(inputs) if x is not None}))
        return [next(made) if name else np.empty(0) for name in node.output]
