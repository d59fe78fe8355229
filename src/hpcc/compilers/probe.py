"""What a compiler reports about itself for the probe: one run, the same on host and guest.

`-v` gives family, version, target and search path. `-E -dD` of a source that includes the standard
headers gives their preprocessed text, without comments. Its digests by directory show differences
that matter, and ignore other packages in `/usr/include`. The answer is hostile input. Analysers
are asked in another way (`analyser_probe`).
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from typing import Final

from hpcc.compilers.analyser_probe import (
    ANY_TARGET,
    analyser_kind,
    analyser_probe,
    cppcheck_version,
    digest_of_probe,
    files_of_probe,
)
from hpcc.compilers.spec.drivers import is_clang_cl, is_cxx_driver
from hpcc.core import CallerError, Family, Toolchain

PROBE_FORMAT: Final = 1
"""Digests of probes with another number are not compared: raise it whenever the source changes."""

MAX_PREPROCESSED_BYTES: Final = 32 << 20  # the C++ probe gives 5 MB
MAX_ABOUT_BYTES: Final = 1 << 20
_MAX_FILES: Final = 4096
_MAX_DIRECTORIES: Final = 16
PREDEFINED: Final = "(predefined macros)"

_C_HEADERS: Final = (
    "assert ctype errno fenv float inttypes iso646 limits locale math setjmp signal stdalign stdarg"
    " stdbool stddef stdint stdio stdlib stdnoreturn string time uchar wchar wctype complex tgmath"
    " unistd fcntl pthread dlfcn poll sched semaphore dirent netdb strings"
    " sys/types sys/stat sys/socket sys/time sys/wait sys/mman sys/select sys/uio"
    " netinet/in arpa/inet"
)
# Not <execution> (with GCC it needs an extra library), not <coroutine> (it needs a flag).
_CXX_HEADERS: Final = (
    "algorithm any array atomic barrier bit bitset cassert cctype cerrno cfenv cfloat charconv"
    " chrono cinttypes climits clocale cmath compare complex concepts condition_variable"
    " csetjmp csignal cstdarg cstddef cstdint cstdio cstdlib cstring ctime cuchar cwchar cwctype"
    " deque exception expected filesystem format forward_list fstream functional future"
    " initializer_list iomanip ios iosfwd iostream istream iterator latch limits list locale map"
    " memory memory_resource mutex new numbers numeric optional ostream print queue random ranges"
    " ratio regex scoped_allocator semaphore set shared_mutex source_location span sstream stack"
    " stdexcept stop_token streambuf string string_view syncstream system_error thread tuple"
    " type_traits typeindex typeinfo unordered_map unordered_set utility valarray variant vector"
    " version"
)
_FEW_CXX_HEADERS: Final = "algorithm map memory string thread vector"
_GCC: Final = re.compile(
    rb"^gcc version (\d{1,6}(?:\.\d{1,6}){0,3})(?!\d)([^\n]{0,200})$", re.MULTILINE
)
_CLANG: Final = re.compile(
    rb"^([^\n]{0,60})clang version (\d{1,6}(?:\.\d{1,6}){0,3})(?!\d)([^\n]{0,200})$", re.MULTILINE
)
_TARGET: Final = re.compile(rb"^Target: (\S{1,64})$", re.MULTILINE)
# `# 1 "/usr/include/stdio.h" 1 3 4`: the lines that follow are from that file.
_MARKER: Final = re.compile(rb'^# \d{1,9} "((?:[^"\\\n]|\\.){0,4096})"[ \d]*\n', re.MULTILINE)


def probe_kind(name: str) -> str:
    """Return how a program of this name is probed; "" for a name that no probe is for.

    clang, clang++ and clang-cl are one file and three compilers: "c", "c++" and "cl".
    """
    if analyser := analyser_kind(name):
        return analyser
    if is_clang_cl(name.encode()):
        return "cl"
    is_cxx = is_cxx_driver(name.encode())
    return "" if is_cxx is None else "c++" if is_cxx else "c"


def probe_source(compiler: str) -> tuple[str, bytes]:
    """Return the name and the content of the probe's source for a compiler of this name."""
    is_cxx = is_cxx_driver(compiler.encode())
    c_names = [f"{h}.h" for h in _C_HEADERS.split()]
    names = _CXX_HEADERS.split() if is_cxx else c_names
    if analyser_kind(compiler):
        # It parses what it reads, which takes long. Headers of one library change together.
        is_cxx, names = True, [*_FEW_CXX_HEADERS.split(), *c_names]
    lines = [f"#if __has_include(<{n}>)\n#include <{n}>\n#endif\n" for n in names]
    return "probe.cc" if is_cxx else "probe.c", "".join(lines).encode()


def probe_command(name: str, program: str, source: str, output: str) -> tuple[str, ...]:
    """Return the probe's command for a compiler or analyser of this name, which is `program`."""
    if analyser := analyser_kind(name):
        return analyser_probe(analyser, program, source, output)
    if is_clang_cl(name.encode()):
        return program, "-v", "-P", f"-Fi{output}", "-clang:-dD", "--", source
    return program, "-v", "-E", "-dD", source, "-o", output


