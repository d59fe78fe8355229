"""The content key: what decides the object besides the contents of the files.

It holds what the exact key holds (`hpcc.cache.key.prepare`), but paths are relative to `Places`,
and the names of outputs are left out. So are -D and -U, which entries hold (`content.macros`). In
addition it holds what the exact key need not hold because the same directory implies it: which
search directories are one directory, and the real names of directories of system headers whose
names have links or `..`. GCC may write such a real name, so the directory's name is in the key as
it is.

Relative names stay as the user spelled them beside the place they lead to. So two compiles with one
key spell every file in the same way, up to the places.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from hpcc.cache.base.api import CompileRequest
from hpcc.cache.base.fields import encode_fields
from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.uncacheable import absolute
from hpcc.cache.content.maps import NO_MAPS, PlaceMaps, place_maps
from hpcc.cache.content.places import BUILD_MARK, CWD_MARK, ROOT_MARK, Places, find_places
from hpcc.cache.content.private import PRIVATE_MARK, private_directory
from hpcc.cache.key.prepare import HERE, Prepared, directory_by_variable
from hpcc.cache.key.share import SEARCH_ENV, has_other_names
from hpcc.compilers.invocation.content import ContentForm, PrefixMap

KEY_FORMAT: Final = b"content-13"
_SYSTEM_DIRS: Final = ("-isystem", "-idirafter")
# Compilers for these write file names into symbols and into debug information.
_OTHER_NAMES: Final = (b"windows", b"msvc", b"win32", b"uefi")
_NOT_IN_KEY: Final = frozenset({b"PATH", b"PWD", b"TMPDIR", b"OLDPWD"})


class SystemDirectory(NamedTuple):
    """A directory of -isystem or -idirafter; `real` is its real name if that differs, else b""."""

    path: bytes
    real: bytes

    def has_other_name(self, path: bytes) -> bool:
        """Tell whether a header's real name differs in more than that of this directory."""
        if not self.real or not path.startswith(self.path + b"/"):
            return False
        rest = path[len(self.path) :]
        return b"/../" in rest or os.path.realpath(path) != self.real + rest


class ContentKey(NamedTuple):
    """A key (32 bytes) and what it was computed from.

    `absolute`: the marks of the places in which the command line names a file or a directory by its
    absolute path. Files in another place have a relative name, which is the same everywhere.
    `system_dirs` are the directories of -isystem and -idirafter in one of the places, and those of
    variables, `search` all directories of the search path, and `pattern` says which of them are
    one. `private` is the absolute name of the target's private directory if the key holds a mark
    for it, else b"". `maps` is what the user's prefix maps make of the places. `anywhere` is the
    same key without the directory that the object holds, if a marker would change that, else b"".
    It never leads to a result. `spelled_cwd` is $PWD if that is another name of the working
    directory, else b"": make and ninja often pass on that of the directory they were started in.
    """

    key: bytes
    places: Places
    form: ContentForm
    absolute: frozenset[bytes]
    system_dirs: tuple[SystemDirectory, ...]
    search: tuple[bytes, ...]
    pattern: bytes
    private: bytes = b""
    maps: PlaceMaps = NO_MAPS
    anywhere: bytes = b""
    spelled_cwd: bytes = b""

    def is_valid(self, request: CompileRequest, search: tuple[bytes, ...]) -> bool:
        """Tell whether the file system decides about a compile with these places as it did.

        The places themselves are not looked for again: any choice of them is right.
        """
        return (
            search == self.search
            and _spelled_directory(request) == self.spelled_cwd
            and all(_system_directory(d.path) == d for d in self.system_dirs)
            and _pattern(request.cwd, search) == self.pattern
        )

    def has_other_names(self, paths: Iterable[bytes]) -> bool:
        """Tell whether a compiler may spell one of these headers by a name that no key holds."""
        paths = tuple(paths)
        plain = tuple(d.path for d in self.system_dirs if not d.real)
        return has_other_names(plain, paths) or any(
            d.has_other_name(path) for d in self.system_dirs for path in paths
        )


def content_key(memo: FileMemo, prepared: Prepared, search: tuple[bytes, ...]) -> ContentKey | None:
    """Return the key of a compile; None if a flag, a variable or a path forbids one.

    `search` are all include directories of the compile, in order.
    """
    invocation, request = prepared.invocation, prepared.request
    if (
        prepared.looked_for
        or prepared.is_mapped
        or prepared.is_recorded
        or prepared.identity.has_hidden_flags
    ):
        return None
    if any(word in prepared.identity.target for word in _OTHER_NAMES):
        return None
    form = prepared.family.content_form(invocation, prepared.identity.major)
    share = prepared.share
    if form is None or (form.is_tied and share is not None):
        return None
    places = _places_of(memo, prepared)
    variables = None if places is None else _directories_of_variables(request.env, places)
    if places is None or variables is None:
        return None
    system_dirs = (absolute(request.cwd, d) for d in invocation.values(*_SYSTEM_DIRS))
    # GCC spells headers of both by their real names.
    own_dirs = (*(d for d in system_dirs if places.mark(d) != d), *variables)
    found = [_system_directory(d) for d in own_dirs]
    own = tuple(directory for directory in found if directory is not None)
    if len(own) < len(found):
        return None
    env = [v for n, v in request.env.items() if n not in _NOT_IN_KEY and n[:5] != b"HPCC_"]
    plain = [piece for piece in form.pieces if isinstance(piece, bytes)]
    spelled_cwd = _spelled_directory(request)
    maps = place_maps(form, places, spelled_cwd)
    texts = (request.compiler, *plain, *form.macros, *env, *maps.texts)
    private = private_directory(prepared, places, form, (*texts, *maps.fields))
    pieces, named = _spelled_pieces(form, request.cwd, places, private)
    pinned = [*_pinned(prepared, places, form, maps, texts, spelled_cwd), *maps.fields]
    pinned += [name for directory in own if directory.real for name in directory]
    pattern = _pattern(request.cwd, search)
    fields = [
        KEY_FORMAT,
        prepared.family.name.encode(),
        prepared.identity.digest,
        request.compiler,
        b"" if share is None else b"maps",
        *prepared.rest,
        b"",
        *pieces,
        b"",
    ]
    key = _digest([*fields, *pinned, b"", pattern])
    is_held = form.names_directory and share is None and _may_share(prepared, places)
    anywhere = _digest([*fields, pattern]) if is_held else b""
    marks = frozenset(named & {CWD_MARK, ROOT_MARK, BUILD_MARK})
    path = absolute(request.cwd, private) if private else b""
    return ContentKey(
        key, places, form, marks, own, search, pattern, path, maps, anywhere, spelled_cwd
    )


