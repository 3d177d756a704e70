"""``ort``: ONNX Runtime with optimisation off and every tensor handed out. Makes the goldens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from probe.errors import InputError
from probe.model.expose import ExposedTensor, Exposure, expose
from probe.model.feeds import check_feeds
from probe.model.sizes import tensor_bytes
from probe.ort.errors import explain, is_ort_error
from probe.ort.values import Taken, from_ort, to_ort
from probe.precision import dtype_name, precision_of
from probe.results.tensors import RunHeader, TensorInfo
from probe.runners.memory import chunks, default_limit, peak_of_live_tensors, resident_bytes, return_freed_memory
from probe.runners.ort_session import build_session, resolve_providers
from probe.runners.protocol import DEFAULT_OPTIONS, Array, RunnerOptions, RunnerTensor
from probe.runners.provenance import environment, row_of
from probe.runners.saturation import saturation_note

if TYPE_CHECKING:
    import onnxruntime

    from probe.model.model import Model

_OVERHEAD = 16 << 20  # bytes: threads, allocator, what Python takes meanwhile
_MANY = 1 << 20  # bytes of weights under which keeping the sessions of all chunks costs nothing worth saving


@dataclass(slots=True)
class _Plan:
    """How the tensors of one set of input shapes are made: together, or cut into parts."""

    parts: list[tuple[str, ...]]  # recorded names, in execution order
    not_exposed: dict[str, str]  # name -> reason
    whole: Exposure | None  # until the session is built, where one part holds everything


@dataclass(slots=True)
class _Part:
    """A session that hands out some of the tensors."""

    session: onnxruntime.InferenceSession
    tensors: tuple[ExposedTensor, ...]
    conditions: tuple[str, ...]
    not_exposed: dict[str, str]


class OrtRunner:
    """ONNX Runtime's CPU provider, or those of ``options.providers``.

    Models typed FP16 or BF16 are upcast to FP32, weights exact, unless ``options.as_is``: ONNX Runtime's CPU provider would compute them in
    FP32 anyway, but round here and there. Q/DQ nodes are kept. When the tensors do not fit ``options.memory_limit`` together, each part of
    them is made by a session of its own; the values are the same.

    Raises:
        InputError: a provider that does not exist here.
    """

    name = "ort"

    def __init__(self, model: Model, options: RunnerOptions = DEFAULT_OPTIONS) -> None:
        self._original = model
        self._options = options
        self._providers = resolve_providers(options.providers)
        self._upcast = bool(model.half) and not options.as_is
        self._model_to_run: Model | None = None
        self._notes: list[str] = list(model.notes)
        # What to expose inside bodies; taken back, with a note, where ONNX Runtime cannot hand it out.
        self._bodies, self._loop_bodies = options.bodies, options.bodies
        self._plans: dict[tuple[tuple[int, ...], ...], _Plan] = {}  # by input shapes
        self._parts: dict[tuple[str, ...], _Part] = {}
        self._limited = False  # memory is short
        self._elements: dict[str, tuple[str, ...]] = {}  # rows of the current run that stand for one sequence
        if saturates := saturation_note(model):
            self._note(saturates)
        if options.as_is and model.half:
            self._note(
                f"run as typed: ONNX Runtime's CPU provider computes {model.half} in FP32, so overflow inside is not shown"
            )

    @property
    def header(self) -> RunHeader:
        import onnxruntime

        numerics, half = self._original.numerics, self._original.half
        stored = "float32" if self._upcast and numerics == half else numerics
        made = [f"upcast from {half}"] if self._upcast else []
        made += ["qdq kept"] if numerics == "qdq" else []
        return RunHeader(
            runner="ort",
            model=str(self._original.path),
            model_sha256=self._original.sha256,
            precision=precision_of(stored) or stored,
            golden=", ".join(made) or "as_is",
            device="cpu" if self._providers == ["CPUExecutionProvider"] else ", ".join(self._providers),
            passes="none",
            fusion="none",
            environment=environment(onnxruntime=onnxruntime.__version__, providers=", ".join(self._providers)),
            notes=tuple(self._notes),
        )

    def _note(self, text: str) -> None:
        if text not in self._notes:
            self._notes.append(text)

    @property
    def _model(self) -> Model:
        if self._model_to_run is None:
            self._model_to_run = self._original
            if self._upcast:
                from probe.model.upcast import upcast

                self._model_to_run = upcast(self._original)
        return self._model_to_run

    def run(self, feeds: Mapping[str, Array], input_id: str) -> Iterator[RunnerTensor]:
        """As ``Runner.run``. Rows: tensors in execution order, ``not_run`` for those of an If branch that was not taken, at the end
        ``unsupported`` for those that cannot be handed out. A sequence gives a row an element, ``NAME[i]``.

        Raises:
            InputError: the inputs do not fit, or ONNX Runtime refuses the model or fails.
        """
        said: list[str] = []
        checked = check_feeds(self._original, feeds, notes=said)
        for note in said:
            self._note(note)
        # Widening FP16 inputs to the upcast model's FP32 is exact; anything else was said above.
        model_feeds = check_feeds(self._model, checked)
        plan = self._plan(model_feeds)
        unsupported = dict(plan.not_exposed)
        self._elements.clear()
        for names in plan.parts:
            part, values = self._execute(plan, names, model_feeds)
            made = {tensor.name for tensor in part.tensors}
            unsupported |= {name: part.not_exposed.get(name, "not handed out") for name in names if name not in made}
            yield from self._rows(part, values, input_id)
            del part, values  # the next session is built without this one beside it
        inputs = {port.name for port in self._model.inputs}
        for name, reason in unsupported.items():
            if name.startswith("local function "):
                self._note(f"{name}: {reason}")
            elif name not in inputs:
                info = TensorInfo(name, "unknown", (), input_id=input_id, status="unsupported", note=reason)
                yield RunnerTensor(info, None)

    # --- which tensors together --------------------------------------------------------------------------------------

    def _plan(self, feeds: Mapping[str, Array]) -> _Plan:
        shapes = tuple(array.shape for array in feeds.values())
        if shapes not in self._plans:
            self._plans[shapes] = self._cut(feeds)
        return self._plans[shapes]

    def _cut(self, feeds: Mapping[str, Array]) -> _Plan:
        whole = self._expose(self._options.select)
        names = tuple(tensor.name for tensor in whole.tensors)
        sizes = tensor_bytes(whole, feeds)
        largest = max(sizes.values(), default=0)
        budget = self._budget(whole, sizes)
        if sum(sizes.values()) <= budget:
            return _Plan([names], dict(whole.not_exposed), whole)
        if largest > budget:
            self._note(
                f"the memory limit leaves {max(budget, 0) / 1e6:.0f} MB for tensors and the largest takes {largest / 1e6:.0f} MB: "
                "the limit may be exceeded"
            )
        parts = [tuple(part) for part in chunks(names, sizes, budget)]
        self._limited = True
        self._note(f"recorded in {len(parts)} parts, a session each, to stay within the memory limit")
        return _Plan(parts, dict(whole.not_exposed), None)

    def _budget(self, whole: Exposure, sizes: Mapping[str, int]) -> int:
        """Bytes left for tensors that are handed out together: the limit, less what is there now, the weights, and what runs besides."""
        limit = self._options.memory_limit or default_limit()
        external = sum(path.stat().st_size for path in self._model.external_files)
        weights = len(whole.model_bytes) + external
        there = resident_bytes() - len(whole.model_bytes)  # ours goes once the session is built
        if there + 2 * len(whole.model_bytes) + weights > limit:
            self._note("the memory limit is below what ONNX Runtime takes to read the weights: it may be exceeded")
        order = [((tensor.name,), tensor.reads) for tensor in whole.tensors]
        # Kernels take room to work in, as a rule up to the size of what they make.
        room = peak_of_live_tensors(order, sizes) + max(sizes.values(), default=0) + _OVERHEAD
        return limit - there - weights - room

    def _expose(self, select: Callable[[str], bool] | None) -> Exposure:
        return expose(self._model, select=select, bodies=self._bodies, loop_bodies=self._loop_bodies)

    # --- running -----------------------------------------------------------------------------------------------------

    def _execute(
        self, plan: _Plan, names: tuple[str, ...], feeds: Mapping[str, Array]
    ) -> tuple[_Part, dict[str, Taken]]:
        """Run one part. Where it fails with tensors inside bodies handed out and works without, they are given up, with a note."""
        first: InputError | None = None
        while True:
            try:
                part = self._part(plan, names)
                values = self._fetch(part, feeds)
            except InputError as error:
                if not self._model.has_bodies or not self._bodies:
                    raise  # the model itself, or its inputs
                first = first or error
                self._bodies, self._loop_bodies = self._loop_bodies, False
                self._parts.clear()
                plan.whole = None
                continue
            if first is not None:
                which = "Loop and Scan bodies" if self._bodies else "bodies"
                self._note(f"tensors inside {which} are not recorded: with them handed out, {first.what}")
            return part, values

    def _part(self, plan: _Plan, names: tuple[str, ...]) -> _Part:
        if names in self._parts:
            plan.whole = None
            return self._parts[names]
        if self._weight_bytes > _MANY:
            self._parts.clear()  # before the next is built: two sessions hold the weights twice
        if self._limited:
            return_freed_memory()
        exposure = plan.whole or self._expose(frozenset(names).__contains__)
        plan.whole = None
        session = build_session(
            self._model, exposure.model_bytes, exposure.external_dir, self._options, self._providers
        )
        part = _Part(session, exposure.tensors, exposure.conditions, dict(exposure.not_exposed))
        self._parts[names] = part
        del exposure
        if self._limited:
            return_freed_memory()  # what reading the weights took
        return part

    @property
    def _weight_bytes(self) -> int:
        return sum(path.stat().st_size for path in (self._model.path, *self._model.external_files))

    def _fetch(self, part: _Part, feeds: Mapping[str, Array]) -> dict[str, Taken]:
        """All values of one run by output name. Each array holds its own memory, so it goes when it is dropped."""
        outputs = list(dict.fromkeys([tensor.output_name for tensor in part.tensors] + list(part.conditions)))
        if not outputs:
            return {}
        try:
            fetched = part.session.run_with_ort_values(outputs, to_ort(self._model.inputs, feeds))
            # While one OrtValue of a run lives, all of them do: take the arrays out and let go of the values together.
            return {name: from_ort(value) for name, value in zip(outputs, fetched, strict=True)}
        except InputError:
            raise
        except Exception as error:
            if not is_ort_error(error):
                raise
            raise explain(error, self._original, "run the model") from error

    def _rows(self, part: _Part, values: dict[str, Taken], input_id: str) -> Iterator[RunnerTensor]:
        ran = {
            name: bool(array.reshape(-1)[0])
            for name in part.conditions
            if (array := values[name][0][1]) is not None and array.size
        }
        uses = _last_uses(part.tensors)
        for index, tensor in enumerate(part.tensors):
            taken = values[tensor.output_name]
            if uses[tensor.output_name] == index:
                del values[tensor.output_name]
            if not all(ran.get(branch.condition) == branch.taken for branch in tensor.branch):
                array = taken[0][1]
                dtype = "unknown" if array is None else dtype_name(array.dtype)
                note = f"{self._branch_of(tensor)} did not run"
                yield RunnerTensor(row_of(tensor, self._elements, input_id, "", dtype, (), note, "not_run"), None)
                continue
            if len(taken) > 1 or taken[0][0]:
                self._elements[tensor.name] = tuple(tensor.name + suffix for suffix, _, _ in taken)
            for position, (suffix, array, note) in enumerate(taken):
                note = "; ".join(filter(None, (note, tensor.note)))
                if array is None:
                    yield RunnerTensor(
                        row_of(tensor, self._elements, input_id, suffix, "unknown", (), note, "unsupported"), None
                    )
                    continue
                info = row_of(tensor, self._elements, input_id, suffix, dtype_name(array.dtype), array.shape, note)
                del array
                yield RunnerTensor(info, _hand_over(taken, position))  # from here on the consumer holds it alone

    def _branch_of(self, tensor: ExposedTensor) -> str:
        """The body a tensor stands in: ``If_3/else_branch``."""
        bodies = {node.identity: node.body for node in self._original.nodes}
        return next((bodies[node] for node in tensor.nodes if bodies.get(node)), "its branch")

    def close(self) -> None:
        self._parts.clear()
        self._model_to_run = None


def _hand_over(taken: Taken, position: int) -> Array | None:
    suffix, array, note = taken[position]
    taken[position] = (suffix, None, note)
    return array


def _last_uses(tensors: Sequence[ExposedTensor]) -> dict[str, int]:
    return {tensor.output_name: index for index, tensor in enumerate(tensors)}
