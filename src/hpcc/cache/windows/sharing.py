"""Results of clang-cl for every checkout of a project on this machine.

As `key.share` elsewhere: a marker (`.hpcc`) names the root, the compiler gets prefix maps, and the
shared key and its inputs hold paths with a mark for the root. Commands spell a root with either
slash, and an object has the spelling of its command line. So text has a mark for each of the two,
and what has any other spelling, such as other capitals, is kept private.

What must never happen: a checkout gets an object or a message that names another one, or that was
compiled from other sources. So a result is private if the root is in a source, in the object or in
an odd place of a message, if a name leads over the border of the root (`../..`), if a search
directory is a link, or with a flag that is not on the list below. With debug information all are.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from hpcc.cache.base.fields import encode_fields
from hpcc.cache.base.manifest import Absence, InputSet
from hpcc.cache.key.marker import Marker
from hpcc.cache.remote.cl_host import search_directories
from hpcc.cache.results.results import Result
from hpcc.cache.windows.border import leaves
from hpcc.cache.windows.command import KEY_FORMAT, WindowsCompile, key_environment
from hpcc.cache.windows.depfiles import marked_depfile, spelled_depfile
from hpcc.cache.windows.disk import CacheDisk
from hpcc.cache.windows.root_text import MARKS, names, spellings
from hpcc.cache.windows.state import Inputs
from hpcc.compilers.invocation.share import ROOT_MARK
from hpcc.compilers.invocation.share_text import mark_text
from hpcc.compilers.spec.table import Effect, Flag, Operand
from hpcc.core import WindowsPath, WindowsPathError, parse_windows_path, windows_key
from hpcc.core.reasons.private import PrivateReason

FindMarker = Callable[[CacheDisk, bytes], tuple[WindowsPath, Marker] | None]
ORIGIN_BYTES: Final = 8
_PLAIN_ROOT: Final = re.compile(r"[A-Z]:(?:\\[\w.+@ ()-]+)+")
_PATH_EFFECTS: Final = frozenset(
    {Effect.OUTPUT, Effect.DEPENDENCY, Effect.INCLUDE_DIR, Effect.FORCED_INCLUDE}
)
_PATH_FLAGS: Final = frozenset({"Tc", "Tp"})
_TARGET: Final = "clang:-MT"
_SHARED_FLAGS: Final = frozenset({
    "c", "Fo", "o", "TC", "TP", "Tc", "Tp", "Fd", "I", "external:I", "external:anglebrackets",
    "external:W", "imsvc", "X", "FI", "D", "U", "nologo", "w", "std:", "Zc:", "permissive",
    "permissive-", "Zp", "J", "utf-8", "source-charset:", "execution-charset:", "EH", "GR",
    "Gw", "Gy", "GS", "Gs", "GF", "bigobj", "O", "arch:", "fp:", "Gd", "Gr", "Gv", "Gz", "MD",
    "MDd", "MT", "MTd", "sdl", "sdl-", "W0", "W1", "W2", "W3", "W4", "Wall", "WX", "WX-", "wd",
    "we", "wo", "w1", "w2", "w3", "w4", "diagnostics:", "errorReport:", "showIncludes", "FS",
    "Brepro", "Brepro-", "MP", "-target=", "-driver-mode=cl",
})  # fmt: skip
_WARNING: Final = re.compile(r"W(?![alp],)[A-Za-z0-9+=-]*")
# clang names an unnamed namespace by a hash of the source's path, which no map covers (LLVM,
# MicrosoftMangle.cpp).
_HASHED: Final = b"?A0x"


@dataclass(frozen=True, slots=True)
class WindowsShare:
    """How one compile is shared.

    `secrets` are directories that an object must not name. `is_source_whole`: the command line has
    the whole path of the source.
    """

    root: WindowsPath
    key: bytes
    secrets: tuple[WindowsPath, ...]
    is_source_whole: bool = False

    @property
    def origin(self) -> bytes:
        """A short name of this checkout, which tells who made an entry."""
        return hashlib.sha256(windows_key(str(self.root)).encode()).digest()[:ORIGIN_BYTES]

    def mark(self, path: bytes) -> bytes:
        """Replace the root at the start of a path of a manifest by the mark; others stay."""
        root = str(self.root).encode()
        is_below = path == root or path.startswith(root + b"\\")
        return ROOT_MARK + path[len(root) :] if is_below else path

    def spell(self, path: bytes) -> bytes:
        """Reverse `mark`."""
        root = str(self.root).encode()
        return root + path[len(ROOT_MARK) :] if path.startswith(ROOT_MARK) else path

    def marked_text(self, text: bytes) -> bytes | None:
        """Return messages with marks; None if one names the root in another way."""
        if ROOT_MARK in text:
            return None
        for root in spellings(self.root):
            # Behind the root either separator is fine.
            if mark_text(text.replace(root + b"\\", root + b"/"), root) is None:
                return None
        for mark, root in zip(MARKS, spellings(self.root), strict=True):
            text = text.replace(root, mark)
        return None if names(text, self.root) else text

    def spelled_text(self, text: bytes) -> bytes:
        """Reverse `marked_text`."""
        for mark, root in zip(MARKS, spellings(self.root), strict=True):
            text = text.replace(mark, root)
        return text

    def marked_inputs(
        self, inputs: Inputs
    ) -> tuple[tuple[tuple[bytes, bytes], ...], tuple[bytes, ...], tuple[Absence, ...]]:
        """Return files, present names and absences as they are stored."""
        files = tuple((self.mark(path), digest) for path, digest in inputs.files)
        absences = tuple(absence.renamed(self.mark) for absence in inputs.absences)
        return files, tuple(map(self.mark, inputs.present)), absences

    def marked(self, result: Result) -> Result:
        """Return a result as it is stored; its texts can be marked."""
        stdout, stderr = map(self.marked_text, (result.stdout, result.stderr))
        assert stdout is not None  # `why_result_is_private` checked them
        assert stderr is not None
        depfile = result.depfile
        if depfile is not None:
            depfile = marked_depfile(depfile, self.root)
            assert depfile is not None
        return result._replace(depfile=depfile, stdout=stdout, stderr=stderr, origin=self.origin)

    def spelled(self, result: Result) -> Result:
        """Return a stored result with the paths of this checkout, and without a wrong depfile."""
        stdout, stderr = map(self.spelled_text, (result.stdout, result.stderr))
        depfile = result.depfile
        depfile = None if depfile is None else spelled_depfile(depfile, self.root)
        return result._replace(depfile=depfile, stdout=stdout, stderr=stderr)

    def is_below(self, path: WindowsPath) -> bool:
        """Tell whether a path is below the root, in any capitals, or the root itself."""
        return _is_below(path, self.root)


@dataclass(frozen=True, slots=True)
class SharedCompile:
    """A compile, how it may be shared, and why not (`private`; "" without a marker).

    `key` is the one of a result that only this checkout has.
    """

    compiled: WindowsCompile
    share: WindowsShare | None = None
    private: str = ""

    @property
    def key(self) -> bytes:
        """See the class."""
        own = self.compiled.key
        if self.share is None:
            return own
        # It was made with the maps, or by a compiler that refuses them.
        return hashlib.sha256(encode_fields([own, *self.injected])).digest()

    @property
    def keys(self) -> tuple[bytes, ...]:
        """The keys under which a result may be."""
        return (self.key,) if self.share is None else (self.share.key, self.key)

    @property
    def injected(self) -> tuple[bytes, ...]:
        """The flags that hpcc adds for sharing."""
        return () if self.share is None else injected_flags(self.share.root)

    def spelled_set(self, key: bytes, inputs: InputSet) -> InputSet:
        """Return a set that is stored under a key with this checkout's paths."""
        share = self.share
        is_marked = share is not None and key == share.key
        return inputs.renamed(share.spell) if is_marked and share is not None else inputs

    def spelled(self, key: bytes, result: Result) -> Result:
        """Return a result that is stored under a key with this checkout's paths."""
        share = self.share
        is_marked = share is not None and key == share.key
        return share.spelled(result) if is_marked and share is not None else result

    def is_foreign(self, origin: bytes) -> bool:
        """Tell whether another checkout made a result."""
        return self.share is not None and origin not in {b"", self.share.origin}


