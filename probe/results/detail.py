"""What a drill-down into one tensor pair shows: distributions, error by magnitude and by channel, pictures. Bounded in size."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Histogram:
    """Elements of one side by magnitude, in the bins of the ``Detail`` that holds it; lowest bin first."""

    positive: tuple[int, ...]  # () where there are none
    negative: tuple[int, ...]
    zeros: int
    below: int  # nonzero, and smaller than the lowest bin
    above: int  # finite, and beyond the highest bin: masks, which are kept out of the range
    nan: int
    inf: int


@dataclass(frozen=True, slots=True)
class FormatLimits:
    """Golden elements that a storage format cannot hold as they are."""

    precision: str  # fp32, tf32, fp16, bf16, fp64
    overflow: int  # finite, and beyond its largest finite number: masks included
    subnormal: int  # between half its smallest and its smallest normal number: stored with fewer bits
    vanishing: int  # not zero, and at most half its smallest number: stored as zero


@dataclass(frozen=True, slots=True)
class ChannelError:
    """One channel: its largest absolute error, and its own largest golden magnitude."""

    channel: int
    error: float
    range: float


@dataclass(frozen=True, slots=True)
class ChannelErrors:
    """Error by channel over the whole tensor and all inputs, in units of the tensor.

    ``error`` and ``range`` are a profile over all channels in their order: maxima over ``per_place`` adjacent ones.
    """

    axis: int
    count: int
    worst: tuple[ChannelError, ...]  # by error, largest first
    per_place: int
    error: tuple[float, ...]
    range: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Images:
    """Golden, actual and their difference as PNG files in base64; an element that is NaN or Inf makes its pixel magenta.

    Golden and actual share one scale, ``low`` black to ``high`` white. The difference is |actual - golden|, the largest over channels and
    over the elements of a pixel, times ``amplification`` on a scale of the same length; what is larger is white.
    """

    item: int  # of the batch
    height: int  # of the tensor
    width: int
    reduced: int  # elements along the side of a pixel; golden and actual show their mean
    low: float
    high: float
    amplification: float
    golden: str
    actual: str
    difference: str


@dataclass(frozen=True, slots=True)
class Detail:
    """One tensor pair for one input: distributions over magnitude, error against magnitude, channels, pictures.

    Bin i holds magnitudes of at least ``2**(lowest + i * octaves)`` and less than ``2**(lowest + (i + 1) * octaves)``. Numbers are rounded
    to six digits.
    """

    input_id: str
    elements: int  # looked at, in pieces spread evenly over the tensor; channels and worst elements are of all
    count: int  # that the tensor has
    lowest: int
    octaves: int
    golden: Histogram
    actual: Histogram
    limits: FormatLimits | None  # None: the format is not in the table of precisions
    error_max: tuple[float | None, ...]  # largest |actual - golden| of the bin that golden is in; None: nothing in it
    error_median: tuple[float | None, ...]  # at most a quarter of an octave too large
    error_at_zero: float | None  # the largest where golden is zero; None: golden has no zeros
    channels: ChannelErrors | None = None
    images: Images | None = None
