"""``engine``: the compiled network, every stored tensor handed out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from probe.engine.network import bodies_of, origin
from probe.precision import dtype_name
from probe.results.tensors import RunHeader, TensorInfo
from probe.runners.protocol import DEFAULT_OPTIONS, Array, RunnerOptions, RunnerTensor
from probe.runners.provenance import environment

if TYPE_CHECKING:
    from probe import ir
    from probe.engine.device.protocol import Tapped
    from probe.engine.engine import Engine
    from probe.engine.layers import Layer
    from probe.model.model import Model

_STORED = {"fp16": "fp16", "bf16": "bf16"}  # what a row says of values that are held in float32


class EngineRunner:
    """An engine as a runner.

    Args:
        engine: compiled before; the runner does not change it.
    """

    name = "engine"

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._outputs = frozenset(port.name for port in engine.model.outputs)
        self._nodes: dict[str, dict[str, ir.Node]] = {}

    @classmethod
    def of(cls, model: Model, options: RunnerOptions = DEFAULT_OPTIONS) -> EngineRunner:
        """Compile a model as the options say.

        Raises:
            InputError: it cannot be compiled so.
        """
        from probe.engine.build import compile_model

        engine = compile_model(
            model, precision=options.precision, device=options.device, passes=options.passes, fusion=options.fusion, interior=options.interior,
            threads=options.threads, libraries=options.custom_op_libs, keep=options.keep,
        )  # fmt: skip
        return cls(engine)

    @property
    def header(self) -> RunHeader:
        import onnxruntime

        settings, model = self.engine.settings, self.engine.model
        return RunHeader(
            runner="engine",
            model=str(model.path),
            model_sha256=model.sha256,
            precision=settings.precision,
            device=settings.device,
            interior=settings.interior,
            passes=settings.passes,
            fusion=settings.fusion,
            environment=environment(onnxruntime=onnxruntime.__version__),
            notes=model.notes,
        )

    def run(self, feeds: Mapping[str, Array], input_id: str) -> Iterator[RunnerTensor]:
        """As ``Runner.run``. Rows in execution order: every tensor a layer stores, ``not_run`` for branches that were not taken, at the
        end the graph outputs that no layer makes (an input or a weight the graph returns, an output that a pass found to equal another).

        Raises:
            InputError: the inputs do not fit, or a layer fails.
        """
        running = self.engine.stream(feeds, self.engine.assignment)
        seen: set[str] = set()
        while True:
            try:
                tapped = next(running)
            except StopIteration as done:
                outputs: dict[str, Array] = done.value
                break
            seen.add(tapped.name)
            yield RunnerTensor(self._info(tapped, input_id), tapped.array)
        for name, array in outputs.items():
            if name not in seen:
                info = TensorInfo(name, dtype_name(array.dtype), array.shape, input_id=input_id, role="output")
                yield RunnerTensor(info, array)

    def _info(self, tapped: Tapped, input_id: str) -> TensorInfo:
        layer, array = tapped.layer, tapped.array
        base = tapped.name.rpartition("[")[0] or tapped.name
        node = self._makers(layer).get(tapped.name) or self._makers(layer).get(base)
        return TensorInfo(
            name=tapped.name,
            dtype="unknown" if array is None else dtype_name(array.dtype),
            shape=() if array is None else array.shape,
            input_id=input_id,
            role="output" if tapped.name in self._outputs or base in self._outputs else "internal",
            status=tapped.status,
            precision=_STORED.get(tapped.choice.precision),
            layer=layer.name,
            nodes=origin(node) if node is not None else layer.origin,
            reads=self._reads(layer, node),
            tactic=tapped.choice.tactic,
            note=tapped.note,
        )

    def _makers(self, layer: Layer) -> dict[str, ir.Node]:
        if layer.name not in self._nodes:
            self._nodes[layer.name] = {value.name or "": node for node in layer.nodes for value in node.outputs}
        return self._nodes[layer.name]

    def _reads(self, layer: Layer, node: ir.Node | None) -> tuple[str, ...]:
        """What a tensor is made from, as far as it is handed out: the node's inputs, or the layer's where the interior is not."""
        if layer.kind == "if":
            values = [value for body in bodies_of(layer.nodes[0]).values() for value in body.outputs]
        elif node is not None and self.engine.settings.interior == "storage" and not bodies_of(node):
            values = [value for value in node.inputs if value is not None]
        else:
            values = list(layer.reads)
        return tuple(dict.fromkeys(value.name or "" for value in values if not value.is_initializer()))

    def close(self) -> None:
        return None
