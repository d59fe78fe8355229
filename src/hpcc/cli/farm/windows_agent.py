"""`hpcc windows-agent`: builds the layer with the agent for Windows containers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from hpcc.cli.base.chosen_file import chosen_file
from hpcc.cli.base.terminal import emit
from hpcc.core import CallerError
from hpcc.files.whole import Sync

# The embeddable package has 11 MB, the stub 30 kB.
_MAX_INPUT_BYTES: Final = 64 << 20


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `windows-agent`."""
    parser = subparsers.add_parser(
        "windows-agent",
        help="build the layer with the agent for Windows containers",
        description=run.__doc__,
    )
    parser.add_argument(
        "output", type=Path, help="the layer to write, a tar file: windows-agent.tar"
    )
    parser.add_argument(
        "--python", type=Path, metavar="ZIP", required=True,
        help="CPython's Windows embeddable package (64-bit), 3.12 or newer, from python.org",
    )  # fmt: skip
    parser.add_argument(
        "--sha256", metavar="HEX", required=True, help="the digest that python.org publishes for it"
    )
    parser.add_argument(
        "--stub",
        type=Path,
        metavar="EXE",
        help="hpcc-agent.exe (default: the one in a Windows wheel)",
    )
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Pack hpcc-agent.exe, CPython and the agent's program into a layer, without timestamps."""
    # Late: no other command needs it.
    from hpcc.runtime.windows.agent import build_agent_layer
    from hpcc.runtime.windows.layers.layer import AGENT_STUB_SOURCE

    stub = args.stub or AGENT_STUB_SOURCE.with_name("hpcc-agent.exe")
    layer = build_agent_layer(_read(stub), _read(args.python), args.sha256.lower())
    with chosen_file(args.output, sync=Sync.CONTENT, mode=0o666) as file:
        file.write(layer.tar)
    emit(layer.diff_id)
    return 0


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_INPUT_BYTES + 1)
    except OSError as error:
        raise CallerError(f"{path} cannot be read: {error.strerror}", reason="input") from error
    if len(data) > _MAX_INPUT_BYTES:
        raise CallerError(f"{path} is larger than {_MAX_INPUT_BYTES} bytes", reason="too-large")
    return data