class WindowsSharing:
    """Decides for each compile whether it is shared. Thread-safe: it keeps nothing.

    `find_marker` returns the marker of a working directory, `home` is the profile, "" if unknown.
    """

    def __init__(self, find_marker: FindMarker, home: str) -> None:
        self._find_marker, self._home = find_marker, home

    def ask(self, disk: CacheDisk, compiled: WindowsCompile) -> SharedCompile:
        """Decide for one compile. Runs no program."""
        found = self._share(disk, compiled)
        if isinstance(found, WindowsShare):
            return SharedCompile(compiled, found)
        return SharedCompile(compiled, private=found)

    def _share(self, disk: CacheDisk, compiled: WindowsCompile) -> WindowsShare | str:
        try:
            found = self._find_marker(disk, compiled.request.cwd)
        except WindowsPathError:
            found = None
        if found is None:
            return ""
        root, marker = found
        reason = self._why_private(disk, compiled, root, marker)
        if reason:
            return reason
        arguments = _canonical(compiled, root)
        if arguments is None:
            return PrivateReason.ROOT_IN_ARGUMENT
        inside = str(compiled.cwd)[len(str(root)) :].encode()
        rest = [inside, *arguments, compiled.identity, disk.languages]
        request = compiled.request
        fields = [b"shared", KEY_FORMAT, request.compiler, request.argv[0]]
        fields += [encode_fields(key_environment(request.env, compiled.family)), *rest]
        key = hashlib.sha256(encode_fields(fields)).digest()
        secrets = [root, compiled.cwd]
        with suppress(WindowsPathError):
            secrets.append(parse_windows_path(self._home))
        is_whole = names(compiled.invocation.source, root)
        kept = tuple(path for path in secrets if path.components)
        return WindowsShare(root, key, kept, is_whole)

    def _why_private(
        self, disk: CacheDisk, compiled: WindowsCompile, root: WindowsPath, marker: Marker
    ) -> str:
        request = compiled.request
        if reason := why_place_is_private(root, request.cwd.decode(), compiled.cwd, self._home):
            return reason
        if leaves(compiled.invocation.source.decode(), root, compiled.cwd):
            return PrivateReason.BORDER
        if _is_below(compiled.source, root):
            inside = windows_key(compiled.source.relative_to(root)).encode()
            excluded = tuple(windows_key(name.decode()).encode() for name in marker.excluded)
            if Marker(b"", excluded=excluded).excludes(inside):
                return PrivateReason.EXCLUDED
        if not compiled.family.has_local_cache:
            return PrivateReason.UNPROVED_COMPILER
        is_shared = all(_is_shared(flag) for flag in compiled.invocation.flags)
        if compiled.about_precompiled or not is_shared:
            return PrivateReason.FLAGS
        env = key_environment(request.env, compiled.family)
        if any(names(value, root) for value in (*env, request.compiler, request.argv[0])):
            return PrivateReason.ENVIRONMENT
        return _why_not_searched(disk, compiled, root)


