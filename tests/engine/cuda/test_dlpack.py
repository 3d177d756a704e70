"""Arrays by DLPack: what numpy says and reads of the same structs, and runs on them."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

from probe.engine.device.cuda.runs import dlpack
from probe.engine.device.cuda.runs.given import DeviceArray, given
from probe.errors import InputError
from tests.engine.cuda.test_given import BOTH, There, inputs_of
from tests.engine.cuda.test_replays import engine_of

TYPES = ["float32", "float16", "float64", "int64", "int32", "uint8", "int8", "bool"]
HOST = 1, 0


class Lent:
    """An array of somebody who speaks DLPack alone, on the backend's device."""

    def __init__(self, there: There, *, versioned: bool = True, device: tuple[int, int] = (dlpack.CUDA, 0)) -> None:
        said = there.__cuda_array_interface__
        self._there, self._address = there, said["data"][0]
        self.shape, self.dtype = said["shape"], np.dtype(said["typestr"])
        self._versioned, self._device, self.told = versioned, device, list[int | None]()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device

    def __dlpack__(self, *, stream: int | None = None, **more: Any) -> Any:
        if more and not self._versioned:
            raise TypeError("an unexpected keyword")
        self.told.append(stream)
        return dlpack.capsule_of(self, self._address, self.shape, self.dtype, versioned=self._versioned)


class Ours:
    """An array of the host, handed out by our capsules."""

    def __init__(self, array: np.ndarray, *, versioned: bool) -> None:
        self.array, self._versioned = array, versioned

    def __dlpack_device__(self) -> tuple[int, int]:
        return HOST

    def __dlpack__(self, **_: Any) -> Any:
        array = self.array
        return dlpack.capsule_of(
            self, array.ctypes.data, array.shape, array.dtype, versioned=self._versioned, device=HOST
        )


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4), (0, 5)])
def test_numpys_capsules_are_read(dtype, shape):
    array = np.zeros(shape, dtype)
    said = dlpack.described("x", array, None)
    assert (said.device_type, said.device, said.shape, said.dtype) == (
        *HOST,
        shape,
        np.dtype(dtype),
    ) and not said.read_only
    assert said.strides is None or 0 in shape or said.strides == tuple(step // array.itemsize for step in array.strides)
    assert not array.size or said.address == array.ctypes.data
    turned = dlpack.described("x", np.zeros((4, 3), dtype).T, None)
    assert turned.strides == (1, 3)
    fixed = np.zeros(3, dtype)
    fixed.flags.writeable = False
    assert dlpack.described("x", fixed, None).read_only


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("versioned", [False, True])
def test_numpy_reads_our_capsules(dtype, versioned):
    before = len(dlpack._lent)
    for shape in ((), (3,), (2, 3, 4), (0, 5)):
        array = np.asarray(np.random.default_rng(0).uniform(0, 6, shape), dtype)
        seen = np.from_dlpack(Ours(array, versioned=versioned))
        assert seen.dtype == array.dtype and np.array_equal(seen, array) and len(dlpack._lent) == before + 1
        del seen
        assert len(dlpack._lent) == before, "numpy is done with it"
        Ours(array, versioned=versioned).__dlpack__()
        assert len(dlpack._lent) == before, "a capsule that nobody consumed"


@pytest.mark.parametrize("versioned", [False, True])
@pytest.mark.parametrize("borrowed", [False, True])
def test_runs_on_what_is_lent(tmp_path, backend, versioned, borrowed):
    engine, _ = engine_of(tmp_path, BOTH, backend)
    context = engine.context(stream=backend.handle if borrowed else None)
    before = len(dlpack._lent)
    for at in range(3):
        feeds = inputs_of(BOTH, at)
        lent = {name: Lent(There(backend, array), versioned=versioned) for name, array in feeds.items()}
        out = Lent(There(backend, np.zeros((3, 16), np.float32)), versioned=versioned)
        backend.synchronize()
        made = context.on_device(lent, {"z": out})
        expected = engine.run(feeds)
        assert made["z"] is out and out._there.read().tobytes() == expected["z"].tobytes()
        assert isinstance(made["y"], DeviceArray) and made["y"].array().tobytes() == expected["y"].tobytes()
        said = dlpack.described("y", made["y"], 1)
        assert (said.address, said.shape, said.dtype) == (made["y"].address, (3, 16), np.dtype(np.float32))
        assert all(one.told and set(one.told) != {None} for one in (*lent.values(), out))
        del said, lent, made, out
    gc.collect()
    assert len(dlpack._lent) == before


def test_what_cannot_be_taken_is_said(host):
    there = There(host, np.ones((2, 3), np.float32))
    assert given("x", Lent(there, device=HOST), 7) is None and given("x", np.ones(3), 7) is None
    lent = Lent(there)
    found = given("x", lent, 7)
    assert found is not None and found.stream == 7 and lent.told == [7]
    with pytest.raises(InputError, match="lies on device 1"):
        given("x", Lent(there, device=(dlpack.CUDA, 1)), 7)

    class Odd(Lent):
        def __init__(self, array: np.ndarray) -> None:
            super().__init__(there)
            self._array = array

        def __dlpack__(self, **more: Any) -> Any:
            return self._array.__dlpack__()

    with pytest.raises(InputError, match="C order"):
        given("x", Odd(np.ones((2, 3)).T), 7)

    class Refusing(Lent):
        def __dlpack__(self, **more: Any) -> Any:
            raise BufferError("it needs a gradient")

    with pytest.raises(InputError, match="needs a gradient"):
        given("x", Refusing(there), 7)

    class Learning:
        @property
        def __cuda_array_interface__(self) -> dict[str, Any]:
            raise RuntimeError("it needs a gradient, too")

    with pytest.raises(InputError, match="needs a gradient, too"):
        given("x", Learning(), 7)
    there.__cuda_array_interface__["data"] = (there.__cuda_array_interface__["data"][0], True)
    fixed = given("x", there, 7)
    assert fixed is not None
    with pytest.raises(InputError, match="may not be written to"):
        fixed.must_be("x", (2, 3), np.dtype(np.float32))


@pytest.mark.gpu
@pytest.mark.parametrize("borrowed", [False, True])
def test_torch_takes_and_gives(gpu, tmp_path, borrowed):
    torch = pytest.importorskip("torch")
    engine, _ = engine_of(tmp_path, BOTH, gpu)

    class Alone:
        """A tensor without ``__cuda_array_interface__``."""

        def __init__(self, tensor: Any) -> None:
            self.tensor = tensor
            self.__dlpack__, self.__dlpack_device__ = tensor.__dlpack__, tensor.__dlpack_device__

    context = engine.context(stream=torch.cuda.current_stream() if borrowed else None)
    for at in range(3):
        feeds = inputs_of(BOTH, at)
        tensors = {name: torch.from_numpy(array).cuda() for name, array in feeds.items()}
        made = context.on_device({name: Alone(tensor) for name, tensor in tensors.items()})
        for name, array in engine.run(feeds).items():
            seen = torch.from_dlpack(made[name])
            assert seen.is_cuda and seen.data_ptr() == made[name].address
            assert (seen + 0).cpu().numpy().tobytes() == array.tobytes()
        with pytest.raises(InputError, match="C order"):
            context.on_device({name: Alone(tensor.T.contiguous().T) for name, tensor in tensors.items()})
