"""Asks a guest which compilers its image has; an understood answer is stored beside the image.

The guest's output is hostile input: `Toolchain` rejects everything but a plain description. The
image's own shell lists names and its compilers describe themselves; hpcc adds no program for this.
Analysers count as compilers here. An image without a shell of POSIX is asked as one of Windows.
Each question has a typed answer, see `hpcc.images.survey`.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from hpcc.compilers.probe import (
    MAX_ABOUT_BYTES,
    MAX_PREPROCESSED_BYTES,
    PROBE_FORMAT,
    probe_command,
    probe_kind,
    probe_source,
    read_probe,
)
from hpcc.compilers.windows_probe import (
    WindowsQuestion,
    describe_question,
    list_question,
    programs_listed,
    read_answer,
)
from hpcc.core import (
    ANALYSERS,
    MAX_TOOLCHAINS,
    MAX_TOOLCHAINS_BYTES,
    CallerError,
    Digest,
    ExecEvent,
    ExecLimits,
    ExecRequest,
    HpccError,
    ImageDigest,
    InputFile,
    NotFoundError,
    OutputEvent,
    ResultEvent,
    StdioEvent,
    Toolchain,
    toolchain_table,
    toolchains_of,
)
from hpcc.images.survey import LIST, AnswerKind, SurveyAnswer, SurveyLog, replace_text
from hpcc.ports import Guest, GuestLostError

_log: Final = logging.getLogger(__name__)
LABEL_PREFIX: Final = "io.hpcc.toolchain."
_SEARCHED: Final = ("/usr/local/bin", "/usr/bin", "/bin")  # PATH of every compile in a guest
_ENV: Final = (("LC_ALL", "C"), ("PATH", ":".join(_SEARCHED)))
# Raise it when more names are asked for: every image is then asked again. It is 3 because files of
# earlier numbers can hold an incomplete answer, and 4 because those of 3 hold no analyser.
_ASKED: Final = 4
_PLAIN: Final = ("gcc", "g++", "cc", "c++", "clang", "clang++", "clang-cl")
# Prints each program, and the first program that is the same file.
_SCRIPT: Final = (
    "set --; for d in " + " ".join(_SEARCHED) + "; do "
    'for f in "$d"/gcc "$d"/g++ "$d"/cc "$d"/c++ "$d"/clang "$d"/clang++'
    ' "$d"/gcc-[0-9]* "$d"/g++-[0-9]* "$d"/clang-[0-9]* "$d"/clang++-[0-9]*'
    ' "$d"/clang-cl "$d"/clang-cl-[0-9]*'
    ' "$d"/*-gcc "$d"/*-g++ "$d"/*-gcc-[0-9]* "$d"/*-g++-[0-9]*'
    ' "$d"/clang-tidy "$d"/clang-tidy-[0-9]* "$d"/cppcheck; do '
    '[ -f "$f" ] && [ -x "$f" ] || continue; s=$f; '
    'for o; do if [ "$o" -ef "$f" ]; then s=$o; break; fi; done; '
    'set -- "$@" "$f"; echo "$f $s"; done; done'
)
_LINE: Final = re.compile(r"(/[a-z/]{1,20})/([A-Za-z0-9+._-]{1,64}) (/[A-Za-z0-9+._/-]{1,100})")
_MAX_NAMES: Final = 32
# Of Windows: each edition and version of cl is there once for each pair of host and target.
_MAX_PATHS: Final = 48
_OUTPUT: Final = "probe.i"
_LIMITS: Final = ExecLimits(
    wall_seconds=60.0,
    memory_bytes=512 << 20,
    pids=64,
    output_bytes=MAX_PREPROCESSED_BYTES,
    stdio_bytes=MAX_ABOUT_BYTES,
)


class _Sources:
    """`BlobSource` of the probe's inputs."""

    def __init__(self, *contents: bytes) -> None:
        self._contents = {Digest.of(c): c for c in contents}

    async def read(self, digest: Digest) -> bytes:
        try:
            return self._contents[digest]
        except KeyError:
            raise NotFoundError("the probe has no such input") from None


class _Answer:
    """The output and result of one exec, bounded against a hostile guest."""

    def __init__(self) -> None:
        self.stdout, self.stderr, self.output = bytearray(), bytearray(), bytearray()
        self.result: ResultEvent | None = None
        self.failure = ""

    @property
    def is_absent(self) -> bool:
        """Return whether the guest looked the program up and did not find it."""
        if self.result is None or self.failure:
            return False
        return self.result.reason == "no-such-program"

    @property
    def why_none(self) -> str:
        """Return why the exec proves nothing; "" if the program is absent or ended by itself."""
        if self.failure or self.result is None:
            return self.failure or "the guest sent no result"
        if self.result.signal:
            return self.result.reason or f"ended by signal {self.result.signal}"
        return "" if self.is_absent else self.result.reason

    @property
    def is_good(self) -> bool:
        return self.result is not None and self.result.exit_code == 0 and not self.result.reason

    def take(self, event: ExecEvent) -> None:
        match event:
            case StdioEvent(stream, data):
                sink, room = getattr(self, stream), MAX_ABOUT_BYTES
            case OutputEvent(path, data, _, _):
                sink, room = self.output, MAX_PREPROCESSED_BYTES
                if path != _OUTPUT:
                    raise GuestLostError("the guest sent a file that was not requested")
            case ResultEvent():
                self.result = event
                return
        if len(sink) + len(data) > room:
            raise GuestLostError("the guest sent more bytes than it may")
        sink += data


