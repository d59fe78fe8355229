"""A real Chromium for tests: `browser` starts it, and asks it for one thing after another."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

_DRIVE: Final = Path(__file__).resolve().parents[3] / "tests/browser/drive.py"

_WIDE: Final = 1440
_NARROW: Final = 430
# What colours and width can break.
_FEW: Final = ["color-contrast", "scrollable-region-focusable", "target-size"]


def fetched() -> Path:
    """Return where `tools/bootstrap.sh browser` puts Selenium and axe-core."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base, "hpcc-tests", "browser")


def missing_or_none() -> str | None:
    """Return why there is no browser here; None if there is one."""
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        return "no Chromium: apt-get install chromium chromium-driver"
    found = (fetched() / "selenium").is_dir() and _rules().is_file()
    return None if found else "no Selenium: tools/bootstrap.sh browser"


class Browser:
    """Asks a running `tests/browser/drive.py`."""

    def __init__(self, to: IO[str], answers: IO[str]) -> None:
        self._to, self._answers = to, answers

    def do(self, command: str, **more: object) -> Any:  # noqa: ANN401 - JSON
        """Run one command; an answer is JSON."""
        self._to.write(json.dumps({"do": command, **more}) + "\n")
        self._to.flush()
        line = self._answers.readline()
        assert line, "the browser has ended"
        return json.loads(line)


@contextmanager
def browser() -> Iterator[Browser]:
    """Start Chromium; it is gone after the block."""
    with subprocess.Popen(
        [sys.executable, os.fspath(_DRIVE), os.fspath(_rules())],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.fspath(fetched())},
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Browser(process.stdin, process.stdout)
        finally:
            process.stdin.close()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def check_page(chromium: Browser, *, rules: bool, name: str = "") -> None:
    """Check the page that is open: its width, its colours, its keys, and what the console says.

    `rules`: also ask axe-core, of all its rules and of those that colours and width can break.
    With a `name`, pictures of the four looks go to the directory of `HPCC_PICTURES`, if it is set.
    """
    pictures = os.environ.get("HPCC_PICTURES", "") if name else ""
    for width, dark in itertools.product((_WIDE, _NARROW), (False, True)):
        look = f"{'wide' if width == _WIDE else 'narrow'}-{'dark' if dark else 'light'}"
        png = os.path.join(pictures, f"{name}-{look}.png") if pictures else ""
        beyond = chromium.do("look", width=width, dark=dark, png=png)
        assert beyond <= 0, "wider than the window"
        if rules and (width == _WIDE) != dark:
            assert chromium.do("rules", only=_FEW if dark else []) == []
    keys = chromium.do("keys")
    assert keys["wanted"] == keys["reached"], keys
    assert chromium.do("log") == []


def _rules() -> Path:
    return fetched() / "node_modules/axe-core/axe.min.js"