def read_probe(names: tuple[str, ...], about: bytes, preprocessed: bytes) -> Toolchain:
    """Return the compiler described by its stderr and the preprocessed file (b"" if absent).

    Raises:
        CallerError: it is not an answer of GCC, Clang or an analyser, or too large.
    """
    if len(about) > MAX_ABOUT_BYTES or len(preprocessed) > MAX_PREPROCESSED_BYTES:
        raise _no_answer()
    analyser = analyser_kind(names[0])
    if analyser == "cppcheck":
        return Toolchain(
            names=names, family=analyser, version=cppcheck_version(about), target=ANY_TARGET,
            probe=PROBE_FORMAT, headers=digest_of_probe(preprocessed),
        )  # fmt: skip
    clang, gcc, target = _CLANG.search(about), _GCC.search(about), _TARGET.search(about)
    if target is None or (clang is None and gcc is None):
        raise _no_answer()
    if clang is not None:
        version, build = clang[2], clang[1] + clang[3]
    else:
        assert gcc is not None
        version, build = gcc[1], gcc[2]
    family: Family = "gcc"
    if clang is not None:
        family = "clang-cl" if is_clang_cl(names[0].encode()) else analyser or "clang"
    return Toolchain(
        names=names,
        family=family,
        version=_text(version),
        build=_build(build),
        target=_text(target[1]),
        probe=PROBE_FORMAT,
        headers=digest_of_probe(preprocessed)
        if analyser
        else _header_digests(_search_directories(about), preprocessed),
    )


def header_files(name: str, preprocessed: bytes) -> frozenset[str]:
    """Return the files that a probe of this machine read; `name` is the program's.

    Raises:
        CallerError: there are too many of them.
    """
    if analyser_kind(name):
        return files_of_probe(preprocessed)
    named = {m[1] for m in _MARKER.finditer(preprocessed)}
    if len(named) > _MAX_FILES:
        raise _no_answer()
    return frozenset(n.decode("utf-8", "surrogateescape") for n in named if n.startswith(b"/"))


def _header_digests(search: list[bytes], preprocessed: bytes) -> tuple[tuple[str, str], ...]:
    """Return digests of what was read, by directory of the search path; names count from there."""
    digests: dict[str, hashlib._Hash] = {}
    places: dict[bytes, tuple[str, bytes] | None] = {}
    place: tuple[str, bytes] | None = None
    end = 0
    for marker in _MARKER.finditer(preprocessed):
        _add(digests, place, preprocessed[end : marker.start()])
        name, end = marker[1], marker.end()
        if name not in places:
            if len(places) >= _MAX_FILES:
                raise _no_answer()
            places[name] = _place(name, search)
        place = places[name]
    _add(digests, place, preprocessed[end:])
    return tuple((name, digest.hexdigest()) for name, digest in sorted(digests.items()))


def _add(digests: dict[str, hashlib._Hash], place: tuple[str, bytes] | None, text: bytes) -> None:
    if place is None or not text.strip():
        return
    directory, name = place
    if directory not in digests:
        digests[directory] = hashlib.sha256()
    digests[directory].update(b"\0" + name + b"\0" + text)


def _place(name: bytes, search: list[bytes]) -> tuple[str, bytes] | None:
    """Return a file's directory and name; None for the probe, and for files on no search path."""
    if name in {b"<built-in>", b"<command-line>", b"<command line>"}:
        return PREDEFINED, b""
    if not name.startswith(b"/"):
        return None
    path = posixpath.normpath(name)
    around = [d for d in search if path.startswith(d + b"/")]
    if not around:
        return None
    directory = max(around, key=len)
    return _text(directory)[:200], path[len(directory) :]


def _search_directories(about: bytes) -> list[bytes]:
    found: list[bytes] = []
    is_inside = False
    for line in about.splitlines():
        if line.startswith(b"#include ") and line.endswith(b"search starts here:"):
            is_inside = True
        elif line.startswith(b"End of search list"):
            break
        elif is_inside and line.startswith(b" /"):
            found.append(posixpath.normpath(line[1:]))
    # One place is reserved for the macros.
    return list(dict.fromkeys(found))[: _MAX_DIRECTORIES - 1]


def _build(words: bytes) -> str:
    """Return the build, as `(Debian 14.2.0-19)` or `Debian … (3+b1)`, without what surrounds it."""
    text = " ".join(_text(words).split())
    is_one = text.startswith("(") and text.endswith(")") and text.count("(") == 1
    return (text[1:-1] if is_one else text)[:128]


def _text(raw: bytes) -> str:
    """Return the bytes as text that is safe for a terminal."""
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in raw.decode("latin-1"))


def _no_answer() -> CallerError:
    return CallerError("no answer of GCC or Clang", reason="toolchain")
