"""Progress of image work on standard error: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from hpcc.cli.base.terminal import emit

if TYPE_CHECKING:
    from hpcc.images.oci.source import Progress

_STAGES: Final = {
    "resolve": "reading the manifest",
    "download": "downloading layers",
    "build": "making the file system image",
}
# Plain output goes to logs, so each stage prints at most this many steps.
_STEPS: Final = 4


@contextmanager
def image_progress(title: str) -> Iterator[Progress]:
    """Yield a `Progress` that shows its calls to the user."""
    if sys.stderr.isatty():
        with _bar(title) as progress:
            yield progress
        return
    emit(title, file=sys.stderr, flush=True)
    yield _PlainLines().show


class _PlainLines:
    """Prints a line when the stage changes and at each quarter of it."""

    def __init__(self) -> None:
        self._last = ("", -1)

    def show(self, stage: str, done: int, total: int) -> None:
        step = done * _STEPS // total if total else 0
        if (stage, step) == self._last:
            return
        self._last = (stage, step)
        share = f" {100 * step // _STEPS} %" if total else ""
        emit(f"  {_printable(stage)}{share}", file=sys.stderr, flush=True)


@contextmanager
def _bar(title: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )
    from rich.progress import Progress as Bar

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    console.print(escape(title))
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)

        def show(stage: str, done: int, total: int) -> None:
            bar.update(
                task,
                description=escape(_printable(stage)),
                completed=done,
                total=total or None,
            )

        yield show


def _printable(stage: str) -> str:
    text = _STAGES.get(stage, stage)
    return "".join(c if c.isprintable() else "?" for c in text)
