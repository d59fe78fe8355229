"""Translates one compile's arguments for a guest on Windows, where the project root is `C:/src`.

The counterpart of `invocation.guest` for cl's command line and Windows paths. Not yet run on
Windows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hpcc.compilers.invocation.guest import NotPortableError
from hpcc.compilers.invocation.invocation import Invocation
from hpcc.compilers.msvc.deps import read_source_dependencies
from hpcc.compilers.msvc.flags import FULL_PATHS
from hpcc.compilers.spec.table import Effect, Flag, Operand
from hpcc.core import WindowsPath, WindowsPathError, parse_windows_path, windows_key
from hpcc.core.reasons.fallback import FallbackReason

WINDOWS_GUEST_ROOT: Final = "C:\\src"
_SEPARATORS: Final = b"\\/"
_SOURCES: Final = frozenset({"Tc", "Tp"})
# Does not match inside another path. cl writes the drive in lower case, so both cases match.
_IN_TEXT: Final = re.compile(rb"(?<![\w.\\/+~-])[Cc]:[\\/]src([\\/])")


@dataclass(frozen=True, slots=True)
class WindowsGuestMap:
    """Translates the client's paths, after it resolved links, `subst` and short names."""

    root: WindowsPath
    cwd: WindowsPath
    is_system: Callable[[WindowsPath], bool]

    def spell(self, text: bytes) -> bytes:
        """Return the guest's spelling of a file of the project; relative names stay unchanged.

        Raises:
            NotPortableError: it is outside of the root, or not a path that a guest can have.
        """
        path = self._read(text)
        relative = self._below(path)
        if not _is_absolute(text):
            return text
        tail = "\\" + relative.replace("/", "\\") if relative else ""
        return (WINDOWS_GUEST_ROOT + tail).encode()

    def spell_directory(self, text: bytes) -> bytes:
        """Like `spell`, but a directory of system headers is in the image and stays unchanged."""
        if _is_absolute(text) and self.is_system(self._read(text)):
            return text
        return self.spell(text)

    def _read(self, text: bytes) -> WindowsPath:
        try:
            return parse_windows_path(text.decode(), cwd=self.cwd)
        except (WindowsPathError, UnicodeDecodeError) as error:
            raise NotPortableError(FallbackReason.WINDOWS_PATH) from error

    def _below(self, path: WindowsPath) -> str:
        if windows_key(str(path).rstrip("\\")) == windows_key(str(self.root).rstrip("\\")):
            return ""
        try:
            return path.relative_to(self.root)
        except WindowsPathError as error:
            raise NotPortableError(FallbackReason.OUTSIDE_ROOT) from error


def windows_guest_arguments(invocation: Invocation, guest: WindowsGuestMap) -> tuple[bytes, ...]:
    """Return the arguments with every path rewritten.

    Raises:
        NotPortableError: an argument has a meaning only on this machine.
    """
    if invocation.is_native:
        raise NotPortableError(FallbackReason.NATIVE)
    result: list[bytes] = []
    for part in invocation.parts:
        if isinstance(part, Operand):
            result.append(guest.spell(part.name))
        else:
            result.extend(_flag(part, guest))
    return tuple(result)


def _flag(flag: Flag, guest: WindowsGuestMap) -> tuple[bytes, ...]:
    effect, spelling = flag.spec.effect, flag.spec.spelling
    if effect is Effect.INCLUDE_DIR:
        return _respell(flag, guest.spell_directory(flag.value))
    if spelling == FULL_PATHS:
        raise NotPortableError(FallbackReason.FULL_PATHS)
    if effect is Effect.OUTPUT:
        return _respell(flag, _output(flag.value, guest))
    if effect in {Effect.FORCED_INCLUDE, Effect.SIDE_OUTPUT} or spelling in _SOURCES:
        return _respell(flag, guest.spell(flag.value))
    if spelling == "Fd":
        return ()  # clang-cl ignores it; with cl it is a bypass
    if effect is Effect.SEARCH and flag.value and spelling != "-target=":
        raise NotPortableError(FallbackReason.SYSROOT)
    if effect is Effect.DEPENDENCY:
        return ()  # the client's compiler writes the depfile, with the names of this machine
    if effect is Effect.LIST:
        # The text behind /clang: may contain any path.
        raise NotPortableError(FallbackReason.PASS_THROUGH)
    if any(_names(raw, guest.root) for raw in flag.raw):
        raise NotPortableError(FallbackReason.PATH_IN_FLAG)
    return flag.raw


def _output(value: bytes, guest: WindowsGuestMap) -> bytes:
    """Return the object's name; a separator at its end marks a directory and stays."""
    if value[-1:] not in {b"\\", b"/"}:
        return guest.spell(value) if value else value
    return guest.spell(value.rstrip(_SEPARATORS) or value) + value[-1:]


def _respell(flag: Flag, value: bytes) -> tuple[bytes, ...]:
    """Write the flag with a dash: `/x` may be a file name to clang-cl."""
    name = b"-" + flag.spec.spelling.encode()
    return (name, value) if len(flag.raw) > 1 else (name + value,)


def _names(argument: bytes, root: WindowsPath) -> bool:
    """Return whether the text contains the root, in any case and with either separator."""
    text = windows_key(argument.decode("utf-8", "replace")).replace("/", "\\")
    return windows_key(str(root).rstrip("\\")) in text.replace("\\\\", "\\")


def _is_absolute(text: bytes) -> bool:
    return text[1:3] in {b":\\", b":/"} or text[:1] in {b"\\", b"/"}


def client_source_dependencies(
    data: bytes, root: WindowsPath, is_here: Callable[[str], bool]
) -> bytes:
    """Return a guest's `/sourceDependencies` report with this machine's paths.

    Headers of the image that this machine lacks are left out, or builds would always find them
    missing.

    Raises:
        CallerError: it is not such a report; see `read_source_dependencies`.
    """
    source, *includes = (windows_guest_name(n, root) for n in read_source_dependencies(data))
    report = json.loads(data.decode("utf-8-sig"))
    report["Data"]["Source"] = source
    report["Data"]["Includes"] = [name for name in includes if is_here(name)]
    return json.dumps(report, ensure_ascii=False, indent=4).encode()


def windows_guest_name(name: str, root: WindowsPath) -> str:
    """Return a guest's file name with this machine's root."""
    return windows_guest_text(name.encode(), root).decode()


def windows_guest_text(text: bytes, root: WindowsPath) -> bytes:
    """Return a guest's messages with this machine's paths."""
    home = str(root).rstrip("\\").encode()
    return _IN_TEXT.sub(lambda match: home + match[1], text)
