"""Which compilers an image has: asked in a guest once, kept beside the image, a label no proof.

What the guest says is hostile; `Toolchain` refuses what is not a plain description. No program of
ours runs in the guest for this: its shell lists names, its compilers describe themselves.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from hpcc.compilers.invocation.invocation import is_cxx_driver
from hpcc.compilers.msvc.invocation import is_clang_cl
from hpcc.compilers.probe import (
    MAX_ABOUT_BYTES,
    MAX_PREPROCESSED_BYTES,
    PROBE_FORMAT,
    probe_arguments,
    probe_source,
    read_probe,
)
from hpcc.core import (
    MAX_TOOLCHAINS,
    MAX_TOOLCHAINS_BYTES,
    CallerError,
    Digest,
    ExecEvent,
    ExecLimits,
    ExecRequest,
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
from hpcc.ports import Guest, GuestLostError

_log: Final = logging.getLogger(__name__)
LABEL_PREFIX: Final = "io.hpcc.toolchain."
_SEARCHED: Final = ("/usr/local/bin", "/usr/bin", "/bin")  # PATH of every compile in a guest
_ENV: Final = (("LC_ALL", "C"), ("PATH", ":".join(_SEARCHED)))
# Raise it when more names are asked for: an image is then asked once more.
_ASKED: Final = 2
_PLAIN: Final = ("gcc", "g++", "cc", "c++", "clang", "clang++", "clang-cl")
# Each program, and the first one that is the same file.
_SCRIPT: Final = (
    "set --; for d in " + " ".join(_SEARCHED) + "; do "
    'for f in "$d"/gcc "$d"/g++ "$d"/cc "$d"/c++ "$d"/clang "$d"/clang++'
    ' "$d"/gcc-[0-9]* "$d"/g++-[0-9]* "$d"/clang-[0-9]* "$d"/clang++-[0-9]*'
    ' "$d"/clang-cl "$d"/clang-cl-[0-9]*'
    ' "$d"/*-gcc "$d"/*-g++ "$d"/*-gcc-[0-9]* "$d"/*-g++-[0-9]*; do '
    '[ -f "$f" ] && [ -x "$f" ] || continue; s=$f; '
    'for o; do if [ "$o" -ef "$f" ]; then s=$o; break; fi; done; '
    'set -- "$@" "$f"; echo "$f $s"; done; done'
)
_LINE: Final = re.compile(r"(/[a-z/]{1,20})/([A-Za-z0-9+._-]{1,64}) (/[A-Za-z0-9+._/-]{1,100})")
_MAX_NAMES: Final = 32
_OUTPUT: Final = "probe.i"
_LIMITS: Final = ExecLimits(
    wall_seconds=60.0,
    memory_bytes=512 << 20,
    pids=64,
    output_bytes=MAX_PREPROCESSED_BYTES,
    stdio_bytes=MAX_ABOUT_BYTES,
)


class _Sources:
    """`BlobSource` of the probe's own inputs."""

    def __init__(self, *contents: bytes) -> None:
        self._contents = {Digest.of(c): c for c in contents}

    async def read(self, digest: Digest) -> bytes:
        try:
            return self._contents[digest]
        except KeyError:
            raise NotFoundError("the probe has no such input") from None


class _Answer:
    """What one exec left: bounded, whatever the guest sends."""

    def __init__(self) -> None:
        self.stdout, self.stderr, self.output = bytearray(), bytearray(), bytearray()
        self.result: ResultEvent | None = None

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
                    raise GuestLostError("the guest sent a file that nobody asked for")
            case ResultEvent():
                self.result = event
                return
        if len(sink) + len(data) > room:
            raise GuestLostError("the guest sent more than it may")
        sink += data


async def probe_guest(guest: Guest) -> tuple[Toolchain, ...]:
    """Ask a guest which compilers its image has; () when it has none that answers.

    Raises:
        GuestLostError: the guest died, or broke the protocol.
    """
    found: list[Toolchain] = []
    for number, names in enumerate((await _names(guest))[:MAX_TOOLCHAINS]):
        answer = await _ask(guest, number, names[0])
        if answer is None:
            continue
        # Where the probe does not compile, -v has answered all the same.
        output = bytes(answer.output) if answer.is_good else b""
        try:
            toolchain = read_probe(names, bytes(answer.stderr), output)
        except CallerError as error:
            _log.info("%s in the image: %s", names[0], error)
            continue
        _merge(found, toolchain)
    return tuple(found)


