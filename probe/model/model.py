"""``Model``: a network that was read and found sound. What the rest of probe knows about ONNX."""

from __future__ import annotations

import hashlib
import io
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from probe.errors import InputError
from probe.model.external import is_external
from probe.model.wire import payload_of, refill

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import onnx_ir

    from probe.model.scopes import Scope

Numerics = Literal["float32", "float16", "bfloat16", "float64", "qdq"]
Half = Literal["", "float16", "bfloat16"]
Shape = tuple[int | str | None, ...]


@dataclass(frozen=True, slots=True)
class Port:
    """A graph input or output."""

    name: str
    dtype: str  # probe.precision type name; "seq(float32)", "optional(...)", "map(...)" for values that are no tensors
    shape: (
        Shape | None
    )  # a number, a symbol, or None an axis (of a sequence's tensors, too); None alone: rank not known, or a map

    @property
    def is_tensor(self) -> bool:
        return "(" not in self.dtype


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """A node by its identity: its name if non-empty and unique over all bodies, else ``OpType(first output)``."""

    identity: str
    name: str  # as in the file, often empty
    op: str
    domain: str  # "" for the standard operators
    inputs: tuple[str, ...]  # as in the file, '' where an optional input is omitted
    outputs: tuple[str, ...]
    body: str  # "" at the top level, else identity of the owning node + "/" + attribute, such as "If_1/then_branch"


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells whether a file was changed behind our back."""

    size: int  # bytes
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        status = path.stat()
        return cls(status.st_size, status.st_mtime_ns)


class Model:
    """A sound ONNX model. Weights stay on disk until ``proto_bytes``, ``tensor`` or ``ir`` asks for them.

    Attributes:
        path: the file, as given.
        base_dir: folder that external data paths start from.
        inputs: graph inputs; those an initialiser gives a value are constants and left out.
        outputs: graph outputs.
        nodes: all nodes in execution order; those of a body stand before the node that owns it.
        opset: operator set version by domain; the standard domain is "".
        numerics: what the model computes in, as far as goldens care: "qdq" when it quantises, "float16" or "bfloat16" when any of
            its tensors is stored so, "float64" when most weights are.
        half: which half-precision type its tensors are stored in, the more frequent one; "" for none. A "qdq" model may have one too.
        custom_domains: domains of operators that are neither standard nor defined in the model.
        external_files: files beside the model that hold weights.
        notes: what was noticed and tolerated, a sentence each.
        needs_rewrite: whether ONNX Runtime may refuse the file as it is, for the order or the names of its nodes
            or for shapes that depend on external data. ``expose`` writes it
            anew then; ``proto_bytes`` and ``ir`` have it as it is.
        origin: "" for a file as it is, else how it was derived: "upcast from float16".
        proto: the model as protobuf without the data of its large tensors: for reading structure, never for running.
        root: the top-level scope: nodes in execution order, names, types.
    """

    def __init__(
        self,
        path: Path,
        proto: onnx.ModelProto,
        root: Scope,
        *,
        inputs: tuple[Port, ...],
        outputs: tuple[Port, ...],
        nodes: tuple[NodeInfo, ...],
        opset: dict[str, int],
        numerics: Numerics,
        half: Half = "",
        custom_domains: tuple[str, ...] = (),
        external_files: tuple[Path, ...] = (),
        notes: tuple[str, ...] = (),
        origin: str = "",
        needs_rewrite: bool = False,
        stamp: Stamp | None = None,
        content: bytes | None = None,
        base_dir: Path | None = None,
        source: Model | None = None,
        digest: str = "",
    ) -> None:
        self.path = path
        self.base_dir = base_dir if base_dir is not None else path.parent
        self.proto = proto
        self.root = root
        self.inputs = inputs
        self.outputs = outputs
        self.nodes = nodes
        self.opset = opset
        self.numerics: Numerics = numerics
        self.half: Half = half
        self.custom_domains = custom_domains
        self.external_files = external_files
        self.notes = notes
        self.origin = origin
        self.needs_rewrite = needs_rewrite
        self._stamp = stamp
        self._content = content
        self._source = source
        self._digest = digest

    def __repr__(self) -> str:
        return f"Model({str(self.path)!r}, {len(self.nodes)} nodes{', ' + self.origin if self.origin else ''})"

    @property
    def has_bodies(self) -> bool:
        """Whether any node holds a graph: If, Loop, Scan."""
        return any(step.bodies for step in self.root.steps)

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the .onnx file; where it has external data, of all its files one after the other. Of the original for a
        derived or a stored model: it says which network this is, not how it is stored."""
        if self._source is not None:
            return self._source.sha256
        if self._digest:
            return self._digest
        digest = hashlib.sha256()
        buffer = memoryview(bytearray(1 << 20))
        for path in (self.path, *self.external_files):
            try:
                with path.open("rb", buffering=0) as file:
                    while count := file.readinto(buffer):
                        digest.update(buffer[:count])
            except OSError as error:
                raise InputError(f"cannot read {path}: {error.strerror}", where=str(self.path)) from None
        return digest.hexdigest()

    def proto_bytes(self, suffix: bytes = b"") -> bytes:
        """The serialised model as on disk, ``suffix`` appended, in one piece of memory; external data is referred to, not included.

        Raises:
            InputError: the file was changed or removed since it was loaded.
        """
        if self._content is not None:
            return self._content + suffix
        try:
            with self.path.open("rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                at, size = 0, status.st_size
                # Filled in place and handed out as it is: joining pieces would hold the model twice.
                buffer = io.BytesIO(bytes(size + len(suffix)))
                with buffer.getbuffer() as view:
                    while at < size and (count := file.readinto(view[at:size])):
                        at += count
                    view[size:] = suffix
        except OSError as error:
            raise InputError(f"cannot read the model: {error.strerror}", where=str(self.path)) from None
        if at < size or (self._stamp is not None and Stamp(size, status.st_mtime_ns) != self._stamp):
            raise _changed(self.path)
        return buffer.getvalue()

    @contextmanager
    def data(self) -> Iterator[memoryview]:
        """The bytes of the model file, mapped, not read. Valid inside the ``with`` only.

        Raises:
            InputError: the file was changed or removed since it was loaded.
        """
        if self._content is not None:
            yield memoryview(self._content)
            return
        with map_file(self.path, self._stamp) as view:
            yield view

    def tensor(self, tensor: onnx.TensorProto) -> np.ndarray[Any, Any]:
        """Value of an initialiser or tensor attribute found in ``proto``, wherever its data lies."""
        import onnx

        if is_external(tensor):
            return onnx.numpy_helper.to_array(tensor, base_dir=str(self.base_dir))
        if payload_of(tensor) is None:
            return onnx.numpy_helper.to_array(tensor)
        with self.data() as view:
            return onnx.numpy_helper.to_array(refill(tensor, view))

    @cached_property
    def ir(self) -> onnx_ir.Model:
        """The model for onnx-ir; large tensors stay on disk until their value is asked for. Built on first use: the
        import alone takes longer than loading most models."""
        return self.build_ir()

    def build_ir(self) -> onnx_ir.Model:
        """A new ``onnx_ir.Model`` that the caller may change. Values that are maps have no type in it: onnx-ir knows none.

        Raises:
            InputError: onnx-ir cannot represent the model.
        """
        from probe.model.lazy import build_ir

        return build_ir(self)


@contextmanager
def map_file(path: Path, expected: Stamp | None) -> Iterator[memoryview]:
    """A file's bytes, mapped read-only.

    Raises:
        InputError: it cannot be opened, or is not the file ``expected`` describes.
    """
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        changed = expected is not None and Stamp.of(path) != expected
    except (OSError, ValueError) as error:  # ValueError: emptied since
        raise InputError(f"cannot read the model: {getattr(error, 'strerror', error)}", where=str(path)) from None
    if changed:
        raise InputError(
            "the model was changed while probe was using it", where=str(path), hint="run the command again"
        )
    # Unmapped when the last slice of it is gone: closing it here would fail while an error's traceback still holds one.
    yield memoryview(mapped)


def _changed(path: Path) -> InputError:
    return InputError("the model was changed while probe was using it", where=str(path), hint="run the command again")
