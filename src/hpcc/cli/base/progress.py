"""Progress output: a spinner with the newest line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hpcc.cli.base.terminal import emit


@contextmanager
def progress_lines(title: str) -> Iterator[Callable[[str], None]]:
    """Yield a function that shows one line of progress on standard error."""
    if not sys.stderr.isatty():
        emit(f"{title} …", file=sys.stderr, flush=True)
        yield lambda line: emit(f"  {line}", file=sys.stderr, flush=True)
        return
    from rich.console import Console

    console = Console(stderr=True)
    with console.status(title) as status:

        def show(line: str) -> None:
            console.print(f"  [dim]{_escaped(line)}[/dim]")
            status.update(f"{title}: {_escaped(line)}")

        yield show


def _escaped(line: str) -> str:
    from rich.markup import escape

    return escape("".join(c if c.isprintable() else "?" for c in line))
