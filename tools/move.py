"""Moves modules and files by `moves.toml`, and rewrites whatever names them.

    tools/move.py faces        imports name the defining module; `__init__.py` keeps its essay
    tools/move.py ROOM…        the moves of these rooms, as `moves.toml` lists them
    tools/move.py --list       the rooms, in the order in which they are moved

A move renames with `git mv` and rewrites imports, dotted names and paths in strings, comments,
documents and configuration. It changes nothing else; `ruff` sorts and wraps imports afterwards.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAP = ROOT / "tools" / "moves.toml"
PYTHON_ROOTS = ("src", "testkit", "tests", "tools", "bench")
# Generated, or about the moves themselves.
EXEMPT = ("src/hpcc/_proto/", "tools/move.py", "tools/moves.toml", "CHANGELOG.md")
TEXT = (
    ".py", ".md", ".toml", ".txt", ".lock", ".c", ".h", ".sh", ".yml", ".yaml", ".json", ".cfg",
    ".service", ".1", ".proto", ".mjs", ".importlinter", ".gitignore", ".bazelrc", ".html",
)  # fmt: skip


def tracked() -> list[str]:
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    listed = [n for n in names.stdout.decode().split("\0") if n and (ROOT / n).is_file()]
    return [n for n in listed if not n.startswith(EXEMPT)]


def texts() -> Iterator[Path]:
    for name in tracked():
        path = ROOT / name
        if path.suffix in TEXT or path.name in {"Makefile", "run", ".importlinter", ".gitignore"}:
            yield path


def python_files() -> Iterator[Path]:
    for name in tracked():
        if name.endswith(".py") and name.split("/")[0] in PYTHON_ROOTS:
            yield ROOT / name


def module_path(module: str) -> str:
    """Return where `module` lies; `hpcc_testkit` has a tree of its own."""
    base = "testkit" if module.split(".", maxsplit=1)[0] == "hpcc_testkit" else "src"
    return f"{base}/{module.replace('.', '/')}.py"


# ---- imports name the defining module ----


class Faces:
    """What each package's `__init__` passes on: (package, name) to (module, name there)."""

    def __init__(self, kept: list[str], switched: dict[str, str]) -> None:
        self.names: dict[tuple[str, str], tuple[str, str]] = {}
        self.files: list[Path] = []
        for path in sorted((ROOT / "src/hpcc").rglob("__init__.py")):
            package = ".".join(path.parent.relative_to(ROOT / "src").parts)
            if package == "hpcc" or "_proto" in package or package in kept:
                continue
            self.files.append(path)
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hpcc."):
                    for alias in node.names:
                        key = (package, alias.asname or alias.name)
                        self.names[key] = (node.module or "", alias.name)
            for name, module in switched.items():
                if name.startswith(package + "."):
                    self.names[package, name.rpartition(".")[2]] = (module, name.rpartition(".")[2])

    def home(self, package: str, name: str) -> tuple[str, str] | None:
        found = self.names.get((package, name))
        while found and (deeper := self.names.get(found)):
            found = deeper
        return found


def rewrite_imports(source: str, change: Callable[[ast.ImportFrom], list[str] | None]) -> str:
    """Replace each `from … import …` for which `change` returns statements."""
    lines = source.splitlines(keepends=True)
    nodes = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.ImportFrom)]
    for node in sorted(nodes, key=lambda n: -n.lineno):
        statements = change(node)
        if statements is None or node.end_lineno is None:
            continue
        old = lines[node.lineno - 1 : node.end_lineno]
        comments = [m[0] for line in old if (m := re.search(r"  #.*$", line.rstrip("\n")))]
        indent = " " * node.col_offset
        new = [f"{indent}{s}\n" for s in statements]
        if comments:
            new[0] = new[0].rstrip("\n") + comments[0] + "\n"
        lines[node.lineno - 1 : node.end_lineno] = new
    return "".join(lines)


def dissolve(kept: list[str], switched: dict[str, str]) -> None:
    faces = Faces(kept, switched)

    def change(node: ast.ImportFrom) -> list[str] | None:
        groups: dict[str, list[str]] = {}
        is_changed = False
        for alias in node.names:
            found = faces.home(node.module or "", alias.name)
            module, name = found or (node.module or "", alias.name)
            is_changed |= found is not None
            asname = alias.asname or (alias.name if name != alias.name else None)
            word = f"{name} as {asname}" if asname and asname != name else name
            groups.setdefault(module, []).append(word)
        if not is_changed:
            return None
        return [f"from {m} import {', '.join(words)}" for m, words in sorted(groups.items())]

    patched = re.compile(r"(?<=[\"'`])(hpcc(?:\.[a-z]+)+)\.([A-Za-z]\w+)\b")

    def patch(match: re.Match[str]) -> str:
        found = faces.home(match[1], match[2])
        return ".".join(found) if found else match[0]

    for path in python_files():
        source = path.read_text()
        if path in faces.files:
            continue
        new = rewrite_imports(source, change)
        if new != source:
            path.write_text(new)
        if path.relative_to(ROOT).parts[0] in {"tests", "testkit"}:
            path.write_text(patched.sub(patch, path.read_text()))
    for path in faces.files:
        text = ast.get_docstring(ast.parse(path.read_text()), clean=False)
        path.write_text(f'"""{text}"""\n')


# ---- moves ----


def alternation(words: dict[str, str], before: str, after: str) -> re.Pattern[str]:
    longest = sorted(words, key=len, reverse=True)
    return re.compile(before + "(" + "|".join(map(re.escape, longest)) + ")" + after)


