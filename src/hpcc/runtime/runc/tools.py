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
# The first version whose shim can mount below another mount of the same root.
_MINIMUM_VERSION: Final = (1, 7)
_RUNC_VERSION: Final = re.compile(r"runc version (\S{1,64})")


@dataclass(frozen=True, slots=True, kw_only=True)
class RuncConfig:
    """How containers are run. `directory` holds the guests' directories; its mode is 0700.

    `by_loop`: whether images are mounted through loop devices. None: find out what the kernel can
    do.
    """

    directory: Path
    socket: Path = DEFAULT_SOCKET
    runc: str = "runc"
    by_loop: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RuncTools:
    """The programs that run containers here; digests are `sha256:…`."""

    runc: Path
    runc_digest: str
    containerd: Path
    containerd_digest: str
    version: str


async def find_runc(config: RuncConfig) -> RuncTools:
    """Find containerd and runc, and check what they need from the machine.

    Raises:
        InfrastructureError: something is missing; the text names the remedy.
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
    """Return (major, minor); (0,), which is below every version, for other text."""
    major, _, rest = version.removeprefix("v").partition(".")
    try:
        return int(major), int(rest.partition(".")[0])
    except ValueError:
        return (0,)
