"""Reads a page of hpcc strictly: known elements and attributes only, each closed at its place."""

from __future__ import annotations

from collections.abc import Collection
from html.parser import HTMLParser
from typing import Final

_ALLOWED: Final = {
    "html", "head", "meta", "title", "style", "body", "main", "section", "header", "h1", "h2", "p",
    "span", "code", "div", "dl", "dt", "dd", "ul", "li", "table", "thead", "tbody", "tr", "th",
    "td", "b", "footer", "svg", "rect", "line", "text",
}  # fmt: skip
_ATTRIBUTES: Final = {
    "lang", "charset", "http-equiv", "content", "name", "class", "height", "width", "role", "scope",
    "aria-label", "aria-hidden", "tabindex", "x", "y", "x1", "x2", "y1", "y2", "rx", "text-anchor",
}  # fmt: skip
_VOID: Final = frozenset({"meta", "link", "input"})


class _Reader(HTMLParser):
    def __init__(self, tags: Collection[str], attributes: Collection[str]) -> None:
        super().__init__()
        self._tags, self._attributes = _ALLOWED.union(tags), _ATTRIBUTES.union(attributes)
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in self._tags, tag
        assert {name for name, _ in attrs} <= self._attributes, attrs
        if tag not in _VOID and not (self.get_starttag_text() or "").endswith("/>"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not (self.get_starttag_text() or "").endswith("/>") or self.open[-1:] == [tag]:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)


def read_markup(page: str, tags: Collection[str] = (), attributes: Collection[str] = ()) -> str:
    """Return the text of a page. Elements and attributes beyond those of a report are given."""
    reader = _Reader(tags, attributes)
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return " ".join(reader.text)
