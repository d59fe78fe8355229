"""Commands and their output; no logic."""

from hpcc.cli._main import build_parser, main

__all__ = ["build_parser", "main"]