def why_place_is_private(root: WindowsPath, cwd: str, real_cwd: WindowsPath, home: str) -> str:
    """Return the `PrivateReason` that holds for every compile in a directory, or "".

    `cwd` is the directory as it is spelled, `real_cwd` without links, `home` the profile's.
    """
    if not _PLAIN_ROOT.fullmatch(str(root)) or windows_key(str(root)) == windows_key(home):
        return PrivateReason.ROOT
    if cwd != str(real_cwd) or not (cwd + "\\").startswith(str(root) + "\\"):
        return PrivateReason.DIRECTORY_SPELLING  # `subst`, a junction, other capitals
    return ""


def _why_not_searched(disk: CacheDisk, compiled: WindowsCompile, root: WindowsPath) -> str:
    """Check that directories of flags below the root are not links, and lead nowhere else."""
    for value in search_directories(compiled.request, compiled.invocation):
        try:
            name = value.decode()
            path = parse_windows_path(name, cwd=compiled.cwd)
        except WindowsPathError:
            return PrivateReason.BORDER  # on a server, or of the current drive
        except UnicodeDecodeError:
            return PrivateReason.ROOT_IN_ARGUMENT
        if leaves(name, root, compiled.cwd):
            return PrivateReason.BORDER
        if not _is_below(path, root):
            if name[1:2] != ":":
                return PrivateReason.BORDER
        elif windows_key(disk.real(str(path))) != windows_key(str(path)):
            return PrivateReason.LINKED_DIRECTORY
    return ""