def _directories_of_variables(
    env: Mapping[bytes, bytes], places: Places
) -> tuple[bytes, ...] | None:
    """Return the directories of `CPATH` and its like; None if one depends on the place.

    The key holds the values. A relative or an empty name is a directory of this place.
    """
    found = [d for name in SEARCH_ENV if name in env for d in env[name].split(b":")]
    are_fixed = all(d[:1] == b"/" and places.mark(d) == d for d in found)
    return tuple(found) if are_fixed else None


def _may_share(prepared: Prepared, places: Places) -> bool:
    root, major = places.root or places.cwd, prepared.identity.major
    return not prepared.family.why_private(prepared.invocation, root, major)


def _digest(fields: list[bytes]) -> bytes:
    return hashlib.sha256(encode_fields(fields)).digest()


def _spelled_pieces(
    form: ContentForm, cwd: bytes, places: Places, private: bytes
) -> tuple[list[bytes], set[bytes]]:
    """Return a form's pieces with marks, and the marks of absolute names among them."""
    pieces: list[bytes] = []
    named: set[bytes] = set()
    for piece in form.pieces:
        if isinstance(piece, bytes):
            pieces.append(piece)
        elif isinstance(piece, PrefixMap):
            pieces += (b"\2", piece.kind)  # `PlaceMaps.fields` has the rest
        elif piece.name == private:
            pieces += (b"\1", PRIVATE_MARK, PRIVATE_MARK)
        else:
            marked = places.mark(absolute(cwd, piece.name))
            # As spelled, too: `//` and `/./` show in the names of all files below.
            pieces += (b"\1", places.mark(piece.name), marked)
            if piece.name.startswith(b"/"):
                named.add(marked[: len(CWD_MARK)])
    return pieces, named


def _places_of(memo: FileMemo, prepared: Prepared) -> Places | None:
    share = prepared.share
    root = b"" if share is None else share.checkout.root
    return find_places(memo, prepared.cwd, prepared.source, root)


def _pinned(
    prepared: Prepared,
    places: Places,
    form: ContentForm,
    maps: PlaceMaps,
    texts: tuple[bytes, ...],
    spelled_cwd: bytes,
) -> list[bytes]:
    """Return the places that the key must hold after all."""
    share = prepared.share
    if form.names_directory and not maps.replace_places:
        if share is not None:  # the maps replace the root, and nothing else
            inside = [_below(d, places.root) for d in (places.cwd, places.build) if places.root]
            return [b"inside", *(inside or [b"", places.build])]
        return [b"at", *places, spelled_cwd]
    pinned: list[bytes] = []
    for name, place in zip((b"cwd", b"root", b"build"), places, strict=True):
        if place and (place in maps.shown or any(place in text for text in texts)):
            pinned += (name, place)
    return pinned


def _spelled_directory(request: CompileRequest) -> bytes:
    """Return $PWD if compilers write it for the working directory, else b""."""
    found = directory_by_variable(request)
    return found.removesuffix(HERE) if found.endswith(HERE) else b""


def _below(directory: bytes, root: bytes) -> bytes:
    """Return the rest of a directory's name behind that of the root; the whole name without it."""
    return directory[len(root) :] if directory.startswith(root + b"/") else directory


def _pattern(cwd: bytes, search: Iterable[bytes]) -> bytes:
    """Return which search directories are one: compilers drop the second of two names."""
    first: dict[tuple[int, int], int] = {}
    found = []
    for number, directory in enumerate(search):
        try:
            status = os.stat(absolute(cwd, directory))
        except OSError:
            found.append(-1)
            continue
        found.append(first.setdefault((status.st_dev, status.st_ino), number))
    return ",".join(map(str, found)).encode()


def _system_directory(directory: bytes) -> SystemDirectory | None:
    """Return a directory whose headers a compiler may spell by their real names.

    None if its headers' names do not begin with its own name.
    """
    directory = directory.removesuffix(b"/")  # the names of its headers have one slash there
    if directory.endswith((b"/.", b"/")):
        return None
    real = os.path.realpath(directory)
    is_plain = b".." not in directory.split(b"/") and real == posixpath.normpath(directory)
    return SystemDirectory(directory, b"" if is_plain else real)
