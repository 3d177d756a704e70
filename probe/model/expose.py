"""Make every tensor of a model fetchable, so that ONNX Runtime can hand all of them out.

At the top level nothing of the model is touched: a protobuf message that is appended to another is merged into it, so the original
bytes plus a small message that lists more graph outputs *is* the exposed model. Only models with bodies are taken apart
(``bodies.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from probe.errors import InputError
from probe.model.bodies import BodyTensor, expose_bodies
from probe.model.model import Model
from probe.model.names import TensorNames
from probe.model.quantised import steps as quantisation_steps
from probe.model.scopes import Step

_PROTOBUF_LIMIT = 2**31 - 1  # bytes


@dataclass(frozen=True, slots=True)
class Branch:
    """A condition for a tensor of an If body to exist."""

    condition: str  # graph output to fetch: a bool tensor of one element
    taken: bool  # the value it must have


@dataclass(frozen=True, slots=True)
class ExposedTensor:
    """A tensor and how to get it."""

    name: str  # what recordings call it; unique
    output_name: str  # graph output to fetch
    role: Literal["output", "internal"]
    nodes: tuple[str, ...]  # identities of its producers; two where both branches of an If make it
    reads: tuple[str, ...]  # recorded names of the tensors its producers read
    step: float | None = None  # quantisation step
    branch: tuple[
        Branch, ...
    ] = ()  # outermost first; where one does not hold, later ones mean nothing and the tensor did not run
    note: str = ""  # "stacked on axis 0 over the iterations of Loop_3"


@dataclass(frozen=True, slots=True)
class Exposure:
    """A model whose tensors are graph outputs."""

    model_bytes: bytes = field(repr=False)  # for ONNX Runtime
    external_dir: Path | None  # where external data lies: session.model_external_initializers_file_folder_path
    tensors: tuple[ExposedTensor, ...]  # in execution order; graph inputs are not among them
    not_exposed: tuple[tuple[str, str], ...]  # (name, reason)

    @property
    def conditions(self) -> tuple[str, ...]:
        """Graph outputs that must be fetched besides those of ``tensors``, to tell which branches ran."""
        return tuple(dict.fromkeys(branch.condition for tensor in self.tensors for branch in tensor.branch))


def expose(
    model: Model,
    *,
    select: Callable[[str], bool] | None = None,
    bodies: bool = True,
    loop_bodies: bool = True,
    constants: bool = False,
) -> Exposure:
    """The model with every tensor a graph output, computing what it computed before.

    Args:
        select: keeps a tensor by its recorded name; graph outputs too are left out where it says False. All by default.
        bodies: also tensors inside If, Loop and Scan.
        loop_bodies: also those inside Loop and Scan. ONNX Runtime stacks them, and stops where their shape changes from one
            iteration to the next: run again without, then.
        constants: also what Constant nodes make. They and weights are part of the model and otherwise left out without a word.

    Raises:
        InputError: the model file changed on disk, or has no room for more outputs under protobuf's 2 GB.
    """
    wanted = select if select is not None else lambda _name: True
    names = TensorNames(model.root, constants=constants)
    root, missing = model.root, list(_in_functions(model))
    if model.needs_rewrite or (model.has_bodies and bodies):
        surgery = expose_bodies(model, names, wanted, bodies=bodies, loop_bodies=loop_bodies)
        names, root = surgery.names, surgery.root
        content, inside = surgery.model_bytes, surgery.tensors
        missing += surgery.not_exposed
    else:
        missing += [(name, "inside a body; bodies were left out") for name in _body_names(model, names, wanted)]
        content, inside = None, {}

    steps = quantisation_steps(model)
    outputs = set(root.outputs)
    tensors: list[ExposedTensor] = []
    for top in root.steps:
        tensors += [_body_tensor(found, steps) for found in inside.get(top.identity, ())]
        if names.counts(top):
            tensors += [_top_tensor(name, top, names, outputs, steps) for name in top.outputs if wanted(name)]
    made = root.producers
    for name in dict.fromkeys(root.outputs):
        if name in root.inputs and wanted(name):
            missing.append((name, "a graph input passed through; recorded as an input"))
        elif name not in root.inputs and wanted(name) and (name not in made or not names.counts(made[name])):
            tensors.append(ExposedTensor(name, name, "output", (), ()))  # a weight or constant the graph returns

    extra = [t.output_name for t in tensors] + [b.condition for t in tensors for b in t.branch]
    suffix = _outputs_message(name for name in dict.fromkeys(extra) if name not in outputs)
    if content is None:
        content = model.proto_bytes(suffix)
    else:
        content += suffix
    if len(content) > _PROTOBUF_LIMIT:
        hint = "save the model with external data: onnx.save(..., save_as_external_data=True)"
        raise InputError("the model has no room for more outputs under 2 GB", where=str(model.path), hint=hint)
    folder = model.base_dir.resolve() if model.external_files else None
    return Exposure(content, folder, tuple(tensors), tuple(missing))


def _top_tensor(name: str, step: Step, names: TensorNames, outputs: set[str], steps: dict[str, float]) -> ExposedTensor:
    role = "output" if name in outputs else "internal"
    return ExposedTensor(name, name, role, (step.identity,), names.reads(step), steps.get(name))


def _body_tensor(found: BodyTensor, steps: dict[str, float]) -> ExposedTensor:
    branch = tuple(Branch(condition.output_name, taken) for condition, taken in found.branch)
    step = steps.get(found.name)
    return ExposedTensor(found.name, found.output_name, "internal", found.nodes, found.reads, step, branch, found.note)


def _outputs_message(names: Iterable[str]) -> bytes:
    """A serialised model that holds nothing but graph outputs with these names. ONNX Runtime infers their types itself."""
    import onnx

    outputs = [onnx.ValueInfoProto(name=name) for name in names]
    return onnx.ModelProto(graph=onnx.GraphProto(output=outputs)).SerializeToString() if outputs else b""


def _body_names(model: Model, names: TensorNames, wanted: Callable[[str], bool]) -> list[str]:
    shown = (
        names.of(step.scope, name)
        for step in model.root.in_execution_order()
        if step.scope is not model.root and names.counts(step)
        for name in step.outputs
    )
    return [name for name in dict.fromkeys(shown) if wanted(name)]


def _in_functions(model: Model) -> list[tuple[str, str]]:
    called = {(step.node.domain, step.node.op_type) for step in model.root.in_execution_order()}
    functions = [f for f in model.proto.functions if (f.domain, f.name) in called]
    return [
        (f"local function {f.name}", "tensors inside local functions are not recorded, their outputs are")
        for f in functions
    ]
