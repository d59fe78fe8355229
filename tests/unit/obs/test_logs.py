"""Attack: a text from a peer writes log lines that hpcc never wrote, or takes over a terminal."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys

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


_CLIENT = """
import logging, sys, httpx
from hpcc.obs.logs import ServiceLog
log = ServiceLog("daemon", "%(message)s")
log.begin(logging.INFO)
log.configured(sys.argv[1])
with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(404))) as client:
    client.get("https://account.example/container/key?sv=1&sig=s3cret-canary")
logging.getLogger("httpx").warning("a library warns")
logging.getLogger("hpcc.x").info("hpcc notes")
"""


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_request_with_a_secret_in_its_url_leaves_no_line(form: str) -> None:
    """httpx logs each URL with its query, which is the credential of Azure's blobs."""
    done = subprocess.run(
        [sys.executable, "-c", _CLIENT, form], env=os.environ, capture_output=True, text=True,
        check=True, stdin=subprocess.DEVNULL, timeout=60,
    )  # fmt: skip
    first, second = done.stderr.splitlines()
    assert "a library warns" in first
    assert "hpcc notes" in second
