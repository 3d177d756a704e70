"""Backends that kernels run on: the host everywhere, a GPU where there is one."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from probe.engine.device.cuda.guard import find_gpu
from tests.engine.cuda.host_backend import HostBackend


@pytest.fixture(scope="session")
def host(request):
    if shutil.which("g++") is None:
        pytest.skip("no g++ to compile kernels for the host")
    return HostBackend(request.config.cache.mkdir("kernels"))


@pytest.fixture(scope="session")
def nvrtc():
    """Skips where kernels cannot be compiled for a GPU."""
    pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-python is not installed")
    from probe.engine.device.cuda.compiling.compile import nvrtc_version

    try:
        nvrtc_version()
    except RuntimeError as error:
        pytest.skip(f"NVRTC cannot be loaded: {error}")


@pytest.fixture(scope="session")
def gpu():
    """The GPU, waiting after every launch, so that a fault names its kernel; guard bytes lie around all of its memory, unless PROBE_GUARDS=0."""
    found = find_gpu()
    if not found:
        pytest.skip(f"no GPU: {found.reason}")
    from probe.engine.device.cuda.driver import Driver
    from tests.engine.cuda.guarded import GuardedDriver

    if os.environ.get("PROBE_GUARDS") == "0":
        yield Driver(checked=True)
        return
    made = GuardedDriver()
    yield made
    gc.collect()
    made.enter()
    made.look()


@pytest.fixture(params=["host", pytest.param("gpu", marks=pytest.mark.gpu)])
def backend(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def make_room(gpu) -> Iterator[Callable[[int], None]]:
    """Waits until so many bytes of the GPU are free. One test at a time holds them, whichever process it runs in; skips when others keep them."""
    import fcntl

    from cuda.bindings import driver

    from probe.engine.device.cuda.graphs import call

    with (Path(tempfile.gettempdir()) / "probe-tests-large.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        def wait(nbytes: int) -> None:
            gc.collect()  # networks of earlier tests hold tens of gigabytes
            until = time.monotonic() + 30
            while (room := gpu.room()) < nbytes:
                if time.monotonic() > until:
                    pytest.skip(f"the GPU has {room / 1e9:.0f} GB to spare, {nbytes / 1e9:.0f} are asked for")
                time.sleep(0.5)

        yield wait
        gc.collect()
        gpu.room()  # which gives back to its pool what is no longer used
        gpu.synchronize()
        call(driver.cuMemPoolTrimTo(gpu._pool, 0), "emptying the pool")  # other processes have pools of their own
