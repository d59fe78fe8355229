"""Scenarios of files that only messages show: named sources, and locales that appear."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from hpcc_testkit.trust.steps import Scenario, delete, mkdir, step, write


def _locale(root: Path) -> None:
    """Give the tree a locale in UTF-8 under a name that no machine has."""
    shutil.copytree("/usr/lib/locale/C.utf8", root / "locales/xx.UTF-8")


def _named(cc: str, flags: str = "") -> Iterator[Scenario]:
    command = f"{cc} -Wall{flags} -c main.c -o main.o"
    body = "int f(void) { int unused; return 0; }\n"
    for name, text in (
        ("line", f'#line 1 "gram.y"\n{body}'),
        ("marker", f'# 1 "gram.y"\n{body}'),
        ("macro", f'#define NAME "gram.y"\n#line 1 NAME\n{body}'),
    ):
        yield Scenario(
            name=f"a-source-that-a-directive-names-{name}{flags.replace(' ', '')}-{cc}",
            steps=(
                step(command, "miss", write("main.c", text),
                     write("gram.y", "first text of a grammar\n")),
                step(command, "hit"),
                step(command, "any", write("gram.y", "other text of a grammar\n")),
                step(command, "any", delete("gram.y")),
                step(command, "hit"),
                step(command, "any", write("gram.y", "third text of a grammar\n")),
            ),
        )  # fmt: skip


def _languages(cc: str) -> Iterator[Scenario]:
    command = f"{cc} -Wall -c main.c -o main.o"
    warn = write("main.c", "int f(void) { int unused; return 0; }\n")
    for name, env in (
        ("all", {"LC_ALL": "xx.UTF-8"}),
        ("characters", {"LC_CTYPE": "xx.UTF-8"}),
        ("default", {"LANG": "xx.UTF-8"}),
    ):
        both = {**env, "LOCPATH": "%ROOT%/locales"}
        yield Scenario(
            name=f"a-locale-appears-{name}-{cc}",
            steps=(
                step(command, "miss", warn, mkdir("locales"), env=both),
                step(command, "hit", env=both),
                step(command, "nohit", _locale, env=both),
                step(command, "hit", env=both),
                step(command, "hit", delete("locales/xx.UTF-8"), env=both),
            ),
        )


def scenarios() -> Iterator[Scenario]:
    """Yield every scenario of this family."""
    for cc in ("gcc", "g++", "clang"):
        yield from _named(cc)
        yield from _named(
            cc, " -fdiagnostics-color=always" if cc != "clang" else " -fcolor-diagnostics"
        )
        yield from _languages(cc)
