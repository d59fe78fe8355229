"""Reads one TOML table key by key. Whatever is wrong names the key, and where it is."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Final, NoReturn

from hpcc.core import CallerError, GuestReuse, Isolation

MAX_ITEMS: Final = 256
MAX_TEXT_CHARS: Final = 255
# More than any farm needs; keeps sums within 64 bits.
MAX_QUOTA: Final = 1 << 50
_MAX_SHOWN_CHARS: Final = 80


class TableError(CallerError):
    """Something in a table is wrong; `path` leads to it, as far as it exists."""

    default_reason = "tenants"

    def __init__(self, message: str, path: tuple[str, ...]) -> None:
        super().__init__(message)
        self.path = path


class TableReader:
    """One TOML table, read key by key; an unknown key is an error that names the nearest one."""

    def __init__(
        self, path: tuple[str, ...], content: object, known: tuple[str, ...] | None = None
    ) -> None:
        """Check the keys, unless any are allowed; `path` leads to the table."""
        self._path = path
        shown = ".".join(part[:_MAX_SHOWN_CHARS] for part in path)
        self._where = f"[{shown}]" if path else "the file"
        if not isinstance(content, dict):
            raise TableError(f"{self._where} must be a table", path)
        self._content: dict[str, object] = content
        if known is not None:
            self._check_keys(known)

    def _check_keys(self, known: tuple[str, ...]) -> None:
        for key in self._content:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
                shown = key[:_MAX_SHOWN_CHARS]
                raise TableError(
                    f"{self._where}: unknown key {shown!r}; {hint}", (*self._path, key)
                )

    def fail(self, key: str, text: str) -> NoReturn:
        raise TableError(f"{self._where} {key[:_MAX_SHOWN_CHARS]}: {text}", (*self._path, key))

    def part(self, key: str, known: tuple[str, ...] | None = None) -> TableReader:
        """Return the reader of a table in this one; an absent one is empty."""
        return TableReader((*self._path, key), self.table(key), known)

    def present(self) -> tuple[str, ...]:
        return tuple(self._content)

    def table(self, key: str) -> dict[str, object]:
        value = self._content.get(key, {})
        if not isinstance(value, dict):
            self.fail(key, "must be a table")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        if key not in self._content and default is None:
            self.fail(key, "is missing")
        return self._text(key, self._content.get(key, default))

    def checked(self, key: str, check: Callable[[str], str]) -> str:
        return self._parsed(key, check, self.text(key))

    def word(self, key: str, words: tuple[str, ...], default: str) -> str:
        value = self.text(key, default)
        if value not in words:
            self.fail(key, f"must be one of {', '.join(words)}")
        return value

    def choice[E: (Isolation, GuestReuse)](
        self, key: str, kind: type[E], default: E | None = None
    ) -> E:
        words = tuple(e.value for e in kind)
        if key not in self._content and default is None:
            self.fail(key, f"is missing: one of {', '.join(words)}")
        return kind(self.word(key, words, default.value if default is not None else ""))

    def flag(self, key: str) -> bool:
        value = self._content.get(key, False)
        if not isinstance(value, bool):
            self.fail(key, "must be true or false")
        return value

    def number(self, key: str) -> int:
        value = self._content[key]
        if type(value) is not int or not 0 < value <= MAX_QUOTA:
            self.fail(key, f"must be a whole number from 1 to {MAX_QUOTA}")
        return value

    def each[T](
        self, key: str, parse: Callable[[str], T], *, is_optional: bool = False
    ) -> tuple[T, ...]:
        value = self._content.get(key, [] if is_optional else None)
        is_empty_ok = is_optional and key not in self._content
        if not isinstance(value, list) or len(value) > MAX_ITEMS or (not value and not is_empty_ok):
            self.fail(key, f"must be a list of 1 to {MAX_ITEMS} strings")
        return tuple(self._parsed(key, parse, self._text(key, item)) for item in value)

    def _parsed[T](self, key: str, parse: Callable[[str], T], text: str) -> T:
        try:
            return parse(text)
        except CallerError as error:
            raise TableError(f"{self._where} {key}: {error}", (*self._path, key)) from error

    def _text(self, key: str, value: object) -> str:
        if (
            not isinstance(value, str)
            or not 0 < len(value) <= MAX_TEXT_CHARS
            or not value.isprintable()
        ):
            self.fail(key, f"must be a string of 1 to {MAX_TEXT_CHARS} printable characters")
        return value
