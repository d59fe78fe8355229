"""One compile's arguments as a guest on Windows will see them, where the root is `C:/src`.

The twin of `invocation.guest` for cl's command line and Windows paths. Not yet run on Windows.
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
from hpcc.compilers.spec.table import Effect, Flag, Operand
from hpcc.core import WindowsPath, WindowsPathError, parse_windows_path, windows_key
from hpcc.core.reasons.fallback import FallbackReason

WINDOWS_GUEST_ROOT: Final = "C:\\src"
_SEPARATORS: Final = b"\\/"
_SOURCES: Final = frozenset({"Tc", "Tp"})
# Not the middle of another path; the drive in either case, as cl writes it in lower case.
_IN_TEXT: Final = re.compile(rb"(?<![\w.\\/+~-])[Cc]:[\\/]src([\\/])")


@dataclass(frozen=True, slots=True)
class WindowsGuestMap:
    """Translates paths of the client, which has resolved links, `subst` and short names before."""

    root: WindowsPath
    cwd: WindowsPath
    is_system: Callable[[WindowsPath], bool]

    def spell(self, text: bytes) -> bytes:
        """Return how the guest must spell a file of the project; relative names stay.

        Raises:
            NotPortableError: it is outside the root, or no path that a guest can have.
        """
        path = self._read(text)
        relative = self._below(path)
        if not _is_absolute(text):
            return text
        tail = "\\" + relative.replace("/", "\\") if relative else ""
        return (WINDOWS_GUEST_ROOT + tail).encode()

    def spell_directory(self, text: bytes) -> bytes:
        """Like `spell`; a directory of system headers is the image's own and stays too."""
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
    """Rewrite every path in the arguments.

    Raises:
        NotPortableError: some argument means something only on this machine.
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
    if effect is Effect.OUTPUT:
        return _respell(flag, _output(flag.value, guest))
    if effect in {Effect.FORCED_INCLUDE, Effect.SIDE_OUTPUT} or spelling in _SOURCES:
        return _respell(flag, guest.spell(flag.value))
    if spelling == "Fd":
        return ()  # clang-cl does nothing with it; of cl it is a bypass
    if effect is Effect.SEARCH and flag.value and spelling != "-target=":
        raise NotPortableError(FallbackReason.SYSROOT)
    if effect is Effect.LIST:
        raise NotPortableError(
            FallbackReason.PASS_THROUGH
        )  # what stands behind /clang: may hold any path
    if any(_names(raw, guest.root) for raw in flag.raw):
        raise NotPortableError(FallbackReason.PATH_IN_FLAG)
    return flag.raw


def _output(value: bytes, guest: WindowsGuestMap) -> bytes:
    """Return the object's name; a separator at its end makes it a directory and stays."""
    if value[-1:] not in {b"\\", b"/"}:
        return guest.spell(value) if value else value
    return guest.spell(value.rstrip(_SEPARATORS) or value) + value[-1:]


def _respell(flag: Flag, value: bytes) -> tuple[bytes, ...]:
    """Write it with a dash: `/x` may be the name of a file to clang-cl."""
    name = b"-" + flag.spec.spelling.encode()
    return (name, value) if len(flag.raw) > 1 else (name + value,)


def _names(argument: bytes, root: WindowsPath) -> bool:
    """Say whether the root is somewhere in the text, with whatever case and separators."""
    text = windows_key(argument.decode("utf-8", "replace")).replace("/", "\\")
    return windows_key(str(root).rstrip("\\")) in text.replace("\\\\", "\\")


def _is_absolute(text: bytes) -> bool:
    return text[1:3] in {b":\\", b":/"} or text[:1] in {b"\\", b"/"}


def client_source_dependencies(
    data: bytes, root: WindowsPath, is_here: Callable[[str], bool]
) -> bytes:
    """Return a guest's `/sourceDependencies` report with this machine's paths in it.

    Headers of the image that this machine lacks are left out: a build would miss them each time.

    Raises:
        CallerError: it is no such report; see `read_source_dependencies`.
    """
    source, *includes = (windows_guest_name(n, root) for n in read_source_dependencies(data))
    report = json.loads(data.decode("utf-8-sig"))
    report["Data"]["Source"] = source
    report["Data"]["Includes"] = [name for name in includes if is_here(name)]
    return json.dumps(report, ensure_ascii=False, indent=4).encode()


def windows_guest_name(name: str, root: WindowsPath) -> str:
    return windows_guest_text(name.encode(), root).decode()


def windows_guest_text(text: bytes, root: WindowsPath) -> bytes:
    """Return a guest's messages with this machine's paths in them."""
    home = str(root).rstrip("\\").encode()
    return _IN_TEXT.sub(lambda match: home + match[1], text)
