"""``Runner``: feeds in, named tensors out, in execution order and one at a time; and ``open_runner``, which finds one by its spec."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from probe.errors import InputError
from probe.results.tensors import RunHeader, TensorInfo

if TYPE_CHECKING:
    from probe.model.model import Model

Array = np.ndarray[Any, Any]

ENTRY_POINTS = "probe.runners"  # group of plugins: NAME = module:factory, factory(argument, model, options) -> Runner
_OF_A_MODEL = frozenset(
    ("ort", "fp64", "typed", "engine")
)  # runners that compute a model, and take nothing after their name
_BUILT_IN = {
    "ort": "ONNX Runtime",
    "fp64": "float64 arithmetic in numpy: slow, and exact where FP32 is not",
    "engine": "probe's own compiler and runtime",
    "typed": "a model typed FP16 or BF16, each tensor rounded to the type it declares",
    "files": "a recording, as in files:golden/",
    "python": "a callable, as in python:engine.infer or python:engine.py:infer",
    "command": 'a program, as in "command: ./engine {inputs} {outputs}"',
}


@dataclass(frozen=True, slots=True)
class RunnerTensor:
    """One tensor a runner made. ``info`` holds no statistics; ``array`` is None for rows that say why there is none."""

    info: TensorInfo
    array: Array | None


class Runner(Protocol):
    """Turns the inputs of a network into named tensors.

    ``header`` says where the tensors come from: runner, model, precision, golden, device, environment, notes. Notes may grow while
    running, so read it again at the end.
    """

    name: str

    @property
    def header(self) -> RunHeader: ...

    def run(self, feeds: Mapping[str, Array], input_id: str) -> Iterator[RunnerTensor]:
        """All tensors of one inference in execution order, network inputs not among them.

        The consumer may drop each array before it asks for the next; memory falls with it. An abandoned iterator must be closed.

        Raises:
            InputError: the inputs, the model or the user's own engine failed; says what, where and what to try.
        """
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class RunnerOptions:
    """What the user asked of a runner. Runners ignore what does not concern them."""

    providers: tuple[str, ...] = ("CPUExecutionProvider",)  # ONNX Runtime's names, or cpu, cuda, tensorrt
    threads: int = 0  # of one operator; 0: as many as there are cores
    custom_op_libs: tuple[Path, ...] = ()
    as_is: bool = False  # run FP16 and BF16 models as they are typed, instead of upcast
    memory_limit: int | None = None  # bytes the process may take; None: 70 % of what is available
    select: Callable[[str], bool] | None = None  # by recorded name: tensors nobody asked for need not be made
    timeout: float | None = None  # seconds for one run of a command
    bodies: bool = True  # also tensors inside If, Loop and Scan
    # How ``engine`` compiles; probe.engine.build says what each means.
    precision: str = "fp16"
    device: str = "cpu"
    passes: Literal["none", "safe", "all"] = "safe"
    fusion: Literal["none", "safe", "full"] = "safe"
    interior: Literal["storage", "fp32"] = "storage"
    keep: tuple[str, ...] = ()  # tensors that are never rounded; layers and nodes that stay FP32


DEFAULT_OPTIONS = RunnerOptions()


def open_runner(spec: str, model: Model | None, options: RunnerOptions = DEFAULT_OPTIONS) -> Runner:
    """The runner a spec names: ``ort``, ``fp64``, ``engine``, ``files:PATH``, ``python:module.fn``, ``python:FILE.py:fn``, ``command: ...``, or a plugin's name
    with or without ``:argument``.

    Args:
        model: needed by ``ort``, ``fp64`` and ``engine``; others use it to tell outputs from internal tensors.

    Raises:
        InputError: no such runner, or it cannot start.
    """
    kind, _, argument = spec.strip().partition(":")
    argument = argument.strip()
    if kind in ("files", "python", "command") and not argument:
        raise InputError(f"the runner {kind!r} needs more than its name", where="--runner", hint=_BUILT_IN[kind])
    if kind in _OF_A_MODEL:
        if argument:
            raise InputError(f"{spec!r}: {kind} takes nothing after its name", where="--runner")
        if model is None:
            raise InputError(f"the runner {kind!r} needs a model", where="--runner")
        return _of_a_model(kind, model, options)
    match kind:
        case "files":
            from probe.runners.files import FilesRunner

            return FilesRunner(argument, model)
        case "python":
            from probe.runners.callable import CallableRunner

            return CallableRunner(argument, model)
        case "command":
            from probe.runners.command import CommandRunner

            return CommandRunner(argument, model, options.timeout)
    return _plugin(kind, argument, model, options)


def _of_a_model(kind: str, model: Model, options: RunnerOptions) -> Runner:
    match kind:
        case "ort":
            from probe.runners.ort import OrtRunner

            return OrtRunner(model, options)
        case "engine":
            from probe.runners.engine import EngineRunner

            return EngineRunner.of(model, options)
        case "typed":
            from probe.runners.typed import TypedRunner

            return TypedRunner(model, options)
        case "fp64":
            from probe.runners.fp64.runner import Fp64Runner

            return Fp64Runner(model, options)
    raise AssertionError(kind)


def _plugin(name: str, argument: str, model: Model | None, options: RunnerOptions) -> Runner:
    from importlib.metadata import entry_points

    found = entry_points(group=ENTRY_POINTS)
    named = [point for point in found if point.name == name]
    if not named:
        known = [*_BUILT_IN, *sorted({point.name for point in found})]
        near = difflib.get_close_matches(name, known, 1, 0.6)
        listed = "; ".join(f"{key}: {_BUILT_IN[key]}" if key in _BUILT_IN else key for key in known)
        raise InputError(
            f"no runner is called {name!r}", where="--runner", hint=f"did you mean {near[0]}?" if near else listed
        )
    if len({point.value for point in named}) > 1:
        owners = ", ".join(sorted(point.dist.name if point.dist else point.value for point in named))
        raise InputError(
            f"several packages bring a runner called {name!r}: {owners}", where="--runner", hint="uninstall all but one"
        )
    from probe.runners.callable import explain_failure

    try:
        return named[0].load()(argument, model, options)
    except InputError:
        raise
    except Exception as error:
        raise explain_failure(f"the runner {name!r} of {named[0].value} cannot start", error) from error
