"""What a model says about tensors a runner returned by name: role, producer, what was read for it. And what machine it ran on."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from probe.errors import InputError
from probe.precision import dtype_name
from probe.results.tensors import Role, RowStatus, TensorInfo
from probe.runners.protocol import Array, RunnerTensor

if TYPE_CHECKING:
    from probe.model.model import Model


class Provenance:
    """Rows for tensors that are known by name only."""

    def __init__(self, model: Model | None) -> None:
        self._outputs = None if model is None else {port.name for port in model.outputs}
        self._inputs = set() if model is None else {port.name for port in model.inputs}
        self._makers: Mapping[str, tuple[str, tuple[str, ...]]] = {}
        if model is not None:
            made = self._inputs | {name for node in model.nodes for name in node.outputs if node.op != "Constant"}
            self._makers = {
                name: (node.identity, tuple(dict.fromkeys(read for read in node.inputs if read in made)))
                for node in model.nodes
                for name in node.outputs
                if name
            }

    def is_input(self, name: str) -> bool:
        return name in self._inputs

    def tensor(self, name: str, array: Array, input_id: str) -> RunnerTensor:
        """The tensor with what the model knows of it. Without a model nothing says what is internal, so everything is an output."""
        node, reads = self._makers.get(name, (None, ()))
        info = TensorInfo(
            name=name,
            dtype=dtype_name(array.dtype),
            shape=tuple(array.shape),
            input_id=input_id,
            role="output" if self._outputs is None or name in self._outputs else "internal",
            nodes=() if node is None else (node,),
            reads=reads,
        )
        return RunnerTensor(info, array)


class Placed(Protocol):
    """What a runner that walks a model knows of a tensor before it runs."""

    @property
    def name(self) -> str: ...
    @property
    def role(self) -> Role: ...
    @property
    def nodes(self) -> tuple[str, ...]: ...
    @property
    def reads(self) -> tuple[str, ...]: ...
    @property
    def step(self) -> float | None: ...


def row_of(
    tensor: Placed,
    elements: Mapping[str, Sequence[str]],
    input_id: str,
    suffix: str,
    dtype: str,
    shape: Sequence[int],
    note: str,
    status: RowStatus = "recorded",
) -> TensorInfo:
    """The row of a tensor, or of an element of a sequence.

    Args:
        elements: sequence -> names of the rows that stand for it in this run.
        suffix: of an element's name; "" for a tensor.
    """
    return TensorInfo(
        name=tensor.name + suffix,
        dtype=dtype,
        shape=tuple(shape),
        input_id=input_id,
        role=tensor.role,
        status=status,
        nodes=tensor.nodes,
        reads=tuple(name for read in tensor.reads for name in elements.get(read, (read,))),
        step=tensor.step,
        note=note,
    )


def as_array(name: str, value: Any, owner: str) -> Array:
    """What an engine returned, as a numpy array; torch and other tensors on the CPU are taken without a copy.

    Raises:
        InputError: it is no tensor of a type probe stores.
    """
    if not isinstance(value, np.ndarray):
        # Tensors that belong to a computation of gradients refuse to become numpy arrays until they are detached.
        detach = getattr(value, "detach", None)
        value = detach() if callable(detach) else value
    try:
        array = np.asarray(value)
        dtype = dtype_name(array.dtype)
    except (TypeError, ValueError, RuntimeError, BufferError, InputError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"tensor {name!r} is a {type(value).__name__} that cannot become a numpy array: {said}",
            where=owner,
            hint="return numpy arrays; tensors on a GPU must be copied to the CPU first",
        ) from error
    if dtype == "string" and array.dtype == object and not all(isinstance(x, (str, bytes)) for x in array.reshape(-1)):
        raise InputError(
            f"tensor {name!r} is a {type(value).__name__} of Python objects, not of numbers",
            where=owner,
            hint="return numpy arrays",
        )
    return array


def environment(**versions: str) -> dict[str, str]:
    """Versions and machine for a run header."""
    from probe import __version__

    machine = f"{platform.system()} {platform.machine()}"
    base = {"probe": __version__, "python": platform.python_version(), "numpy": np.__version__, "machine": machine}
    return {**base, **versions}
