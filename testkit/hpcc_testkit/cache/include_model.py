"""A slow model of the preprocessor for a small language: the reference for include tests.

Sources consist of `Item`s. `render` writes them as C, and the model reads that text back, so a test
can compare it with GCC on the same files. `Preprocessor.run` searches by brute force: it looks at
each place each time, without a cache and without the product's scanner.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_MAX_INCLUDES: Final = 60


class FailedError(Exception):
    """The compile fails: a header is missing."""


class UnknownError(Exception):
    """Not modelled: a precompiled header, endless inclusion. No stored result may be used."""


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a source; `name` names a header, `number` makes values distinct."""

    kind: str
    name: str = "a.h"
    number: int = 0

    @property
    def text(self) -> str:
        """The lines as a compiler reads them."""
        return _TEXTS[self.kind].format(name=self.name, n=self.number)


_TEXTS: Final = {
    "value": "int v{n};\n",
    "quoted": '#include "{name}"\n',
    "angled": "#include <{name}>\n",
    "asked": "#if __has_include(<{name}>)\nint yes{n};\n#else\nint no{n};\n#endif\n",
    "maybe": '#if __has_include("{name}")\n#include "{name}"\n#endif\n',
    "next": "#if __has_include_next(<{name}>)\n#include_next <{name}>\n#endif\n",
    "macro": '#undef M\n#define M "{name}"\n#include M\n',
    "once": "#pragma once\n",
    "guard": "#ifndef G{n}\n#define G{n}\nint g{n};\n#else\nint again{n};\n#endif\n",
    "never": '#if 0\n#include "{name}"\n#endif\n',
}
KINDS: Final = tuple(_TEXTS)
_PATTERNS: Final = tuple(
    (
        kind,
        re.compile(
            re.escape(text)
            .replace(r"\{name\}", r"(?P<name>[\w./]+)", 1)
            .replace(r"\{name\}", "(?P=name)")
            .replace(r"\{n\}", r"(?P<n>\d)", 1)
            .replace(r"\{n\}", "(?P=n)")
        ),
    )
    for kind, text in _TEXTS.items()
)


def render(items: Sequence[Item]) -> str:
    """Return the text of a source."""
    return "".join(item.text for item in items)


def _parse(text: str) -> list[Item]:
    items, at = [], 0
    while at < len(text):
        for kind, pattern in _PATTERNS:
            match = pattern.match(text, at)
            if match is not None:
                found = match.groupdict()
                items.append(Item(kind, found.get("name") or "", int(found.get("n") or 0)))
                at = match.end()
                break
        else:
            raise AssertionError(f"not of this language: {text[at:]!r}")
    return items


@dataclass(slots=True)
class Compiled:
    """The result: declarations in order, and the files read, named as GCC names them."""

    output: list[str] = field(default_factory=list)
    files: dict[str, None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Place:
    """An open file: its path, and where a following `include_next` starts to search."""

    path: str
    next_index: int


class Preprocessor:
    """GCC's rules for one compile in `cwd`, with `search` as its -I directories."""

    def __init__(self, cwd: Path, search: Sequence[str]) -> None:
        self._cwd, self._search = cwd, tuple(search)
        self._done = Compiled()
        self._guards: set[int] = set()
        self._once: list[tuple[bytes, int]] = []
        self._count = 0

    def run(self, source: str) -> Compiled:
        """Preprocess one source.

        Raises:
            FailedError: GCC would report an error.
            UnknownError: the model does not cover this case.
        """
        for directory in self._search:
            try:
                os.stat(self._cwd / directory)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise FailedError from error  # a link that loops, something below a file
        self._read(_Place(source, 0))
        return self._done

    def _read(self, place: _Place) -> None:
        self._count += 1
        if self._count > _MAX_INCLUDES:
            raise UnknownError
        full = self._cwd / place.path
        data = full.read_bytes()
        # GCC treats two files as one if their contents and their mtimes in seconds are equal.
        identity = (data, int(full.stat().st_mtime))
        if identity in self._once:
            return
        self._done.files[place.path] = None
        for item in _parse(data.decode()):
            if item.kind == "once":
                self._once.append(identity)
            else:
                self._do(item, place)

    def _do(self, item: Item, place: _Place) -> None:
        output = self._done.output
        match item.kind:
            case "value":
                output.append(f"int v{item.number};")
            case "quoted" | "macro":
                self._include(self._find(item.name, place, is_quoted=True))
            case "angled":
                self._include(self._find(item.name, place, is_quoted=False))
            case "asked":
                found = self._find(item.name, place, is_quoted=False)
                output.append(f"int {'no' if found is None else 'yes'}{item.number};")
            case "maybe":
                found = self._find(item.name, place, is_quoted=True)
                if found is not None:
                    self._include(found)
            case "next":
                found = self._find_from(item.name, place.next_index)
                if found is not None:
                    self._include(found)
            case "guard":
                word = "again" if item.number in self._guards else "g"
                self._guards.add(item.number)
                output.append(f"int {word}{item.number};")
            case _:
                assert item.kind == "never"

    def _include(self, place: _Place | None) -> None:
        if place is None:
            raise FailedError
        self._read(place)

    def _find(self, name: str, place: _Place, *, is_quoted: bool) -> _Place | None:
        if is_quoted:
            path = os.path.join(os.path.dirname(place.path), name)
            if self._is_there(path):
                return _Place(path, 0)
        return self._find_from(name, 0)

    def _find_from(self, name: str, index: int) -> _Place | None:
        for number, directory in enumerate(self._search[index:], index):
            path = f"{directory}/{name}"
            if self._is_there(path):
                return _Place(path, number + 1)
        return None

    def _is_there(self, path: str) -> bool:
        if os.path.lexists(self._cwd / f"{path}.gch"):
            raise UnknownError
        try:
            status = os.stat(self._cwd / path)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise UnknownError from error  # a link that loops, a file in place of a directory
        return stat.S_ISREG(status.st_mode)
