"""``Driver``: the backend that is a GPU, through cuda.bindings' driver calls."""

from __future__ import annotations

import ctypes
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from copy import copy
from threading import Lock
from typing import Any

import numpy as np
from cuda.bindings import driver  # pyright: ignore[reportAttributeAccessIssue] - compiled, without stubs

from probe.engine.device.cuda.backend import Argument, Batch, Kernel, Shape
from probe.engine.device.cuda.compiling.compile import Compiler, default_folder
from probe.engine.device.cuda.encode import encoded
from probe.engine.device.cuda.errors import CudaError, OutOfMemory
from probe.engine.device.cuda.events import StreamEvent
from probe.engine.device.cuda.graphs import CapturedGraph, call, capture, pinned_array, seconds_of
from probe.engine.device.cuda.guard import CHECKED, find_gpu
from probe.engine.device.cuda.library.routine import Routine
from probe.engine.device.cuda.runs.given import handle_of
from probe.engine.device.cuda.tensors.maps import TileMap
from probe.errors import InputError

Array = np.ndarray[Any, Any]
_KEEP_ALL = 1 << 62  # bytes the pool holds on to
_OVERLAPS = 9  # major compute capability from which a kernel may begin before the one before it has ended
_FORKED = "a process that was forked from one that uses the GPU cannot use it: start it anew (multiprocessing: spawn)"


