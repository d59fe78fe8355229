#!/usr/bin/env python3
"""Print the figures by which two commits of this project are compared, as a Markdown table.

usage: house_figures.py [--root DIR] [--json] [--no-runs] [--seconds NAME=SECONDS ...]

Works on any checkout, whatever its folders are called. The interpreter is DIR/.venv/bin/python
where there is one, else the one that runs this.

How each figure is made:

* Product files are the Python files of src/hpcc without `_proto` (generated) and without the test
  helpers (src/hpcc/testing or testkit/). A room is a directory of them.
* Moves of a first local hit: one gcc compile fills the cache. A new daemon, which has no replay
  yet, answers the same compile, and its thread is traced (tools/house_runs.py). "Functions entered
  from another file" is the 97 of the plan: each function counts once, however often it is called.
  The same trace gives the pairs (calling file, function) and the executed calls and returns.
* Files of a farm miss: one gcc compile in a new daemon against a farm of fake guests. The plan's
  115 is nearest to the daemon's files plus the dispatcher's; a file that runs in both counts twice.
  The files without doubles, and those of scheduler and worker, have separate rows.
* Questions about the compiler: loads of the names in `QUESTIONS`, comparisons of a `family` with
  something else, and isinstance() tests for a class in `FAMILY_CLASSES`. Imports, definitions and
  assignments to such a name do not count; `is_clang=x.is_clang` counts once. Files of
  hpcc/compilers are left out. The row of mentions counts each occurrence of the names, also in
  imports, parameters and definitions. Another row counts comparisons with a flag's bytes.
* Code lines hold a token that is neither a comment nor a docstring.
* A function's lines are those from its `def` to its end.
* Seconds come from --seconds or from junit files (`build`, `.nightly` and the root itself).
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import re
import subprocess
import sys
import tempfile
import tokenize
import xml.etree.ElementTree as ET
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent))

from house_runs import HELPER_DIRECTORIES, IMPORT_ROUNDS, farm_miss, first_local_hit, joined

QUESTIONS: Final = frozenset(
    {"is_clang", "is_clang_cl", "is_cl", "is_gcc", "is_gnu", "is_msvc", "is_of", "is_cxx_driver"}
)
FAMILY_CLASSES: Final = frozenset(
    {"Gnu", "Clang", "ClangCl", "Msvc"} | {f"{n}Family" for n in ("Gnu", "Gcc", "Clang", "Msvc")}
)
# Only then is `family` a compiler's: sockets and errors have families, too.
_FAMILIES: Final = frozenset({"gcc", "gnu", "clang", "clang-cl", "msvc", "cl"})
_FLAG: Final = re.compile(rb"[-/][A-Za-z-]")
MAX_FUNCTION_LINES: Final = 40
MAX_FILE_LINES: Final = 400
_SKIPPED_TOKENS: Final = frozenset(
    {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    | {tokenize.ENCODING, tokenize.ENDMARKER}
)
_C_DIRECTORIES: Final = ("launcher", "native", "guest", "src/hpcc")
_WHEEL_SECONDS: Final = 300.0
_SECONDS: Final = ("make check", "./test.sh", "make nightly")
_DEFINITIONS: Final = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)

Rows = dict[str, Any]


# ---- counting in one text ----


def docstring_lines(tree: ast.Module) -> set[int]:
    """Return the numbers of the lines that docstrings take."""
    found: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, _DEFINITIONS) and ast.get_docstring(node, clean=False) is not None:
            first = node.body[0]
            found.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return found


def code_lines(text: str) -> int:
    """Count the lines with code: no blank lines, comments or docstrings."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _SKIPPED_TOKENS:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - docstring_lines(ast.parse(text)))


def long_functions(tree: ast.Module, most: int = MAX_FUNCTION_LINES) -> list[str]:
    """Return the names of the functions that have more lines than allowed."""
    return [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno + 1 > most
    ]


def public_classes(tree: ast.Module) -> list[str]:
    """Return the names of a module's public classes."""
    classes = (node.name for node in tree.body if isinstance(node, ast.ClassDef))
    return [name for name in classes if not name.startswith("_")]


def _name_of(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr if isinstance(node.ctx, ast.Load) else ""
    return node.id if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) else ""


def _texts(node: ast.Compare) -> set[object]:
    inner = (n for side in (node.left, *node.comparators) for n in ast.walk(side))
    return {n.value for n in inner if isinstance(n, ast.Constant)}


def _asks_family(node: ast.AST) -> bool:
    if isinstance(node, ast.Compare):
        sides = [_name_of(side) == "family" for side in (node.left, *node.comparators)]
        return all(sides) or (any(sides) and bool(_texts(node) & _FAMILIES))
    if isinstance(node, ast.Call) and _name_of(node.func) == "isinstance":
        return any(_name_of(n) in FAMILY_CLASSES for n in ast.walk(node.args[-1]))
    return False


def compiler_questions(tree: ast.Module) -> int:
    """Count where the code asks which compiler it deals with."""
    nodes = list(ast.walk(tree))
    return sum(_name_of(node) in QUESTIONS for node in nodes) + sum(map(_asks_family, nodes))


