"""``TileMap``: a tensor as bulk copies see it, as an argument of a kernel (``TensorMap`` of kernels/tma.cuh)."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from probe.engine.device.cuda.tensors.formats import Format

SWIZZLED = 128  # bytes of a row of a tile; 64 or 32 where it says so
_ALIGNMENT = 16  # bytes that addresses and strides divide by


@dataclass(frozen=True, slots=True)
class Windows:
    """How a tensor of axes (channel, column, row, image) is read as the windows of a convolution: a tile is some channels of as many
    output pixels, one behind the other, each at the tap that the copy names. Volumes have slices behind rows.

    Attributes:
        lower: column and row of the first window's corner: minus the padding.
        upper: column and row of the last corner, from the image's last column and row on.
        strides: of the windows, along columns and rows.
    """

    lower: tuple[int, ...]
    upper: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TileLayout:
    """Where elements lie, and which of them make a tile. Axes are named innermost first; there are four, of volumes five.

    Attributes:
        extents: elements along each axis.
        strides: bytes between neighbours of every axis but the innermost, which is contiguous.
        box: elements of a tile along each axis; with ``windows``: channels and pixels.
        rounds: FP32 is rounded to TF32 on the way, to nearest even. What kernels cut (common.cuh), beyond 3.4011e38, becomes Inf here, and -0 is 0.
    """

    format: Format
    extents: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...]
    windows: Windows | None = None
    rounds: bool = False

    @property
    def line(self) -> int:
        """Bytes of a row of a tile: 128, 64 or 32; 16-byte pieces are swizzled among as many rows as change them all."""
        return self.box[0] * self.format.bytes

    @property
    def possible(self) -> bool:
        """Whether bulk copies can read it."""
        return all(step % _ALIGNMENT == 0 and step < 1 << 40 for step in self.strides) and max(self.extents) < 1 << 31


class TileMap(ctypes.c_void_p):
    """The address of a tensor, and its layout; whatever launches makes a ``TensorMap`` of both."""

    layout: TileLayout

    def __init__(self, address: int, layout: TileLayout) -> None:
        super().__init__(address)
        self.layout = layout

    def moved(self, address: int) -> TileMap:
        """The same layout elsewhere."""
        return TileMap(address, self.layout)