class Moves:
    def __init__(self, modules: dict[str, str], files: dict[str, str]) -> None:
        self.modules = modules
        paths = {module_path(o): module_path(n) for o, n in modules.items()} | files
        self.paths = paths
        dotted = dict(modules)
        self._dotted = alternation(dotted, r"(?<![\w.])", r"(?![\w])") if dotted else None
        # A path is named from the root, from below `src`, or from below `src/hpcc`.
        spelled: dict[str, str] = {}
        for old, new in paths.items():
            spelled[old] = new
            if old.startswith("src/hpcc/"):
                spelled[old.removeprefix("src/")] = new.removeprefix("src/").removeprefix(
                    "testkit/"
                )
                if not new.startswith("testkit/"):
                    spelled[old.removeprefix("src/hpcc/")] = new.removeprefix("src/hpcc/")
            elif old.startswith("tests/unit/"):
                pass
        self._spelled = spelled
        self._path = (
            alternation(spelled, r"(?<![\w/.])(?:(?<=\./)|)", r"(?![\w])") if spelled else None
        )
        names = {Path(o).name: Path(n).name for o, n in files.items() if not o.endswith(".py")}
        self._names = alternation(names, r"(?<![\w/.])", r"(?![\w])") if names else None
        self._file_names = names

    def apply(self) -> None:
        for path in texts():
            try:
                source = path.read_text()
            except UnicodeDecodeError:
                continue
            new = self._rewrite(path, source)
            if new != source:
                path.write_text(new)
        for old, new in self.paths.items():
            self._rename(old, new)

    def _rewrite(self, path: Path, source: str) -> str:
        text = source
        if path.suffix == ".py":
            text = self._of_packages(text)
        if self._dotted:
            text = self._dotted.sub(lambda m: self.modules[m[1]], text)
        if self._path:
            text = self._path.sub(lambda m: self._spelled[m[1]], text)
        if self._names:
            text = self._names.sub(lambda m: self._file_names[m[1]], text)
        return self._deeper(path, text)

    def _of_packages(self, source: str) -> str:
        """`from hpcc.a import _b` becomes `from hpcc.c import b`, and `_b` in the file `b`."""
        renamed: dict[str, str] = {}
        if not re.search(r"from hpcc[\w.]* import", source):
            return source
        tree = ast.parse(source)
        taken = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
        taken |= {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
        taken |= {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}

        def change(node: ast.ImportFrom) -> list[str] | None:
            statements: dict[str, list[str]] = {}
            is_changed = False
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if full not in self.modules:
                    word = f"{alias.name} as {alias.asname}" if alias.asname else alias.name
                    statements.setdefault(node.module or "", []).append(word)
                    continue
                is_changed = True
                package, _, name = self.modules[full].rpartition(".")
                if alias.asname:
                    word = name if alias.asname == name else f"{name} as {alias.asname}"
                elif name in taken and name != alias.name:
                    word = f"{name} as {alias.name}"
                else:
                    word = name
                    if name != alias.name:
                        renamed[alias.name] = name
                statements.setdefault(package, []).append(word)
            if not is_changed:
                return None
            return [f"from {m} import {', '.join(w)}" for m, w in sorted(statements.items())]

        text = rewrite_imports(source, change)
        for old, new in renamed.items():
            text = re.sub(rf"(?<![\w.\"'/]){re.escape(old)}(?=[.,)\]\s])(?!\.py)", new, text)
        return text

    def _deeper(self, path: Path, text: str) -> str:
        """Count the parents of `__file__` anew in a file that comes to lie deeper."""
        old = str(path.relative_to(ROOT))
        new = self.paths.get(old)
        if not new or new.count("/") == old.count("/") or "__file__" not in text:
            return text
        delta = new.count("/") - old.count("/")
        return re.sub(
            r"(__file__\)(?:\.resolve\(\))?\.parents\[)(\d)(\])",
            lambda m: f"{m[1]}{int(m[2]) + delta}{m[3]}",
            text,
        )

    def _rename(self, old: str, new: str) -> None:
        if not (ROOT / old).exists():
            print(f"move.py: {old} is not there", file=sys.stderr)
            return
        target = ROOT / new
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["git", "mv", "-f", old, new], cwd=ROOT, check=True)


def add_rooms(essays: dict[str, str]) -> None:
    """Write the `__init__.py` of packages that do not exist yet."""
    for module, essay in essays.items():
        path = ROOT / module_path(module).removesuffix(".py") / "__init__.py"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f'"""{essay}"""\n')
            subprocess.run(["git", "add", str(path)], cwd=ROOT, check=True)


def tidy() -> None:
    ruff = ROOT / ".venv/bin/ruff"
    subprocess.run([ruff, "check", "-q", "--select", "I", "--fix", "."], cwd=ROOT, check=False)
    subprocess.run([ruff, "format", "-q", "."], cwd=ROOT, check=False)


def main(argv: list[str]) -> int:
    config = tomllib.loads(MAP.read_text())
    rooms = config["rooms"]
    if argv == ["--list"]:
        print("\n".join(rooms))
        return 0
    if argv == ["faces"]:
        dissolve(config["faces"]["kept"], config["faces"]["switched"])
    else:
        modules: dict[str, str] = {}
        files: dict[str, str] = {}
        essays: dict[str, str] = {}
        for name in argv:
            room = rooms[name]
            modules |= room.get("modules", {})
            files |= room.get("files", {})
            essays |= room.get("essays", {})
        Moves(modules, files).apply()
        add_rooms(essays)
    tidy()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