def compiler_mentions(text: str) -> int:
    """Count every occurrence of the names of `QUESTIONS`, also where one is only handed on."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return sum(token.type == tokenize.NAME and token.string in QUESTIONS for token in tokens)


def flag_comparisons(tree: ast.Module) -> int:
    """Count comparisons and startswith/endswith calls with a compiler's flag as bytes."""
    found = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            texts: set[object] = _texts(node)
        elif isinstance(node, ast.Call) and _name_of(node.func) in {"startswith", "endswith"}:
            texts = {n.value for a in node.args for n in ast.walk(a) if isinstance(n, ast.Constant)}
        else:
            continue
        found += any(isinstance(t, bytes) and bool(_FLAG.match(t)) for t in texts)
    return found


def duplicates(names: Iterable[str]) -> dict[str, int]:
    """Return the names that occur more than once, with how often."""
    return {name: count for name, count in sorted(Counter(names).items()) if count > 1}


def has_leading_underscore(path: Path) -> bool:
    return path.name.startswith("_") and not path.name.startswith("__")


def is_msvc_module(name: str) -> bool:
    """Tell whether a module of the product is only for cl and clang-cl, by its name."""
    words = re.split(r"[._]", name)
    return "msvc" in words or "cl" in words


# ---- a checkout ----


def python_files(base: Path) -> list[Path]:
    return sorted(p for p in base.rglob("*.py") if "__pycache__" not in p.parts)


def is_helper(root: Path, path: Path) -> bool:
    return any(path.is_relative_to(root / name) for name in HELPER_DIRECTORIES)


def product_files(root: Path) -> list[Path]:
    """Return the product's Python files: nothing generated, no test helper."""
    generated = root / "src" / "hpcc" / "_proto"
    files = python_files(root / "src" / "hpcc")
    return [p for p in files if not p.is_relative_to(generated) and not is_helper(root, p)]


def raw_lines(files: Iterable[Path]) -> int:
    return sum(len(path.read_bytes().splitlines()) for path in files)


