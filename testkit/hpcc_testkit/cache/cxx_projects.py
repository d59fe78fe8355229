"""Projects for CMake: many named modules, one precompiled header, `import std`, CUDA, clang-tidy.

Each function writes one, and returns how many sources it compiles.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

MODULES: Final = 30
USERS: Final = 60
KERNELS: Final = 20
CHECKED: Final = 100
_PROCESS_ID: Final = re.compile(rb"tmpxft_[0-9a-f]{8}_")
_HEAD: Final = (
    "cmake_minimum_required(VERSION 3.28)\nproject(many CXX)\nset(CMAKE_CXX_STANDARD 20)\n"
)
# CMake 3.31's word for its experimental support of `import std`.
_STD_UUID: Final = "0e5b6991-d74f-4b3d-a41c-cf096e0b2508"
_TWICE: Final = "export int twice(int x) { std::vector<int> v{x, x}; return v[0] + v[1]; }\n"
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


def plant_std(tree: Path) -> int:
    """Write a program and a module that import libc++'s module `std`. Clang only."""
    _write(
        tree / "CMakeLists.txt",
        "cmake_minimum_required(VERSION 3.30)\n"
        f'set(CMAKE_EXPERIMENTAL_CXX_IMPORT_STD "{_STD_UUID}")\n'
        "project(uses CXX)\nset(CMAKE_CXX_STANDARD 23)\nset(CMAKE_CXX_MODULE_STD ON)\n"
        "add_executable(main main.cpp other.cpp)\n"
        "target_sources(main PRIVATE FILE_SET CXX_MODULES FILES m.cppm)\n",
    )
    _write(tree / "m.cppm", "export module m;\nimport std;\n" + _TWICE)
    _write(
        tree / "main.cpp", 'import std;\nimport m;\nint main() { std::println("{}", twice(4)); }\n'
    )
    _write(tree / "other.cpp", "import std;\nstd::string other() { return std::string(3, 'x'); }\n")
    return 5  # with std and std.compat


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


def plant_cuda(tree: Path) -> int:
    """Write a library of kernels that call functions of their files, and a program."""
    names = [f"u{n}.cu" for n in range(KERNELS)]
    _write(tree / "inc/both.h", "#pragma once\n#define N 2\n")
    for n, name in enumerate(names):
        text = (
            f'#include "both.h"\n__device__ int d{n}(int x) {{ return x * N + SIZE; }}\n'
            f"__global__ void k{n}(int *p) {{ p[threadIdx.x] = d{n}(*p); }}\n"
            f"void r{n}(int *p) {{ k{n}<<<1, 32>>>(p); }}\n"
        )
        _write(tree / "src" / name, text)
    declared = "".join(f"void r{n}(int *);\n" for n in range(KERNELS))
    calls = "".join(f" r{n}(p);" for n in range(KERNELS))
    body = f"int main(int c, char **) {{ int *p = 0; if (c > 1) {{{calls} }} return 0; }}\n"
    _write(tree / "main.cu", declared + body)
    _write(
        tree / "CMakeLists.txt",
        "cmake_minimum_required(VERSION 3.28)\nproject(p LANGUAGES CXX CUDA)\n"
        "set(CMAKE_CUDA_STANDARD 17)\n"
        f"add_library(units STATIC {' '.join('src/' + name for name in names)})\n"
        "target_include_directories(units PRIVATE inc)\n"
        'target_compile_definitions(units PRIVATE NAME="p" SIZE=3)\n'
        "target_compile_options(units PRIVATE -Wall --expt-relaxed-constexpr"
        " -Xcompiler=-fno-strict-aliasing)\n"
        "set_target_properties(units PROPERTIES CUDA_SEPARABLE_COMPILATION ON"
        " POSITION_INDEPENDENT_CODE ON)\n"
        "add_executable(program main.cu)\ntarget_link_libraries(program units)\n",
    )
    return len(names) + 1


def plant_checked(tree: Path) -> int:
    """Write sources for clang-tidy to check: two findings in each, a third in the shared header."""
    names = [f"u{n}.cpp" for n in range(CHECKED)]
    _write(
        tree / ".clang-tidy",
        "Checks: '-*,bugprone-*,modernize-use-nullptr,readability-identifier-naming'\n"
        "HeaderFilterRegex: 'shared'\nCheckOptions:\n"
        "  readability-identifier-naming.FunctionCase: lower_case\n",
    )
    _write(
        tree / "shared.h",
        "#pragma once\n#include <cstddef>\ninline int NotLower(int x) { return x + 1; }\n",
    )
    for n, name in enumerate(names):
        text = (
            f'#include "shared.h"\nint *none{n}() {{ return 0; }}\n'
            f"int *kept{n}() {{ return 0; }}  // NOLINT\n"
            f"int Upper{n}(int x) {{ return NotLower(x) * {n}; }}\n"
        )
        _write(tree / name, text)
    _write(tree / "CMakeLists.txt", _HEAD + f"add_library(checked {' '.join(names)})\n")
    return len(names)


def without_process_ids(made: bytes) -> bytes:
    """Return an object of nvcc without what is another one in each run."""
    return _PROCESS_ID.sub(b"tmpxft_", made)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
