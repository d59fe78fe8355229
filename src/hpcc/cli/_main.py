"""The root of the command line: `hpcc` for everything that is not a compile."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Final, cast

from hpcc import __version__
from hpcc.cli import _selftest
from hpcc.core import CallerError, HpccError

# Each has `register(subparsers)`; one line for each module of commands, in the order of --help.
_COMMANDS: tuple[ModuleType, ...]
if sys.platform != "win32":
    from hpcc.cli import (
        _audit,
        _checkout,
        _completion,
        _config,
        _doctor,
        _explain,
        _image,
        _local,
        _login,
        _services,
        _stats,
        _token,
        _up,
    )

    _COMMANDS = (
        _up,
        _login,
        _token,
        _local,
        _stats,
        _explain,
        _checkout,
        _config,
        _image,
        _audit,
        _doctor,
        _services,
        _selftest,
        _completion,
    )
else:
    # The services and the client need POSIX yet (docs/windows.md).
    _COMMANDS = (_selftest,)

_EXIT_OTHER: Final = 1
_EXIT_CALLER: Final = 2
_EXIT_INTERRUPTED: Final = 130


def build_parser() -> argparse.ArgumentParser:
    """Build the parser with every command."""
    parser = argparse.ArgumentParser(
        prog="hpcc",
        description="A distributed compiler cache. Put it in front of a compiler: "
        "CC='hpcc gcc', or `hpcc wrap CC args…`.",
    )
    parser.add_argument("--version", action="version", version=f"hpcc {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND")
    for module in _COMMANDS:
        module.register(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    handler = cast("Callable[[argparse.Namespace], int] | None", getattr(args, "handler", None))
    if handler is None:
        parser.print_help()
        return 0
    try:
        code = handler(args)
        sys.stdout.flush()
    except HpccError as error:
        print(f"hpcc: {error}", file=sys.stderr)
        return _EXIT_CALLER if isinstance(error, CallerError) else _EXIT_OTHER
    except KeyboardInterrupt:
        return _EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (`hpcc audit list | head`): no traceback at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _EXIT_OTHER
    return code
