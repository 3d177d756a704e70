"""The boxes of the layer graph: colour for error, and a shape or a sign for everything that one must not miss."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from probe.report.html.element import Markup, element
from probe.report.html.graph_layout import Box, Layout
from probe.report.html.graph_scale import ErrorScale
from probe.report.numbers import number
from probe.report.text import elide, escape
from probe.results.run import LayerError

CHARACTER = 6.2  # width of one in a box, in pixels: they are of one width
_UNNAMED = re.compile(r"(\w+)\((.+)\)")  # what a node without a name is called: its type and first output
_LEAST = 4  # characters of a tensor's name that are worth showing
_STRIP = 20.0  # width of the hatching in a box with a name
_NUMBERED = 3  # readers that a source without lines names


@dataclass(frozen=True, slots=True)
class Thing:
    """A layer, or an input or output of the network.

    Attributes:
        position: of the layer's row in the table.
        starts: its number among the first divergences; 0: none of them.
        kept: stays in FP32 where the network does not.
        port: ``input`` or ``output``; "" for a layer.
    """

    name: str
    layer: LayerError | None = None
    position: int = -1
    starts: int = 0
    kept: bool = False
    port: str = ""

    @property
    def quiet(self) -> bool:
        """Has no error to show: computes shapes, or was not measured."""
        if self.layer is None or self.layer.nonfinite or self.starts:
            return False
        return self.layer.accumulated is None or (self.layer.kind == "shape" and not self.layer.accumulated)

    @property
    def broken(self) -> bool:
        """Makes NaN or Inf that the golden lacks."""
        return self.layer is not None and (self.layer.nonfinite > 0 or not math.isfinite(self.layer.accumulated or 0.0))


def short_name(name: str, width: int) -> str:
    """What tells a layer from its neighbours, in ``width`` characters: the last part of its first node's name, with what stands before it as
    far as that fits whole, and how many more nodes there are: ``query/MatMul +2``. Of a longer part its start and its number:
    ``LayerNo\u2026_3``; the ``node_`` that torch.onnx begins names with says nothing. A node without a name, ``Conv(fire2/squeeze1x1_1)``, is its
    operator and the end of its tensor."""
    first, *others = escape(name).split(" + ")
    more = f" +{len(others)}" if others else ""
    room = max(1, width - len(more))
    unnamed = _UNNAMED.fullmatch(first)
    if unnamed and first.isascii():
        return _operator_and_end(unnamed[1], unnamed[2].rpartition("/")[2], room) + more
    parts = first.strip("/").split("/")
    last = parts.pop()
    short = last.removeprefix("node_") or last
    while parts and len(parts[-1]) + 1 + len(short) <= room:
        short = f"{parts.pop()}/{short}"
    if not short.isascii():
        return elide(short, room) + more  # letters of some scripts are twice as wide
    if len(short) > room:
        tail = re.search(r"[_\d)]{0,4}$", short)
        end = tail[0] if tail and len(tail[0]) < room - 3 else ""
        short = f"{short[: max(0, room - len(end) - 1)]}\u2026{end}"
    return short + more


def _operator_and_end(operator: str, tensor: str, room: int) -> str:
    left = room - len(operator) - 1
    if len(tensor) <= left:
        return f"{operator} {tensor}"
    if left >= _LEAST:
        return f"{operator} \u2026{tensor[1 - left :]}"
    return operator if len(operator) <= room else f"{operator[: room - 1]}\u2026"


def port_label(thing: Thing) -> str:
    """What stands at an input or output of the network."""
    return f"{thing.port} {elide(thing.name, 16)}"


def port_width(thing: Thing) -> float:
    """Pixels that the label of a port takes."""
    return CHARACTER * len(port_label(thing)) + 4


def drawn_box(
    things: Sequence[Thing],
    at: int,
    box: Box,
    scale: ErrorScale,
    *,
    named: bool,
    rows: str,
    sources: Sequence[int],
    readers: Sequence[int],
) -> Markup:
    """A box with its signs. A layer's leads to its row; ``sources`` and ``readers`` are there for the keys that walk along lines."""
    thing = things[at]
    if thing.layer is None:
        return _port(thing, box, named=named)
    broken, error = thing.broken, thing.layer.accumulated
    style = ["node"]
    style.append("unknown" if thing.quiet else f"e{scale.class_of(math.nan if error is None else error)}")
    style += [
        word for word, holds in (("over", thing.layer.beyond), ("kept", thing.kept), ("starts", thing.starts)) if holds
    ]
    x, y, width, height = (round(value, 1) for value in (box.x, box.y, box.width, box.height))
    shape = {"x": x, "y": y, "width": width, "height": height, "rx": height / 2 if thing.kept else 2}
    parts = [element("title", said_of(thing)), element("rect", **shape)]
    if broken:
        strip = {"x": x + width - _STRIP, "width": _STRIP} if named else {}
        parts.append(element("rect", **(shape | strip), class_="hatched"))
    if named and not thing.quiet:
        value, edge = _short(thing), 8 if thing.kept else 5
        room = int((width - 2 * edge - (_STRIP if broken else 0)) / CHARACTER) - len(value) - bool(value)
        parts.append(element("text", short_name(thing.name, room), x=x + edge, y=y + 12.5))
        if value:
            parts.append(element("text", value, x=x + width - edge, y=y + 12.5, class_="value"))
    if thing.starts:
        parts += _flag(thing.starts, x, y, height, named=named)
    link = f"#{rows}-{thing.position}"
    return element(
        "a", parts, class_=" ".join(style), href=link, data_at=at, data_in=_listed(sources), data_out=_listed(readers)
    )


