"""The error of a backend that does not work. This module also imports on Windows."""

from __future__ import annotations

from hpcc.core import InfrastructureError
from hpcc.ports import Runtime


async def check_probe(runtime: Runtime, title: str) -> None:
    """Boot the runtime's probe guest.

    Raises:
        InfrastructureError: `TITLE here: ` and why it does not work, with a remedy if there is one.
    """
    probe = await runtime.probe()
    if not probe.is_usable:
        lines = [f"{title} here: {probe.summary}", *probe.details, probe.remedy]
        raise InfrastructureError("\n".join(filter(None, lines)), reason="no-runtime")
