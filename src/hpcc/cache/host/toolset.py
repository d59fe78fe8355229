"""Finds the programs and specs files that `-B`, `-specs` and Objective-C add to a compile.

They are collected when a result is stored. A hit then checks them like any other input, by content
or by absence.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from hpcc.cache.base.files import signature_of
from hpcc.cache.base.tools import ask
from hpcc.cache.base.uncacheable import UncacheableError, absolute
from hpcc.cache.host.loader import libraries_of, loader_environment
from hpcc.cache.host.wrappers import executes_others
from hpcc.compilers.gnu.specs import BESIDE_GCC, is_tame
from hpcc.compilers.invocation.family import CompilerFamily
from hpcc.compilers.invocation.invocation import Invocation
from hpcc.core.memo import BoundedMemo
from hpcc.core.reasons.uncacheable import UncacheableReason

_SPECS_FLAGS: Final = ("-specs=", "--specs=", "-specs", "--specs")
# What a driver may run for -c and -S.
_PROGRAMS: Final = (b"cc1", b"cc1plus", b"cc1obj", b"cc1objplus", b"as", b"objcopy", b"collect2")
_OWN_HEADERS: Final = re.compile(rb"/clang/[0-9.]+/include/?$")
_SANITIZER_LISTS: Final = (
    *(
        sanitizer + b"_ignorelist.txt"
        for sanitizer in b"alloc_token asan hwasan memtag msan nsan tsan tysan cfi ubsan".split()
    ),
    b"dfsan_abilist.txt",
)
_LISTS: Final = re.compile(rb"^(programs|libraries): =(.*)$", re.MULTILINE)
_TARGET: Final = re.compile(rb"^Target: (\S+)$", re.MULTILINE)
_INSTALLED: Final = re.compile(rb"^InstalledDir: (/.*)$", re.MULTILINE)
_READ: Final = re.compile(rb"^Reading specs from (.+)$", re.MULTILINE)
_HEADERS: Final = (b"include", b"include-fixed")
_ELF: Final = b"\x7fELF"
_MAX_SPECS_BYTES: Final = 1 << 20
_MAX_REMEMBERED: Final = 256
# Whether these flags make a driver execute a wrapper, by the stats of the programs.
_WRAPPED: Final[BoundedMemo[tuple[object, ...], bool]] = BoundedMemo(_MAX_REMEMBERED)


def files_of_tools(
    invocation: Invocation,
    family: CompilerFamily,
    compiler: bytes,
    env: Mapping[bytes, bytes],
    cwd: bytes,
    *,
    search: tuple[bytes, ...],
) -> tuple[bytes, ...]:
    """Return every file that these flags make the driver look for; `search` is the include path.

    Raises:
        UncacheableError: one of them may have effects that are not known here.
    """
    env = loader_environment(env, cwd)
    arguments = invocation.tool_arguments
    own: tuple[bytes, ...] = ()
    if family.reads_sanitizer_lists(invocation):
        own += _default_lists(invocation, compiler, env, cwd, search)
    targets = family.assembler_targets(invocation)
    if targets is not None:
        external = _assemblers(invocation, targets, compiler, env, cwd)
        _refuse_wrappers(invocation.search_arguments, external, family, compiler, env, cwd)
        own += external
    base = family.proper_program(invocation)
    if base:
        own += _own_program(invocation, base, compiler, env, cwd)
    if not arguments:
        return own
    try:
        about = _ask([compiler, *arguments, b"-v"], env, cwd)
        searched = _ask([compiler, *arguments, b"-print-search-dirs"], env, cwd)
    except OSError as error:
        raise UncacheableError(UncacheableReason.TOOLSET) from error
    target = _TARGET.search(about)
    if target is None:
        raise UncacheableError(UncacheableReason.TOOLSET)
    lists = {m[1]: m[2].split(b":") for m in _LISTS.finditer(searched)}
    names = {
        *own,
        *_in_prefixes(invocation, lists, target[1], cwd),
        *_specs(invocation, lists, _READ.findall(about), cwd),
    }
    paths = [absolute(cwd, name) for name in names]
    programs = [p for p in paths if p.rpartition(b"/")[2] in _programs(target[1])]
    for path in programs:
        names.update(_libraries(path, env))
    _refuse_wrappers(arguments, programs, family, compiler, env, cwd)
    return tuple(sorted(names))


def _refuse_wrappers(
    arguments: tuple[bytes, ...],
    candidates: Sequence[bytes],
    family: CompilerFamily,
    compiler: bytes,
    env: Mapping[bytes, bytes],
    cwd: bytes,
) -> None:
    """Refuse programs that execute further ones; `candidates` need not exist."""
    there = [path for path in (compiler, *candidates) if os.path.exists(path)]
    if len(there) == 1:
        return
    key = (cwd, arguments, *((path, *signature_of(os.stat(path))) for path in there))
    is_wrapped = _WRAPPED.get(key)
    if is_wrapped is None:
        named = [
            _ask([compiler, *arguments, b"-print-prog-name=" + name], env, cwd).strip()
            for name in family.programs
        ]
        places = env.get(b"PATH", b"").split(b":")
        found = {absolute(cwd, n) if b"/" in n else _first(n, places) for n in named}
        programs = [path for path in found if os.path.exists(path)]
        questions = [(*arguments, *question) for question in family.program_questions]
        try:
            is_wrapped = executes_others(compiler, programs, questions, env=env, cwd=cwd)
        except OSError as error:
            raise UncacheableError(UncacheableReason.TOOLSET) from error
        _WRAPPED[key] = is_wrapped
    if is_wrapped:
        raise UncacheableError(UncacheableReason.PROGRAM_PREFIX)


def _first(name: bytes, places: Sequence[bytes]) -> bytes:
    """Return the path of a program in the first directory that has it; b"" if none has."""
    paths = (posixpath.join(place, name) for place in places)
    return next((path for path in paths if os.access(path, os.X_OK)), b"")


def _ask(argv: list[bytes], env: Mapping[bytes, bytes], cwd: bytes) -> bytes:
    answer = ask(argv, env={**env, b"LC_ALL": b"C"}, cwd=cwd)
    if answer.exit_code != 0:
        raise UncacheableError(UncacheableReason.TOOLSET)
    return answer.stdout + answer.stderr


def _own_program(
    invocation: Invocation, base: bytes, compiler: bytes, env: Mapping[bytes, bytes], cwd: bytes
) -> tuple[bytes, ...]:
    """Return the compiler proper, and its libraries, of a language outside the identity."""
    argv = [compiler, *invocation.tool_arguments, b"-print-prog-name=" + base]
    path = _ask(argv, env, cwd).strip()
    if not path.startswith(b"/"):
        raise UncacheableError(UncacheableReason.TOOLSET)
    return (path, *_libraries(path, env))


def _default_lists(
    invocation: Invocation,
    compiler: bytes,
    env: Mapping[bytes, bytes],
    cwd: bytes,
    search: tuple[bytes, ...],
) -> tuple[bytes, ...]:
    """Return the lists that Clang's sanitizers read if they exist (SanitizerArgs.cpp)."""
    found = [d for d in search if _OWN_HEADERS.search(d)]
    if not found:
        argv = [compiler, *invocation.search_arguments, b"-print-resource-dir"]
        found = [posixpath.join(_ask(argv, env, cwd).strip(), b"include")]
    return tuple(
        posixpath.join(posixpath.dirname(d.rstrip(b"/")), b"share", name)
        for d in found
        for name in _SANITIZER_LISTS
    )