def why_result_is_private(
    share: WindowsShare, inputs: Inputs, search: Iterable[WindowsPath], made: Result
) -> str:
    """Return the `PrivateReason` to keep a result private, or "" if every checkout may have it."""
    reason = _why_inputs_differ(share, inputs, search)
    if reason:
        return reason
    if any(names(made.object_data, secret) for secret in share.secrets):
        return PrivateReason.EMBEDS_PATH
    if share.is_source_whole and _HASHED in made.object_data:
        return PrivateReason.EMBEDS_PATH
    texts = [share.marked_text(text) for text in (made.stdout, made.stderr)]
    if made.depfile is not None:
        texts.append(marked_depfile(made.depfile, share.root))
    return PrivateReason.TEXT if None in texts else ""


def _why_inputs_differ(share: WindowsShare, inputs: Inputs, search: Iterable[WindowsPath]) -> str:
    for is_so, reason in (
        (inputs.leads_out, PrivateReason.BORDER),
        (inputs.names_root, PrivateReason.ROOT_IN_SOURCE),
        (inputs.has_pieces, PrivateReason.COMPUTED_INCLUDE),
    ):
        if is_so:
            return reason
    outside = [directory for directory in search if not share.is_below(directory)]
    files = {path for path, _ in inputs.files}
    for name in (*files, *inputs.present, *(absence.directory for absence in inputs.absences)):
        path = parse_windows_path(name.decode())
        if share.is_below(path):
            if share.mark(name) == name:
                return PrivateReason.DIRECTORY_SPELLING
        elif windows_key(str(path)).startswith(windows_key(str(share.root))):
            return PrivateReason.NEIGHBOUR
        elif name in files and not any(_is_below(path, directory) for directory in outside):
            return PrivateReason.BORDER  # behind a macro; other names never cross the border
    return ""


def injected_flags(root: WindowsPath) -> tuple[bytes, ...]:
    """Return the flags that replace the root in what a compile writes; see `msvc.repro`."""
    return (
        b"-clang:-ffile-prefix-map=" + str(root).encode() + b"=.",
        b"-clang:-fno-file-reproducible",
        b"-clang:-ffile-compilation-dir=.",
    )


def _is_below(path: WindowsPath, root: WindowsPath) -> bool:
    return windows_key(str(path) + "\\").startswith(windows_key(str(root)) + "\\")


def _is_shared(flag: Flag) -> bool:
    spelling = flag.spec.spelling
    if spelling == _TARGET:
        # Written as it is: with blanks one name becomes two targets, and line breaks differ.
        return not any(c in flag.value for c in b" \t\r\n")
    is_listed = spelling in _SHARED_FLAGS or flag.spec.effect is Effect.DEPENDENCY
    return is_listed or _WARNING.fullmatch(spelling) is not None


def _canonical(compiled: WindowsCompile, root: WindowsPath) -> tuple[bytes, ...] | None:
    """Return the arguments with marks for the root; None if one has it elsewhere."""
    result: list[bytes] = []
    for part in compiled.invocation.parts:
        pieces = (part.name,) if isinstance(part, Operand) else part.raw
        if any(names(piece, root) for piece in pieces):
            marked = _with_mark(part, root)
            if marked is None:
                return None
            pieces = marked
        result += pieces
    return tuple(result)


def _with_mark(part: Flag | Operand, root: WindowsPath) -> tuple[bytes, ...] | None:
    if isinstance(part, Operand):
        marked = _marked(part.name, root)
        return None if marked is None else (marked,)
    if part.spec.effect not in _PATH_EFFECTS and part.spec.spelling not in _PATH_FLAGS:
        return None
    marked = _marked(part.value, root)
    head = part.raw[-1].removesuffix(part.value)
    return None if marked is None else (*part.raw[:-1], head + marked)


def _marked(value: bytes, root: WindowsPath) -> bytes | None:
    for mark, spelled in zip(MARKS, spellings(root), strict=True):
        rest = value[len(spelled) :]
        if value.startswith(spelled) and rest[:1] in {b"", b"\\", b"/"} and not names(rest, root):
            return mark + rest
    return None
