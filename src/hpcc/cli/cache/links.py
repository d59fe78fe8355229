"""The part of `hpcc explain` about the last link of an output."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

from hpcc.config.paths import Paths
from hpcc.obs.text import one_line

if TYPE_CHECKING:
    from hpcc.cache.recorder.link_record import LinkRecord

_MAX_SHOWN: Final = 40
_DIGITS: Final = 16


def link_lines(name: str, paths: Paths) -> list[str]:
    """Return what is recorded of the last link whose output is `name`; empty without a record."""
    from hpcc.cache.recorder.reading import recorded_links  # late: most outputs are objects

    wanted = {os.path.abspath(name), os.path.realpath(name)}  # noqa: PTH100 - paths as records spell them
    found = [
        link.record
        for link in recorded_links(os.fspath(paths.cache)).links
        if os.path.normpath(link.record.output.path) in wanted
    ]
    return _lines(found[-1]) if found else []


def _lines(link: LinkRecord) -> list[str]:
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(link.began_us / 1e6))
    shown = link.inputs[:_MAX_SHOWN]
    rest = len(link.inputs) + link.left_out - len(shown)
    lines = [
        link.output.path,
        f"  last link     {began}, claimed by this machine's daemon: {link}",
        f"  output        {link.output.digest}  {link.size_bytes} bytes",
        f"  compiler      {link.compiler}  {link.tools[:_DIGITS]}",
        f"  command       {' '.join(link.command)[:500]}",
        f"  inputs        {len(link.inputs) + link.left_out}, digest {link.inputs_digest}",
        *(f"    {file.digest[:_DIGITS]:<{_DIGITS}}  {file.path}" for file in shown),
        *([f"    … and {rest} more (hpcc report --json)"] if rest else []),
    ]
    return list(map(one_line, lines))  # a name may hold a line break
