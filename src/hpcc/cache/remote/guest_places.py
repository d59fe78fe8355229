"""What a guest calls the directories of one compile: the root, the build, what is installed.

Problem: a guest has only `/src`. Two things about it can differ from this machine without a
difference in the object.

- A search directory outside of the root, such as `/usr/src/googletest`, belongs to the machine and
  not to the project. Its files are sent if they are installed (`guest_paths.installed_files`). The
  project is then at `/src/hpcc-project`, and `/` of this machine at `/src/hpcc-installed`. One
  prefix map for each of them gives objects the names of a compile here.
- The build directory's name. If the object shows no name of a file in it and no source asks for a
  header through a directory of that name, the guest calls it `BUILD_NAME`. Two build directories
  beside each other then have one action.

What must never happen: a renamed directory changes which header is found. `rename_conflicts` checks
that no name of an include leads through it.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
from dataclasses import replace
from functools import partial
from typing import Final

from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.uncacheable import absolute
from hpcc.cache.content.crossing import Holds
from hpcc.cache.content.places import CWD_MARK, Places
from hpcc.cache.inputs.closure_types import Closure
from hpcc.cache.inputs.respelling import are_real, names_vary, system_headers
from hpcc.cache.key.prepare import Prepared
from hpcc.cache.remote.farm_root import FarmRoot, shown_names
from hpcc.cache.remote.guest_paths import guest_path, installed_files, is_system, is_under
from hpcc.cache.remote.remote_closure import RemoteFiles
from hpcc.cache.root.ignored import BUILD_FILES, build_directory
from hpcc.compilers.invocation.guest import (
    BUILD_NAME,
    RELATIVE,
    SAME_LENGTH,
    SAME_LENGTH_WORD,
    SHORTEST_ROOT,
    WIDE_ROOT,
    GuestMap,
    NotPortableError,
    warns_of_missing_directories,
)
from hpcc.compilers.invocation.guest_names import check_absolute_names
from hpcc.compilers.scan.include_closure import UnscannableError, plain_directory
from hpcc.core.reasons.fallback import FallbackReason

# With one of these a directory is a source directory, whatever else is in it.
_SOURCE_FILES: Final = (
    b"CMakeLists.txt", b"meson.build", b"configure", b"configure.ac", b"Makefile.am", b".git",
)  # fmt: skip
_END: Final = rb"(?![\w.+-])"


def guest_map(prepared: Prepared, root: FarmRoot) -> GuestMap:
    """Return the path translation of one compile."""

    def is_in_image(path: bytes) -> bool:
        return not is_under(path, root.path) and is_system(path)

    return GuestMap(root.path, prepared.cwd, is_in_image, root.shown)


def with_installed(guest: GuestMap) -> GuestMap:
    """Return a translation with which installed files outside of the root are sent, too."""
    return replace(guest, base=WIDE_ROOT, is_installed=installed_files())


def renamed_build(prepared: Prepared, root: FarmRoot) -> bytes:
    """Return the build directory whose name a guest need not know; b"" if there is none.

    It holds files of a build system and no sources of one, and no argument names it but as the
    start of an absolute path.
    """
    directory = build_directory(prepared.cwd, root.path)
    if directory == root.path or not is_under(directory, root.path):
        return b""
    if not any(os.path.lexists(posixpath.join(directory, name)) for name in BUILD_FILES):
        return b""  # the search found none, and it ended at the working directory
    if any(os.path.lexists(posixpath.join(directory, name)) for name in _SOURCE_FILES):
        return b""
    name = directory.rpartition(b"/")[2]
    whole = re.compile(re.escape(directory) + _END)
    word = re.compile(rb"(?<![\w.+-])" + re.escape(name) + _END)
    for argument in prepared.invocation.arguments:
        if word.search(whole.sub(b"", argument)) or BUILD_NAME in argument:
            return b""
    return directory


def without_names(prepared: Prepared, root: FarmRoot, guest: GuestMap) -> GuestMap:
    """Return a translation without the names that the object certainly does not show.

    Then an action depends neither on where the project is nor on the build directory's name.
    """
    invocation = prepared.invocation
    paths = (invocation.source, *invocation.include_dirs, *invocation.forced_includes)
    if any(path.startswith(b"/") and posixpath.normpath(path) != path for path in paths):
        return guest  # the depfile shows such a spelling, and a translation makes it plain
    if invocation.language.is_preprocessed:
        return guest  # no preprocessor can be asked
    build = renamed_build(prepared, root)
    names = shown_names(prepared, Places(build or prepared.cwd, root.path))
    if names is None:
        return guest
    if not names:
        guest = replace(guest, shown=RELATIVE)
    if any(name.startswith(CWD_MARK) for name in names):
        return guest
    return replace(guest, build=build)


def settled_map(
    memo: FileMemo, prepared: Prepared, root: FarmRoot, guest: GuestMap, files: RemoteFiles
) -> GuestMap:
    """Return the translation that suits the texts of the files.

    Raises:
        NotPortableError: there is none.
    """
    own = [file for file in files.closure.files if is_under(file[0], root.path)]
    guest = _with_roots_length(memo, prepared, root, guest, own)
    holds = partial(holds_word, memo, prepared, root.path, files.closure)
    if guest.has_same_length and holds(SAME_LENGTH_WORD):
        raise NotPortableError(FallbackReason.SIDE_OUTPUT, "a source holds a name of hpcc's")
    if guest.build and (rename_conflicts(guest.build, files.components) or holds(BUILD_NAME)):
        return replace(guest, build=b"")
    return guest


def _with_roots_length(
    memo: FileMemo,
    prepared: Prepared,
    root: FarmRoot,
    guest: GuestMap,
    own: list[tuple[bytes, bytes]],
) -> GuestMap:
    """Give the root in the guest a path as long as here, if GCC chooses names by their lengths.

    Raises:
        NotPortableError: it cannot have one, or a guest's lack of links changes the names.
    """
    invocation = prepared.invocation
    if not prepared.family.takes_shorter_names:
        return guest
    systems = system_headers(memo, invocation, prepared.cwd, own)
    if not are_real(path for path, _ in systems):
        raise NotPortableError(FallbackReason.RESPELLED_HEADER, "a header behind a link")
    if not names_vary(memo, invocation, prepared.cwd, own):
        return guest
    if guest.has_same_length or guest.is_wide or root.shown not in {RELATIVE, root.path}:
        raise NotPortableError(FallbackReason.RESPELLED_HEADER)
    if not SHORTEST_ROOT <= len(root.path) <= len(SAME_LENGTH):
        raise NotPortableError(FallbackReason.RESPELLED_HEADER, "a root that is too short or long")
    check_absolute_names(invocation, guest, prepared.identity.major)
    return replace(guest, base=SAME_LENGTH[: len(root.path)], build=b"")


def rename_conflicts(build: bytes, components: frozenset[bytes] | None) -> bool:
    """Tell whether a source may ask for headers through a directory of the old or the new name."""
    if components is None:
        return True
    return build.rpartition(b"/")[2] in components or BUILD_NAME in components


def holds_word(
    memo: FileMemo, prepared: Prepared, root: bytes, closure: Closure, word: bytes
) -> bool:
    """Tell whether an argument, or a file of the project that the compile reads, holds a word.

    A guest's outputs are translated wherever they hold a reserved name, also in a source's text.
    """
    if any(word in argument for argument in prepared.invocation.arguments):
        return True
    holds = Holds(word)
    return any(
        memo.derived(path, digest, (b"holds", word), holds) is not False
        for path, digest in closure.files
        if is_under(posixpath.normpath(path), root)
    )


def searched_directories(prepared: Prepared, guest: GuestMap) -> frozenset[bytes]:
    """Return the search directories of the arguments that a guest must have, by absolute path.

    None, unless the compiler warns of those that are missing. Those of system headers are the
    image's: if it lacks one, its compiler warns, and the result is not taken.

    Raises:
        NotPortableError: one is missing here, or belongs neither to the project nor to the image.
    """
    invocation = prepared.invocation
    if not warns_of_missing_directories(invocation):
        return frozenset()
    found = set()
    for name in invocation.include_dirs:
        path = posixpath.normpath(absolute(prepared.cwd, name))
        is_in_image = name.startswith(b"/") and guest.is_system(path)
        is_there = is_in_image or is_under(path, guest.root)
        if not is_there or not os.path.isdir(absolute(prepared.cwd, name)):
            raise NotPortableError(FallbackReason.MISSING_INCLUDE_DIRS, os.fsdecode(name))
        found.add(path)
    return frozenset(found)


def with_searched(
    directories: tuple[str, ...], searched: frozenset[bytes], guest: GuestMap
) -> tuple[str, ...]:
    """Add those of the project: they must exist in the guest even if they are empty."""
    inside = (d for d in searched if is_under(d, guest.root) and d != guest.root)
    more = {guest_path(guest.relative(d)) for d in inside}
    return tuple(sorted(more.union(directories))) if more else directories


def with_passed(
    directories: tuple[str, ...], prepared: Prepared, guest: GuestMap
) -> tuple[str, ...]:
    """Add the directories that a `..` in the arguments leads through: they must exist there."""
    invocation = prepared.invocation
    passed: set[bytes] = set()
    for name in (invocation.source, *invocation.include_dirs, *invocation.forced_includes):
        if b".." in name:
            with contextlib.suppress(UnscannableError):  # a `..` behind a link is refused elsewhere
                plain_directory(absolute(prepared.cwd, name), os.path.islink, passed)
    inside = (d for d in passed if is_under(d, guest.root) and d != guest.root)
    more = {guest_path(guest.relative(d)) for d in inside if os.path.isdir(d)}
    return tuple(sorted(more.union(directories))) if more else directories
