"""Finds the flags that give piped compiler messages the look they have on the user's terminal.

Compilers decide by the terminal, variables, their version and the terminal's description, each in
another way (GCC: gcc/diagnostic-color.cc; LLVM: Process.inc). So each is run on a terminal once.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
from typing import Final

from hpcc.cache.base.api import CompileRequest
from hpcc.compilers.invocation.family import CompilerFamily
from hpcc.compilers.invocation.invocation import Invocation
from hpcc.compilers.spec.table import Bypass, Effect
from hpcc.core.memo import BoundedMemo
from hpcc.core.reasons.bypass import BypassReason

_COLOUR: Final = b"\x1b["
_LINK: Final = b"\x1b]8;;"
_QUESTION: Final = b"#warning colours\n"
_SECONDS: Final = 10.0
_MAX_ANSWER_BYTES: Final = 64 << 10
_MAX_REMEMBERED: Final = 256
_DECIDE: Final = (b"TERM", b"COLORTERM", b"NO_COLOR", b"GCC_COLORS", b"GCC_URLS", b"TERM_URLS")
_WIDTH: Final = b"-fmessage-length="
_URLS: Final = b"-fdiagnostics-urls="


class Terminals:
    """Remembers the answers of compilers. Thread-safe: a race only asks twice."""

    def __init__(self) -> None:
        self._known: BoundedMemo[tuple[bytes | None, ...], bytes] = BoundedMemo(_MAX_REMEMBERED)

    def flags(
        self,
        request: CompileRequest,
        invocation: Invocation,
        family: CompilerFamily,
        identity: bytes,
    ) -> tuple[bytes, ...] | Bypass:
        """Return the flags that make a pipe get the messages that the terminal would get."""
        if not (request.stderr_is_tty and family.formats_for_terminals):
            return ()
        width = _width(request)
        if width and not family.wraps_messages:
            return Bypass(
                BypassReason.TERMINAL_WIDTH
            )  # GCC truncates source lines, and has no flag for that
        is_given = any(a.startswith(_WIDTH) for a in invocation.arguments)
        wrap = (_WIDTH + width,) if width and not is_given else ()
        return (*wrap, *self._colours(request, invocation, family, identity))

    def _colours(
        self,
        request: CompileRequest,
        invocation: Invocation,
        family: CompilerFamily,
        identity: bytes,
    ) -> tuple[bytes, ...]:
        colours = [f.raw[-1] for f in invocation.flags if f.spec.effect is Effect.COLOUR]
        urls = [a for a in invocation.arguments if a.startswith(_URLS)]
        wants_colour = not colours or colours[-1].endswith(b"=auto")
        wants_urls = family.prints_links and (not urls or urls[-1].endswith(b"=auto"))
        is_plain = any(c == b"-fdiagnostics-plain-output" for c in colours)
        if is_plain or not (wants_colour or wants_urls):
            return ()
        text = self._ask(request, invocation, family, identity)
        flags = [b"-fdiagnostics-color=always"] if wants_colour and _COLOUR in text else []
        flags += [_URLS + b"always"] if wants_urls and _LINK in text else []
        return tuple(flags)

    def _ask(
        self,
        request: CompileRequest,
        invocation: Invocation,
        family: CompilerFamily,
        identity: bytes,
    ) -> bytes:
        key = (
            identity,
            family.name.encode(),
            request.compiler,
            *(request.env.get(name) for name in _DECIDE),
        )
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = _speak(request, family.colour_question(invocation))
        return known


def _width(request: CompileRequest) -> bytes:
    """Return COLUMNS if it is a number: compilers use it as the terminal's width."""
    match = re.match(rb"\s*\+?0*([1-9]\d{0,5})", request.env.get(b"COLUMNS", b""))
    return b"" if match is None else match[1]


def _speak(request: CompileRequest, question: list[bytes]) -> bytes:
    """Return what the compiler writes to a terminal for a warning; b"" if it cannot be run."""
    ours, theirs = os.openpty()
    try:
        with tempfile.TemporaryFile() as source:
            source.write(_QUESTION)
            source.seek(0)
            try:
                subprocess.run(
                    [request.compiler, *question],
                    env=dict(request.env),
                    cwd=b"/",
                    stdin=source,
                    stdout=subprocess.DEVNULL,
                    stderr=theirs,
                    start_new_session=True,
                    check=False,
                    timeout=_SECONDS,
                )
            except (OSError, subprocess.TimeoutExpired):
                return b""
        os.set_blocking(ours, False)
        text = bytearray()
        with contextlib.suppress(OSError):  # no more output
            while len(text) < _MAX_ANSWER_BYTES and (chunk := os.read(ours, _MAX_ANSWER_BYTES)):
                text += chunk
        return bytes(text)
    finally:
        os.close(ours)
        os.close(theirs)
