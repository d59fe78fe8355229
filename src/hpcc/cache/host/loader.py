"""The dynamic loader's part of a compile: which libraries it gives to a compiler's programs.

Problem: the loader reads variables, `/etc/ld.so.cache`, `/etc/ld.so.preload` and the directories on
its way. Each can put another library into a compiler that is unchanged itself, and a library can do
anything: an auditing one rewrites the object, and `LD_DEBUG` writes into the messages.

Rule, as decided in docs/adr/0049-the-dynamic-loader.md:

- libraries are in the compiler's identity by content, as the loader itself lists them;
- every path that it tried and did not find must stay absent, and the files that direct it must stay
  as they are; else it is asked again;
- so must a path that is there and was skipped: a dangling link, a file for another machine, a file
  that must not be read;
- variables that choose libraries or change how the loader binds are in the key with their value;
- a relative directory of libraries is refused where no absolute name for it can be given;
- a variable that makes it run foreign code or write messages is refused. `LD_PRELOAD` of a library
  that is known not to change what a program writes, such as fakeroot's, is not foreign;
- variables that make such a library write are refused. Those that only tune it are in the key.

What must never happen: a hit although another library would have run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from hpcc.cache.base.files import FileMemo, Signature, signature_of
from hpcc.cache.base.tools import ask
from hpcc.cache.base.uncacheable import absolute
from hpcc.compilers.spec.table import Bypass
from hpcc.core.reasons.bypass import BypassReason

IDENTITY_ENV: Final = (b"LD_LIBRARY_PATH", b"LD_PRELOAD", b"LD_HWCAP_MASK", b"GLIBC_TUNABLES")
"""Variables that change which libraries the loader picks."""

DIRECTING_FILES: Final = (b"/etc/ld.so.preload", b"/etc/ld.so.cache")
"""Files that direct the loader. Their content is not an input: the libraries are."""

# Code that hpcc cannot judge, in the compiler or in iconv. An empty value means nothing to glibc.
_FOREIGN_CODE: Final = frozenset({b"LD_AUDIT", b"GCONV_PATH"})
# The loader writes messages or files, or lists libraries in place of running the program. Some
# count without a value (glibc, elf/rtld.c).
_TALKATIVE: Final = frozenset(
    {
        b"LD_DEBUG", b"LD_DEBUG_OUTPUT", b"LD_PROFILE", b"LD_PROFILE_OUTPUT", b"LD_SHOW_AUXV",
        b"LD_TRACE_LOADED_OBJECTS", b"LD_TRACE_PRELINKING",
    }
)  # fmt: skip
# An allocator writes a file or a report at the end, also one that is linked into the compiler
# (gperftools, heapprofiler.html and heap_checker.html).
_REPORTS: Final = frozenset({b"HEAPPROFILE", b"HEAPCHECK", b"CPUPROFILE", b"MALLOCSTATS"})
_REFUSED_IF_SET: Final = _FOREIGN_CODE | _REPORTS
# They make a preloaded library write messages (jemalloc, mimalloc, gperftools, cwrap).
_TALKATIVE_LIBRARIES: Final = re.compile(
    rb"MALLOC_CONF|MIMALLOC_.*|TCMALLOC_.*|PERFTOOLS_VERBOSE|[NU](?:SS|ID)_WRAPPER_DEBUGLEVEL"
)
# They change files' owners, allocate memory, buffer streams, check accesses, or draw windows.
_HARMLESS: Final = re.compile(
    rb"(?:/(?:usr|lib|lib64|nix/store|gnu/store)/(?:[^/]+/)*)?"
    rb"lib(?:fakeroot(?:-0|-sysv|-tcp)?|eatmydata|jemalloc|tcmalloc(?:_minimal)?|mimalloc|sandbox"
    rb"|stdbuf|gtk3-nocsd|nss_wrapper|uid_wrapper|stdc\+\+|gcc_s)\.so(?:\.[0-9]+)*"
)
_OF_THE_SYSTEM: Final = re.compile(rb"/(?:usr|lib|lib64|nix/store|gnu/store)/")
_SEPARATOR: Final = re.compile(rb"([:;])")
_UNNAMEABLE: Final = re.compile(rb"[:;$]")
# What the other names expand to, such as $LIB and $PLATFORM, is relative (glibc, elf/dl-load.c).
_ABSOLUTE: Final = re.compile(rb"/|\$(?:ORIGIN(?![0-9A-Za-z_])|\{ORIGIN\})")
# A directory may hold blanks, as in `libmpc.so.3 => /home/me/work dir/libmpc.so.3 (0x7f…)`.
_LOADED: Final = re.compile(rb"^[ \t]+(?:[^\n]*? => )?(/[^\n]*) \(0x[0-9a-f]+\)$", re.MULTILINE)
_TRIED: Final = re.compile(
    rb"^(?: +\d+:\t +trying file=(/[^\n]+)"
    # Of a library to preload the loader shows only that it failed.
    rb"|ERROR: ld\.so: object '(/[^\n]+)' from [^\n]+ cannot be preloaded[^\n]*)$",
    re.MULTILINE,
)


class Libraries(NamedTuple):
    """What the loader does for one program: the files that it loads, and those it tried before.

    `tried` were absent. `skipped` are there, and the loader did not load them. Of a directory that
    does not exist the loader tries only one name, and these hold the directory itself.
    """

    loaded: tuple[bytes, ...]
    tried: tuple[bytes, ...]
    skipped: tuple[bytes, ...]


class Skipped(NamedTuple):
    """A path that the loader skipped. While both stats stay as they are, it skips the path again.

    `target` is the stat of what the path leads to, None if that fails; `link` that of the name
    itself. `is_proven`: they were so when the loader was asked, and will show a change.
    """

    path: bytes
    target: Signature | None
    link: Signature | None
    is_proven: bool

    def holds(self) -> bool:
        """Tell whether the loader would skip the path now."""
        return self.is_proven and (self.target, self.link) == _look(self.path)


def look_at_skipped(path: bytes, memo: FileMemo, asked_ns: int) -> Skipped:
    """Take the stats of a skipped path; `asked_ns` is `now_ns` from before the loader was asked."""
    stats = _look(path)
    # A message about a library to preload may show $LIB, and not what it stands for.
    is_proven = b"$" not in path and all(s is None or memo.is_quiet(s, asked_ns) for s in stats)
    return Skipped(path, *stats, is_proven)


def _look(path: bytes) -> tuple[Signature | None, Signature | None]:
    found: list[Signature | None] = []
    for look in (os.stat, os.lstat):
        try:
            found.append(signature_of(look(path)))
        except OSError:
            found.append(None)
    return found[0], found[1]


def refusal_of_loader(env: Mapping[bytes, bytes]) -> Bypass | None:
    """Return why a compile with these variables is not for the cache; None if it is."""
    for name in env:
        if name in _TALKATIVE or (name in _REFUSED_IF_SET and env[name]):
            return Bypass(BypassReason.LOADER)
    names = _preloaded(env)
    if not names:
        return None
    if any(map(_TALKATIVE_LIBRARIES.fullmatch, env)):
        return Bypass(BypassReason.LOADER)
    if all(_HARMLESS.fullmatch(name) and b".." not in name for name in names):
        return None
    return Bypass(BypassReason.LOADER)


def has_impostor(env: Mapping[bytes, bytes], loaded: Iterable[bytes]) -> bool:
    """Tell whether a bare name of LD_PRELOAD led to a file outside the system's directories.

    LD_LIBRARY_PATH may hold a library of any name. `loaded` are the files that the loader loads.
    """
    bare = {name for name in _preloaded(env) if b"/" not in name}
    found = {path for path in loaded if path.rpartition(b"/")[2] in bare}
    return not all(_OF_THE_SYSTEM.match(os.path.realpath(path)) for path in found)


def _preloaded(env: Mapping[bytes, bytes]) -> list[bytes]:
    value = env.get(b"LD_PRELOAD")
    return [name for name in re.split(rb"[ :]+", value) if name] if value else []


def loader_environment(env: Mapping[bytes, bytes], cwd: bytes) -> Mapping[bytes, bytes]:
    """Return the variables with absolute directories in LD_LIBRARY_PATH.

    An empty part stands for the working directory, so `/a:$LD_LIBRARY_PATH` often names it.
    """
    parts = _SEPARATOR.split(env.get(b"LD_LIBRARY_PATH", b""))
    if not _has_relative(parts):
        return env
    parts[::2] = [p if _ABSOLUTE.match(p) else absolute(cwd, p) for p in parts[::2]]
    return {**env, b"LD_LIBRARY_PATH": b"".join(parts)}


def has_unnameable_directory(env: Mapping[bytes, bytes], cwd: bytes) -> bool:
    """Tell whether LD_LIBRARY_PATH means a working directory that it cannot hold by its name.

    The loader divides a name at `:` and `;`, and expands `$LIB` in it.
    """
    return _UNNAMEABLE.search(cwd) is not None and _has_relative(
        _SEPARATOR.split(env.get(b"LD_LIBRARY_PATH", b""))
    )


def _has_relative(parts: list[bytes]) -> bool:
    return parts != [b""] and not all(map(_ABSOLUTE.match, parts[::2]))


def libraries_of(program: bytes, env: Mapping[bytes, bytes], *arguments: bytes) -> Libraries:
    """Ask the loader what it does for a program; `arguments` count only for a static program.

    Raises:
        OSError: the program could not be started.
    """
    asking = {**env, b"LD_TRACE_LOADED_OBJECTS": b"1", b"LD_DEBUG": b"libs"}
    answer = ask([program, *arguments], env=asking, cwd=b"/")
    loaded = dict.fromkeys(_LOADED.findall(answer.stdout))
    looked_for = dict.fromkeys(_place(m[1] or m[2]) for m in _TRIED.finditer(answer.stderr))
    there = {path for path in looked_for if b"$" in path or os.path.lexists(path)}
    return Libraries(
        tuple(loaded),
        tuple(path for path in looked_for if path not in there),
        tuple(path for path in looked_for if path in there and path not in loaded),
    )


def _place(path: bytes) -> bytes:
    """Return the directory of a path if it is not one, else the path."""
    directory = path.rpartition(b"/")[0] or b"/"
    return path if b"$" in path or os.path.isdir(directory) else directory
