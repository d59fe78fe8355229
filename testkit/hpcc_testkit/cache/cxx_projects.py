"""C++ projects for CMake: many named modules, and two targets with one precompiled header.

Each function writes one, and returns how many sources it compiles.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

MODULES: Final = 30
USERS: Final = 60
_HEAD: Final = (
    "cmake_minimum_required(VERSION 3.28)\nproject(many CXX)\nset(CMAKE_CXX_STANDARD 20)\n"
)
_NO_TIMES: Final = (
    'add_compile_options("$<$<CXX_COMPILER_ID:Clang>:SHELL:-Xclang -fno-pch-timestamp>")\n'
)


def plant_modules(tree: Path) -> int:
    """Write modules of which each third has a partition and each imports the one before."""
    files = []
    for n in range(MODULES):
        part = n % 3 == 2
        imports = f"export import m{n - 1};\n" if n else ""
        imports += "export import :part;\n" if part else ""
        body = f"export inline int f{n}(int x) {{ return x + {n}{f' + f{n - 1}(x)' * bool(n)}; }}\n"
        fragment = f'module;\n#include "../include/config.h"\nexport module m{n};\n'
        _write(tree / f"m{n}.cppm", fragment + imports + body)
        files.append(f"m{n}.cppm")
        if part:
            _write(tree / f"p{n}.cppm", f"export module m{n}:part;\nexport using t{n} = int;\n")
            files.append(f"p{n}.cppm")
    _write(tree / "../include/config.h", "#pragma once\n#define CONFIG 1\n")
    _write(tree / "main.cpp", f"import m{MODULES - 1};\nint main() {{ return f0(CONFIGURED); }}\n")
    _write(
        tree / "CMakeLists.txt",
        _HEAD + "add_library(mods)\n"
        f"target_sources(mods PUBLIC FILE_SET CXX_MODULES FILES {' '.join(files)})\n"
        "add_executable(main main.cpp)\ntarget_link_libraries(main mods)\n"
        "target_compile_definitions(main PRIVATE CONFIGURED=1)\n",
    )
    return len(files) + 1


def plant_precompiled(tree: Path) -> int:
    """Write two targets, the second of which takes the precompiled header of the first."""
    _write(tree / "all.h", '#pragma once\n#include <vector>\n#include "own.h"\n')
    _write(tree / "own.h", "#pragma once\ninline int own() { return 1; }\n")
    names = [f"u{n}.cpp" for n in range(USERS)]
    for n, name in enumerate(names):
        text = f"std::vector<int> v{n}() {{ return {{{n}, own()}}; }}\n"
        _write(tree / name, ('#include "own.h"\n' if n % 2 else "") + text)
    half = USERS // 2
    _write(
        tree / "CMakeLists.txt",
        _HEAD + _NO_TIMES + f"add_library(a {' '.join(names[:half])})\n"
        f"add_library(b {' '.join(names[half:])})\n"
        "target_precompile_headers(a PRIVATE all.h)\ntarget_precompile_headers(b REUSE_FROM a)\n",
    )
    return len(names) + 1


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
