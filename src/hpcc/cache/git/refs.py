"""Finds a repository's directories and the commit that its HEAD names."""

from __future__ import annotations

import os
import re
from typing import Final, NamedTuple

from hpcc.cache.git.reading import OBJECT_ID, GitError, read_file

_MAX_SMALL_BYTES: Final = 4096
# 100,000 refs: a repository with more keeps them in a reftable, which is not read.
_MAX_PACKED_REFS_BYTES: Final = 16 << 20
# As git's SYMREF_MAXDEPTH.
_MAX_SYMBOLIC: Final = 5
_GIT_FILE: Final = re.compile(rb"gitdir: ([^\r\n\0]+)[\r\n]*")
_NAME: Final = re.compile(rb"[^\0-\x20~^:?*\[\\\x7f]{1,500}")
_PLACES: Final = (b"refs/tags/", b"refs/heads/", b"refs/remotes/")
_SYMBOLIC: Final = re.compile(rb"ref: *(refs/[^\0-\x20~^:?*\[\\\x7f]{1,500})\n?")


class Repository(NamedTuple):
    """The directory of a working tree's HEAD, and the one with refs and objects."""

    own: bytes
    common: bytes


def find_repository(directory: bytes) -> Repository | None:
    """Return the repository of a working tree's top directory; None if there is no `.git`.

    A `.git` file (worktree, submodule) may name another directory, and that one a common one.

    Raises:
        GitError: `.git` is a link or another odd thing, or it names no directory.
    """
    place = directory.rstrip(b"/") + b"/.git"
    if os.path.isdir(place) and not os.path.islink(place):
        own = place
    else:
        try:
            match = _GIT_FILE.fullmatch(read_file(place, _MAX_SMALL_BYTES))
        except FileNotFoundError:
            return None
        if match is None:
            raise GitError("the file .git names no directory")
        own = os.path.normpath(os.path.join(directory, match[1]))
    try:
        text = read_file(own + b"/commondir", _MAX_SMALL_BYTES).rstrip(b"\r\n")
    except FileNotFoundError:
        return Repository(own, own)
    if not text or b"\0" in text:
        raise GitError("the file commondir names no directory")
    return Repository(own, os.path.normpath(os.path.join(own, text)))


def read_head(repository: Repository) -> bytes:
    """Return the commit of HEAD in hexadecimal.

    Raises:
        GitError: HEAD names no commit, or is of a form that is not read.
    """
    found = _followed(repository, repository.own, b"HEAD")
    if found is None:
        raise GitError("HEAD names no commit")
    return found


def named_object(repository: Repository, revision: bytes) -> bytes:
    """Return the object that a revision names, in hexadecimal: a whole id, HEAD, a tag or a branch.

    Raises:
        GitError: there is none, there are two, or the revision has another form.
    """
    if OBJECT_ID.fullmatch(revision):
        return revision
    if revision == b"HEAD":
        return read_head(repository)
    text = os.fsdecode(revision)
    if not _NAME.fullmatch(revision) or not _is_plain(revision):
        raise GitError(f"{text!r} is not HEAD, a tag, a branch or a whole id: see `git rev-parse`")
    names = [revision] if revision.startswith(b"refs/") else [p + revision for p in _PLACES]
    found = {name: _followed(repository, repository.common, name) for name in names}
    have = {name: one for name, one in found.items() if one is not None}
    if len(set(have.values())) > 1:
        raise GitError(f"{text!r} is ambiguous: write {' or '.join(map(os.fsdecode, have))}")
    if not have:
        raise GitError(f"there is no tag or branch {text!r}; an id needs all of its digits")
    return next(iter(have.values()))


def _followed(repository: Repository, place: bytes, name: bytes) -> bytes | None:
    """Return the object that a ref leads to in hexadecimal; None if a ref does not exist."""
    for _ in range(_MAX_SYMBOLIC):
        try:
            text = read_file(place + b"/" + name, _MAX_SMALL_BYTES)
        except FileNotFoundError:
            return _packed(repository, name)
        except GitError:
            if os.path.isdir(place + b"/" + name):
                return _packed(repository, name)
            raise
        if OBJECT_ID.fullmatch(text.rstrip()):
            return text.rstrip()
        match = _SYMBOLIC.fullmatch(text)
        if match is None or not _is_plain(match[1]):
            raise GitError(f"{os.fsdecode(name)} is of a form that is not read")
        # HEAD is never on one of a worktree's separate refs (refs/bisect, refs/worktree).
        place, name = repository.common, match[1]
    raise GitError("a ref leads through too many names")


def _is_plain(name: bytes) -> bool:
    parts = name.split(b"/")
    return all(part and not part.startswith(b".") and b".." not in part for part in parts)


def _packed(repository: Repository, name: bytes) -> bytes | None:
    try:
        text = b"\n" + read_file(repository.common + b"/packed-refs", _MAX_PACKED_REFS_BYTES)
    except FileNotFoundError:
        return None
    end = text.find(b" " + name + b"\n")
    line = text[text.rfind(b"\n", 0, max(end, 0)) + 1 : end] if end > 0 else b""
    return line if OBJECT_ID.fullmatch(line) else None
