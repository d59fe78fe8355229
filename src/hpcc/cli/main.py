"""The root of the command line: `hpcc` for everything that is not a compile."""

from __future__ import annotations

import argparse
import difflib
import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Final, NoReturn, cast

from hpcc import __version__
from hpcc.cli.base.terminal import emit
from hpcc.cli.builds import builds
from hpcc.cli.cache import clean, config, explain, local, stats
from hpcc.cli.doctor import doctor, selftest
from hpcc.cli.farm import jobs, login, services, status, token, up, windows_agent
from hpcc.config.extras import Extra, extra_of, missing_text, require_extra
from hpcc.core import CallerError, HpccError
from hpcc.obs.text import one_line, plain

# Each module has `register(subparsers)`. The order is that of --help.
_ON_WINDOWS: Final[tuple[ModuleType, ...]] = (
    up,
    login,
    token,
    jobs,
    status,
    local,
    stats,
    clean,
    explain,
    builds,
    config,
    doctor,
    services,
    selftest,
    windows_agent,
)
_COMMANDS = _ON_WINDOWS
# The other commands still need POSIX (docs/windows.md). Their names, with what helps there.
_NOT_ON_WINDOWS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("cache", "pack", "web", "completion", "debug-map"), ""),
    **dict.fromkeys(("image", "assets", "audit", "attest", "verify-evidence", "tenants"), ""),
}
if sys.platform != "win32":
    from hpcc.cli import completion
    from hpcc.cli.audit import audit
    from hpcc.cli.cache import checkout, pack, remote
    from hpcc.cli.farm import tenants_table
    from hpcc.cli.image import assets, image
    from hpcc.cli.web import web

    _COMMANDS = (
        up,
        login,
        token,
        jobs,
        status,
        local,
        stats,
        clean,
        explain,
        builds,
        web,
        checkout,
        remote,
        pack,
        config,
        image,
        assets,
        audit,
        doctor,
        services,
        tenants_table,
        selftest,
        windows_agent,
        completion,
    )

# What a command needs besides the local cache. It is asked before the command runs, so that none
# stops half-way.
_NEEDS: Final[Mapping[str, Extra]] = {
    **dict.fromkeys(("login", "logout", "whoami", "token", "farm", "cache", "pack"), "client"),
    **dict.fromkeys(("attest", "verify-evidence"), "client"),
    # On Windows without an image it starts the local cache.
    **dict.fromkeys(() if sys.platform == "win32" else ("up",), "farm"),
    **dict.fromkeys(("image", "assets", "audit", "scheduler", "worker", "gateway"), "farm"),
    **dict.fromkeys(("tenants",), "farm"),
    **dict.fromkeys(("selftest", "windows-agent"), "farm"),
}
_EXIT_OTHER: Final = 1
_EXIT_CALLER: Final = 2
_EXIT_INTERRUPTED: Final = 130


class _Parser(argparse.ArgumentParser):
    """Names in its complaints what was on the command line, without what a terminal obeys."""

    def error(self, message: str) -> NoReturn:
        super().error(one_line(message))


def build_parser() -> argparse.ArgumentParser:
    """Build the parser with every command."""
    parser = _Parser(
        prog="hpcc",
        description="A distributed compiler cache. Put it in front of a compiler: "
        "CC='hpcc gcc'. Any other program runs unchanged: `hpcc PROGRAM args…`.",
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
        emit(f"hpcc: {plain(trouble)}", file=sys.stderr)
        return _EXIT_CALLER
    args = parser.parse_args(given)
    handler = cast("Callable[[argparse.Namespace], int] | None", getattr(args, "handler", None))
    if handler is None:
        parser.print_help()
        return 0
    what = f"`hpcc {given[0]}`"
    try:
        if extra := _NEEDS.get(given[0]):
            require_extra(extra, what)
        code = handler(args)
        sys.stdout.flush()
    except ModuleNotFoundError as error:
        # A package that was removed, or a way to it that the table above does not have.
        lacking = extra_of(error.name or "")
        if lacking is None:
            raise
        emit(f"hpcc: {plain(missing_text(lacking, what))}", file=sys.stderr)
        return _EXIT_CALLER
    except HpccError as error:
        emit(f"hpcc: {plain(error)}", file=sys.stderr)
        return _EXIT_CALLER if isinstance(error, CallerError) else _EXIT_OTHER
    except KeyboardInterrupt:
        return _EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader closed the pipe (`hpcc audit list | head`): exit without a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _EXIT_OTHER
    except OSError as error:
        # Another user's directory, a full disk: print a sentence, as for an HpccError.
        emit(f"hpcc: {plain(_sentence(error))}", file=sys.stderr)
        return _EXIT_OTHER
    return code


def _print_anything() -> None:
    """Escape characters that the terminal cannot encode, so that they never end a command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _why_no_command(parser: argparse.ArgumentParser, word: str) -> str:
    """Return what is wrong with the first word; empty when it is a command or an option.

    The launcher passes every word here that is neither a compiler's name nor a program on PATH.
    """
    actions = parser._subparsers._group_actions if parser._subparsers else []  # noqa: SLF001 - argparse has no public accessor
    known = [str(name) for action in actions for name in action.choices or ()]
    if word.startswith("-") or word in known:
        return ""
    if word in _NOT_ON_WINDOWS:
        hint = _NOT_ON_WINDOWS[word] or "run it on Linux; docs/windows.md lists what is there"
        return f"`hpcc {word}` does not exist on Windows yet: {hint}."
    near = difflib.get_close_matches(word, known, n=1)
    hint = f"did you mean `hpcc {near[0]}`?" if near else "`hpcc --help` lists the commands."
    return f"{word!r} is neither a command nor a program on PATH; {hint}"


def _sentence(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    return f"{where}{error.strerror or error}"
