"""What the figures are taken on: generated header trees, and a real project."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def header_tree(directory: Path, headers: int) -> Path:
    """A C file that includes `headers` small headers, each declaring a few functions."""
    directory.mkdir(parents=True, exist_ok=True)
    names = []
    for i in range(headers):
        body = "\n".join(f"int f{i}_{j}(int, const char *, struct s{i} *);" for j in range(10))
        (directory / f"h{i}.h").write_text(f"#pragma once\nstruct s{i} {{ int a, b; }};\n{body}\n")
        names.append(f'#include "h{i}.h"')
    source = directory / "main.c"
    source.write_text("\n".join(names) + "\nint main(void) { return 0; }\n")
    return source


def long_file(path: Path, lines: int = 3000) -> Path:
    """A C file of about so many lines of ordinary code."""
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


def fetch_lua(directory: Path) -> Path:
    """Sources of Lua 5.4 as the distribution ships them; returns the unpacked root."""
    directory.mkdir(parents=True, exist_ok=True)
    found = sorted(directory.glob("lua5.4_*.orig.tar.*"))
    if not found:
        subprocess.run(
            [str(ROOT / "tools/fetch_source.sh"), "lua5.4", str(directory)],
            check=True, env={"PATH": os.environ["PATH"]},
        )  # fmt: skip
        found = sorted(directory.glob("lua5.4_*.orig.tar.*"))
    with tarfile.open(found[0]) as archive:
        top = archive.getnames()[0].split("/")[0]
        archive.extractall(directory, filter="data")
    return directory / top
