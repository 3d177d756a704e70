"""The drill-down of the published examples: squares of 1,000 activations, two of which overflow FP16."""

from __future__ import annotations

from probe.results.detail import ChannelError, ChannelErrors, Detail, FormatLimits, Histogram


def example_detail() -> Detail:
    """Of the tensor that overflows in the examples of ``run`` and ``diff``."""
    held = (4, 9, 21, 44, 83, 131, 190, 204, 151, 84, 43, 20, 9, 4, 1)
    return Detail(
        input_id="cat",
        elements=1000,
        count=1000,
        lowest=2,
        octaves=1,
        golden=Histogram((*held[:13], 0, 2), (), zeros=0, below=5, above=0, nan=0, inf=0),
        actual=Histogram((*held[:13], 0, 0), (), zeros=0, below=5, above=0, nan=0, inf=2),
        limits=FormatLimits("fp16", overflow=2, subnormal=0, vanishing=0),
        error_max=(*(0.00195 * 2.0**i for i in range(13)), None, None),
        error_median=(*(0.00049 * 2.0**i for i in range(13)), None, None),
        error_at_zero=None,
        channels=ChannelErrors(1, 5, (ChannelError(3, 8.0, 31900.0), ChannelError(1, 4.0, 15200.0)), 1, (1.0, 4.0, 2.0, 8.0, 0.5),
                               (7100.0, 15200.0, 9800.0, 31900.0, 2400.0)),
    )  # fmt: skip
