"""Makes text from files, images and services safe for a terminal."""

from __future__ import annotations

from typing import TextIO


def plain(text: object) -> str:
    """Return a text with its unprintable characters escaped, except line ends and tabs.

    Names in images, checkouts and answers of services are hostile: an escape sequence in one could
    rewrite what the terminal shows.
    """
    return "".join(c if c.isprintable() or c in "\n\t" else _escaped(c) for c in str(text))


def emit(*parts: object, end: str = "\n", file: TextIO | None = None, flush: bool = False) -> None:
    """Print `plain` texts, as `print` does. Each command of hpcc prints with this function."""
    print(*map(plain, parts), end=end, file=file, flush=flush)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
