"""``command: ...``: any program as a runner. It reads inputs from files and leaves its tensors in files."""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np

from probe.errors import InputError
from probe.results.tensors import RunHeader
from probe.runners.process import NotStartedError, run_logged, signal_name, tail_of
from probe.runners.protocol import Array, RunnerTensor
from probe.runners.provenance import Provenance, environment
from probe.store.numpy_files import portable
from probe.store.opening import open_source, read_array

if TYPE_CHECKING:
    from probe.model.model import Model

_USAGE = (
    "{inputs} and {outputs} stand for .npz files, {inputs_dir} and {outputs_dir} for folders of .npy; "
    'such as "command: ./engine --in {inputs} --out {outputs}"'
)


class CommandRunner:
    """Starts the program once an input set, without a shell, in the current folder.

    Placeholders: ``{inputs}`` an .npz whose keys are input names, ``{inputs_dir}`` the same as a folder of .npy (names percent-encoded),
    ``{outputs}`` where it shall write an .npz of tensors by name, ``{outputs_dir}`` an empty folder for .npy or a dump, ``{model}`` and
    ``{input_id}``. ``{{`` and ``}}`` are braces. Types numpy's files cannot name are handed over as float32.

    Raises:
        InputError: the template cannot be read, or names no place for outputs.
    """

    name = "command"

    def __init__(self, template: str, model: Model | None = None, timeout: float | None = None) -> None:
        self._template = template
        self._model = model
        self._timeout = timeout
        self._provenance = Provenance(model)
        try:
            self._arguments = shlex.split(template)
        except ValueError as error:
            raise InputError(f"the command cannot be read: {error}", where=template) from None
        used = {field for argument in self._arguments for field in _placeholders(argument, template)}
        if not used & {"outputs", "outputs_dir"}:
            raise InputError("the command names no place for its outputs", where=template, hint=_USAGE)
        if {"outputs", "outputs_dir"} <= used:
            raise InputError(
                "the command names two places for its outputs", where=template, hint="use {outputs} or {outputs_dir}"
            )
        if "model" in used and model is None:
            raise InputError("the command asks for {model}, and there is none", where=template)
        self._used = used

    @property
    def header(self) -> RunHeader:
        return RunHeader(
            runner=f"command: {self._template}",
            model="" if self._model is None else str(self._model.path),
            model_sha256="" if self._model is None else self._model.sha256,
            environment=environment(),
        )

    def run(self, feeds: Mapping[str, Array], input_id: str) -> Iterator[RunnerTensor]:
        """As ``Runner.run``.

        Raises:
            InputError: the program cannot be started, failed, took too long, or left no readable tensors.
        """
        with tempfile.TemporaryDirectory(prefix="probe-command-") as name:
            folder = Path(name)
            outputs = self._start(folder, feeds, input_id)
            with closing(open_source(outputs)) as source:
                rows = [row for row in source.rows() if row.role != "input" and not self._provenance.is_input(row.name)]
                if not rows:
                    raise InputError("the command wrote no tensors", where=self._template, hint=_USAGE)
                for row in rows:
                    yield self._provenance.tensor(row.name, read_array(source, row), input_id)

    def _start(self, folder: Path, feeds: Mapping[str, Array], input_id: str) -> Path:
        """Run the program; returns where its outputs are."""
        places = {
            "inputs": folder / "inputs.npz",
            "inputs_dir": folder / "inputs",
            "outputs": folder / "outputs.npz",
            "outputs_dir": folder / "outputs",
        }
        values = {key: str(path) for key, path in places.items()}
        values |= {"input_id": input_id, "model": "" if self._model is None else str(self._model.path)}
        with _explained(folder):
            if "inputs" in self._used:
                _write_npz(places["inputs"], feeds)
            if "inputs_dir" in self._used:
                places["inputs_dir"].mkdir()
                for key, array in feeds.items():
                    np.save(places["inputs_dir"] / f"{quote(key, safe='')}.npy", portable(array), allow_pickle=False)
            if "outputs_dir" in self._used:
                places["outputs_dir"].mkdir()
        self._execute([argument.format(**values) for argument in self._arguments], folder / "said", input_id)
        outputs = places["outputs" if "outputs" in self._used else "outputs_dir"]
        if not outputs.exists() or (outputs.is_dir() and not any(outputs.iterdir())):
            said = tail_of(folder / "said")
            raise InputError(
                f"the command succeeded and left nothing in {{{'outputs' if 'outputs' in self._used else 'outputs_dir'}}}",
                where=self._template + said,
                hint="np.savez appends .npz to a name without it" if "outputs" in self._used else "",
            )
        return outputs

    def _execute(self, arguments: list[str], said: Path, input_id: str) -> None:
        try:
            code = run_logged(arguments, said, self._timeout)
        except NotStartedError as error:
            raise InputError(
                f"cannot start {arguments[0]!r}: {error}", where=self._template, hint="check the path of the program"
            ) from None
        except subprocess.TimeoutExpired:
            raise InputError(
                f"the command did not end within {self._timeout:g} s on input {input_id!r}",
                where=self._template + tail_of(said),
                hint="allow more with --timeout",
            ) from None
        if code:
            how = f"was ended by {signal_name(-code)}" if code < 0 else f"failed with exit code {code}"
            raise InputError(f"the command {how} on input {input_id!r}", where=self._template + tail_of(said))

    def close(self) -> None:
        return None


def _placeholders(argument: str, template: str) -> set[str]:
    from string import Formatter

    known = {"inputs", "outputs", "inputs_dir", "outputs_dir", "model", "input_id"}
    try:
        fields = {
            name
            for _, name, spec, conversion in Formatter().parse(argument)
            if name is not None
            for _ in [_plain(name, spec, conversion)]
        }
    except ValueError as error:
        raise InputError(
            f"the command cannot be read: {error}", where=template, hint="write {{ and }} for braces of its own"
        ) from None
    if fields - known:
        raise InputError(
            f"the command holds an unknown placeholder {{{min(fields - known)}}}", where=template, hint=_USAGE
        )
    return fields


def _plain(name: str, spec: str | None, conversion: str | None) -> None:
    if spec or conversion:
        raise ValueError(f"{{{name}}} takes no format")


def _write_npz(path: Path, feeds: Mapping[str, Array]) -> None:
    import zipfile

    # np.savez takes names as keyword arguments, so an input called "file" would break it.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in feeds.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, portable(array), allow_pickle=False)


class _explained:  # noqa: N801  (reads as a statement)
    """A full temporary disk is the user's, not ours."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise InputError(
                f"cannot write the inputs for the command: {error.strerror or error}",
                where=str(self._folder),
                hint="set TMPDIR to a folder with enough room",
            ) from error
