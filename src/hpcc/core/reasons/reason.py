"""What all kinds of reasons have in common."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Final, Self

PAGE: Final = "docs/reasons.md"


class Reason(StrEnum):
    """A stable word with what people need to read about it.

    `text` is short and fits behind the word on a line of `hpcc stats`. `remedy` is one sentence on
    what the user can do. `detail` is further explanation that only the page shows. `prefix` is the
    kind's prefix in the names of counters, without the last dot.
    """

    prefix: ClassVar[str]
    text: str
    remedy: str
    detail: str

    # Only `word` has no default, because looking a member up by its word calls the class.
    def __new__(cls, word: str, text: str = "", remedy: str = "", detail: str = "") -> Self:
        """Create a member from its word and its texts."""
        member = str.__new__(cls, word)
        member._value_ = word
        member.text, member.remedy, member.detail = text, remedy, detail
        return member

    def __init_subclass__(cls, *, prefix: str) -> None:
        super().__init_subclass__()
        cls.prefix = prefix

    @classmethod
    def of_word(cls, word: str) -> Self | None:
        """Return the member with this word; None for a word of another version or kind."""
        try:
            return cls(word)
        except ValueError:
            return None

    @property
    def anchor_id(self) -> str:
        """Return the id of the reason's row on the page. It names the kind: kinds share words."""
        return f"{self.prefix.replace('.', '-')}-{self}"

    @property
    def anchor(self) -> str:
        """Return where the documentation explains the reason, from the repository's root."""
        return f"{PAGE}#{self.anchor_id}"
