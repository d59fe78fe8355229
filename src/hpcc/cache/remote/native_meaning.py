"""Spells out `-march=native` and similar flags, so that a compiler elsewhere does the same.

Problem: a guest's processor may be another one. The driver replaces "native" by plain flags, which
it shows with `-###`.

Rule: these flags go in front of the others, and the driver is asked again. The compile may run
elsewhere only if both questions show the same command lines. Two differences are allowed, because
they have no effect: the place of Clang's `-target-feature` pairs among other words, and the place
of GCC's `--param` if the object records no flags.

With `-g` an object of GCC does record them, in the order of cc1's command line, and no order of
plain flags gives that of "native". So a guest gets a file of specs, which puts the plain flags
where GCC puts its own, and "native" stays on the command line. Two more questions show that the
driver's lines are then the same, and that nothing but the file says what "native" means. So it is
with flags such as `-mno-avx2` behind "native", which the plain flags would change places with.

What must never happen: another order of flags that the compiler reads from left to right, as in
`-mno-avx -march=native`. GCC reads what "native" means first, wherever the flag stands; both
answers show that order.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from bisect import insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from hpcc.cache.base.tools import ask
from hpcc.cache.key.prepare import Prepared
from hpcc.cache.remote.remote_closure import RemoteFiles
from hpcc.compilers.gnu.invocation import NATIVE
from hpcc.compilers.invocation.guest import GUEST_ROOT, NotPortableError
from hpcc.compilers.invocation.invocation import Invocation
from hpcc.compilers.spec.table import Effect, Flag
from hpcc.core import RemoteInput, Toolchain
from hpcc.core.memo import BoundedMemo
from hpcc.core.reasons.fallback import FallbackReason
from hpcc.files.whole import Sync, write_whole

_MAX_REMEMBERED: Final = 256
_MAX_LINE: Final = 1 << 16
_ASKED: Final = frozenset({Effect.SEARCH, Effect.CODEGEN, Effect.LANGUAGE})
_OPAQUE: Final = ("-Xclang", "-mllvm", "-Xassembler")
_VERSION: Final = re.compile(rb"version ([0-9]+(?:\.[0-9]+){1,3})")
_TEMPORARY: Final = re.compile(rb"/tmp/[\w./-]+")
# Flags with which GCC writes the other flags into the object, in their order. `-fverbose-asm`
# writes them into assembler text, and a compile that shows such text is refused (`files_written`).
_RECORDS: Final = re.compile(rb"-g(?!0$).*|-flto.*|-frecord-.*|-grecord-.*")
# GCC can also compress the flags of link-time optimization; only debug information was compared.
_TWICE_RECORDED: Final = re.compile(rb"-flto.*|-frecord-.*")
_PLAIN: Final = re.compile(r"[\w.=+-]+")
SPECS_NAME: Final = b"hpcc-native.specs"
"""The file of specs beside the inputs in a guest. A source that holds this name stays here."""

_SPECS: Final = "*cc1_cpu:\n%>march=native %>mtune=native {}\n\n"
_CPU: Final = "-target-cpu"
_FEATURE: Final = "-target-feature"


@dataclass(frozen=True, slots=True)
class NativeMeaning:
    """`words` stand for the flags that `invocation` lacks. `version` is the compiler's own.

    `specs` is the content of the file that `words` name; b"" if they name none. `invocation` then
    lacks nothing.
    """

    words: tuple[bytes, ...]
    invocation: Invocation
    version: str
    specs: bytes = b""

    def is_of(self, program: str, image: Sequence[Toolchain] | None) -> bool:
        """Tell whether the image's compiler of this name has the version that was asked."""
        there = (t for t in image or () if program in t.names)
        return any(toolchain.version == self.version for toolchain in there)


@dataclass(frozen=True, slots=True)
class _Answer:
    words: tuple[bytes, ...]
    version: str
    specs: bytes = b""


