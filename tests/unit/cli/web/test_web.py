"""The command around the pages."""

from __future__ import annotations

import subprocess
import sys

_FAILING = """
import argparse, logging
from hpcc.cli.web import web
async def serve(paths, port):
    logging.getLogger("x").error("a page cannot be shown: %s", "\\x1b]0;owned\\x07\\nforged")
web._serve = serve
web._web(argparse.Namespace(port=0, local=True))
"""


def test_an_error_of_a_page_is_nothing_that_the_terminal_obeys() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FAILING], capture_output=True, check=True, timeout=60
    )
    assert b"\\x1b]0;owned\\x07\n    forged" in done.stderr
    assert b"\x1b" not in done.stderr
