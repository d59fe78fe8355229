"""Reads TOML that a person wrote; whatever is wrong with it is one error with a cause."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Any, Final

from hpcc.core import CallerError

# For the search of a line: about a second.
_MAX_PARSED_CHARS: Final = 2 << 20


def read_toml(text: str, *, source: str, reason: str) -> dict[str, Any]:
    """Return the tables of a file; `source` names it in the error, `reason` is the error's.

    Raises:
        CallerError: it is not TOML, or has numbers or nesting that no setting needs.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CallerError(f"{source}: {error}", reason=reason) from error
    except ValueError as error:  # the limit of Python for digits
        raise CallerError(f"{source}: a number has too many digits", reason=reason) from error
    except RecursionError as error:
        raise CallerError(
            f"{source}: lists or tables are nested too deep", reason=reason
        ) from error


def line_of(text: str, path: Sequence[str]) -> int:
    """Return the first line of what `path` leads to in a valid text, or of what is there of it.

    0 if nothing is, or if the text is so large that the search would take long. `tomllib` tells no
    positions. A search for the name would find comments, strings, and other tables' keys, so the
    beginning of the text is parsed: once with the line, and once without.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    return _Search(lines, path).line()


class _Search:
    def __init__(self, lines: Sequence[str], path: Sequence[str]) -> None:
        self._lines, self._path, self._left = lines, path, _MAX_PARSED_CHARS

    def line(self) -> int:
        deepest = self._depth(len(self._lines))
        if not deepest:
            return 0
        # The first `absent` lines are a text without the thing. The first `limit` ones have it, or
        # end in the statement that makes it.
        absent, limit = 0, len(self._lines)
        while limit - absent > 1:
            end = middle = (absent + limit) // 2
            while (depth := self._depth(end)) is None and end + 1 < limit:
                end += 1
            if self._left < 0:
                return 0
            if depth is not None and depth < deepest:
                absent = end
            else:
                limit = middle
        return absent + 1

    def _depth(self, count: int) -> int | None:
        """Return how far the path leads in the first lines; None if they are not a text."""
        text = "\n".join(self._lines[:count])
        self._left -= len(text)
        if self._left < 0:
            return None
        try:
            found: object = tomllib.loads(text)
        except (ValueError, RecursionError):
            return None
        for depth, name in enumerate(self._path):
            if not isinstance(found, dict) or name not in found:
                return depth
            found = found[name]
        return len(self._path)
