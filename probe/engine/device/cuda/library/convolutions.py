"""Names of cuDNN's plans, for convolutions with channels first and with channels last."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.library import PREFIXES, cudnn_plans, installed
from probe.engine.device.cuda.library.conv_problem import library_convolution
from probe.engine.device.cuda.ops.convolutions import conv_nhwc
from probe.engine.device.cuda.ops.products.family import Convolution
from probe.engine.device.cuda.tensors import channels_last as order
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32, U8
from probe.engine.tactics.library import DnnPlan, dnn_plan

if TYPE_CHECKING:
    from probe.engine.device.cuda.ops.products.product import Product
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.tensors.tensor import Tensor

_OFFERED = 6  # of each order of channels
_BY_NAME = {one.name: one for one in (F16, BF16, F32)}


class CudnnFamily:
    """As ``Family``."""

    prefixes: tuple[str, ...] = PREFIXES[1:]

    def offered(self, queue: Queue, problem: Product | Convolution) -> Iterable[str]:
        """As ``Family.offered``: those that the library takes for the fastest, of each order of channels."""
        if not isinstance(problem, Convolution) or not installed.reaches(queue.backend) or not installed.find_cudnn():
            return []
        found: list[str] = []
        for last in (True, False):
            with suppress(Unsupported):
                whole = library_convolution(_untailed(problem), last=last).problem
                found += [str(one.plan) for one in cudnn_plans.plan_offers(whole, _OFFERED)]
        return found

    def refusal(self, queue: Queue, problem: Product | Convolution, name: str) -> str | None:
        """As ``Family.refusal``. It must compute the convolution alone, even if it takes the tail along: whoever looks at what lies between asks
        for that."""
        plan = dnn_plan(name)
        if plan is None:
            return "it is no name of a plan"
        if not isinstance(problem, Convolution):
            return "it is for convolutions"
        if not installed.reaches(queue.backend):
            return "the library computes on the GPU alone"
        found = installed.find_cudnn()
        if not found:
            return found.reason
        if found.version != plan.version:
            return f"cuDNN here is {found.version}: other versions number other engines"
        return _reason(_untailed(problem), plan)

    def launch(self, queue: Queue, problem: Product | Convolution, name: str) -> list[Tensor]:
        """As ``Family.launch``."""
        plan = dnn_plan(name)
        assert plan is not None and isinstance(problem, Convolution)
        call, last = problem.call, plan.layout == "last"
        reason = _reason(problem, plan)
        if reason is not None:  # without its tail it is computed: ``refusal`` was asked
            raise Unsupported(reason)
        made = library_convolution(problem, last=last)
        whole, added = made.problem, made.added
        x, w, bias = call.data(0), call.data(1), call.given(2)
        images = order.channels_last(queue, x) if last else x
        weights = conv_nhwc.repacked(queue, call, w, "plain") if last else w
        shape = (whole.images, *whole.out, whole.outputs) if last else (whole.images, whole.outputs, *whole.out)
        beside = added and (order.reading_last(queue, added) if last else added).tensor
        y = queue.empty(shape, _BY_NAME[whole.stored])
        nbytes = cudnn_plans.plan_workspace(whole, plan)
        assert isinstance(nbytes, int)
        workspace = queue.empty((max(nbytes, 1),), U8)
        queue.call(cudnn_plans.ConvRoutine(whole, plan), *map(queue.at, (images, weights, bias, beside, y, workspace)))
        return [order.dense_when_asked(queue, y) if last else y]


def _reason(problem: Convolution, plan: DnnPlan) -> str | None:
    """Why a plan does not compute a convolution and its tail, with the roundings that they should have."""
    try:
        whole = library_convolution(problem, last=plan.layout == "last").problem
    except Unsupported as error:
        return str(error)
    if "X" in plan.notes:
        return "its results differ from run to run"
    if {"D", "R"} & set(plan.notes) and not (whole.tf32 and "R" not in plan.notes):
        return "it rounds inside: inputs, or partial sums"
    if {"W", "F"} & set(plan.notes):
        return "it multiplies transforms, and the library does not say how it rounds them"
    if whole.format == "float" and "T" in plan.notes and not whole.tf32:
        return "tensor cores round FP32 inputs to TF32"
    found = cudnn_plans.plan_workspace(whole, plan)
    return found if isinstance(found, str) else None


def _untailed(problem: Convolution) -> Convolution:
    return replace(problem, readings=(), steps=())
