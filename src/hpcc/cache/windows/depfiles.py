"""The depfile that clang-cl writes on Windows: which files it lists, and its text for a checkout.

CMake passes `/clang:-MD` with a name and a target to clang-cl since 4, in place of `/showIncludes`.
A depfile is an output like the object. With `-MD` it lists every file, so that the command needs no
further flag, also with debug information, which would record one.

Source: Clang's DependencyFile.cpp. Versions write names with either slash, targets as they are
spelled, and the ends of lines as the system does. Lines are broken by the lengths of names, so a
depfile of another checkout is laid out again, as `compilers.invocation.share_text` does elsewhere.
"""

from __future__ import annotations

from hpcc.cache.base.uncacheable import UncacheableError
from hpcc.cache.inputs.listed_names import parse_dependencies
from hpcc.cache.windows.root_text import MARKS, names, spellings
from hpcc.compilers.invocation.depfile import escape_name, unescape_name
from hpcc.compilers.invocation.share import ROOT_MARK
from hpcc.compilers.invocation.share_text import laid_out, taken_apart
from hpcc.core import WindowsPath
from hpcc.core.reasons.uncacheable import UncacheableReason

_END, _WINDOWS_END = b"\n", b"\r\n"


def names_in(data: bytes) -> tuple[str, ...]:
    """Return the files that a depfile lists.

    Raises:
        UncacheableError: the bytes are not a depfile, or list no file.
    """
    try:
        return tuple(name.decode() for name in parse_dependencies(data))
    except UnicodeDecodeError as error:
        raise UncacheableError(UncacheableReason.DEPFILE) from error


def marked_depfile(data: bytes, root: WindowsPath) -> bytes | None:
    """Return a depfile with marks for the root.

    None if the root is anywhere but at the start of a name, or the layout cannot be reproduced.
    """
    if ROOT_MARK in data:
        return None
    rules = _rules(data)
    if rules is None or _text(rules, data) != data:
        return None
    marked = [[_marked(word, root) for word in words] for words in rules]
    # In whole lines: a name behind `-MT` is not escaped, so its blanks look like ends of names.
    is_left = any(_is_named(words, root) for words in marked)
    return None if is_left else _text(marked, data)


def spelled_depfile(data: bytes, root: WindowsPath) -> bytes | None:
    """Reverse `marked_depfile`, in the form that the compile in the checkout at `root` writes.

    None for stored bytes that `marked_depfile` did not make.
    """
    rules = _rules(data)
    if rules is None or _text(rules, data) != data:
        return None
    return _text([[_spelled(word, root) for word in words] for words in rules], data)


def _rules(data: bytes) -> list[list[bytes]] | None:
    return taken_apart(data.replace(_WINDOWS_END, _END))


def _text(rules: list[list[bytes]], like: bytes) -> bytes:
    text = laid_out(rules, is_clang=True)
    return text.replace(_END, _WINDOWS_END) if _WINDOWS_END in like else text


def _marked(word: bytes, root: WindowsPath) -> bytes:
    for mark, spelled in zip(MARKS, map(escape_name, spellings(root)), strict=True):
        if word.startswith(spelled) and word[len(spelled) :][:1] in {b"\\", b"/"}:
            return mark + word[len(spelled) :]
    return word


def _is_named(words: list[bytes], root: WindowsPath) -> bool:
    return any(names(b" ".join(line), root) for line in (words, map(unescape_name, words)))


def _spelled(word: bytes, root: WindowsPath) -> bytes:
    for mark, spelled in zip(MARKS, map(escape_name, spellings(root)), strict=True):
        if word.startswith(mark):
            return spelled + word[len(mark) :]
    return word
