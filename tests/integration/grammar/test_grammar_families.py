"""Each flag of the families -f, -g, -m, -W and -O that may name a file has a row of its own.

The compilers list their flags; whatever speaks of a file or directory, or takes a path, must be told
apart from those that are only hashed, or stand below with the reason why hashing is enough.
"""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from hpcc.compilers import GNU_FLAGS

_FAMILIES = {"-f", "-g", "-m", "-W", "-O"}
_FILES = re.compile(
    r"\b(?:files?|filename|paths?|pathname|director(?:y|ies)|dsopath)\b", re.IGNORECASE
)
_NO_FILE = {
    # Text that goes into the output, or changes text there.
    "-fcoverage-compilation-dir",
    "-fdebug-compilation-dir",
    "-ffile-compilation-dir",
    "-fcoverage-prefix-map",
    "-fdebug-prefix-map",
    "-ffile-prefix-map",
    "-fmacro-prefix-map",
    "-fsanitize-undefined-strip-path-components",
    # Names in the program, not on the disk.
    "-finstrument-functions-exclude-file-list",
    # Paths through the program.
    "-fanalyzer-verbosity",
    "-fdiagnostics-path-format",
    "-fhardcfr-check-noreturn-calls",
    # Of its values those with a file have rows.
    "-fbasic-block-sections",
    "-fdiagnostics-format",
    # Object files in general, and languages and systems that are refused or not known here.
    "-fbinutils-version",
    "-fno-modules-check-relocated",
    "-fuse-cuid",
    "-mzos-sys-include",
    # Where the program, not the compiler, writes.
    "-fmemory-profile",
    "-forder-file-instrumentation",
    "-fprofile-instr-generate",
}
_ASKS = {
    "gcc": (
        ("--help=common",),
        ("--help=c",),
        ("--help=c++",),
        ("--help=target",),
        ("--help=undocumented",),
    ),
    "clang": (("--help-hidden",),),
}
_FLAG = re.compile(r"^\s+(-[fgmWO][\w+-]+)([=<\[ ]?[^\s]*)\s*(.*)$")


def _flags(compiler: str) -> dict[str, str]:
    """Return each flag of the families with what the compiler says about it."""
    found: dict[str, str] = {}
    name = ""
    for arguments in _ASKS[compiler.partition("-")[0]]:
        text = subprocess.run(
            [compiler, *arguments],
            capture_output=True,
            check=True,
            text=True,
            env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
        ).stdout
        for line in text.splitlines():
            match = _FLAG.match(line)
            if match is not None:
                name = match[1]
                found[name] = found.get(name, "") + f" {match[2]} {match[3]}"
            elif name and line.startswith(" " * 20):
                found[name] += " " + line.strip()
            else:
                name = ""
    return found


@pytest.mark.parametrize(
    "compiler",
    [
        n
        for n in (*(f"gcc-{m}" for m in range(12, 16)), *(f"clang-{m}" for m in range(14, 22)))
        if shutil.which(n)
    ],
)
def test_a_family_flag_that_speaks_of_files_has_a_row(compiler: str) -> None:
    flags = _flags(compiler)
    assert len(flags) > 300
    missing = {}
    for name, text in flags.items():
        row = GNU_FLAGS.find(name.encode() + b"=x")
        takes_value = text.startswith((" =", " <"))
        if takes_value and _FILES.search(text) and row is not None and row.spelling in _FAMILIES:
            missing[name] = text
    assert set(missing) <= _NO_FILE, {k: v for k, v in missing.items() if k not in _NO_FILE}
