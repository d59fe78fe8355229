"""Files that only a compiler's messages show: quoted sources, locales and catalogues.

GCC quotes the line of a source that a message is about. It reads the file that a `#line` directive
names, as bison and flex write them, and the compiler proper reads no byte of it otherwise. The
language and the quotes of a message come from the locale, whose files may appear later.

So for GCC each file in a directive is an input, by content or by absence. For a result with
messages, these are inputs too: the files that the messages name, the locale and the catalogues.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Final

from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.uncacheable import UncacheableError, absolute
from hpcc.cache.inputs.closure_types import Closure
from hpcc.cache.key.prepare import Prepared
from hpcc.compilers.scan.assembler import unescape
from hpcc.core.reasons.uncacheable import UncacheableReason

_DIRECTIVE: Final = re.compile(
    rb'^[ \t\f\v]*(?:\#|%:|\?\?=)[ \t]*(?:line[ \t]+)?\d+[ \t]+"((?:[^"\\\n]|\\.)*)"', re.MULTILINE
)
# Needed by each of them, and found three times as fast as the start of a line.
_NUMBERED: Final = re.compile(rb"(?:\#|%:|\?\?=)[ \t]*(?:line[ \t]+)?\d")
# `gram.y:12:3: warning: ...`; quoted lines begin with a blank.
_NAMED: Final = re.compile(rb"^(?:In file included from )?([^\s:<][^:\n]*):\d+", re.MULTILINE)
# Colours and links, which stand before and behind a name.
_COLOURS: Final = re.compile(rb"\x1b\[[0-9;]*[mK]|\x1b\]8;;[^\x1b\a\n]*(?:\x1b\\|\a)")
_MAX_NAMES: Final = 1_000
_LINE_NAMES: Final = "line-names"
_LOCALES: Final = (b"/usr/lib/locale",)
_CATALOGUES: Final = (b"/usr/share/locale", b"/usr/share/locale-langpack")
_BUILT_IN: Final = frozenset({b"", b"C", b"POSIX"})
_OF_LOCALE: Final = (b"LC_CTYPE", b"LC_MESSAGES/SYS_LC_MESSAGES")
_PARTS: Final = re.compile(
    rb"(?P<language>[^_.@/]+)(?P<territory>_[^.@/]+)?(?P<codeset>\.[^@/]+)?(?P<modifier>@[^/]+)?"
)


def names_in_messages(
    memo: FileMemo, prepared: Prepared, closure: Closure, messages: bytes
) -> tuple[bytes, ...]:
    """Return absolute paths that must be as they are; some need not exist.

    Raises:
        UncacheableError: the messages may quote too many files.
    """
    names: dict[bytes, None] = {}
    if prepared.family.quotes_named_files:
        known = memo.derived_known
        for path, digest in closure.files:
            # Nearly all files are headers that were read before, without a directive.
            if known((_LINE_NAMES, digest)) == () or path in closure.precompiled:
                continue
            found = memo.derived(path, digest, _LINE_NAMES, _names_in_directives)
            names.update(dict.fromkeys(found or ()))
        names.update(dict.fromkeys(_NAMED.findall(_COLOURS.sub(b"", messages))))
    if messages and len(names) > _MAX_NAMES:
        raise UncacheableError(UncacheableReason.TOO_MANY_NAMES)
    if not names and not messages:
        return ()
    read = {path for path, _ in closure.files}
    # Without a message no line was quoted, and which files are watched does not matter.
    paths = (absolute(prepared.cwd, name) for name in list(names)[:_MAX_NAMES])
    own = tuple(path for path in dict.fromkeys(paths) if path not in read)
    return (*own, *_of_language(prepared)) if messages else own


def _names_in_directives(text: bytes) -> tuple[bytes, ...]:
    if b'"' not in text or not _NUMBERED.search(text):
        return ()
    names = (unescape(match[1]) for match in _DIRECTIVE.finditer(text))
    # `# 1 "/home/me//"` names the working directory.
    return tuple(dict.fromkeys(n for n in names if n and b"\0" not in n and not n.endswith(b"/")))


def _of_language(prepared: Prepared) -> Iterator[bytes]:
    """Yield the files that a message's language and quotes depend on."""
    env = prepared.request.env
    characters, language = (_locale(env, name) for name in (b"LC_CTYPE", b"LC_MESSAGES"))
    chosen = {characters, language} - _BUILT_IN
    if not chosen:
        return
    places = (*filter(None, env.get(b"LOCPATH", b"").split(b":")), *_LOCALES)
    places = tuple(absolute(prepared.cwd, place) for place in places)
    yield from (_LOCALES[0] + b"/locale-archive", _CATALOGUES[0] + b"/locale.alias")
    for name in sorted({v for locale in chosen for v in _variants(locale)}):
        yield from (posixpath.join(place, name, f) for place in places for f in _OF_LOCALE)
    languages = (*env.get(b"LANGUAGE", b"").split(b":"), language)
    prefix = os.path.dirname(os.path.dirname(os.path.realpath(prepared.request.compiler)))
    roots = dict.fromkeys((*_CATALOGUES, prefix + b"/share/locale"))
    for name in sorted({v for locale in languages for v in _variants(locale)}):
        for root in roots:
            yield from _catalogues(posixpath.join(root, name, b"LC_MESSAGES"), prepared)


def _catalogues(directory: bytes, prepared: Prepared) -> Iterator[bytes]:
    if not os.path.isdir(directory):
        yield directory + b"/gcc.mo"  # stands for all: the directory must not appear
        return
    version = b"-%d" % prepared.identity.major
    for domain in (b"gcc", b"cpplib"):
        yield from (directory + b"/" + domain + v + b".mo" for v in (b"", version))
    yield from (directory + b"/" + d + b".mo" for d in (b"gas", b"bfd", b"opcodes", b"binutils"))


def _locale(env: Mapping[bytes, bytes], category: bytes) -> bytes:
    values = (env.get(name, b"") for name in (b"LC_ALL", category, b"LANG"))
    return next(filter(None, values), b"")


def _variants(locale: bytes) -> Iterator[bytes]:
    """Yield the names under which files of a locale are looked for: with and without parts."""
    match = _PARTS.fullmatch(locale)
    if match is None:
        return
    plain = match["codeset"] or b""
    short = b"." + re.sub(rb"[^0-9A-Za-z]", b"", plain).lower() if plain else b""
    for territory in {match["territory"] or b"", b""}:
        for codeset in {plain, short, b""}:
            for modifier in {match["modifier"] or b"", b""}:
                yield match["language"] + territory + codeset + modifier
