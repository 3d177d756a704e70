"""``Driver``: the backend that is a GPU, through cuda.bindings' driver calls."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
from cuda.bindings import driver  # pyright: ignore[reportAttributeAccessIssue] - compiled, without stubs

from probe.engine.device.cuda.backend import Argument, Shape
from probe.engine.device.cuda.compile import Compiler, Source, default_folder
from probe.engine.device.cuda.errors import CudaError
from probe.engine.device.cuda.guard import find_gpu
from probe.errors import InputError

Array = np.ndarray[Any, Any]
_KEEP_ALL = 1 << 62  # bytes the pool holds on to
_STATIC_LIMIT = 48 << 10  # bytes of shared memory a block gets without asking


def call(result: tuple[Any, ...], doing: str, *, where: str = "", hint: str = "") -> Any:
    """What a driver call returned behind its status.

    Raises:
        CudaError: it failed.
    """
    status, *values = result
    if status != driver.CUresult.CUDA_SUCCESS:
        _, text = driver.cuGetErrorString(status)
        said = text.decode() if isinstance(text, bytes) else str(text)
        raise CudaError(f"{status.name} {doing}: {said}", where=where, hint=hint)
    return values[0] if len(values) == 1 else tuple(values)


class Driver:
    """The first GPU: its primary context, one stream, one pool of memory.

    Args:
        checked: wait after every launch, so that a fault inside a kernel is reported with its layer.

    Raises:
        InputError: there is no GPU; says why.
    """

    def __init__(self, *, checked: bool = False, compiler: Compiler | None = None) -> None:
        gpu = find_gpu()
        if not gpu:
            raise InputError(f"no CUDA device: {gpu.reason}", hint="--device cpu")
        self.name, self.arch, self.checked = gpu.name, gpu.arch, checked
        self.compiler = compiler or Compiler(gpu.arch, default_folder())
        self._device = call(driver.cuDeviceGet(0), "asking for the first GPU")
        self._context = call(driver.cuDevicePrimaryCtxRetain(self._device), "opening the GPU")
        self.enter()
        field = driver.CUdevice_attribute
        self.multiprocessors = self._attribute(field.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
        self.shared_limit = self._attribute(field.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)
        self.stream = call(driver.cuStreamCreate(driver.CUstream_flags.CU_STREAM_NON_BLOCKING), "making a stream")
        pool = call(driver.cuDeviceGetDefaultMemPool(self._device), "asking for the memory pool")
        kept = driver.CUmemPool_attribute.CU_MEMPOOL_ATTR_RELEASE_THRESHOLD
        call(driver.cuMemPoolSetAttribute(pool, kept, driver.cuuint64_t(_KEEP_ALL)), "setting up the memory pool")
        self._kernels: dict[Source, Any] = {}
        self._modules: list[Any] = []
        self.launches = 0

    def enter(self) -> None:
        """As ``Backend.enter``."""
        call(driver.cuCtxSetCurrent(self._context), "entering the GPU's context")

    def _attribute(self, which: Any) -> int:
        return call(driver.cuDeviceGetAttribute(which, self._device), "asking the GPU for its limits")

    # --- memory ------------------------------------------------------------------------------------------------------

    def allocate(self, nbytes: int) -> int:
        """As ``Backend.allocate``."""
        hint = "a smaller batch, or --device cpu"
        return int(call(driver.cuMemAllocAsync(max(nbytes, 1), self.stream), f"allocating {nbytes} bytes", hint=hint))

    def free(self, address: int) -> None:
        """As ``Backend.free``. Says nothing when it fails: at exit the driver may be gone already."""
        driver.cuMemFreeAsync(address, self.stream)

    def upload(self, address: int, array: Array) -> None:
        """As ``Backend.upload``. From pageable memory, which the driver has copied when the call returns."""
        if array.nbytes:
            call(driver.cuMemcpyHtoDAsync(address, array.ctypes.data, array.nbytes, self.stream), "copying to the GPU")

    def download(self, array: Array, address: int) -> None:
        """As ``Backend.download``."""
        if array.nbytes:
            call(
                driver.cuMemcpyDtoHAsync(array.ctypes.data, address, array.nbytes, self.stream), "copying from the GPU"
            )
        self.synchronize()

    def synchronize(self) -> None:
        """As ``Backend.synchronize``."""
        hint = "" if self.checked else "Driver(checked=True) waits after every launch and names the layer"
        call(driver.cuStreamSynchronize(self.stream), "running what was launched", hint=hint)

    # --- kernels -----------------------------------------------------------------------------------------------------

    def launch(self, source: Source, shape: Shape, arguments: Sequence[Argument], what: str) -> None:
        """As ``Backend.launch``."""
        kernel = self._kernels.get(source)
        if kernel is None:
            kernel = self._kernels[source] = self._load(source, shape.shared_bytes)
        addresses = (ctypes.c_void_p * len(arguments))(*(ctypes.addressof(one) for one in arguments))
        result = driver.cuLaunchKernel(
            kernel, *shape.grid, shape.block, 1, 1, shape.shared_bytes, self.stream, ctypes.addressof(addresses), 0
        )
        self.launches += 1
        if result[0] != driver.CUresult.CUDA_SUCCESS:
            call(result, f"launching {source} for {what}", where=self._asked(shape), hint="--device cpu")
        if self.checked:
            running = f"running {source} for {what}"
            call(driver.cuStreamSynchronize(self.stream), running, where=self._asked(shape), hint="--device cpu")

    def _asked(self, shape: Shape) -> str:
        return (
            f"grid {shape.grid}, block {shape.block}, {shape.shared_bytes} bytes shared; "
            f"allowed {self.shared_limit} bytes shared per block on {self.name} ({self.arch})"
        )

    def _load(self, source: Source, shared_bytes: int) -> Any:
        program = self.compiler(source)
        module = call(driver.cuModuleLoadData(program.cubin), f"loading {source}")
        self._modules.append(module)
        kernel = call(driver.cuModuleGetFunction(module, source.entry.encode()), f"looking for {source.entry}")
        if shared_bytes > _STATIC_LIMIT:
            most = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            call(driver.cuFuncSetAttribute(kernel, most, shared_bytes), f"asking for {shared_bytes} bytes shared")
        return kernel