def largest_first(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def rooms(files: Iterable[Path], base: Path) -> dict[str, int]:
    """Return how many files each directory holds, the largest first."""
    counts = Counter(str(path.parent.relative_to(base)) for path in files)
    return largest_first(counts)


def size_rows(root: Path, files: list[Path]) -> Rows:
    per_room = rooms(files, root / "src")
    name, largest = next(iter(per_room.items()))
    helpers = [p for directory in HELPER_DIRECTORIES for p in python_files(root / directory)]
    c_files = [p for name in _C_DIRECTORIES for p in (root / name).rglob("*.[ch]")]
    c_files = [p for p in c_files if not is_helper(root, p)]
    tests = python_files(root / "tests")
    return {
        "product Python files": len(files),
        "rooms": len(per_room),
        "files per room, maximum": f"{largest} ({name})",
        "rooms with more than 20 files": sum(count > 20 for count in per_room.values()),
        "files per room": per_room,
        "product Python lines": raw_lines(files),
        "product Python code lines": sum(code_lines(p.read_text()) for p in files),
        "C lines (launcher, native, guests)": raw_lines(c_files),
        "test helper files": len(helpers),
        "test helper lines": raw_lines(helpers),
        "test files": len(tests),
        "test lines": raw_lines(tests),
    }


def shape_rows(root: Path, files: list[Path]) -> Rows:
    trees = {path: ast.parse(path.read_bytes()) for path in files}
    compilers = root / "src" / "hpcc" / "compilers"
    out = [path for path in files if not path.is_relative_to(compilers)]
    outside = [trees[path] for path in out]
    asked = [count for tree in outside if (count := compiler_questions(tree))]
    again = duplicates(name for tree in trees.values() for name in public_classes(tree))
    return {
        "questions about the compiler, everywhere": sum(map(compiler_questions, trees.values())),
        "questions about the compiler outside compilers/": sum(asked),
        "mentions of these names outside compilers/": sum(
            compiler_mentions(path.read_text()) for path in out
        ),
        "files outside compilers/ that ask": len(asked),
        "comparisons with flag bytes outside compilers/": sum(map(flag_comparisons, outside)),
        "public class names used more than once": len(again),
        "public class names used more than once, list": again,
        "modules with a leading underscore": sum(map(has_leading_underscore, files)),
        f"functions over {MAX_FUNCTION_LINES} lines": sum(
            len(long_functions(tree)) for tree in trees.values()
        ),
        f"files over {MAX_FILE_LINES} lines": sum(
            raw_lines([path]) > MAX_FILE_LINES for path in files
        ),
    }


def wheel_rows(root: Path, python: Path) -> Rows:
    """Build the wheel with the installed, locked back-end."""
    with tempfile.TemporaryDirectory(prefix="hpcc-figures-") as scratch:
        command = [str(python), "-m", "hatchling", "build", "-t", "wheel", "-d", scratch]
        subprocess.run(command, cwd=root, check=True, capture_output=True, timeout=_WHEEL_SECONDS)
        (wheel,) = Path(scratch).glob("*.whl")
        names = zipfile.ZipFile(wheel).namelist()
        helpers = [n for n in names if n.startswith(("hpcc/testing/", "hpcc_testkit/"))]
        return {
            "wheel, bytes": wheel.stat().st_size,
            "wheel, files": len(names),
            "wheel, files of test helpers": len(helpers),
        }


def hit_rows(root: Path, python: Path) -> Rows:
    with tempfile.TemporaryDirectory(prefix="hpcc-figures-") as scratch:
        hit = first_local_hit(root, python, Path(scratch))
    passed, modules, product = hit["passage"], hit["modules"], hit["product_modules"]
    msvc = [name for name in product if is_msvc_module(name)]
    grpc = [name for name in modules if name.split(".")[0] in {"grpc", "grpclib"}]
    wall, cpu = hit["import_seconds"]
    return {
        "first local hit: functions entered from another file": len(passed.targets),
        "first local hit: different cross-file calls": len(passed.steps),
        "first local hit: calls and returns across files, executed": passed.calls + passed.returns,
        "first local hit: files": len(passed.files),
        "first local hit: files per package": packages(passed.files),
        "local hit: modules loaded": len(modules),
        "local hit: product modules loaded": len(product),
        "local hit: gRPC modules loaded": len(grpc),
        "local hit: MSVC modules loaded": len(msvc),
        "local hit: MSVC modules loaded, list": msvc,
        f"local hit: imports, CPU ms (median of {IMPORT_ROUNDS})": round(1000 * cpu),
        f"local hit: imports, wall ms (median of {IMPORT_ROUNDS})": round(1000 * wall),
    }


def miss_rows(root: Path, python: Path) -> Rows:
    with tempfile.TemporaryDirectory(prefix="hpcc-figures-") as scratch:
        miss = farm_miss(root, python, Path(scratch))
    client = joined([miss["daemon"], miss["dispatcher"]])
    return {
        "farm miss: files, daemon + dispatcher": len(miss["daemon"].files)
        + len(miss["dispatcher"].files),
        "farm miss: files, daemon": len(miss["daemon"].files),
        "farm miss: files, dispatcher": len(miss["dispatcher"].files),
        "farm miss: files, daemon and dispatcher without doubles": len(client.files),
        "farm miss: files per package, client": packages(client.files),
        "farm miss: files, scheduler and worker": len(miss["farm"].files),
        "farm miss: files, all processes without doubles": len(joined(miss.values()).files),
        "farm miss: functions entered from another file, client": len(client.targets),
    }


def packages(files: Iterable[str]) -> dict[str, int]:
    counts = Counter(name.rpartition("/")[0] or "." for name in files)
    return largest_first(counts)


def junit_seconds(path: Path) -> float | None:
    """Return the seconds that a junit file reports, or None if it is not a junit file."""
    try:
        tree = ET.parse(path)
    except (OSError, ET.ParseError):
        return None
    suites = [node for node in tree.iter("testsuite") if "time" in node.attrib]
    return sum(float(node.attrib["time"]) for node in suites) if suites else None


def seconds_rows(root: Path, told: dict[str, str]) -> Rows:
    rows: Rows = {f"{name}, s": told.get(name, "not measured") for name in _SECONDS}
    found = [*root.glob("*.xml"), *(root / "build").rglob("*.xml"), *root.glob(".nightly/**/*.xml")]
    for path in sorted(found):
        seconds = junit_seconds(path)
        if seconds is not None:
            rows[f"tests of {path.relative_to(root)}, s"] = round(seconds)
    return rows


# ---- output ----


def commit_of(root: Path) -> str:
    command = ["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    return done.stdout.strip() or "unknown"


def markdown(rows: Rows) -> Iterator[str]:
    """Return the table's lines; a mapping or a list becomes one cell."""
    yield "| figure | value |"
    yield "| --- | --- |"
    for name, value in rows.items():
        text = str(value)
        if isinstance(value, dict):
            text = ", ".join(f"{key} {count}" for key, count in value.items())
        elif isinstance(value, list):
            text = ", ".join(map(str, value))
        yield f"| {name} | {text or 'none'} |"


def figures(root: Path, *, with_runs: bool, seconds: dict[str, str]) -> Rows:
    own = root / ".venv" / "bin" / "python"
    python = own if own.exists() else Path(sys.executable)
    files = product_files(root)
    rows: Rows = {"commit": commit_of(root), **size_rows(root, files), **shape_rows(root, files)}
    if with_runs:
        for part in (hit_rows, miss_rows, wheel_rows):
            rows |= part(root, python)
    return rows | seconds_rows(root, seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description="Print the figures of a checkout.")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--json", action="store_true", help="print JSON, not Markdown")
    parser.add_argument("--no-runs", action="store_true", help="only what is counted in sources")
    parser.add_argument(
        "--seconds", nargs="*", default=[], metavar="NAME=SECONDS", help=f"of {_SECONDS}"
    )
    args = parser.parse_args()
    seconds = dict(pair.split("=", 1) for pair in args.seconds)
    rows = figures(args.root.resolve(), with_runs=not args.no_runs, seconds=seconds)
    print(json.dumps(rows, indent=1) if args.json else "\n".join(markdown(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
