"""Rules that read the graph and its weights alone: tensor cores, sparsity, operators nobody knows. Advice, never an error."""

from __future__ import annotations

import math
from collections.abc import Iterator

from probe.debug.check.hits import Hit
from probe.debug.check.sites import Site, Sites

_MULTIPLES = {
    "fp16": 8,
    "bf16": 8,
    "tf32": 4,
    "int8": 16,
}  # elements in 16 bytes: what tensor-core kernels load at once
_CONV_INT8 = 32  # channels that INT8 convolutions pack together
_SPARSE_LEAST = 1024  # elements: below, sparsity saves nothing
_PRODUCTS = ("Conv", "ConvTranspose", "MatMul", "Gemm")


def channels(sites: Sites, precision: str) -> Iterator[Hit]:
    """Products whose channel counts are no multiple of what tensor cores take: they are padded, or run on slower kernels."""
    for site in sites.all:
        found = _extents(sites, site)
        if found is None:
            continue
        conv = site.op.startswith("Conv")
        multiple = _CONV_INT8 if conv and precision == "int8" else _MULTIPLES[precision]
        odd = [(what, n) for what, n in found if n % multiple]
        if odd:
            listed = " and ".join(f"{n} {what}" for what, n in odd)
            yield Hit(
                "channels", "lint",
                f"{site.node} ({site.op}) has {listed}: tensor cores take multiples of {multiple} in {precision}, so it is padded or slower",
                f"pad to {', '.join(str(-(-n // multiple) * multiple) for _, n in odd)} when the network is trained or exported",
                site.tensor, site.node, site.op, site.position, severity=1.0, alike=f"{site.op} {[what for what, _ in odd]}",
            )  # fmt: skip


def _extents(sites: Sites, site: Site) -> list[tuple[str, int]] | None:
    """Input and output channels of a product with weights; None for others, and for depthwise convolutions, which use no tensor cores."""
    shape = _weight_shape(sites, site)
    if shape is None:
        return None
    group = site.attribute("group", 1)
    if site.op == "Conv":
        return (
            None
            if shape[1] == 1 and group > 1
            else [("input channels", shape[1] * group), ("output channels", shape[0])]
        )
    if site.op == "ConvTranspose":
        return [("input channels", shape[0]), ("output channels", shape[1] * group)]
    k, n = (shape[-1], shape[-2]) if site.op == "Gemm" and site.attribute("transB", 0) else (shape[-2], shape[-1])
    return [("terms", k), ("columns", n)]


def _weight_shape(sites: Sites, site: Site) -> tuple[int, ...] | None:
    if site.op not in _PRODUCTS or len(site.inputs) < 2:
        return None
    shape = sites.shape(site.inputs[1])
    return shape if shape is not None and len(shape) >= 2 else None


def sparsity(sites: Sites, precision: str) -> Iterator[Hit]:
    """Weights with at most two non-zero elements in every four along the sum: sparse tensor cores take twice as many of them."""
    for site in sites.all:
        shape = _weight_shape(sites, site)
        if shape is None or site.op == "ConvTranspose" or math.prod(shape) < _SPARSE_LEAST:
            continue
        source = site.inputs[1]
        assert source is not None
        if _summed_axis(site) % len(shape) in sites.facts(source).sparse:
            yield Hit(
                "sparse", "lint",
                f"the weight {source.name} of {site.node} ({site.op}) is 2:4 sparse: sparse tensor cores could use that in {precision}",
                "switch sparsity on in the runtime (trtexec --sparsity=enable), which does not by itself",
                source.name, site.node, site.op, site.position, severity=float(math.prod(shape)), alike=site.op,
            )  # fmt: skip


def _summed_axis(site: Site) -> int:
    if site.op == "Conv":
        return 1
    return -1 if site.op == "Gemm" and site.attribute("transB", 0) else -2


def unknown_operators(sites: Sites, precision: str) -> Iterator[Hit]:
    """Operators of custom domains: nobody here knows what they do to rounding, nor whether the runtime has them in this precision."""
    local = {(f.domain, f.name) for f in sites.model.proto.functions}
    for site in sites.all:
        domain, op = site.step.node.domain, site.step.node.op_type
        if domain in sites.model.custom_domains and (domain, op) not in local:
            yield Hit(
                "unknown_operator", "lint",
                f"{site.node} is {domain}:{op}, an operator of a custom domain: what {precision} does inside it is not known here",
                "make sure that the runtime has it in this precision; else it runs between casts", site.tensor, site.node, site.op,
                site.position, severity=1.0, alike=site.op,
            )  # fmt: skip
