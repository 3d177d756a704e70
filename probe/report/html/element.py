"""HTML put together from elements. Text is escaped where it enters, so that no name is ever markup."""

from __future__ import annotations

import html
from collections.abc import Iterable

from probe.report.text import elide, escape

_VOID = frozenset(("meta", "link", "input", "img", "br", "hr", "wbr"))


class Markup(str):
    """Text that is HTML already: made by ``element``, never from what a file says."""

    __slots__ = ()


class Section(Markup):
    """A part of the page that links can lead to."""

    identity: str
    heading: str


Child = str | int | None | Iterable["Child"]  # a str is text, unless it is Markup; None is nothing
Attribute = str | int | float | bool | None  # True: the bare name; None and False: left out


def element(tag: str, /, *children: Child, **attributes: Attribute) -> Markup:
    """``<tag attributes>children</tag>``. ``class_`` and ``for_`` lose their underscore, inner ones become hyphens: ``aria_label``."""
    written = "".join(
        f" {_attribute_name(name)}" if value is True else f' {_attribute_name(name)}="{text(str(value))}"'
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    if tag in _VOID:
        return Markup(f"<{tag}{written}>")
    return Markup(f"<{tag}{written}>{joined(children)}</{tag}>")


def _attribute_name(name: str) -> str:
    return name.rstrip("_").replace("_", "-")


def joined(children: Child) -> Markup:
    """Children one after the other."""
    if children is None:
        return Markup()
    if isinstance(children, Markup):
        return children
    if isinstance(children, (str, int)):
        return text(str(children))
    return Markup("".join(map(joined, children)))


def text(plain: str) -> Markup:
    r"""``plain`` as it is to be read: ``<`` is ``&lt;``, and what could hide or reorder letters is a visible escape (``\u202e``)."""
    if not plain.isprintable():
        plain = "".join(c if c.isprintable() else escape(c) for c in plain)
    return Markup(html.escape(plain, quote=True))


def lines(several: Iterable[str]) -> Markup:
    """Lines of a ``pre``."""
    return Markup("\n".join(map(text, several)))


def name(plain: str, width: int = 0) -> Markup:
    """A name of an ONNX file, whole, or cut in the middle to ``width`` with the whole as its title. The empty one shows as ``""``."""
    whole = escape(plain)
    short = elide(plain, width) if width else whole
    return element("code", _breakable(short), title=whole if short != whole else None)


def _breakable(escaped: str) -> Markup:
    """Long names may break after what separates their parts, not only where a line happens to end."""
    if len(escaped) < 24:
        return text(escaped)
    return Markup(text(escaped).replace("/", "/<wbr>").replace("_", "_<wbr>"))


def bullets(items: Iterable[Child], **attributes: Attribute) -> Markup | None:
    """A list, or nothing where it would be empty."""
    made = [element("li", item) for item in items]
    return element("ul", made, **attributes) if made else None


def section(identity: str, heading: str, *content: Child, about: str = "") -> Section | None:
    """A part of the page under a heading; nothing without content. ``about`` says in a sentence how to read it."""
    body = joined(content)
    if not body:
        return None
    made = Section(
        element(
            "section",
            element("h2", heading, id=f"{identity}-title"),
            element("p", about, class_="about") if about else None,
            body,
            id=identity,
            aria_labelledby=f"{identity}-title",
        )
    )
    made.identity, made.heading = identity, heading
    return made
