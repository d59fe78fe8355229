"""Writes docs/man/hpcc.1 from the parser of the command line.   gen_man.py [--check]"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hpcc import __version__
from hpcc.cli.completion import walk
from hpcc.cli.main import build_parser

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/man/hpcc.1"


def escaped(text: str) -> str:
    text = " ".join(text.split()).replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text.startswith((".", "'")) else text


def arguments(parser: argparse.ArgumentParser) -> list[str]:
    lines = []
    for action in parser._actions:  # noqa: SLF001 - argparse has no public way to read a parser
        if isinstance(action, argparse._SubParsersAction | argparse._HelpAction):  # noqa: SLF001 - as above
            continue
        if action.help is argparse.SUPPRESS:
            continue
        name = ", ".join(action.option_strings) or str(action.metavar or action.dest)
        value = ""
        if action.option_strings and action.nargs != 0:
            value = f" \\fI{escaped(str(action.metavar or action.dest.upper()))}\\fR"
        lines += [".TP", f"\\fB{escaped(name)}\\fR{value}"]
        default = action.default if action.default is not argparse.SUPPRESS else ""
        lines.append(escaped((action.help or " ") % {"default": default}) or "\\&")
    return lines


def rendered() -> str:
    parser = build_parser()
    lines = [
        f'.TH HPCC 1 "" "hpcc {__version__}" "User Commands"',
        ".SH NAME",
        "hpcc \\- a distributed compiler cache",
        ".SH SYNOPSIS",
        ".B hpcc",
        ".I COMPILER ARGS...",
        ".br",
        ".B hpcc",
        ".I COMMAND",
        "[OPTIONS]",
        ".SH DESCRIPTION",
        escaped(parser.description or ""),
        ".SH OPTIONS",
        *arguments(parser),
        ".SH COMMANDS",
    ]
    for path, child, text in walk(parser):
        lines += [f".SS hpcc {escaped(' '.join(path))}", escaped(child.description or text)]
        lines += arguments(child)
    lines += [
        ".SH ENVIRONMENT",
        ".TP",
        ".B HPCC_DIR",
        "an absolute directory that holds all state, instead of the XDG directories",
        ".TP",
        ".B HPCC_DISABLE",
        "1: run the compiler at once, without hpcc",
        ".SH EXIT STATUS",
        "Of a compile: the compiler's, or 127 where there is no such compiler. Of a command: 0; 1"
        " when something failed; 2 when it was called or configured wrongly. `hpcc status`: 3 when"
        " no daemon runs. `hpcc audit reproduce`: 3 when outputs differ, 4 when the inputs have"
        " expired, 5 when it cannot run here. Other commands of `hpcc audit`: 3 when an index is"
        " not the one that was sealed.",
        ".SH FILES",
        ".TP",
        ".I ~/.config/hpcc/hpcc.toml",
        "settings; `hpcc config show` prints all of them",
        ".TP",
        ".I ~/.cache/hpcc",
        "stored results and toolchain images; may be deleted",
        ".TP",
        ".I ~/.local/state/hpcc",
        "keys, audit trail, logs",
        ".SH SEE ALSO",
        ".BR gcc (1),",
        ".BR clang (1)",
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    new = rendered()
    if "--check" in sys.argv[1:]:
        return int(not PAGE.exists() or PAGE.read_text() != new)
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(new)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
