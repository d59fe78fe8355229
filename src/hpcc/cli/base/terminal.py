"""Makes text from files, images and services safe for a terminal."""

from __future__ import annotations


def plain(text: object) -> str:
    """Return a text with its unprintable characters escaped, except line ends and tabs.

    Names in images, checkouts and answers of services are hostile: an escape sequence in one could
    rewrite what the terminal shows.
    """
    return "".join(c if c.isprintable() or c in "\n\t" else _escaped(c) for c in str(text))


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
