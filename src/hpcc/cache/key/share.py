"""Cross-checkout sharing: decides whether a compile takes part, and computes its shared key.

Problem: two clones of a project at different paths compile the same sources. Their command lines,
working directories and objects differ only in the path of the clone.

Rule: a compile takes part if a marker names the root of its clone and the command line is on the
allow-list (`compilers.invocation.share`). The compiler then gets prefix maps, which replace the
root in the object, and the shared key holds all paths relative to the root. Every other compile
stays private and runs as the user wrote it. After the compile `results.share_check` searches the
object and the sources for the root before the result is stored under the shared key.

Example: /home/a/proj and /home/b/proj both run `gcc -Iinclude -c src/x.c`. The key of both holds
"the root" as directory and the arguments as they are. The maps replace each root by the same text,
so that one object serves both.

What must never happen: a clone gets an object, a depfile or a message that names another clone, or
that was compiled from other sources. In doubt the compile is private, with a `private.REASON`:
system directories below the root, links on a search directory, a compiler that refuses the maps.
A compile that fails with the maps is repeated without them, so that sharing never breaks a build.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from hpcc.cache.base.api import CompileRequest
from hpcc.cache.base.fields import encode_fields
from hpcc.cache.base.files import FileMemo, signature_of
from hpcc.cache.base.tools import ask
from hpcc.cache.base.uncacheable import absolute
from hpcc.cache.host.compiler_probe import Identity
from hpcc.cache.key.marker import Marker, MarkerError, MarkerSearch, read_marker, search_marker
from hpcc.cache.key.relocate import Checkout
from hpcc.compilers.invocation.family import CompilerFamily
from hpcc.compilers.invocation.invocation import Invocation
from hpcc.compilers.invocation.share import (
    canonical_arguments,
    is_plain_root,
    prefix_maps,
    under_root,
)
from hpcc.core.memo import BoundedMemo
from hpcc.core.reasons.private import PrivateReason

KEY_FORMAT: Final = b"shared-7"
# A compile that fails with the maps is run again without them. The limit stops a command that
# always fails with them from being compiled twice each time.
FAILURES_BEFORE_PLAIN: Final = 3
_MAX_REMEMBERED: Final = 4096
# Directories of the compiler's own headers; below a root they would count as the project's.
_SYSTEM: Final = (b"/usr/include", b"/usr/local/include", b"/usr/lib", b"/usr/share", b"/lib")
# GCC spells headers of these search directories by their real names, which no key contains.
SEARCH_ENV: Final = (
    b"CPATH",
    b"C_INCLUDE_PATH",
    b"CPLUS_INCLUDE_PATH",
    b"OBJC_INCLUDE_PATH",
    b"OBJCPLUS_INCLUDE_PATH",
)
_NOT_IN_KEY: Final = frozenset({b"PATH", b"PWD", b"TMPDIR"})
_SYSTEM_DIRS: Final = ("-isystem", "-idirafter")


@dataclass(frozen=True, slots=True)
class Share:
    """How one compile is shared.

    `injected` are the flags to add, `system_dirs` the directories of -isystem and -idirafter,
    `secrets` the paths that an object must not contain. `identity` is the compiler's digest, and
    `revoked` are the ids of keys that the marker revokes for this checkout.
    """

    checkout: Checkout
    key: bytes
    injected: tuple[bytes, ...]
    system_dirs: tuple[bytes, ...]
    secrets: tuple[bytes, ...]
    identity: bytes = b""
    revoked: frozenset[str] = frozenset()

    def is_foreign(self, origin: bytes) -> bool:
        """Tell whether another checkout made a result; the origin b"" means it is not shared."""
        return origin != b"" and not origin.startswith(self.checkout.origin)

    def has_other_names(self, paths: Iterable[bytes]) -> bool:
        """Tell whether a compiler may spell one of these headers by its real name."""
        return has_other_names(self.system_dirs, paths)


def has_other_names(system_dirs: tuple[bytes, ...], paths: Iterable[bytes]) -> bool:
    """Tell whether a compiler may spell a header of these search directories by its real name."""
    if not system_dirs:
        return False
    prefixes = tuple(d + b"/" for d in system_dirs)
    headers = (p for p in paths if p.startswith(prefixes))
    return any(b"/../" in p or os.path.realpath(p) != p for p in headers)


@dataclass(frozen=True, slots=True)
class MarkerStatus:
    """The result of the marker search for one compile.

    `share` is None for a private compile; `reason` says why, and is "" if there is no marker.
    """

    search: MarkerSearch
    share: Share | None = None
    reason: str = ""


class Sharing:
    """Decides for each compile whether it is shared. Thread-safe like `FileMemo`."""

    def __init__(self, memo: FileMemo, home: bytes) -> None:
        self._memo, self._home = memo, home
        self._markers: BoundedMemo[bytes, tuple[tuple[int, ...], Marker | MarkerError]] = (
            BoundedMemo(_MAX_REMEMBERED)
        )
        self._accepted: BoundedMemo[tuple[bytes, bytes], bool] = BoundedMemo(_MAX_REMEMBERED)
        self._failures: BoundedMemo[bytes, int] = BoundedMemo(_MAX_REMEMBERED)
        self._straight: BoundedMemo[bytes, tuple[int, int]] = BoundedMemo(_MAX_REMEMBERED)

    def marker_status(
        self,
        request: CompileRequest,
        invocation: Invocation,
        family: CompilerFamily,
        identity: Identity,
        rest_of_key: tuple[bytes, ...],
    ) -> MarkerStatus:
        """Decide for one compile; `rest_of_key` is the key besides paths and arguments."""
        search = search_marker(request.cwd, self._home, self._read)
        marker = search.marker
        if marker is None:
            return MarkerStatus(search, reason=search.refusal)
        reason = self._why_private(request, invocation, family, identity.major, marker)
        if reason:
            return MarkerStatus(search, reason=reason)
        root = marker.root
        key = _key(request, invocation, identity, root, rest_of_key)
        if self._failures.get(key, 0) >= FAILURES_BEFORE_PLAIN:
            return MarkerStatus(search, reason=PrivateReason.FAILS_WITH_MAPS)
        if not self._accepts(request, identity, root):
            return MarkerStatus(search, reason=PrivateReason.MAPS_REFUSED)
        secrets = {root, os.path.realpath(root), request.cwd, self._home} - {b"/"}
        share = Share(
            Checkout(root, family, request.cwd if invocation.has_modules else b""),
            key,
            prefix_maps(root, request.cwd),
            tuple(absolute(request.cwd, d) for d in invocation.values(*_SYSTEM_DIRS)),
            tuple(sorted(secrets)),
            identity.digest,
            marker.revoked_keys,
        )
        return MarkerStatus(search, share)

    def note(self, share: Share, *, failed: bool) -> None:
        """Record whether a compile with the maps failed; see `FAILURES_BEFORE_PLAIN`."""
        if not failed:
            self._failures.pop(share.key, None)
            return
        self._failures[share.key] = self._failures.get(share.key, 0) + 1

    def _read(self, root: bytes, status: os.stat_result) -> Marker:
        """Read a marker, or return the remembered one while its stat is the same and old enough."""
        signature = (*signature_of(status), status.st_mode, status.st_uid)
        known = self._markers.get(root)
        if known is None or known[0] != signature:
            is_quiet = self._memo.is_quiet(signature_of(status))
            try:
                found: Marker | MarkerError = read_marker(root)
            except MarkerError as error:
                found = error
            known = (signature, found)
            if is_quiet:
                self._markers[root] = known
        if isinstance(known[1], MarkerError):
            raise known[1]
        return known[1]

    def _why_private(
        self,
        request: CompileRequest,
        invocation: Invocation,
        family: CompilerFamily,
        major: int,
        marker: Marker,
    ) -> str:
        root = marker.root
        if family.never_shared:
            return family.never_shared
        if not may_share(root, self._home):
            return PrivateReason.ROOT
        inside = under_root(posixpath.normpath(absolute(request.cwd, invocation.source)), root)
        if inside is not None and marker.excludes(inside[1:]):
            return PrivateReason.EXCLUDED
        reason = family.why_private(invocation, root, major) or _environment(request, root)
        if reason:
            return reason
        is_odd = any(
            f.spec.spelling in _SYSTEM_DIRS
            and _may_be_respelled(absolute(request.cwd, f.value), root)
            for f in invocation.flags
        )
        if is_odd:
            return PrivateReason.SYSTEM_DIRECTORY
        directories = (absolute(request.cwd, d) for d in invocation.include_dirs)
        own = (d for d in directories if under_root(d, root) is not None)
        return "" if all(map(self._is_straight, own)) else PrivateReason.LINKED_DIRECTORY

    def _is_straight(self, directory: bytes) -> bool:
        """Tell whether the path of a search directory contains no link.

        Compilers drop the second of two names of one directory, so with links the search order
        would depend on where the links of each checkout lead.
        """
        try:
            status = os.stat(directory)
        except OSError:
            return True  # its absence is recorded as an input
        place = (status.st_dev, status.st_ino)
        if self._straight.get(directory) == place:
            return True
        if os.path.realpath(directory) != os.path.normpath(directory):
            return False
        self._straight[directory] = place
        return True

    def _accepts(self, request: CompileRequest, identity: Identity, root: bytes) -> bool:
        """Test each compiler once per root: does it accept the maps and apply them?"""
        key = (identity.digest, root)
        known = self._accepted.get(key)
        if known is None:
            known = _try_maps(request.compiler, request.env, root)
            self._accepted[key] = known
        return known


def _key(
    request: CompileRequest,
    invocation: Invocation,
    identity: Identity,
    root: bytes,
    rest: tuple[bytes, ...],
) -> bytes:
    arguments = canonical_arguments(invocation, root)
    inside = under_root(request.cwd, root)
    assert arguments is not None  # `why_private` checked it
    assert inside is not None  # the search began there
    fields = [KEY_FORMAT, identity.digest, request.compiler, inside, *rest, b"", *arguments]
    return hashlib.sha256(encode_fields(fields)).digest()


def _environment(request: CompileRequest, root: bytes) -> str:
    env = request.env
    if root in request.compiler or any(name in env for name in SEARCH_ENV):
        return PrivateReason.ENVIRONMENT
    pwd = env.get(b"PWD", b"")
    if pwd != request.cwd and _is_same_directory(pwd, request.cwd):
        return (
            PrivateReason.DIRECTORY_SPELLING
        )  # compilers then write down $PWD, which no map covers
    names = (n for n, value in env.items() if root in value and n not in _NOT_IN_KEY)
    return "" if all(name.startswith(b"HPCC_") for name in names) else PrivateReason.ENVIRONMENT


def _is_same_directory(one: bytes, other: bytes) -> bool:
    if not one.startswith(b"/"):
        return False
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return False


def may_share(root: bytes, home: bytes) -> bool:
    """Report whether a marker in this directory may share results, whatever is compiled there."""
    return root not in {home, b"/"} and is_plain_root(root) and not _is_system(root)


def _is_system(root: bytes) -> bool:
    return any(under_root(root, s) is not None or under_root(s, root) is not None for s in _SYSTEM)


def _may_be_respelled(directory: bytes, root: bytes) -> bool:
    """Tell whether a compiler may spell headers in a directory by their real names.

    GCC uses the real name of a system header if it is shorter than the name on the search path, so
    the choice would depend on the length of the root. Clang uses the real name in depfiles.
    """
    if under_root(directory, root) is None:
        return False
    is_odd = b".." in directory.split(b"/") or directory.endswith((b"/.", b"/"))
    return is_odd or os.path.realpath(directory) != directory


def _try_maps(compiler: bytes, env: Mapping[bytes, bytes], root: bytes) -> bool:
    """Compile one line in the root with the maps, and check that the object omits the root."""
    with tempfile.TemporaryDirectory(prefix="hpcc-maps-") as name:
        source, output = (os.fsencode(os.path.join(name, n)) for n in ("probe.c", "probe.o"))
        argv = [compiler, *prefix_maps(root, root), b"-g", b"-c", b"-x", b"c", source]
        try:
            with open(source, "wb") as file:
                file.write(b"int probe;\n")
            answer = ask([*argv, b"-o", output], env={**env, b"PWD": root}, cwd=root)
            with open(output, "rb") as file:
                data = file.read()
        except OSError:
            return False
    return answer.exit_code == 0 and not answer.stderr and root not in data
