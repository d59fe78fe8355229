"""Attack: a text from a peer writes log lines that hpcc never wrote, or takes over a terminal."""

from __future__ import annotations

import io
import logging

import pytest

from hpcc.obs.logs import PlainFormatter
from hpcc.obs.text import one_line, plain

_FORM = "%(asctime)s %(levelname)s %(message)s"


def _logged(message: str, *arguments: object, error: BaseException | None = None) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(PlainFormatter(_FORM))
    record = logging.LogRecord("x", logging.INFO, "x.py", 1, message, arguments, None)
    if error is not None:
        record.exc_info = (type(error), error, error.__traceback__)
    handler.emit(record)
    return stream.getvalue()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", "\u2029"])
def test_a_peers_text_begins_no_line(end: str) -> None:
    forged = "2026-11-29 12:00:00,000 INFO key revoked by the operator"
    first, *others = _logged("refused: %s", f"x{end}{forged}").splitlines()
    assert "refused" in first
    assert all(line.startswith("    ") for line in others)


def test_an_errors_text_begins_no_line() -> None:
    shown = _logged("failed", error=ValueError("x\n2026-11-29 12:00:00,000 INFO all is well"))
    assert all(line.startswith("    ") for line in shown.splitlines()[1:])


def test_nothing_that_a_terminal_obeys_is_logged() -> None:
    shown = _logged("%s", "\x1b]0;owned\x07\x9b31m\u202egnp.exe\udcff")
    assert all(c.isprintable() or c == "\n" for c in shown)


def test_a_tab_or_line_end_of_a_name_stays_in_its_line() -> None:
    assert one_line("a\n\tb\x1b") == "a\\n\\tb\\x1b"
    assert plain("a\n\tb\x1b") == "a\n\tb\\x1b"