class NativeMeanings:
    """Asks twice per compiler and set of flags. Thread-safe: a race only asks again.

    `directory` is for files of specs; a dispatcher reads them there.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: BoundedMemo[tuple[object, ...], _Answer | None] = BoundedMemo(_MAX_REMEMBERED)

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
            found = self._known[key] = self._asked(prepared, flags)
        if found is None:
            return None
        kept = invocation.parts
        if not found.specs:
            kept = tuple(p for p in kept if not _is_native(p))
        spelled = replace(invocation, parts=kept, is_native=False)
        return NativeMeaning(found.words, spelled, found.version, found.specs)

    def spelled_out(
        self, prepared: Prepared, program: str, image: Sequence[Toolchain] | None
    ) -> NativeMeaning:
        """Return the compile without "native", or as it is if no flag says that.

        Raises:
            NotPortableError: the image's compiler may understand the flags otherwise.
        """
        if not prepared.invocation.is_native:
            return NativeMeaning((), prepared.invocation, "")
        meaning = self.of(prepared)
        if meaning is None:
            raise NotPortableError(FallbackReason.NATIVE, "the compiler does not spell it out")
        if not meaning.is_of(program, image):
            detail = f"the image has no {program} {meaning.version}, which spells it out here"
            raise NotPortableError(FallbackReason.NATIVE, detail)
        return meaning

    def with_specs(self, files: RemoteFiles, specs: bytes) -> RemoteFiles:
        """Return the files with one more, the file of specs.

        Raises:
            NotPortableError: it cannot be written.
        """
        try:
            path = self._written(specs)
        except OSError as error:
            raise NotPortableError(FallbackReason.NATIVE, str(error)) from error
        place = SPECS_NAME.decode()
        item = RemoteInput(
            place, str(path), is_executable=False, sha256=hashlib.sha256(specs).hexdigest()
        )
        inputs = list(files.inputs)
        insort(inputs, item, key=lambda one: one.path)
        shared = files.shared
        if shared is not None:
            shared = replace(shared, own=(*shared.own, item), text=None)
        return replace(files, inputs=tuple(inputs), shared=shared)

    def _written(self, specs: bytes) -> Path:
        path = self._directory / hashlib.sha256(specs).hexdigest()
        if not path.is_file() or path.read_bytes() != specs:
            write_whole(path, specs, sync=Sync.CONTENT, makes_parent=True)
        return path

    def _asked(self, prepared: Prepared, flags: Sequence[Flag]) -> _Answer | None:
        plain = [word for f in flags if not _is_native(f) for word in f.raw]
        raw = [word for f in flags for word in f.raw]
        own = _commands(prepared, raw)
        if own is None:
            return None
        lines, version = own
        is_clang = _CPU in lines[0]
        words = _of_clang(lines[0]) if is_clang else _of_gcc(lines[0])
        if not words:
            return None
        is_recorded = not is_clang and any(map(_RECORDS.fullmatch, plain))
        spelled = None if is_recorded else _commands(prepared, [*words, *plain])
        if spelled is not None and _normal(lines) == _normal(spelled[0]):
            return _Answer(tuple(words), version)
        if is_clang or any(map(_TWICE_RECORDED.fullmatch, plain)):
            return None
        return self._by_specs(prepared, raw, lines, version)

    def _by_specs(
        self, prepared: Prepared, raw: Sequence[bytes], lines: list[list[str]], version: str
    ) -> _Answer | None:
        """Return the flag that names a file of specs, if the file alone decides these lines."""
        first, rest = lines[0], lines[1:]
        chosen = _chosen_by_gcc(first)
        words = [first[at] for at in chosen]
        if not all(map(_PLAIN.fullmatch, words)):
            return None
        others = [word for at, word in enumerate(first) if at not in chosen]
        specs = _SPECS.format(" ".join(words)).encode()
        for content, wanted in ((specs, first), (_SPECS.format("").encode(), others)):
            try:
                path = self._written(content)
            except OSError:
                return None
            spelled = _commands(prepared, [b"-specs=" + os.fsencode(path), *raw])
            if spelled is None or spelled[0] != [wanted, *rest]:
                return None
        return _Answer((b"-specs=" + GUEST_ROOT + b"/" + SPECS_NAME,), version, specs)


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
    return [words[at].encode() for at in _chosen_by_gcc(words)]


def _chosen_by_gcc(words: Sequence[str]) -> list[int]:
    """Return the places of the flags that GCC puts before its second `-quiet`."""
    if words.count("-quiet") != 2:  # noqa: PLR2004 - at the start, and behind these flags
        return []
    first = words.index("-quiet") + 1
    found: list[int] = []
    rest = iter(range(first, words.index("-quiet", first)))
    for at in rest:
        if words[at] == "--param":
            found += (at, next(rest, at))
        elif words[at].startswith("-m"):
            found.append(at)
    return found


def _of_clang(words: Sequence[str]) -> list[bytes]:
    cpu = words[words.index(_CPU) + 1] if _CPU in words[:-1] else ""
    tunes = [f"-mtune={tune}" for tune in _apart(words, "-tune-cpu")[0]]
    features, _ = _apart(words, _FEATURE)
    passed = (w for feature in features for w in ("-Xclang", _FEATURE, "-Xclang", feature))
    return [word.encode() for word in (f"-march={cpu}", *tunes, *passed)] if cpu else []


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
