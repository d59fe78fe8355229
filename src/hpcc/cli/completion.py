"""`hpcc completion SHELL`: completion for bash, zsh and fish, generated from the parser."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Final

from hpcc.cli.base.terminal import emit

_COMPILERS: Final = ("gcc", "g++", "cc", "c++", "clang", "clang++")


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    completion = subparsers.add_parser(
        "completion", help="print a completion script for a shell", description=_completion.__doc__
    )
    completion.add_argument("shell", choices=("bash", "zsh", "fish"), metavar="bash|zsh|fish")
    completion.set_defaults(handler=_completion)


def _completion(args: argparse.Namespace) -> int:
    """Print a completion script.

    bash: `source <(hpcc completion bash)`; zsh, after compinit: the same with zsh;
    fish: `hpcc completion fish > ~/.config/fish/completions/hpcc.fish`.
    """
    from hpcc.cli.main import build_parser  # late: that module imports this one

    writers: dict[str, Callable[[argparse.ArgumentParser], str]] = {
        "bash": _bash, "zsh": _zsh, "fish": _fish,
    }  # fmt: skip
    emit(writers[args.shell](build_parser()))
    return 0


def walk(
    parser: argparse.ArgumentParser, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser, str]]:
    """Yield each visible command: the words that select it, its parser and its one-line help."""
    for action in parser._actions:  # noqa: SLF001 - argparse has no public way to read a parser
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - as above
            helps = {a.dest: a.help or "" for a in action._choices_actions}  # noqa: SLF001 - as above
            for name, child in action.choices.items():
                if name not in helps:
                    continue  # hidden: other commands start it
                yield (*path, name), child, helps[name]
                yield from walk(child, (*path, name))


def options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the parser's options, without its positional arguments."""
    return [a for a in parser._actions if a.option_strings]  # noqa: SLF001 - as above


def _words(parser: argparse.ArgumentParser, path: tuple[str, ...]) -> dict[str, str]:
    """Return the commands and options that may follow these words, each with its help."""
    words = {p[-1]: text for p, _, text in walk(parser, path) if len(p) == len(path) + 1}
    for action in options(parser):
        words |= dict.fromkeys(action.option_strings, action.help or "")
    return words


def _tables(parser: argparse.ArgumentParser) -> Iterator[tuple[str, dict[str, str]]]:
    top = _words(parser, ())
    yield "", top | dict.fromkeys(_COMPILERS, "compile through hpcc")
    for path, child, _ in walk(parser):
        yield " ".join(path), _words(child, path)


def _bash(parser: argparse.ArgumentParser) -> str:
    cases = [f"    '{path}') words='{' '.join(words)}' ;;" for path, words in _tables(parser)]
    head = """_hpcc() {
  local cur=${COMP_WORDS[COMP_CWORD]} path='' words='' i
  for ((i = 1; i < COMP_CWORD; i++)); do
    [[ ${COMP_WORDS[i]} == -* ]] || path+="${path:+ }${COMP_WORDS[i]}"
  done
  case $path in
"""
    tail = """
  esac
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -o default -F _hpcc hpcc"""
    return head + "\n".join(cases) + tail


def _zsh(parser: argparse.ArgumentParser) -> str:
    cases = []
    for path, words in _tables(parser):
        items = " ".join(
            "'" + w.replace(":", "\\:") + ":" + t.replace("'", "") + "'" for w, t in words.items()
        )
        cases.append(f"    '{path}') items=({items}) ;;")
    head = """#compdef hpcc
_hpcc() {
  local -a items seen
  seen=(${${words[2,CURRENT-1]}:#-*})
  case "${(j: :)seen}" in
"""
    tail = """
  esac
  _describe hpcc items || _files
}
compdef _hpcc hpcc"""
    return head + "\n".join(cases) + tail


def _fish(parser: argparse.ArgumentParser) -> str:
    lines = [
        "function __hpcc_at",
        "    set -l seen (string match -v -- '-*' (commandline -opc))[2..]",
        '    test "$seen" = "$argv"',
        "end",
    ]
    for path, words in _tables(parser):
        for word, text in words.items():
            quoted = text.replace("\\", "\\\\").replace("'", "\\'")
            lines.append(f"complete -c hpcc -n '__hpcc_at {path}' -a '{word}' -d '{quoted}'")
    return "\n".join(lines)
