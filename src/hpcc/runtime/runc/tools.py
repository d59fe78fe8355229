"""Whether containerd and runc can be used here, and what to do if not."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc.runtime.containerd.client import Containerd, unix_connector
from hpcc.runtime.host.tools import ToolError, run_tool, sha256_of
from hpcc.runtime.runc.host import check_machine, daemon_of

DEFAULT_SOCKET: Final = Path("/run/containerd/containerd.sock")
# The first whose shim puts a mount below another one of the same root.
_MINIMUM_VERSION: Final = (1, 7)
_RUNC_VERSION: Final = re.compile(r"runc version (\S{1,64})")


@dataclass(frozen=True, slots=True, kw_only=True)
class RuncConfig:
    """How containers are run. `directory` is for guests' working directories, 0700.

    `by_loop`: whether images are mounted through loop devices; None finds out what the kernel can.
    """

    directory: Path
    socket: Path = DEFAULT_SOCKET
    runc: str = "runc"
    by_loop: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RuncTools:
    """What runs containers here; digests are `sha256:…`."""

    runc: Path
    runc_digest: str
    containerd: Path
    containerd_digest: str
    version: str


async def find_runc(config: RuncConfig) -> RuncTools:
    """Look for containerd and runc, and check what they need of the machine.

    Raises:
        InfrastructureError: something is missing; the text says how to mend it.
    """
    runc = await asyncio.to_thread(check_machine, config.runc)
    program = await asyncio.to_thread(daemon_of, config.socket)
    client = Containerd(unix_connector(config.socket))
    try:
        version = await client.version()
    finally:
        client.close()
    if version_numbers(version) < _MINIMUM_VERSION:
        least = ".".join(map(str, _MINIMUM_VERSION))
        raise ToolError(
            f"containerd is {version}, {least} or newer is needed; try: apt-get install containerd",
            reason="containerd-version",
        )
    said = _RUNC_VERSION.search(await run_tool(str(runc), "--version"))
    return RuncTools(
        runc=runc,
        runc_digest=await asyncio.to_thread(sha256_of, runc),
        containerd=program,
        containerd_digest=await asyncio.to_thread(sha256_of, program),
        version=f"runc {said[1] if said else '?'}, containerd {version}",
    )


def version_numbers(version: str) -> tuple[int, ...]:
    """Return major and minor; lower than any where the text is no version."""
    major, _, rest = version.removeprefix("v").partition(".")
    try:
        return int(major), int(rest.partition(".")[0])
    except ValueError:
        return (0,)
