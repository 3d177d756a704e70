"""External data: weights kept in files beside the model. Checked without being read."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from probe.errors import InputError
from probe.model.wire import payload_of

if TYPE_CHECKING:
    import onnx

_WINDOWS_ABSOLUTE = re.compile(r"^([A-Za-z]:|\\)")
_EXTERNAL = 1  # TensorProto.DataLocation


def is_external(tensor: onnx.TensorProto) -> bool:
    """Whether the tensor's data lies in another file. Tensors emptied by ``wire.read_outline`` do not count."""
    return tensor.data_location == _EXTERNAL and payload_of(tensor) is None


class ExternalFiles:
    """The data files of one model, each looked at once.

    Args:
        folder: the model's folder; no data file may lie outside it, whatever path or symbolic link leads there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._real_folder = Path(os.path.realpath(folder))
        self._known: dict[str, tuple[Path, int]] = {}  # location -> (file, size in bytes)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The data files met so far, each once, ordered by their name in the model."""
        return tuple(dict.fromkeys(self._known[location][0] for location in sorted(self._known)))

    def check(self, tensor: onnx.TensorProto, nbytes: int | None, where: str) -> None:
        """Check that the tensor's data is there and has the right size.

        Args:
            tensor: one for which ``is_external`` is true.
            nbytes: what its type and shape need; None for types that cannot be external (strings).
            where: put into the error.

        Raises:
            InputError: no or unsafe location, file missing or too short, offset or length that make no sense.
        """
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if nbytes is None:
            raise InputError(
                f"string tensor {tensor.name!r} claims external data, which ONNX does not allow", where=where
            )
        location = entries.get("location", "")
        file, size = self._known.get(location) or self._open(location, tensor.name, where)
        offset = _number(entries.get("offset", "0"), "offset", tensor.name, where)
        length = _number(entries.get("length", str(nbytes)), "length", tensor.name, where)
        if length != nbytes:
            what = f"external tensor {tensor.name!r} has {length} bytes of data, its type and shape need {nbytes}"
            raise InputError(
                what, where=where, hint="export the model again; its external data was written for another version"
            )
        if offset + length > size:
            raise InputError(
                f"external data file is too short: tensor {tensor.name!r} needs bytes {offset} to {offset + length}, "
                f"{file.name} has {size}",
                where=where,
                hint=f"copy {file} again: it is truncated or belongs to another export",
            )

    def _open(self, location: str, tensor: str, where: str) -> tuple[Path, int]:
        if not isinstance(location, str) or not location or "\0" in location:
            raise InputError(f"external tensor {tensor!r} names no file", where=where, hint="export the model again")
        refuse = "move the data file beside the model and save it again with onnx.save(..., save_as_external_data=True)"
        if location.startswith("/") or _WINDOWS_ABSOLUTE.match(location):
            what = f"external data of tensor {tensor!r} has an absolute path: {location}"
            raise InputError(f"{what}; data must lie in the model's folder", where=where, hint=refuse)
        if ".." in PurePosixPath(location.replace("\\", "/")).parts:
            what = f"external data of tensor {tensor!r} leaves the model's folder: {location}"
            raise InputError(what, where=where, hint=refuse)
        file = self._folder / location
        real = Path(os.path.realpath(file))
        if not real.is_relative_to(self._real_folder):
            raise InputError(
                f"external data of tensor {tensor!r} is a symbolic link that leaves the model's folder: {location} -> {real}",
                where=where,
                hint="copy the model and its data, links resolved, into one folder: cp -L",
            )
        try:
            status = real.stat()
        except OSError as error:
            reason = error.strerror if not isinstance(error, FileNotFoundError) else "no such file"
            raise InputError(
                f"external data file of tensor {tensor!r} cannot be opened: {file} ({reason})",
                where=where,
                hint=f"put {location} beside the model: it was exported with it and holds the weights",
            ) from None
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"external data of tensor {tensor!r} is not a file: {file}", where=where)
        self._known[location] = (file, status.st_size)
        return self._known[location]


def _number(text: str, key: str, tensor: str, where: str) -> int:
    if not isinstance(text, str) or not re.fullmatch(r"\d{1,19}", text):
        what = f"external tensor {tensor!r} has the {key} {text!r}, which is not a number of bytes"
        raise InputError(what, where=where, hint="export the model again")
    return int(text)
