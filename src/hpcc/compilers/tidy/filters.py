"""Tells whether clang-tidy's filters choose the same files in a guest as on this machine.

Problem: a filter is a regular expression that is searched in a file's name. In a guest an absolute
name has `/src` in front, so `src/.*` matches every header there.

Rule: a filter may travel if it is a choice of literal texts, with `.*` around them, and none of the
texts can match a part of `/src/`. Then it matches a name in a guest if, and only if, it matches the
name here. A text that the root's own path holds matches every absolute name in both places.

Example: in `/home/me/project` the filters `.*`, `include/` and `(inc|project/src)/.*` may travel,
and `src/.*` and `^/home` may not.

What must never happen: a finding is shown here and suppressed there. A form that is not understood
is refused, and so is every option of a check whose name is one of a path.
"""

from __future__ import annotations

import re
from typing import Final

from hpcc.core import SOURCE_ROOT

_PREFIX: Final = SOURCE_ROOT.encode()
_ANY: Final = ord(".")
_LITERAL: Final = rb"(?:[\w/ -]|\\[./+-]|\.(?!\*))*+"
_ONE_CHOICE: Final = re.compile(
    rb"(?:\.\*)?(?P<before>" + _LITERAL + rb")"
    rb"(?:\((?P<inner>" + _LITERAL + rb"(?:\|" + _LITERAL + rb")*+)\))?"
    rb"(?P<after>" + _LITERAL + rb")(?P<end>(?:\.\*)?\$?)"
)
_KEY: Final = b"HeaderFilter"
# A value on one line: quoted without escapes, or plain with nothing indented behind it.
_FILTERS: Final = re.compile(
    rb"(?:Exclude)?HeaderFilterRegex[\"']?[ \t]*:[ \t]*"
    rb"(?:'(?P<single>[^'\r\n]*)'(?=[ \t]*(?:[,}#\r\n]|\Z))"
    rb'|"(?P<double>[^"\\\r\n]*)"(?=[ \t]*(?:[,}#\r\n]|\Z))'
    rb"|(?P<plain>[\w.(/^][^\s{},#:'\"]*)(?=[ \t]*(?:(?:\r?\n)+\S|(?:\r?\n)*\Z)))"
)
# Options of checks: `misc-include-cleaner.IgnoreHeaders`. Extensions and styles name no place.
_OPTION: Final = re.compile(
    rb"\.(?!HeaderFileExtensions\b|ImplementationFileExtensions\b|IncludeStyle\b"
    rb"|GetConfigPerFile\b|CheckHeaderFile\b)\w*(?:file|path|dir|header|include|root)\w*",
    re.IGNORECASE,
)
_SYSTEM: Final = re.compile(rb"SystemHeaders(?![\"']?[ \t]*:[ \t]*false\b)")


def is_blind_to_place(pattern: bytes, root: bytes) -> bool:
    """Return whether a filter matches a file's name in a guest exactly if it matches it here."""
    alternatives = [pattern] if b"(" in pattern else pattern.split(b"|")
    return all(_is_choice(alternative, root) for alternative in alternatives)


def _is_choice(pattern: bytes, root: bytes) -> bool:
    found = _ONE_CHOICE.fullmatch(pattern)
    if found is None:
        return False
    ends = found["end"].endswith(b"$")
    inner = [b""] if found["inner"] is None else found["inner"].split(b"|")
    texts = (found["before"] + text + found["after"] for text in inner)
    return all(_matches_alike(text, root, is_end=ends) for text in texts)


def _matches_alike(text: bytes, root: bytes, *, is_end: bool) -> bool:
    letters = _letters(text)
    if not letters:
        return not is_end
    if not is_end and None not in letters and bytes(filter(None, letters)) in root:
        return True
    following = _PREFIX + b"/"
    return not any(_begins_alike(letters, following[at:]) for at in range(len(_PREFIX)))


def _letters(text: bytes) -> list[int | None]:
    """Return the bytes of a literal text; None for a dot, which matches each."""
    found: list[int | None] = []
    rest = iter(text)
    for letter in rest:
        if letter == ord("\\"):
            found.append(next(rest))
        else:
            found.append(None if letter == _ANY else letter)
    return found


def _begins_alike(letters: list[int | None], name: bytes) -> bool:
    """Return whether a text can match from the start of a name, as far as both are known."""
    return all(a is None or a == b for a, b in zip(letters, name, strict=False))


def place_in_config(text: bytes, root: bytes) -> str:
    """Return what in a configuration may depend on where the project is; "" for nothing."""
    filters = list(_FILTERS.finditer(text))
    if len(filters) != text.count(_KEY):
        return "a HeaderFilterRegex that is not on one line"
    for found in filters:
        pattern = next(p for p in found.group("single", "double", "plain") if p is not None)
        if not is_blind_to_place(pattern, root):
            return f"HeaderFilterRegex {pattern.decode('utf-8', 'replace')}"
    if option := _OPTION.search(text):
        return f"the option {option[0][1:].decode('utf-8', 'replace')}"
    return "SystemHeaders" if _SYSTEM.search(text) else ""