def _assemblers(
    invocation: Invocation,
    targets: tuple[bytes, ...],
    compiler: bytes,
    env: Mapping[bytes, bytes],
    cwd: bytes,
) -> tuple[bytes, ...]:
    """Return the candidates for an external assembler: Clang tries `TARGET-as` before `as`."""
    arguments = invocation.search_arguments
    about = _ask([compiler, *arguments, b"-v"], env, cwd)
    found = _ask([compiler, *arguments, b"-print-prog-name=as"], env, cwd).strip()
    if b"/" not in found:
        raise UncacheableError(UncacheableReason.TOOLSET)
    found = absolute(cwd, found)
    prefixes = {b"", *(t + b"-" for t in (*targets, *_TARGET.findall(about)))}
    places = [*_INSTALLED.findall(about), *filter(None, env.get(b"PATH", b"").split(b":"))]
    return (
        *(
            posixpath.join(place, prefix + base)
            for place in places
            for prefix in sorted(prefixes)
            for base in (b"as", b"objcopy")
        ),
        found,
        *_libraries(found, env),
    )


def _programs(target: bytes) -> frozenset[bytes]:
    return frozenset(name for base in _PROGRAMS for name in (base, target + b"-" + base))


def _in_prefixes(
    invocation: Invocation, lists: dict[bytes, list[bytes]], target: bytes, cwd: bytes
) -> Iterator[bytes]:
    for prefix in invocation.values("-B"):
        if not prefix or b":" in prefix or b"\n" in prefix:
            raise UncacheableError(UncacheableReason.PROGRAM_PREFIX)
        # GCC lists the places itself; Clang uses the directory, or the text as a prefix.
        places = {prefix, posixpath.join(prefix, b"")}
        if any(os.path.isdir(absolute(cwd, place)) for place in places):
            places = {posixpath.join(prefix, b"")}
        for places_of_gcc in lists.values():
            places.update(p for p in places_of_gcc if p.startswith(prefix))
        for place in places:
            for base in (*_programs(target), *_HEADERS, b"specs"):
                yield place + base


def _specs(
    invocation: Invocation, lists: dict[bytes, list[bytes]], read: list[bytes], cwd: bytes
) -> Iterator[bytes]:
    named = invocation.values(*_SPECS_FLAGS)
    for name in named:
        if not name.startswith(b"/"):
            yield from (place + name for place in lists.get(b"libraries", ()))
    for name in read:
        yield name
        with open(absolute(cwd, name), "rb") as file:
            text = file.read(_MAX_SPECS_BYTES)
        if not is_tame(text):
            raise UncacheableError(UncacheableReason.SPECS)
        if BESIDE_GCC in text:
            yield from (posixpath.join(d, b"include") for d in lists.get(b"libraries", ()))


def _libraries(path: bytes, env: Mapping[bytes, bytes]) -> Iterator[bytes]:
    """Yield the shared libraries of a program, and the paths where others might appear.

    Nothing if the program does not exist.

    Raises:
        UncacheableError: it is a script, which may read and run any file.
    """
    try:
        with open(path, "rb") as file:
            if file.read(len(_ELF)) != _ELF:
                raise UncacheableError(UncacheableReason.PROGRAM_PREFIX)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UncacheableError(UncacheableReason.PROGRAM_PREFIX) from error
    libraries = libraries_of(path, env)
    yield from libraries.loaded
    yield from libraries.tried
    yield from libraries.skipped