async def probe_guest(
    guest: Guest, log: SurveyLog | None = None, *, patience: float = 1.0
) -> tuple[Toolchain, ...]:
    """Ask a guest which compilers its image has, and return those that were found.

    `log` receives the answer to each question; without it, an absent compiler and one that did not
    answer in time look the same. `patience` multiplies the deadline of each question.

    Raises:
        GuestLostError: the guest died, or broke the protocol.
    """
    log = SurveyLog() if log is None else log
    limits = replace(_LIMITS, wall_seconds=_LIMITS.wall_seconds * patience)
    found: list[Toolchain] = []
    listed = await _names(guest, log, limits)
    if listed is None:
        if (of_windows := await _windows_compilers(guest, log, limits)) is not None:
            return of_windows
        listed = [(name,) for name in _PLAIN]
    programs = listed[:MAX_TOOLCHAINS]
    for names in programs:
        log.plan(names[0])
    for number, names in enumerate(programs):
        source, content = probe_source(names[0])
        argv = probe_command(names[0], names[0], source, _OUTPUT)
        exec_id = f"probe-{number}"
        answer = await _run(guest, exec_id, argv, limits, (source, content), outputs=(_OUTPUT,))
        # If the probe does not compile, the output of -v still describes the compiler.
        output = bytes(answer.output) if answer.is_good else b""
        read = partial(read_probe, names, bytes(answer.stderr), output)
        _take(found, log, *_understood(names[0], answer, read))
    return tuple(found)


async def _windows_compilers(
    guest: Guest, log: SurveyLog, limits: ExecLimits
) -> tuple[Toolchain, ...] | None:
    """Ask a guest without a shell of POSIX as one of Windows; None if it is neither."""
    found: list[Toolchain] = []
    answer = await _ask_windows(guest, 0, list_question(LIST), limits)
    if answer.is_absent:
        return None
    paths = programs_listed(bytes(answer.stdout)) if answer.is_good else []
    log.note(_list_answer(answer, is_any=bool(paths)))
    if len(paths) > _MAX_PATHS:  # what is not asked is not absent
        log.note(SurveyAnswer(LIST, AnswerKind.UNANSWERED, f"it has {len(paths)} compilers"))
    for path in paths[:_MAX_PATHS]:
        log.plan(path)
    for number, path in enumerate(paths[:_MAX_PATHS], start=1):
        question = describe_question(path)
        answer = await _ask_windows(guest, number, question, limits)
        read = partial(read_answer, question, bytes(answer.stdout))
        # All programs of these names are asked, and some are not compilers.
        said, toolchain = _understood(path, answer, read, is_one_of_many=True)
        _take(found, log, said, toolchain)
        if len(found) > MAX_TOOLCHAINS:
            del found[MAX_TOOLCHAINS:]
            log.found(tuple(found))
            log.note(replace(said, kind=AnswerKind.UNANSWERED, why="one too many"))
    return tuple(found)


def _take(
    found: list[Toolchain], log: SurveyLog, said: SurveyAnswer, toolchain: Toolchain | None
) -> None:
    log.note(said)
    if toolchain is not None:
        _merge(found, toolchain)
        log.found(tuple(found))


def _understood(
    name: str, answer: _Answer, read: Callable[[], Toolchain], *, is_one_of_many: bool = False
) -> tuple[SurveyAnswer, Toolchain | None]:
    """Return the typed answer of one compiler, and the compiler if it was found."""
    if answer.is_absent:
        return SurveyAnswer(name, AnswerKind.ABSENT), None
    if answer.why_none:
        return SurveyAnswer(name, AnswerKind.UNANSWERED, answer.why_none), None
    try:
        toolchain = read()
    except CallerError as error:
        _log.info("%s in the image: %s", name, error)
        if answer.is_good or is_one_of_many:
            return SurveyAnswer(name, AnswerKind.FOREIGN, str(error)), None
        assert answer.result is not None
        why = f"exit code {answer.result.exit_code} without a description"
        return SurveyAnswer(name, AnswerKind.UNANSWERED, why), None
    return SurveyAnswer(name, AnswerKind.FOUND), toolchain


def _merge(found: list[Toolchain], toolchain: Toolchain) -> None:
    """Add a compiler; if an equal one is known, add only its names to that one."""
    for index, known in enumerate(found):
        if replace(known, names=toolchain.names) == toolchain:
            names = tuple(dict.fromkeys((*known.names, *toolchain.names)))
            found[index] = replace(known, names=names[:_MAX_NAMES])
            return
    found.append(toolchain)