def said_of(thing: Thing) -> str:
    """A box in words, for those who point at it where no script runs and for those who hear it."""
    layer = thing.layer
    if layer is None:
        return f"{thing.port} {escape(thing.name)}"
    parts = [elide(layer.name, 120)]
    parts.append(
        f"accumulated {number(layer.accumulated)}" if layer.accumulated is not None else layer.note or "not measured"
    )
    parts += [words for words, holds in (("first divergence", thing.starts), ("over the default limits", layer.beyond),
                                         ("NaN or Inf", thing.broken), ("kept in FP32", thing.kept)) if holds]  # fmt: skip
    return ", ".join(parts)


def drawn_jumps(things: Sequence[Thing], layout: Layout) -> list[Markup]:
    """Connections that no line is drawn for, as numbers: at the source where they lead, at the reader where they come from."""
    leading: dict[int, list[int]] = {}
    coming: dict[int, list[int]] = {}
    for source, reader in layout.jumps:
        leading.setdefault(source, []).append(reader)
        coming.setdefault(reader, []).append(source)
    drawn = []
    for at, box in enumerate(layout.boxes):
        if at in leading:
            drawn.append(_note(f"to {_numbers(things, leading[at])}", box.x + box.width, box.y + box.height + 8))
        if at in coming:
            drawn.append(_note(f"from {_numbers(things, coming[at])}", box.x + box.width, box.y - 2))
    return drawn


def _numbers(things: Sequence[Thing], several: Sequence[int]) -> str:
    shown = [
        f"#{things[at].position + 1}" if things[at].layer is not None else short_name(things[at].name, 16)
        for at in several[:_NUMBERED]
    ]
    return ", ".join(shown) + (f" +{len(several) - _NUMBERED}" if len(several) > _NUMBERED else "")


def _note(words: str, x: float, y: float) -> Markup:
    return element("text", words, x=round(x, 1), y=round(y, 1), text_anchor="end", class_="jump")


def _short(thing: Thing) -> str:
    """The error as a box has room for it; NaN and Inf are hatched instead."""
    error = None if thing.layer is None else thing.layer.accumulated
    if error is None or thing.broken:
        return ""
    return (
        f"{error:.0e}".replace("e-0", "e-").replace("e+0", "e") if 0 < error < 0.01 or error >= 9.5 else f"{error:.1g}"
    )


def _flag(at: int, x: float, y: float, height: float, *, named: bool) -> list[Markup]:
    """A pennant with the number of the first divergence, left of the box."""
    middle = y + height / 2
    reach = 15 if named else 9
    pennant = element("path", d=f"M{x:g} {middle:.1f}l-6 -{height / 2:g}h-{reach}v{height:g}h{reach}z", class_="flag")
    number_ = (
        element("text", at, x=x - 4 - reach / 2, y=round(middle + 3.5, 1), class_="flagged") if at < 100 else Markup()
    )
    return [pennant, number_]


def _port(thing: Thing, box: Box, *, named: bool) -> Markup:
    """An input or output of the network: an arrow, with its name where there is room."""
    x, y = round(box.middle, 1), round(box.y, 1)
    words = [element("title", said_of(thing))]
    if named:
        words.append(element("text", port_label(thing), x=x, y=y + 11))
    else:
        words.append(element("path", d=f"M{x - 4:.1f} {y}h8l-4 7z"))
    return element("g", words, class_=f"port {thing.port}")


def _listed(several: Sequence[int]) -> str | None:
    return " ".join(map(str, several)) or None
