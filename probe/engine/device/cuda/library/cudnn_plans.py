"""cuDNN: which of its plans compute a convolution, and running one of them on a stream.

A graph of the library holds what one plan computes: the convolution, the bias, something added, Relu. What lies between
them is FP32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from threading import RLock
from typing import Any

from probe.engine.device.cuda.backend import Argument
from probe.engine.device.cuda.errors import CudaError
from probe.engine.device.cuda.library import installed
from probe.engine.device.cuda.library.conv_problem import ConvProblem
from probe.engine.device.cuda.library.routine import Enqueue, Routine
from probe.engine.tactics.library import NOTES, DnnPlan

WORKSPACE = 256 << 20  # bytes that a plan may ask for
_TYPES = {"float": "FLOAT", "f16": "HALF", "bf16": "BFLOAT16"}
_X, _W, _BIAS, _ADDED, _Y = 1, 2, 3, 4, 5  # numbers of tensors in a graph
_ENGINES = 10_000  # numbers from here on are of engines that the frontend brings along
_OTHERWISE = ("R", "F", "W", "4", "6", "13", "X")  # notes of plans that compute something else than is asked for
_LOWER = ("D", *_OTHERWISE)
Key = tuple[int, tuple[tuple[int, int], ...]]  # engine, knobs
_COMPILED = 2  # plans of one problem whose kernels the library compiles, up to a second each
_BUILT: dict[tuple[ConvProblem, DnnPlan], tuple[Any, int]] = {}  # graph, number of the plan in it
_LOCK = RLock()  # the library's handle has one stream at a time


@dataclass(frozen=True, slots=True)
class PlanOffer:
    """A plan for a convolution, and the memory it needs beside it."""

    plan: DnnPlan
    workspace: int


@cache
def _handle() -> Any:
    """Of the library in the first GPU's context, which must be current."""
    return installed.find_cudnn().module.create_handle()


def _graph(problem: ConvProblem) -> Any:
    """A problem as the library's graph, without plans."""
    lib = installed.find_cudnn().module
    kinds = lib.data_type
    types = {name: getattr(kinds, own) for name, own in _TYPES.items()}
    graph = lib.pygraph(
        io_data_type=types[problem.format], intermediate_data_type=kinds.FLOAT, compute_data_type=kinds.FLOAT, handle=_handle()
    )  # fmt: skip

    def tensor(name: str, uid: int, layout: tuple[list[int], list[int]], format_name: str) -> Any:
        return graph.tensor(name=name, dim=layout[0], stride=layout[1], data_type=types[format_name], uid=uid)

    x, w = tensor("x", _X, problem.x, problem.format), tensor("w", _W, problem.w, problem.format)
    made = graph.conv_fprop(
        image=x, weight=w, pre_padding=list(problem.before), post_padding=list(problem.after), stride=list(problem.strides),
        dilation=list(problem.dilations),
    )  # fmt: skip
    if problem.bias:
        shape = [1, problem.outputs, 1, 1]
        row = tensor("bias", _BIAS, (shape, [problem.outputs, 1, problem.outputs, problem.outputs]), problem.bias)
        made = graph.bias(input=made, bias=row)
    if problem.added:
        made = graph.add(a=made, b=tensor("added", _ADDED, problem.y, problem.added))
    if problem.relu:
        made = graph.relu(input=made)
    extents, strides = problem.y
    made.set_output(True).set_dim(extents).set_stride(strides).set_data_type(types[problem.stored]).set_uid(_Y)
    graph.validate()
    graph.build_operation_graph()
    return graph


def _planned(problem: ConvProblem, *, every: bool) -> tuple[Any, tuple[str, ...]]:
    """The graph with the library's plans, and letters of the notes that none of those has which can be built.

    Args:
        every: also plans that round inside, multiply transforms, or differ from run to run.
    """
    lib, graph = installed.find_cudnn().module, _graph(problem)
    graph.create_execution_plans([lib.heur_mode.A, lib.heur_mode.FALLBACK])
    letters = (
        ()
        if every
        else (*(_OTHERWISE if problem.tf32 else _LOWER), *("T" * (problem.format == "float" and not problem.tf32)))
    )
    barred = tuple(letter for letter in letters if NOTES[letter][0] in lib.numerical_note.__members__)
    for letter in barred:
        graph.deselect_numeric_notes([lib.numerical_note.__members__[NOTES[letter][0]]])
    return graph, barred


def _key(graph: Any, at: int) -> Key | None:
    """How to ask for a plan again; None where one cannot: the library's own choice among what it does not show, engines of the frontend's, and
    knobs that the frontend has no number for (it calls them all 0)."""
    try:
        engine, knobs = graph.get_engine_and_knobs_at_index(at)
    except NotImplementedError:
        return None
    chosen = tuple(sorted((int(kind), int(value)) for kind, value in knobs.items()))
    return (int(engine), chosen) if int(engine) < _ENGINES and all(kind for kind, _ in chosen) else None


def _builds(graph: Any, at: int) -> bool:
    """Whether a plan can be built; False, too, for one that was deselected."""
    try:
        graph.build_plan_at_index(at)
    except (installed.find_cudnn().module.cudnnGraphNotSupportedError, RuntimeError, ValueError):
        return False
    return True


