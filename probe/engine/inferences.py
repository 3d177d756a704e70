"""``Context``: inferences beside those of others, from and to the host or where inputs and outputs lie on the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.errors import InputError
from probe.model.feeds import check_feeds

if TYPE_CHECKING:
    from probe.engine.device.protocol import Inferences
    from probe.model.model import Model

Array = np.ndarray[Any, Any]


class Context:
    """Inferences under one assignment. Any thread may call it, one at a time: a second one waits."""

    def __init__(
        self, model: Model, run: Callable[[Mapping[str, Array]], dict[str, Array]], device: Inferences | None
    ) -> None:
        self._model, self._run, self._device = model, run, device
        self._checked: set[tuple[Any, ...]] = set()

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """Graph outputs by name. As ``Engine.run``, which gives the same bits."""
        return self._run(check_feeds(self._model, inputs))

    def on_device(self, inputs: Mapping[str, Any], out: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Graph outputs where they are computed, the same bits.

        On a stream of the caller's it returns before the device is done, as launches do, and what is asked for on that stream afterwards finds
        the outputs; without one it waits. An input must have been made on that stream, on one that it names itself, or, for a context without
        a stream, on the default stream.

        The first call with inputs of new shapes copies them to the host; so do later ones with those whose values decide on shapes or are read
        by layers on the host.

        Args:
            inputs: by name: objects with ``__cuda_array_interface__`` or ``__dlpack__`` in C order and the network's own types (torch, CuPy, JAX), or
                host arrays. Who hands one out by ``__dlpack__`` is told the stream and waits for what he wrote himself.
            out: arrays on the device that outputs are copied into.

        Returns:
            ``out``'s arrays, and for other outputs objects with ``__cuda_array_interface__``, ``__dlpack__`` and ``array()``; numpy arrays for those
            that are computed on the host.

        Raises:
            InputError: a device without such runs, arrays that do not fit; as ``Engine.run``.
        """
        if self._device is None:
            raise InputError("the CPU device has no memory of its own", hint='compile_model(..., device="cuda")')
        held, host = self._device.held(inputs)
        key = tuple((name, one.shape, one.dtype) for name, one in held.items())
        if host or key not in self._checked:
            fed = check_feeds(self._model, {**{name: one.like() for name, one in held.items()}, **host})
            for name, one in held.items():
                if fed[name].dtype != one.dtype:
                    raise InputError(
                        f"input {name!r} on the device is {one.dtype}; the network reads {fed[name].dtype}"
                    )
            self._checked.add(key)
            host = {name: array for name, array in fed.items() if name not in held}
        return self._device.run_held(held, host, out or {})
