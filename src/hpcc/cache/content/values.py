"""The plain definitions of a text: `#define NAME VALUE`, with one number or one string.

Such a line only defines its macro, no compiler warns of the value, and nothing stands behind it.
Only the value differs: names, blanks and lines stay as they are. Wider rules were tried,
and each was wrong somewhere (ADR 136): words may be poisoned or keywords of another language, and
lines that come and go move others, which directives, messages and debug information show.

The texts are those without comments (`content.comments`). What the values were is stored once for
each text: a look-up compares with the header of the compile that made the result, which is gone.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final, NamedTuple

from hpcc.cache.base.fields import decode_fields, encode_fields
from hpcc.core import IntegrityError

_FORMAT: Final = b"macro-values-1"
_FIELDS: Final = 4
_DIGEST_BYTES: Final = 32
_MAX_DEFINITIONS: Final = 20_000
_NAME: Final = rb"[A-Za-z_][A-Za-z0-9_]{0,127}+"
# Digits and letters of a number. It has no sign, no exponent's sign and no digit separator.
_NUMBER: Final = rb"[0-9][A-Za-z0-9.]{0,127}+"
# Printable ASCII. A quote or a backslash would end it or not, `*` could end a comment that is kept
# around the line, and `?` could begin a trigraph.
_STRING: Final = rb'"[ !#-)+->@-\[\]-~]{0,256}+"'
# Possessive: linear in the size of a text, which may be hostile.
_DEFINITION: Final = re.compile(
    rb"^([ \t]*+#[ \t]*+define[ \t]++(" + _NAME + rb")[ \t]++)"
    rb"(" + _NUMBER + rb"|" + _STRING + rb")(?=[ \t]*+\n)",
    re.MULTILINE,
)
# In place of a value. No text with one has values.
_MARK: Final = b"\0"
# Behind the first a directive is none, nor is it in a raw string. A trigraph may be a backslash.
_JOINED: Final = re.compile(rb'\\[ \t\f\v]*+\n[ \t]*+#|(?<![A-Za-z0-9_])(?:u8|[uUL])?R"|\?\?/')
_IS_NAME: Final = re.compile(_NAME)
_IS_VALUE: Final = re.compile(_NUMBER + rb"|" + _STRING)


class Values(NamedTuple):
    """The definitions of a text: `rest` is the SHA-256 of the text with a mark for each value.

    `names` and `values` are those of the definitions, in their order.
    """

    rest: bytes
    names: tuple[bytes, ...]
    values: tuple[bytes, ...]

    def changed(self, other: Values) -> frozenset[bytes] | None:
        """Return the names that have other values there.

        None if more than values differs, if nothing does, or if such a name is defined twice: the
        compiler compares definitions.
        """
        if (self.rest, self.names) != (other.rest, other.names):
            return None
        trios = zip(self.names, self.values, other.values, strict=True)
        found = frozenset(name for name, one, two in trios if one != two)
        is_once = sum(name in found for name in self.names) == len(found)
        return found if found and is_once else None


def values_of(text: bytes) -> Values | None:
    """Return the definitions of a text without comments; None if there are none to compare."""
    if b"define" not in text or _MARK in text or _JOINED.search(text):
        return None
    names: list[bytes] = []
    values: list[bytes] = []
    for match in _DEFINITION.finditer(text):
        names.append(match[2])
        values.append(match[3])
    if not names or len(names) > _MAX_DEFINITIONS:
        return None
    rest = hashlib.sha256(_DEFINITION.sub(rb"\1" + _MARK, text)).digest()
    return Values(rest, tuple(names), tuple(values))


def without_definitions(text: bytes, names: frozenset[bytes]) -> bytes:
    """Return a text without the lines that give one of these macros a plain value."""
    return _DEFINITION.sub(lambda m: b"" if m[2] in names else m[0], text)


def record_key(digest: bytes) -> bytes:
    """Return the key under which the definitions of a text are stored (32 bytes)."""
    return hashlib.sha256(_FORMAT + b"\0" + digest).digest()


def encode_values(values: Values) -> bytes:
    """Return the record of a text's definitions."""
    rows = b"\n".join(values.names), b"\n".join(values.values)
    return encode_fields([_FORMAT, values.rest, *rows])


def decode_values(data: bytes) -> Values:
    """Reverse `encode_values`.

    Raises:
        IntegrityError: the record is damaged, or another version wrote it.
    """
    fields = decode_fields(data)
    if len(fields) != _FIELDS or fields[0] != _FORMAT or len(fields[1]) != _DIGEST_BYTES:
        raise IntegrityError("no record of definitions")
    names, values = (tuple(rows.split(b"\n")) for rows in fields[2:])
    is_whole = len(names) == len(values) <= _MAX_DEFINITIONS
    if not is_whole or not all(map(_IS_NAME.fullmatch, names)):
        raise IntegrityError("a record of definitions that lacks some")
    if not all(map(_IS_VALUE.fullmatch, values)):
        raise IntegrityError("a record of definitions with another value")
    return Values(fields[1], names, values)
