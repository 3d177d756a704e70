"""Backends that kernels run on: the host everywhere, a GPU where there is one."""

from __future__ import annotations

import gc
import os
import shutil

import pytest

from probe.engine.device.cuda.guard import find_gpu
from tests.engine.cuda.host_backend import HostBackend


@pytest.fixture(scope="session")
def host(request):
    if shutil.which("g++") is None:
        pytest.skip("no g++ to compile kernels for the host")
    return HostBackend(request.config.cache.mkdir("kernels"))


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
