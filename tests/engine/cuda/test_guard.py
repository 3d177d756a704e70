"""No GPU is an answer with a reason, given quickly and as often as asked; errors name CUDA's error, the layer and the launch."""

from __future__ import annotations

import ctypes
import functools
import re
import subprocess
import sys
import threading
import time
from enum import Enum
from types import SimpleNamespace

import pytest

from probe.engine.device.cuda import guard
from probe.engine.device.cuda.guard import Gpu, arch_of, find_gpu


def test_the_answer_is_the_same_every_time():
    first = find_gpu()
    assert find_gpu() is first
    assert bool(first) == (not first.reason)
    if not first:
        assert first.reason


def test_without_a_driver_it_does_not_hang():
    """In a process of its own, which sees no GPU whatever the machine has; asking twice has hung."""
    code = (
        "import os; os.environ['CUDA_VISIBLE_DEVICES'] = ''\n"
        "from probe.engine.device.cuda.guard import find_gpu\n"
        "a = find_gpu(); find_gpu.cache_clear(); b = find_gpu(); assert a == b; print(bool(a), a.reason)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("False ") and len(done.stdout.split()) > 2


def test_asking_for_the_driver_without_one_says_why():
    if find_gpu():
        pytest.skip("there is a GPU")
    pytest.importorskip("cuda.bindings.driver")
    from probe.engine.device.cuda.driver import Driver
    from probe.errors import InputError

    with pytest.raises(InputError, match="no CUDA device") as caught:
        Driver()
    assert find_gpu().reason in caught.value.what and "cpu" in caught.value.hint


@pytest.mark.parametrize("there", [True, False])
def test_a_gpu_is_opened_once_while_something_else_is_done(monkeypatch, there):
    """Whoever asks meanwhile waits, and gets the same or the reason."""
    from probe.errors import InputError

    opened = []

    def opening():
        opened.append(threading.current_thread().name)
        time.sleep(0.05)
        if not there:
            raise InputError("no CUDA device: none")
        return SimpleNamespace(by=opened[-1])

    for name in ("first_gpu", "_opened"):  # each without what was found before
        made = guard.first_gpu.__wrapped__ if name == "first_gpu" else opening
        monkeypatch.setattr(guard, name, functools.cache(made))
    guard.open_early()
    while not opened:
        time.sleep(0.001)
    if there:
        assert guard.first_gpu() is guard.first_gpu() and getattr(guard.first_gpu(), "by", "") == "opening the GPU"
        guard.open_early()
        assert opened == ["opening the GPU"]
    else:
        with pytest.raises(InputError, match="none"):
            guard.first_gpu()
        assert opened == ["opening the GPU", threading.current_thread().name]


@pytest.mark.parametrize(("capability", "arch"), [((8, 0), "sm_80"), ((9, 0), "sm_90a"), ((12, 0), "sm_120")])
def test_architectures(capability, arch):
    assert arch_of(capability) == arch == Gpu("x", capability).arch


@pytest.mark.gpu
def test_a_launch_that_is_refused_names_layer_and_limits(gpu):
    from probe.engine.device.cuda.backend import Shape
    from probe.engine.device.cuda.compiling.compile import Source
    from probe.engine.device.cuda.errors import CudaError

    source = Source("chain.cu", "f", text='extern "C" __global__ void f() {}')
    with pytest.raises(CudaError, match=r"CUDA_ERROR_INVALID_VALUE launching f.*encoder.3/norm") as caught:
        gpu.launch(source, Shape((1, 1, 1), 2048), (), "encoder.3/norm")
    assert "block 2048" in caught.value.where and gpu.arch in caught.value.where


@pytest.mark.gpu
def test_out_of_memory_says_how_much(gpu):
    from probe.engine.device.cuda.errors import OutOfMemory

    with pytest.raises(
        OutOfMemory, match=r"16384.00 GiB \(17,592,186,044,416 bytes\) asked for, .* are free on "
    ) as caught:
        gpu.allocate(1 << 44)
    assert 0 < caught.value.free <= caught.value.total < 1 << 44
    address = gpu.allocate(1 << 20)  # and the next who asks gets it
    gpu.free(address)


class _Driver:
    """Answers like a driver, as far as ``find_gpu`` asks."""

    def __init__(self, *, init: str = "CUDA_SUCCESS", count: int = 1, version: int = 13000) -> None:
        names = ("CUDA_SUCCESS", "CUDA_ERROR_NO_DEVICE", "CUDA_ERROR_SYSTEM_NOT_READY")
        self.CUresult = Enum("CUresult", names)
        fields = ("CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR", "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR")
        self.CUdevice_attribute = Enum("CUdevice_attribute", fields)
        fine = self.CUresult["CUDA_SUCCESS"]
        self.cuInit = lambda _: (self.CUresult[init],)
        self.cuDeviceGetCount = lambda: (fine, count)
        self.cuDriverGetVersion = lambda: (fine, version)
        self.cuDeviceGet = lambda at: (fine, at)
        self.cuDeviceGetName = lambda _size, _device: (fine, b"NVIDIA Test\0\0")
        self.cuDeviceGetAttribute = lambda field, _device: (fine, 9 if field.name.endswith("MAJOR") else 0)


@pytest.mark.parametrize(
    ("driver", "visible", "reason"),
    [
        (_Driver(), None, ""),
        (_Driver(version=13020), "0", ""),
        (_Driver(init="CUDA_ERROR_NO_DEVICE"), "", r"sees no GPU \(CUDA_VISIBLE_DEVICES is ''\)"),
        (_Driver(count=0), "7", r"sees no GPU \(CUDA_VISIBLE_DEVICES is '7'\)"),
        (_Driver(init="CUDA_ERROR_NO_DEVICE"), None, "sees no GPU$"),
        (_Driver(init="CUDA_ERROR_SYSTEM_NOT_READY"), None, "does not start: CUDA_ERROR_SYSTEM_NOT_READY"),
        (_Driver(version=12040), None, r"driver is of CUDA 12\.4, and loads nothing that NVRTC 13 compiles: a newer driver, or .* of CUDA 12"),
    ],
)  # fmt: skip
def test_why_there_is_none(monkeypatch, driver, visible, reason):
    bindings = pytest.importorskip("cuda.bindings")
    monkeypatch.setattr(bindings, "driver", driver, raising=False)
    monkeypatch.setattr(bindings, "nvrtc", SimpleNamespace(nvrtcVersion=lambda: (0, 13, 0)), raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = find_gpu.__wrapped__()
    assert re.search(reason, found.reason) if reason else found == Gpu("NVIDIA Test", (9, 0))


def _guarded(gpu):
    if not hasattr(gpu, "look"):
        pytest.skip("no guards")


FILL = 'extern "C" __global__ void fill(unsigned char* x, long long first) { x[first + threadIdx.x] = 7; }'


@pytest.mark.parametrize("first", [-1, -200, 100 - 15, 100 + 180])
@pytest.mark.gpu
def test_what_is_written_around_memory_is_found(gpu, first):
    _guarded(gpu)
    from probe.engine.device.cuda.backend import Shape
    from probe.engine.device.cuda.compiling.compile import Source

    address = gpu.allocate(100)
    given = ctypes.c_void_p(address), ctypes.c_longlong(first)
    gpu.launch(Source("fill.cu", "fill", text=FILL), Shape((1, 1, 1), 16), given, "beyond")
    gpu.free(address)
    with pytest.raises(AssertionError, match=r"bytes written before, \d+ behind 100 bytes"):
        gpu.look()


@pytest.mark.gpu
def test_memory_is_not_what_somebody_left_there(gpu):
    _guarded(gpu)
    import numpy as np

    for _ in range(2):
        address, found = gpu.allocate(64), np.zeros(64, np.uint8)
        gpu.download(found, address)
        assert (found == 0xA5).all()
        gpu.upload(address, np.full(64, 3, np.uint8))
        gpu.free(address)
        gpu.look()


@pytest.mark.parametrize(("said", "checked"), [(None, False), ("", False), ("1", True)])
def test_the_environment_makes_every_launch_waited_for(monkeypatch, said, checked):
    driving = pytest.importorskip("probe.engine.device.cuda.driver")
    monkeypatch.setattr(guard, "find_gpu", lambda: Gpu("NVIDIA Test", (9, 0)))
    monkeypatch.setattr(driving, "Driver", lambda *, checked: checked)
    monkeypatch.delenv(guard.CHECKED, raising=False)
    if said is not None:
        monkeypatch.setenv(guard.CHECKED, said)
    assert guard._opened.__wrapped__() is checked
