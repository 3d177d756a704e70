"""Which vendor libraries are there. They are imported when someone first asks for a tactic of theirs, and never needed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from probe.engine.device.cuda.guard import find_gpu
from probe.errors import InputError

if TYPE_CHECKING:
    from probe.engine.device.cuda.backend import Backend

EXTRA = "pip install 'probe-inference[library]'"


@dataclass(frozen=True, slots=True)
class Library:
    """A library that was found, or the reason why it was not. True when it is there.

    Attributes:
        module: its bindings.
        version: as the library itself numbers it: 130100 is cuBLASLt 13.1.0, 91900 is cuDNN 9.19.0.
    """

    module: Any = None
    version: int = 0
    reason: str = ""

    def __bool__(self) -> bool:
        return not self.reason


def is_installed(package: str) -> bool:
    """Whether a package is there, and a GPU for it; imports nothing."""
    return find_spec(package) is not None and bool(find_gpu())


def reaches(backend: Backend) -> bool:
    """Whether the libraries compute in a backend's memory: that of the GPU, and no stand-in of tests."""
    return backend.name == find_gpu().name


@cache
def find_cublaslt() -> Library:
    """cuBLASLt through nvmath-python. Without a GPU nothing is imported."""
    gpu = find_gpu()
    if not gpu:
        return Library(reason=f"cuBLASLt needs a GPU: {gpu.reason}")
    try:
        from nvmath.bindings import cublasLt  # pyright: ignore[reportMissingImports] - an optional extra

        return Library(cublasLt, int(cublasLt.get_version()))
    except ImportError as error:
        return Library(reason=f"cuBLASLt needs the package nvmath-python ({_first_line(error)}): {EXTRA}")
    except RuntimeError as error:
        return Library(reason=f"cuBLASLt cannot be loaded ({_first_line(error)}): {EXTRA}")


@cache
def find_cudnn() -> Library:
    """cuDNN through its frontend. Without a GPU nothing is imported."""
    gpu = find_gpu()
    if not gpu:
        return Library(reason=f"cuDNN needs a GPU: {gpu.reason}")
    try:
        import cudnn  # pyright: ignore[reportMissingImports] - an optional extra

        return Library(cudnn, int(cudnn.backend_version()))
    except ImportError as error:
        return Library(reason=f"cuDNN needs the package nvidia-cudnn-frontend ({_first_line(error)}): {EXTRA}")
    except (RuntimeError, OSError) as error:
        return Library(reason=f"cuDNN cannot be loaded ({_first_line(error)}): {EXTRA}")


def same_version(found: Library, name: str, version: int) -> None:
    """See to it that a name's library is the one at hand.

    Raises:
        InputError: it is not there, or numbers its algorithms otherwise.
    """
    if not found:
        raise InputError(found.reason, where=f"tactic {name}")
    if found.version != version:
        what = f"the library is version {found.version}, and the name is of version {version}: other versions number other algorithms"
        raise InputError(what, where=f"tactic {name}", hint="tune again, or install that version")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
