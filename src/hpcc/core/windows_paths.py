"""Windows paths as text: the same answer on every system, without access to a disk.

The client first resolves actual spellings (long names, links, `subst`). These rules then run there,
in the worker and in the agent. Sources: Win32 "Naming Files, Paths, and Namespaces", dotnet "File
path formats", and the results of Wine's GetFullPathNameW for the accepted forms.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from hpcc.core.digest import Digest
from hpcc.core.errors import CallerError
from hpcc.core.exec import InputFile

# MAX_PATH less the final zero: cl.exe accepts no longer paths under any system setting.
MAX_WINDOWS_PATH_UNITS: Final = 259
MAX_WINDOWS_NAME_UNITS: Final = 255
_SEPARATORS: Final = "\\/"
_DRIVE: Final = re.compile(r"[A-Za-z]:")
_NAMESPACE: Final = re.compile(r"[\\/]\?\?(?:[\\/]|\Z)")
_VERBATIM: Final = "\\\\?\\"
# Characters that NTFS names may not contain in the Win32 namespace; ':' marks a stream.
_FORBIDDEN: Final = re.compile(r'[\x00-\x1f<>"|?*]')
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
# Superscript digits count (Win32 documentation); COM0 and LPT0 are ordinary names.
_RESERVED: Final = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[1-9\u00b9\u00b2\u00b3])", re.IGNORECASE
)
# Eight characters before the dot, three after it, and a suffix that a file system generates.
_SHORT: Final = re.compile(r"(?=[^.]{1,8}(?:\.[^.]{0,3})?\Z)[^.]*~[0-9]+(?:\..*)?", re.DOTALL)
_FOLD: Final = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


class WindowsPathError(CallerError):
    """The path cannot be used. tests/golden/windows_paths.json lists each `reason`."""

    default_reason = "windows-path"


@dataclass(frozen=True, slots=True)
class WindowsPath:
    r"""A drive-absolute path in its only spelling: `C:\w\src\A.cpp` is `C` and its components."""

    drive: str
    components: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.drive}:\\" + "\\".join(self.components)

    def relative_to(self, root: WindowsPath) -> str:
        """Return the path below `root`, with `/` between components.

        Drive and root are compared as NTFS does for ASCII letters.

        Raises:
            WindowsPathError: it is the root itself or not below it (`outside-root`).
        """
        depth = len(root.components)
        head, tail = self.components[:depth], self.components[depth:]
        is_below = windows_key(self.drive) == windows_key(root.drive) and [
            windows_key(c) for c in head
        ] == [windows_key(c) for c in root.components]
        if not is_below or not tail:
            raise _refused("outside-root", str(self), f"is not below {root}")
        return "/".join(tail)


def parse_windows_path(text: str, *, cwd: WindowsPath | None = None) -> WindowsPath:
    r"""Return the path for an absolute text, or one relative to `cwd`.

    A `..` above the drive's root is rejected, although Windows would stay at the root.

    Raises:
        WindowsPathError: another form (UNC, device, drive-relative …), or a component that could
            be a second spelling of another file.
    """
    if _SURROGATE.search(text):
        raise _refused("lone-surrogate", text, "has half a character, which UTF-8 cannot carry")
    is_verbatim = _check_form(text)
    if is_verbatim:
        text = text.removeprefix(_VERBATIM)
    base: tuple[str, ...] = ()
    words = re.split(r"[\\/]", text)
    if _DRIVE.fullmatch(words[0]):
        drive, words = words[0][0], words[1:]
    elif cwd is None:
        raise _refused("relative-path", text, "is relative, and to what is not said")
    else:
        drive, base = cwd.drive, cwd.components
    path = WindowsPath(drive.upper(), _collapsed(text, base, words))
    if is_verbatim and str(path)[1:] != text[1:]:
        raise _refused("verbatim-path", text, r"is not the same file without its \\?\ prefix")
    check_windows_length(str(path))
    return path


def check_windows_length(path: str) -> None:
    """Reject a path that cl.exe cannot open.

    Raises:
        WindowsPathError: more than 259 UTF-16 units (`path-too-long`).
    """
    units = _units(path)
    if units > MAX_WINDOWS_PATH_UNITS:
        raise _refused(
            "path-too-long", path, f"has {units} UTF-16 units, at most {MAX_WINDOWS_PATH_UNITS}"
        )


def check_windows_relative(path: str) -> str:
    """Return a `/`-separated path below a root, as sent to guests, if a guest can have it.

    Raises:
        WindowsPathError: absolute, empty, with `.` or `..`, a backslash, or a rejected component.
    """
    if _SURROGATE.search(path):
        raise _refused("lone-surrogate", path, "has half a character, which UTF-8 cannot carry")
    for component in path.split("/"):
        if component in {"", ".", ".."} or "\\" in component:
            raise _refused("relative-path", path, "is not a plain path below the root")
        _check_component(path, component)
    check_windows_length(path)
    return path


def windows_key(path: str) -> str:
    """Return the path with only its ASCII capitals folded.

    NTFS has its own table, which maps one UTF-16 unit to one. Folding less than NTFS costs a cache
    miss. Folding more, as Unicode's casefold does, would treat two files as one.
    """
    return path.translate(_FOLD)


def windows_keys(files: Mapping[str, Digest]) -> Mapping[str, str]:
    """Return the spelling to use for each key: the first in order if there are several.

    Raises:
        WindowsPathError: one key has two contents (`case-conflict`).
    """
    chosen: dict[str, str] = {}
    for path in sorted(files):
        first = chosen.setdefault(windows_key(path), path)
        if files[first] != files[path]:
            raise _refused("case-conflict", path, f"and {first!r} are one file on Windows")
    return chosen


def folded_inputs(files: Iterable[InputFile]) -> tuple[InputFile, ...]:
    """Return a tree's files under their keys, for a guest whose file system folds case.

    Raises:
        WindowsPathError: Windows cannot have one of the names, or would treat two files as one.
    """
    by_path: dict[str, InputFile] = {}
    for file in files:
        if by_path.setdefault(check_windows_relative(file.path), file) != file:
            raise _refused("case-conflict", file.path, "is there twice")
    chosen = windows_keys({path: file.digest for path, file in by_path.items()})
    return tuple(replace(by_path[path], path=key) for key, path in chosen.items())


def is_short_name(component: str) -> bool:
    """Return whether a component may be an 8.3 name.

    The client asks the file system for the long name. Elsewhere the name is used unchanged and
    counted, and never treated as equal to a long name.
    """
    return _SHORT.fullmatch(component) is not None


def _check_form(text: str) -> bool:
    r"""Reject other forms; return whether a `\\?\` prefix precedes a drive."""
    if _NAMESPACE.match(text):
        raise _refused("device-path", text, "is in the NT namespace")
    if len(text) > 1 and text[0] in _SEPARATORS and text[1] in _SEPARATORS:
        return _check_double(text)
    if text and text[0] in _SEPARATORS:
        raise _refused("root-relative", text, "is relative to the current drive")
    if _DRIVE.match(text) and text[2:3] not in {"\\", "/"}:
        raise _refused("drive-relative", text, "is relative to a drive's current directory")
    return False


def _check_double(text: str) -> bool:
    if text[2:3] not in {"?", "."} or text[3:4] not in {"\\", "/"}:
        raise _refused("unc-path", text, "is on a server; nothing crosses by file sharing")
    rest = text[4:]
    if re.match(r"unc[\\/]", rest, re.IGNORECASE):
        raise _refused("unc-path", text, "is on a server; nothing crosses by file sharing")
    if not text.startswith(_VERBATIM) or not _DRIVE.match(rest) or rest[2:3] != "\\":
        raise _refused("device-path", text, "is a device or an uncommon spelling of a file")
    if "/" in rest:
        raise _refused("verbatim-path", text, r"has a '/', which is a name's character after \\?\ ")
    return True


def _collapsed(text: str, base: tuple[str, ...], words: list[str]) -> tuple[str, ...]:
    components = list(base)
    for word in words:
        if word in {"", "."}:
            continue
        if word == "..":
            if not components:
                raise _refused("above-root", text, "leads above its drive")
            components.pop()
            continue
        _check_component(text, word)
        components.append(word)
    return tuple(components)


def _check_component(path: str, name: str) -> None:
    stem = re.split(r"[.:]", name, maxsplit=1)[0].rstrip(" ")
    if _RESERVED.fullmatch(stem):
        raise _refused("reserved-name", path, f"names the device {stem.upper()}")
    if ":" in name:
        raise _refused("stream", path, "names a stream of a file")
    if _FORBIDDEN.search(name):
        raise _refused("bad-character", path, "has a character that Windows names cannot have")
    if name[-1] in ". ":
        raise _refused(
            "trailing-dot", path, "has a name that ends in a dot or space, cut by Windows"
        )
    if _units(name) > MAX_WINDOWS_NAME_UNITS:
        raise _refused(
            "path-too-long", path, f"has a name over {MAX_WINDOWS_NAME_UNITS} UTF-16 units"
        )


def _units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _refused(reason: str, path: str, why: str) -> WindowsPathError:
    return WindowsPathError(f"path {path[:120]!r} {why}", reason=reason)
