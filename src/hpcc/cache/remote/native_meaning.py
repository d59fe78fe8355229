"""Spells out `-march=native` and similar flags, so that a compiler elsewhere does the same.

Problem: a guest's processor may be another one. The driver replaces "native" by plain flags, which
it shows with `-###`.

Rule: these flags go in front of the others, and the driver is asked again. The compile may run
elsewhere only if both questions show the same command lines. Two differences are allowed, because
they have no effect: the place of Clang's `-target-feature` pairs among other words, and the place
of GCC's `--param` if the object records no flags.

What must never happen: another order of flags that the compiler reads from left to right, as in
`-mno-avx -march=native`. GCC reads what "native" means first, wherever the flag stands; both
answers show that order.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from hpcc.cache.base.tools import ask
from hpcc.cache.key.prepare import Prepared
from hpcc.compilers.gnu.invocation import NATIVE
from hpcc.compilers.invocation.invocation import Invocation
from hpcc.compilers.spec.table import Effect, Flag
from hpcc.core import Toolchain
from hpcc.core.memo import BoundedMemo

_MAX_REMEMBERED: Final = 256
_MAX_LINE: Final = 1 << 16
_ASKED: Final = frozenset({Effect.SEARCH, Effect.CODEGEN, Effect.LANGUAGE})
_OPAQUE: Final = ("-Xclang", "-mllvm", "-Xassembler")
_VERSION: Final = re.compile(rb"version ([0-9]+(?:\.[0-9]+){1,3})")
_TEMPORARY: Final = re.compile(rb"/tmp/[\w./-]+")
# Flags with which GCC writes the other flags into the object, in their order. `-fverbose-asm`
# writes them into assembler text, and a compile that shows such text is refused (`files_written`).
_RECORDS: Final = re.compile(rb"-g(?!0$).*|-flto.*|-frecord-.*|-grecord-.*")
_CPU: Final = "-target-cpu"
_FEATURE: Final = "-target-feature"


@dataclass(frozen=True, slots=True)
class NativeMeaning:
    """`words` stand for the flags that `invocation` lacks. `version` is the compiler's own."""

    words: tuple[bytes, ...]
    invocation: Invocation
    version: str

    def is_of(self, program: str, image: Sequence[Toolchain] | None) -> bool:
        """Tell whether the image's compiler of this name has the version that was asked."""
        there = (t for t in image or () if program in t.names)
        return any(toolchain.version == self.version for toolchain in there)


class NativeMeanings:
    """Asks twice per compiler and set of flags. Thread-safe: a race only asks again."""

    def __init__(self) -> None:
        self._known: BoundedMemo[tuple[object, ...], tuple[tuple[bytes, ...], str] | None] = (
            BoundedMemo(_MAX_REMEMBERED)
        )

    def of(self, prepared: Prepared) -> NativeMeaning | None:
        """Return what the flags mean; None if that cannot be spelled out."""
        invocation = prepared.invocation
        flags = tuple(f for f in invocation.flags if f.spec.effect in _ASKED)
        if any(f.spec.spelling in _OPAQUE for f in invocation.flags):
            return None
        raw = tuple(word for f in flags for word in f.raw)
        key = (prepared.identity.digest, prepared.request.compiler, prepared.native, raw)
        try:  # another thread may forget all at any moment
            found = self._known[key]
        except KeyError:
            found = self._known[key] = _ask_twice(prepared, flags)
        if found is None:
            return None
        parts = tuple(p for p in invocation.parts if not _is_native(p))
        return NativeMeaning(found[0], replace(invocation, parts=parts, is_native=False), found[1])


def _ask_twice(prepared: Prepared, flags: Sequence[Flag]) -> tuple[tuple[bytes, ...], str] | None:
    plain = [word for f in flags if not _is_native(f) for word in f.raw]
    own = _commands(prepared, [word for f in flags for word in f.raw])
    if own is None:
        return None
    lines, version = own
    words = _of_clang(lines[0]) if _CPU in lines[0] else _of_gcc(lines[0])
    spelled = _commands(prepared, [*words, *plain]) if words else None
    if spelled is None:
        return None
    is_recorded = _CPU not in lines[0] and any(map(_RECORDS.fullmatch, plain))
    is_same = lines == spelled[0] if is_recorded else _normal(lines) == _normal(spelled[0])
    return (tuple(words), version) if is_same else None


def _commands(prepared: Prepared, flags: Sequence[bytes]) -> tuple[list[list[str]], str] | None:
    """Return the words of each command that the driver would run, and its version."""
    language = prepared.invocation.language.asked
    question = [b"-###", b"-c", b"-x", language, b"/dev/null", b"-o", b"/dev/null"]
    env: Mapping[bytes, bytes] = prepared.family.question_environment(prepared.request.env)
    try:
        answer = ask(
            [prepared.request.compiler, *flags, *question], env={**env, b"LC_ALL": b"C"}, cwd=b"/"
        )
    except OSError:
        return None
    found = _VERSION.search(answer.stderr)
    lines = [line for line in answer.stderr.split(b"\n") if line.startswith(b" ")]
    if answer.exit_code or found is None or not lines or max(map(len, lines)) > _MAX_LINE:
        return None
    try:
        texts = [_TEMPORARY.sub(b"/tmp/name", line).decode() for line in lines]
        words = [shlex.split(text) for text in texts]
    except ValueError:
        return None
    commands = [line for line in words if line != ["(in-process)"]]
    return (commands, found[1].decode()) if commands else None


def _of_gcc(words: Sequence[str]) -> list[bytes]:
    """Return the flags that GCC puts before its second `-quiet`."""
    if words.count("-quiet") != 2:  # noqa: PLR2004 - at the start, and behind these flags
        return []
    first = words.index("-quiet") + 1
    found: list[bytes] = []
    rest = iter(words[first : words.index("-quiet", first)])
    for word in rest:
        if word == "--param":
            found += (b"--param", next(rest, "").encode())
        elif word.startswith("-m"):
            found.append(word.encode())
    return found


def _of_clang(words: Sequence[str]) -> list[bytes]:
    cpu = words[words.index(_CPU) + 1] if _CPU in words[:-1] else ""
    features, _ = _apart(words, _FEATURE)
    passed = (w for feature in features for w in ("-Xclang", _FEATURE, "-Xclang", feature))
    return [word.encode() for word in (f"-march={cpu}", *passed)] if cpu else []


def _normal(lines: Sequence[Sequence[str]]) -> list[object]:
    found: list[object] = []
    for line in lines:
        features, rest = _apart(line, _FEATURE)
        parameters, rest = _apart(rest, "--param")
        machine = [word for word in rest if word.startswith("-m")]
        found.append((features, parameters, machine, [w for w in rest if not w.startswith("-m")]))
    return found


def _apart(words: Sequence[str], flag: str) -> tuple[list[str], list[str]]:
    """Return the values of a flag, in the next word or behind a `=`, and the other words."""
    values: list[str] = []
    others: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == flag:
            values.append(next(rest, ""))
        elif word.startswith(flag + "="):
            values.append(word[len(flag) + 1 :])
        else:
            others.append(word)
    return values, others


def _is_native(part: object) -> bool:
    return isinstance(part, Flag) and NATIVE.fullmatch(part.raw[0]) is not None
