"""Whether there is a GPU to run on. Asked once, before anything else touches the driver."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from threading import Lock, Thread
from typing import TYPE_CHECKING

from probe.errors import InputError

if TYPE_CHECKING:
    from probe.engine.device.cuda.driver import Driver

_OPENING = Lock()  # of the first GPU: two threads that ask for it get the same
CHECKED = "PROBE_CUDA_CHECKED"  # in the environment: wait after every launch, so that a fault is told with its layer
_OLDEST = (8, 0)  # compute capability: conversions to bfloat16 and asynchronous copies begin there


@dataclass(frozen=True, slots=True)
class Gpu:
    """The GPU that was found, or the reason why there is none. True when there is one."""

    name: str = ""
    capability: tuple[int, int] = (0, 0)
    reason: str = ""

    def __bool__(self) -> bool:
        return not self.reason

    @property
    def arch(self) -> str:
        """What NVRTC compiles for: ``sm_80``, ``sm_90a``... Instructions of one generation only (wgmma) need the ``a``."""
        return arch_of(self.capability)


def arch_of(capability: tuple[int, int]) -> str:
    """NVRTC's name of a compute capability.

    >>> arch_of((8, 6)), arch_of((9, 0))
    ('sm_86', 'sm_90a')
    """
    major, minor = capability
    return f"sm_{major}{minor}{'a' if major == 9 else ''}"


@cache
def find_gpu() -> Gpu:
    """The first GPU.

    Without a driver, calls into it after the first one may hang for ever (seen with cuda-core's kernel handles); the answer is kept, and
    nothing in this room goes near the driver unless it is yes.
    """
    try:
        from cuda.bindings import driver, nvrtc  # pyright: ignore[reportAttributeAccessIssue] - compiled, without stubs
    except ImportError as error:
        return Gpu(reason=f"the package cuda-python is not installed ({error}): pip install 'probe-inference[cuda]'")
    try:
        _, newest, _ = nvrtc.nvrtcVersion()
    except RuntimeError as error:
        return Gpu(reason=f"NVRTC cannot be loaded ({_first_line(error)}): pip install nvidia-cuda-nvrtc")
    try:
        (status,) = driver.cuInit(0)
    except RuntimeError as error:
        return Gpu(reason=f"no NVIDIA driver ({_first_line(error)})")
    if status == driver.CUresult.CUDA_ERROR_NO_DEVICE:
        return Gpu(reason=f"the NVIDIA driver sees no GPU{_hidden()}")
    if status != driver.CUresult.CUDA_SUCCESS:
        return Gpu(reason=f"the NVIDIA driver does not start: {status.name}{_hidden()}")
    status, count = driver.cuDeviceGetCount()
    if status != driver.CUresult.CUDA_SUCCESS or not count:
        return Gpu(reason=f"the NVIDIA driver sees no GPU{_hidden()}")
    status, known = driver.cuDriverGetVersion()
    if status == driver.CUresult.CUDA_SUCCESS and known // 1000 < newest:  # it would refuse every kernel
        told = f"the NVIDIA driver is of CUDA {known // 1000}.{known % 1000 // 10}, and loads nothing that NVRTC {newest} compiles"
        return Gpu(
            reason=f"{told}: a newer driver, or the packages cuda-python and nvidia-cuda-nvrtc of CUDA {known // 1000}"
        )
    _, device = driver.cuDeviceGet(0)
    _, name = driver.cuDeviceGetName(256, device)
    field = driver.CUdevice_attribute
    _, major = driver.cuDeviceGetAttribute(field.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device)
    _, minor = driver.cuDeviceGetAttribute(field.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device)
    text = name.split(b"\0")[0].decode(errors="replace") if isinstance(name, bytes) else str(name).strip("\0 ")
    if (major, minor) < _OLDEST:
        return Gpu(
            text, (major, minor), reason=f"{text} has compute capability {major}.{minor}; 8.0 is the oldest supported"
        )
    return Gpu(text, (major, minor))


@cache
def first_gpu() -> Driver:
    """The backend that every network of a process shares: a kernel is loaded once.

    Raises:
        InputError: there is no GPU; says why.
    """
    with _OPENING:
        return _opened()


@cache
def _opened() -> Driver:
    gpu = find_gpu()
    if not gpu:
        raise InputError(f"no CUDA device: {gpu.reason}", hint="--device cpu")
    from probe.engine.device.cuda.driver import Driver  # imports cuda.bindings, which need not be installed

    return Driver(checked=bool(os.environ.get(CHECKED)))


def open_early() -> None:
    """Begin to open the first GPU in a thread of its own: a quarter of a second, spent in the driver, while a network is read. Whoever then
    asks for the GPU waits for the thread, enters its context, and is told if there is none."""

    def opening() -> None:
        with suppress(Exception):  # raised again for whoever asks
            first_gpu()

    if not _opened.cache_info().currsize:
        Thread(target=opening, name="opening the GPU").start()


def _hidden() -> str:
    """What the environment hides."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "" if visible is None else f" (CUDA_VISIBLE_DEVICES is {visible!r})"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
