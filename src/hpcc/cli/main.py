"""The root of the command line: `hpcc` for everything that is not a compile."""

from __future__ import annotations

import argparse
import difflib
import io
import os
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Final, cast

from hpcc import __version__
from hpcc.cli.cache import config, local, stats
from hpcc.cli.doctor import selftest
from hpcc.cli.farm import services, windows_agent
from hpcc.core import CallerError, HpccError

# Each has `register(subparsers)`; one line for each module of commands, in the order of --help.
_COMMANDS: tuple[ModuleType, ...]
if sys.platform != "win32":
    from hpcc.cli import completion
    from hpcc.cli.audit import audit
    from hpcc.cli.cache import checkout, explain
    from hpcc.cli.doctor import doctor
    from hpcc.cli.farm import login, token, up
    from hpcc.cli.image import image

    _COMMANDS = (
        up,
        login,
        token,
        local,
        stats,
        explain,
        checkout,
        config,
        image,
        audit,
        doctor,
        services,
        selftest,
        windows_agent,
        completion,
    )
else:
    # The others need POSIX yet (docs/windows.md).
    _COMMANDS = (local, stats, config, services, selftest, windows_agent)

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
    _print_anything()
    parser = build_parser()
    given = sys.argv[1:] if argv is None else list(argv)
    if given and (trouble := _why_no_command(parser, given[0])):
        print(f"hpcc: {trouble}", file=sys.stderr)
        return _EXIT_CALLER
    args = parser.parse_args(given)
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
    except OSError as error:
        # A directory that is not ours, a full disk: a sentence, as for errors of our own.
        print(f"hpcc: {_sentence(error)}", file=sys.stderr)
        return _EXIT_OTHER
    return code


def _print_anything() -> None:
    """Let no character or file name that the terminal cannot show end a command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _why_no_command(parser: argparse.ArgumentParser, word: str) -> str:
    """Say what is wrong with the first word; the launcher sends here what it takes for no compiler.

    Empty when it is a command or an option.
    """
    actions = parser._subparsers._group_actions if parser._subparsers else []  # noqa: SLF001 - no public way to them
    known = [str(name) for action in actions for name in action.choices or ()]
    if word.startswith("-") or word in known:
        return ""
    near = difflib.get_close_matches(word, known, n=1)
    hint = f"did you mean `hpcc {near[0]}`?" if near else "`hpcc --help` lists them."
    return f"{word!r} is no command; {hint} For a compiler of that name: `hpcc wrap {word} …`"


def _sentence(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    return f"{where}{error.strerror or error}"