@cache
def plan_offers(problem: ConvProblem, most: int = 12, *, every: bool = False) -> tuple[PlanOffer, ...]:
    """Plans for a problem, those first that the library takes for the fastest; none when it knows none. They are built.

    Args:
        every: also plans that round inside, multiply transforms, or differ from run to run.

    Raises:
        InputError: the library is not there.
    """
    found = installed.find_cudnn()
    with _LOCK:
        try:
            graph, barred = _planned(problem, every=every)
        except (found.module.cudnnGraphNotSupportedError, RuntimeError):
            return ()
        kept: dict[int, Key] = {}
        compiled = 0
        for at in range(graph.get_execution_plan_count()):
            key = _key(graph, at)
            if key is None or key in kept.values():
                continue
            slow = _compiles(graph, at)
            if (slow and compiled == _COMPILED) or not _builds(graph, at):
                continue
            kept[at] = key
            compiled += slow
            if len(kept) == most:
                break
        notes = _notes(problem, kept, barred)
        order = "last" if problem.last else "first"
        made = []
        for at, key in kept.items():
            plan = DnnPlan(found.version, order, *key, notes[at])
            _BUILT[problem, plan] = graph, at
            made.append(PlanOffer(plan, int(graph.get_workspace_size_plan_at_index(at))))
    return tuple(one for one in made if one.workspace <= WORKSPACE)


def _notes(problem: ConvProblem, kept: Mapping[int, Key], barred: tuple[str, ...]) -> dict[int, tuple[str, ...]]:
    """Letters of the notes that plans have. The library tells them only by what it deselects: plans that lack a note, or for the one that most
    have, that have it."""
    notes = installed.find_cudnn().module.numerical_note
    found: dict[int, list[str]] = {at: [] for at in kept}
    for letter, (name, _) in NOTES.items():
        if name not in notes.__members__ or letter in barred or not kept:
            continue
        graph, _ = _planned(problem, every=True)
        if letter == "T":
            graph.deselect_numeric_notes([notes.__members__[name]])
        else:
            graph.select_numeric_notes([notes.__members__[name]])
        for at, own in found.items():
            if _builds(graph, at) != (letter == "T"):
                own.append(letter)
    return {at: tuple(own) for at, own in found.items()}


def _compiles(graph: Any, at: int) -> bool:
    """Whether building a plan compiles a kernel."""
    notes = installed.find_cudnn().module.behavior_note
    return notes.RUNTIME_COMPILATION in graph.get_behavior_notes_for_plan_at_index(at)


@cache
def plan_workspace(problem: ConvProblem, plan: DnnPlan) -> int | str:
    """Bytes that a plan needs for a problem, or why it does not compute it. Nothing is searched for."""
    with _LOCK:
        try:
            graph, at = _built(problem, plan)
            return int(graph.get_workspace_size_plan_at_index(at))
        except (installed.find_cudnn().module.cudnnGraphNotSupportedError, RuntimeError, ValueError) as error:
            return f"cuDNN does not compute it so: {error}"


def _built(problem: ConvProblem, plan: DnnPlan) -> tuple[Any, int]:
    """A graph and which of its plans it is, built; kept, since building may compile."""
    if (problem, plan) not in _BUILT:
        lib, graph = installed.find_cudnn().module, _graph(problem)
        graph.create_execution_plan(plan.engine, {lib.knob_type(kind): value for kind, value in plan.knobs})
        graph.build_plan_at_index(0)
        _BUILT[problem, plan] = graph, 0
    return _BUILT[problem, plan]


@dataclass(frozen=True, slots=True)
class ConvRoutine(Routine):
    """A convolution by one plan. Arguments: x, w, bias, what is added, y, workspace; what there is not is null."""

    problem: ConvProblem
    plan: DnnPlan

    @property
    def entry(self) -> str:
        return "cudnn"

    def __str__(self) -> str:
        return str(self.plan)

    def ready(self) -> Enqueue:
        """As ``Routine.ready``."""
        found = installed.find_cudnn()
        installed.same_version(found, str(self), self.plan.version)
        lib, problem = found.module, self.problem
        with _LOCK:
            try:
                graph, at = _built(problem, self.plan)
            except (lib.cudnnGraphNotSupportedError, RuntimeError, ValueError) as error:
                raise CudaError(f"cuDNN refuses {self}: {error}", hint="tune again") from error

        def enqueue(arguments: Sequence[Argument], stream: int) -> None:
            x, w, bias, added, y, workspace = (one.value or 0 for one in arguments)
            given = {_X: x, _W: w, _Y: y}
            given |= ({_BIAS: bias} if problem.bias else {}) | ({_ADDED: added} if problem.added else {})
            with _LOCK:
                try:
                    lib.set_stream(handle=_handle(), stream=stream)
                    graph.execute_plan_at_index(given, workspace, at, handle=_handle())
                except (lib.cudnnGraphNotSupportedError, RuntimeError) as error:
                    raise CudaError(f"cuDNN fails in {self}: {error}", hint="--deny cudnn") from error

        return enqueue
