"""A cache of what a text's include lines contain, by the text up to the last of them.

Most edits are after a file's last include line, and then nothing before it is read again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast

_MAX_HEADS: Final = 2_000
_MAX_HEAD_BYTES: Final = 128 << 10
_MAX_BYTES: Final = 16 << 20


def preamble_of(text: bytes) -> bytes:
    """Return the lines up to the last one with a word of an include directive.

    Lines split by a backslash must be joined before, so that every directive is on one line.
    """
    at = max(text.rfind(b"include"), text.rfind(b"import"))
    if at < 0:
        return b""
    end = text.find(b"\n", at)
    return text if end < 0 else text[: end + 1]


class PreambleCache:
    """A bounded cache by question and head. Thread-safe: a race only costs double work."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, bytes], object] = {}
        self._size_bytes = 0

    def of[T](self, question: str, text: bytes, read: Callable[[bytes], T]) -> T:
        """Return what `read` makes of a text's head; `question` identifies `read`."""
        head = preamble_of(text)
        key = (question, head)
        known = self._known.get(key)
        if known is not None:
            return cast("T", known)
        found = read(head)
        if len(head) <= _MAX_HEAD_BYTES:
            if len(self._known) >= _MAX_HEADS or self._size_bytes > _MAX_BYTES:
                self._known.clear()
                self._size_bytes = 0
            self._known[key] = found
            self._size_bytes += len(head)
        return found