def _merge(found: list[Toolchain], toolchain: Toolchain) -> None:
    """Add a compiler, or its names to those of one that says the same of itself."""
    for index, known in enumerate(found):
        if replace(known, names=toolchain.names) == toolchain:
            names = tuple(dict.fromkeys((*known.names, *toolchain.names)))
            found[index] = replace(known, names=names[:_MAX_NAMES])
            return
    found.append(toolchain)


async def _names(guest: Guest) -> list[tuple[str, ...]]:
    """Return names by compiler; what an image without a shell has is asked by name."""
    answer = await _run(guest, "probe-list", ("sh", "-c", _SCRIPT))
    listed = _grouped(answer.stdout.decode("latin-1").splitlines()) if answer.is_good else []
    return listed or [(name,) for name in _PLAIN]


def _grouped(lines: Iterable[str]) -> list[tuple[str, ...]]:
    """Group names of one program; clang, clang++ and clang-cl are one file and three compilers."""
    groups: dict[tuple[str, str], list[str]] = {}
    seen: set[str] = set()
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None or match[1] not in _SEARCHED or match[2] in seen:
            continue  # the first on PATH counts
        kind = _kind(match[2].encode())
        if not kind or len(seen) >= _MAX_NAMES:
            continue
        seen.add(match[2])
        groups.setdefault((match[3], kind), []).append(match[2])
    return [tuple(names) for names in groups.values()]


def _kind(name: bytes) -> str:
    if is_clang_cl(name):
        return "cl"
    is_cxx = is_cxx_driver(name)
    return "" if is_cxx is None else "c++" if is_cxx else "c"


async def _ask(guest: Guest, number: int, name: str) -> _Answer | None:
    source, content = probe_source(name)
    argv = (name, *probe_arguments(name, source, _OUTPUT))
    answer = await _run(guest, f"probe-{number}", argv, (source, content))
    is_there = answer.result is not None and answer.result.reason != "no-such-program"
    return answer if is_there else None


async def _run(
    guest: Guest, exec_id: str, argv: tuple[str, ...], *inputs: tuple[str, bytes]
) -> _Answer:
    request = ExecRequest(
        exec_id=exec_id,
        argv=argv,
        env=_ENV,
        cwd="",
        inputs=tuple(InputFile(name, Digest.of(content)) for name, content in inputs),
        outputs=(_OUTPUT,) if inputs else (),
        limits=_LIMITS,
    )
    answer = _Answer()
    events: AsyncGenerator[ExecEvent] = guest.exec(request, _Sources(*(c for _, c in inputs)))
    async with aclosing(events) as running:
        async for event in running:
            answer.take(event)
    return answer


def label_trouble(labels: Mapping[str, str], compilers: Iterable[Toolchain]) -> str:
    """Hold what an image's labels claim of its compiler against the probe; "" if that is true.

    `io.hpcc.toolchain.id` (gcc, clang), `.version` and `.target`; those that are there must be
    true of one compiler.
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
    """Read what was kept of an image; None: nothing, by another probe, or damaged."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_TOOLCHAINS_BYTES + 1)
        table: Any = json.loads(raw) if len(raw) <= MAX_TOOLCHAINS_BYTES else None
        said = (table["image"], table["probe"], table["asked"])
        is_ours = said == (digest.value, PROBE_FORMAT, _ASKED)
        return toolchains_of(table["compilers"]) if is_ours else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError, CallerError):
        return None


def write_toolchains(path: Path, digest: ImageDigest, compilers: Iterable[Toolchain]) -> None:
    """Keep what was found, whole or not at all; what cannot be kept is asked again.

    Raises:
        OSError: it cannot be written.
    """
    table = {
        "image": digest.value,
        "probe": PROBE_FORMAT,
        "asked": _ASKED,
        "compilers": [toolchain_table(c) for c in compilers],
    }
    aside = path.with_name(f"{path.name}.new")
    try:
        aside.write_text(json.dumps(table, indent=1), encoding="utf-8")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