async def _names(guest: Guest, log: SurveyLog, limits: ExecLimits) -> list[tuple[str, ...]] | None:
    """Return names by compiler, the plain names for an empty list, and None without a shell.

    After an unanswered list no further question is asked, because the survey cannot be complete.
    """
    answer = await _run(guest, f"probe-{LIST}", ("sh", "-c", _SCRIPT), limits)
    listed = _grouped(answer.stdout.decode("latin-1").splitlines()) if answer.is_good else []
    log.note(_list_answer(answer, is_any=bool(listed)))
    if answer.is_absent:
        return None
    return [] if answer.why_none else listed or [(name,) for name in _PLAIN]


def _list_answer(answer: _Answer, *, is_any: bool) -> SurveyAnswer:
    if answer.why_none:
        return SurveyAnswer(LIST, AnswerKind.UNANSWERED, answer.why_none)
    if answer.is_absent:
        return SurveyAnswer(LIST, AnswerKind.ABSENT)
    return SurveyAnswer(LIST, AnswerKind.FOUND if is_any else AnswerKind.FOREIGN)


def _grouped(lines: Iterable[str]) -> list[tuple[str, ...]]:
    """Group names of one program; clang, clang++ and clang-cl are one file and three compilers.

    Analysers come last: no compiler goes unasked because of them.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    seen: set[str] = set()
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None or match[1] not in _SEARCHED or match[2] in seen:
            continue  # the first on PATH counts
        kind = probe_kind(match[2])
        if not kind or len(seen) >= _MAX_NAMES:
            continue
        seen.add(match[2])
        groups.setdefault((match[3], kind), []).append(match[2])
    compilers_first = sorted(groups, key=lambda group: group[1] in ANALYSERS)
    return [tuple(groups[group]) for group in compilers_first]


async def _ask_windows(
    guest: Guest, number: int, question: WindowsQuestion, limits: ExecLimits
) -> _Answer:
    exec_id, env = f"probe-windows-{number}", question.env
    return await _run(guest, exec_id, question.argv, limits, question.source, env=env)


async def _run(
    guest: Guest,
    exec_id: str,
    argv: tuple[str, ...],
    limits: ExecLimits,
    *inputs: tuple[str, bytes],
    env: tuple[tuple[str, str], ...] = _ENV,
    outputs: tuple[str, ...] = (),
) -> _Answer:
    request = ExecRequest(
        exec_id=exec_id,
        argv=argv,
        env=env,
        cwd="",
        inputs=tuple(InputFile(name, Digest.of(content)) for name, content in inputs),
        outputs=outputs,
        limits=limits,
    )
    answer = _Answer()
    events: AsyncGenerator[ExecEvent] = guest.exec(request, _Sources(*(c for _, c in inputs)))
    async with aclosing(events) as running:
        try:
            async for event in running:
                answer.take(event)
        except GuestLostError:
            raise
        except HpccError as error:  # the guest is alive, so the other questions can be asked
            answer.failure = str(error)
    return answer


def label_trouble(labels: Mapping[str, str], compilers: Iterable[Toolchain]) -> str:
    """Compare the labels' claims about the compiler with the probe; return the difference, or "".

    The labels are `io.hpcc.toolchain.id` (gcc, clang), `.version` and `.target`. One compiler must
    match all labels that are present.
    """
    claimed = {
        key: labels[LABEL_PREFIX + key][:100]
        for key in ("id", "version", "target")
        if LABEL_PREFIX + key in labels
    }
    for compiler in compilers:
        real = {"id": compiler.family, "version": compiler.version, "target": compiler.target}
        if all(real[key] == value for key, value in claimed.items()):
            return ""
    if not claimed:
        return ""
    said = ", ".join(f"{key} {value!r}" for key, value in claimed.items())
    return f"its labels claim a compiler with {said}, and the probe found none like that"


def read_toolchains(path: Path, digest: ImageDigest) -> tuple[Toolchain, ...] | None:
    """Return the stored compilers of an image.

    None if there is no file, or it is empty, damaged, or of another probe.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_TOOLCHAINS_BYTES + 1)
        table: Any = json.loads(raw) if len(raw) <= MAX_TOOLCHAINS_BYTES else None
        said = (table["image"], table["probe"], table["asked"])
        is_ours = said == (digest.value, PROBE_FORMAT, _ASKED)
        # Earlier releases stored an empty list when no question was answered in time.
        return (toolchains_of(table["compilers"]) or None) if is_ours else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError, CallerError):
        return None


def write_toolchains(path: Path, digest: ImageDigest, compilers: Iterable[Toolchain]) -> None:
    """Write the compilers of an image that was understood.

    Raises:
        OSError: it cannot be written.
    """
    table = {
        "image": digest.value,
        "probe": PROBE_FORMAT,
        "asked": _ASKED,
        "compilers": [toolchain_table(c) for c in compilers],
    }
    replace_text(path, json.dumps(table, indent=1))