class Driver:
    """The first GPU: its primary context, one stream, one pool of memory.

    Args:
        checked: wait after every launch, so that a fault inside a kernel is reported with its layer.
        overlapped: let kernels of a graph begin before those before them have ended (kernels/overlap.cuh), where the GPU can.

    Raises:
        InputError: there is no GPU; says why.
    """

    imagined = False

    def __init__(self, *, checked: bool = False, overlapped: bool = True, compiler: Compiler | None = None) -> None:
        gpu = find_gpu()
        if not gpu:
            raise InputError(f"no CUDA device: {gpu.reason}", hint="--device cpu")
        self.name, self.arch, self.checked = gpu.name, gpu.arch, checked
        self.compiler = compiler or Compiler(gpu.arch, default_folder())
        self._device = call(driver.cuDeviceGet(0), "asking for the first GPU")
        try:
            self._context = call(driver.cuDevicePrimaryCtxRetain(self._device), f"opening {gpu.name}")
        except CudaError as error:  # others hold its memory, or it is theirs alone
            raise InputError(
                f"no CUDA device: {error.what}", hint="nvidia-smi shows who uses it; --device cpu"
            ) from error
        self.enter()
        field = driver.CUdevice_attribute
        self.multiprocessors = self._attribute(field.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
        self.shared_limit = self._attribute(field.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)
        newest = call(driver.cuDriverGetVersion(), "asking for the driver's version")
        self.driver_version = f"CUDA {newest // 1000}.{newest % 1000 // 10}"
        self.stream, self.lender = _stream_of(self), None
        self._pool = pool = call(driver.cuDeviceGetDefaultMemPool(self._device), "asking for the memory pool")
        kept = driver.CUmemPool_attribute.CU_MEMPOOL_ATTR_RELEASE_THRESHOLD
        call(driver.cuMemPoolSetAttribute(pool, kept, driver.cuuint64_t(_KEEP_ALL)), "setting up the memory pool")
        self._kernels: dict[Kernel, Any] = {}
        self._granted: dict[Kernel, int] = {}  # bytes of dynamic shared memory
        self._modules: list[Any] = []
        self._loading = Lock()
        self.launches = 0
        major = self._attribute(field.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)
        self.overlapped = overlapped and major >= _OVERLAPS
        self._resident: dict[tuple[Kernel, int, int], int] = {}  # blocks of a launch that find room on a multiprocessor

    def enter(self) -> None:
        """As ``Backend.enter``."""
        call(driver.cuCtxSetCurrent(self._context), "entering the GPU's context", hint=_FORKED)

    @property
    def handle(self) -> int:
        """As ``Backend.handle``."""
        return int(self.stream)

    def beside(self, stream: Any = None) -> Driver:
        """As ``Backend.beside``."""
        made = copy(self)
        made.launches = 0
        made.stream = _stream_of(made) if stream is None else driver.CUstream(handle_of(stream))
        made.lender = stream
        return made

    def _attribute(self, which: Any) -> int:
        return call(driver.cuDeviceGetAttribute(which, self._device), "asking the GPU for its limits")

    # --- memory ------------------------------------------------------------------------------------------------------

    def allocate(self, nbytes: int) -> int:
        """As ``Backend.allocate``."""
        _give_back()
        result = driver.cuMemAllocAsync(max(nbytes, 1), self.stream)
        if result[0] == driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
            # What was given back lies in pieces that are too small: the pool is emptied, and asked once more.
            driver.cuStreamSynchronize(self.stream)
            driver.cuMemPoolTrimTo(self._pool, 0)
            result = driver.cuMemAllocAsync(max(nbytes, 1), self.stream)
            if result[0] == driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
                free, total = call(driver.cuMemGetInfo(), "asking for free memory")
                raise OutOfMemory(nbytes, free, total, self.name)
        return int(call(result, f"allocating {nbytes} bytes"))

    def free(self, address: int) -> None:
        """As ``Backend.free``, when somebody allocates next. Python collects garbage in whatever thread and wherever it is, at exit too: no
        place to call the driver from."""
        _dropped.append((address, self.stream, self.lender))

    def copy(self, to: int, origin: int, nbytes: int) -> None:
        """As ``Backend.copy``."""
        if nbytes:
            call(driver.cuMemcpyDtoDAsync(to, origin, nbytes, self.stream), "copying on the GPU")

    def wait_for(self, handle: int) -> None:
        """As ``Backend.wait_for``."""
        event = call(driver.cuEventCreate(driver.CUevent_flags.CU_EVENT_DISABLE_TIMING), "making an event")
        try:
            call(driver.cuEventRecord(event, driver.CUstream(handle)), "recording an event on another's stream")
            call(driver.cuStreamWaitEvent(self.stream, event, 0), "waiting for another's stream")
        finally:
            driver.cuEventDestroy(event)

    def room(self) -> int:
        """As ``Backend.room``."""
        _give_back()
        free, _ = call(driver.cuMemGetInfo(), "asking for free memory")
        kind = driver.CUmemPool_attribute
        held, used = (
            int(call(driver.cuMemPoolGetAttribute(self._pool, which), "asking the memory pool"))
            for which in (kind.CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, kind.CU_MEMPOOL_ATTR_USED_MEM_CURRENT)
        )
        return int(free) + held - used

    def upload(self, address: int, array: Array) -> None:
        """As ``Backend.upload``. From pageable memory, which the driver has copied when the call returns."""
        if array.nbytes:
            call(driver.cuMemcpyHtoDAsync(address, array.ctypes.data, array.nbytes, self.stream), "copying to the GPU")

    def download(self, array: Array, address: int, *, wait: bool = True) -> None:
        """As ``Backend.download``."""
        if array.nbytes:
            call(
                driver.cuMemcpyDtoHAsync(array.ctypes.data, address, array.nbytes, self.stream), "copying from the GPU"
            )
        if wait:
            self.synchronize()

    def pinned(self, nbytes: int) -> Array:
        """As ``Backend.pinned``."""
        return pinned_array(nbytes)

    def synchronize(self) -> None:
        """As ``Backend.synchronize``."""
        hint = "" if self.checked else f"{CHECKED}=1 in the environment waits after every launch and names the layer"
        call(driver.cuStreamSynchronize(self.stream), "running what was launched", hint=hint)

    # --- kernels -----------------------------------------------------------------------------------------------------

    def launch(self, source: Kernel, shape: Shape, arguments: Sequence[Argument], what: str) -> None:
        """As ``Backend.launch``."""
        self._enqueue(source, shape, arguments, what, self.stream)
        self.launches += 1
        if self.checked:
            running = f"running {source} for {what}"
            call(driver.cuStreamSynchronize(self.stream), running, where=self._asked(shape), hint="--device cpu")

    def _enqueue(
        self, source: Kernel, shape: Shape, arguments: Sequence[Argument], what: str, stream: Any, early: Any = None
    ) -> None:
        kernel = self._kernels.get(source)
        if kernel is None:
            kernel = self._load(source, shape.shared_bytes)
        elif shape.shared_bytes > self._granted.get(source, 0):
            with self._loading:
                self._grant(source, kernel, shape.shared_bytes)
        if isinstance(source, Routine):
            kernel(arguments, int(stream))
            return
        given = [encoded(one) if isinstance(one, TileMap) else one for one in arguments]
        addresses = (ctypes.c_void_p * len(given))(*map(ctypes.addressof, given))
        if early is not None and self._is_spread(source, kernel, shape):
            early.gridDimX, early.gridDimY, early.gridDimZ = shape.grid
            early.blockDimX, early.sharedMemBytes, early.hStream = shape.block, shape.shared_bytes, stream
            result = driver.cuLaunchKernelEx(early, kernel, ctypes.addressof(addresses), 0)
        else:
            result = driver.cuLaunchKernel(
                kernel, *shape.grid, shape.block, 1, 1, shape.shared_bytes, stream, ctypes.addressof(addresses), 0
            )
        if result[0] != driver.CUresult.CUDA_SUCCESS:
            call(result, f"launching {source} for {what}", where=self._asked(shape), hint="--device cpu")

    def _is_spread(self, source: Kernel, kernel: Any, shape: Shape) -> bool:
        """Whether blocks of a launch that come early cannot crowd: they lie where the kernel before them has left room, and that may be on few
        multiprocessors (with every kernel early, bert-base 8 x 128 took 9 % longer). They do no harm where none has room for more blocks than it
        would get anyway."""
        key = (source, shape.block, shape.shared_bytes)
        if key not in self._resident:
            asked = driver.cuOccupancyMaxActiveBlocksPerMultiprocessor(kernel, shape.block, shape.shared_bytes)
            self._resident[key] = call(asked, f"asking for the room of {source}")
        return self._resident[key] <= -(-shape.grid[0] // self.multiprocessors)

    def capture(self, batches: Sequence[Batch], *, timed: bool = False) -> CapturedGraph:
        """As ``Backend.capture``."""
        for one in (one for batch in batches for one in batch.launches):  # a module cannot be loaded while capturing
            if one.source not in self._kernels:
                self._load(one.source, one.shape.shared_bytes)
        return capture(batches, self._enqueue, self.stream, timed=timed, overlapped=self.overlapped)

    def seconds(self, work: Callable[[], None]) -> float:
        """As ``Backend.seconds``."""
        return seconds_of(work, self.stream)

    def event(self) -> StreamEvent:
        """As ``Backend.event``."""
        return StreamEvent(self.stream)

    def _asked(self, shape: Shape) -> str:
        return (
            f"grid {shape.grid}, block {shape.block}, {shape.shared_bytes} bytes shared; "
            f"allowed {self.shared_limit} bytes shared per block on {self.name} ({self.arch})"
        )

    def _load(self, source: Kernel, shared_bytes: int) -> Any:
        with self._loading:  # streams of several threads share kernels
            if source in self._kernels:
                return self._kernels[source]
            if isinstance(source, Routine):
                return self._kernels.setdefault(source, source.ready())
            program = self.compiler(source)
            here = f"{self.name} ({self.arch}), driver of {self.driver_version}"
            hint = "nvidia-smi shows what else is on the GPU; a newer driver; --device cpu"
            module = call(driver.cuModuleLoadData(program.cubin), f"loading {source}", where=here, hint=hint)
            self._modules.append(module)
            kernel = call(driver.cuModuleGetFunction(module, source.entry.encode()), f"looking for {source.entry}")
            self._grant(source, kernel, shared_bytes)  # what a block gets without asking its own arrays may have taken
            self._kernels[source] = kernel
            return kernel

    def _grant(self, source: Kernel, kernel: Any, shared_bytes: int) -> None:
        """Let a kernel be launched with so much shared memory; what was granted before is not taken back."""
        if shared_bytes <= self._granted.get(source, 0):
            return
        most = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        call(driver.cuFuncSetAttribute(kernel, most, shared_bytes), f"asking for {shared_bytes} bytes shared")
        self._granted[source] = shared_bytes


_unused: list[Any] = []  # streams whose owners are gone
# memory that nobody holds any more, the stream that it was used on, and whose that is, if it is somebody else's: it lives until then
_dropped: deque[tuple[int, Any, Any]] = deque()


def _give_back() -> None:
    """What was dropped goes back to the pool, each piece behind what its own stream was asked for so far."""
    while True:
        try:
            address, stream, _ = _dropped.popleft()
        except IndexError:
            return
        call(driver.cuMemFreeAsync(address, stream), "giving memory back")


def _stream_of(owner: Driver) -> Any:
    """A stream for as long as its owner lives. It is never destroyed: memory of the owner may be given back on it afterwards, in whatever
    order Python drops both."""
    stream = (
        _unused.pop()
        if _unused
        else call(driver.cuStreamCreate(driver.CUstream_flags.CU_STREAM_NON_BLOCKING), "making a stream")
    )
    weakref.finalize(owner, _unused.append, stream).atexit = False
    return stream
