"""Generated sources: small header trees that differ only in the number of headers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

# Any old time, because a cache may distrust files younger than the clock's granularity.
_LONG_PAST: Final = 1_700_000_000


def header_tree(directory: Path, headers: int, *, include_dirs: int = 0) -> list[str]:
    """Write a `main.c` that includes `headers` small headers of ten declarations each.

    With `include_dirs` the headers are spread over that many directories, so that on average half
    of the directories are searched in vain for each header. Returns the `-I` flags.
    """
    directory.mkdir(parents=True, exist_ok=True)
    names = [f"inc{i}" for i in range(include_dirs)]
    for name in names:
        (directory / name).mkdir(exist_ok=True)
    for i in range(headers):
        home = directory / names[i % include_dirs] if names else directory
        body = "\n".join(f"int f{i}_{j}(int, const char *, struct s{i} *);" for j in range(10))
        (home / f"h{i}.h").write_text(f"#pragma once\nstruct s{i} {{ int a, b; }};\n{body}\n")
    write_source(directory / "main.c", headers, "int main(void) { return 0; }")
    age(directory)
    return [f"-I{name}" for name in names]


def write_source(path: Path, headers: int, body: str) -> None:
    """Write a C file that includes the first `headers` headers of its tree."""
    includes = "\n".join(f'#include "h{i}.h"' for i in range(headers))
    path.write_text(f"{includes}\n{body}\n")


def age(directory: Path) -> None:
    """Set every file's mtime back. The ctime stays: see `settle`."""
    for root, _, files in os.walk(directory):
        for name in files:
            os.utime(Path(root, name), (_LONG_PAST, _LONG_PAST), follow_symlinks=False)


def long_file(path: Path, lines: int = 3000) -> Path:
    """Write a C file of about `lines` lines of ordinary code."""
    head = ["#include <stdio.h>", "#include <string.h>"]
    body = [
        f"int work{i}(int n, const char *s) {{\n"
        f"  int total = {i};\n"
        "  for (int k = 0; k < n; k++) {\n"
        f"    total += (int)strlen(s) * k + {i} % (k + 1);\n"
        f"    if (total & {1 << (i % 16)})\n"
        "      total ^= k << 3;\n"
        "    else\n"
        "      total -= s[k % 7];\n"
        "  }\n  return total;\n}"
        for i in range(lines // 10)
    ]
    path.write_text("\n".join(head + body) + "\n")
    return path
