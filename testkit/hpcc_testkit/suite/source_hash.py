"""Hashes that tell whether a test could behave differently than at the last green nightly.

`./test.sh` leaves out mutation rows, Wine tests and nested-VM tests whose hash is still the one in
`tests/nightly.lock`. The hash of such an item has two halves of 16 hex digits:

- its own text: for a row the case, the file that it changes and the test file that it names; for
  any other test its test file;
- what these import: the first-party modules that they and the conftest.py files on their path
  import, and for Wine and nested tests also the imports of the test helpers among them and every
  C file of the product, because such tests build programs from C.

Imports are followed one step, not transitively. The closure of almost every test is almost the
whole product, so with it each edit would select every item, the bound would cut the selection to
an arbitrary part, and the items next to the edit would get no preference. One step selects the
tests that use the edited module directly. A change further away is found by the other tests, all of
which run each time, and by `make nightly`, which runs every item. Example: an edit of the guest's
agent selects no Firecracker test, but every QEMU test boots that agent in each run.

Python files are hashed as syntax trees without docstrings, comments and positions, so an edit of
prose selects nothing. All other files are hashed as bytes.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

# Roots of import paths below the repository. What lies there is first-party.
_IMPORT_ROOTS: Final = ("src", "testkit")
# Directories of C files, beside the import roots.
_C_ROOTS: Final = ("launcher", "native", "guest")
_HALF: Final = 16
# Re-exports that are followed; a limit, because two packages may import each other.
_MAX_DEPTH: Final = 4
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True, slots=True)
class _Module:
    """What one file contributes: its digest, and the (module, name) pairs that it imports."""

    digest: str
    imports: tuple[tuple[str, str], ...] = ()
    exports: dict[str, tuple[str, str]] = field(default_factory=dict)


_NO_MODULE: Final = _Module("absent")


class SourceHashes:
    """Hashes of files and items below `root`. Each file is read once, so use one per run."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._roots = [root / name for name in _IMPORT_ROOTS]
        self._modules: dict[Path, _Module] = {}
        self._found: dict[str, Path | None] = {}

    def of_row(self, case: object, changed: str, tests: Iterable[Path]) -> str:
        """Return the hash of a mutation row.

        Args:
            case: the row; its `repr` is hashed.
            changed: the file that the row changes, relative to a package or to `root`.
            tests: the test file that the row names and any other file that carries it out.
        """
        own = [*tests, self.changed_file(changed)]
        return self._hash(repr(case), own, self._with_imports(own))

    def of_test(self, path: Path) -> str:
        """Return the hash of a Wine or nested test in the file `path`."""
        files = self._with_imports([path])
        helpers = [f for f in files if self._is_helper(f, path)]
        for helper in helpers:
            files |= self._imported(helper)
        return self._hash("", [path], files | self._c_files())

    def changed_file(self, name: str) -> Path:
        """Return the file of a row, which is relative to a package or to the repository."""
        packages = [p for root in self._roots if root.is_dir() for p in sorted(root.iterdir())]
        places = [p / name for p in (*packages, *self._roots, self._root)]
        return next((p for p in places if p.is_file()), self._root / name)

    def digest(self, path: Path) -> str:
        """Return the digest of one file; "absent" if there is none."""
        return self._module(path).digest

    def _hash(self, text: str, own: Iterable[Path], others: Iterable[Path]) -> str:
        """Join both halves. Names are hashed too, so that two files cannot swap unnoticed."""
        halves = []
        for start, files in ((text, own), ("", others)):
            sum_ = hashlib.sha256(start.encode())
            for path in sorted(set(files)):
                name = str(path.relative_to(self._root))
                sum_.update(f"\0{name}\0{self.digest(path)}".encode())
            halves.append(sum_.hexdigest()[:_HALF])
        return "".join(halves)

    def _with_imports(self, files: Iterable[Path]) -> set[Path]:
        found = set(files)
        for path in tuple(found):
            found |= self._imported(path)
            for conftest in self._conftests(path):
                found |= {conftest} | self._imported(conftest)
        return found

    def _conftests(self, path: Path) -> Iterator[Path]:
        for directory in path.parents:
            if not directory.is_relative_to(self._root):
                return
            if (conftest := directory / "conftest.py").is_file():
                yield conftest

    def _is_helper(self, path: Path, test: Path) -> bool:
        """Return whether `path` is a module of the package that holds the test helpers."""
        places = [root.joinpath(*__name__.split(".")[:-1]) for root in self._roots]
        return path != test and any(path.is_relative_to(place) for place in places)

    def _c_files(self) -> set[Path]:
        places = [*self._roots, *(self._root / name for name in _C_ROOTS)]
        return {p for place in places for p in place.rglob("*.[ch]")}

    def _imported(self, path: Path) -> set[Path]:
        named = (self._resolve(module, name) for module, name in self._module(path).imports)
        return {found for found in named if found is not None}

    def _resolve(self, module: str, name: str, depth: int = 0) -> Path | None:
        """Return the file that defines `name`; a package's re-export is followed to its source."""
        if name and (submodule := self._file_of(f"{module}.{name}")):
            return submodule
        path = self._file_of(module)
        if path is None or path.name != "__init__.py" or depth > _MAX_DEPTH:
            return path
        source = self._module(path).exports.get(name)
        if source is None:
            return path
        return self._resolve(*source, depth + 1) or path

    def _file_of(self, module: str) -> Path | None:
        if module not in self._found:
            relative = Path(*module.split("."))
            places = [
                place
                for root in self._roots
                for place in (root / relative / "__init__.py", root / relative.with_suffix(".py"))
            ]
            self._found[module] = next((p for p in places if p.is_file()), None)
        return self._found[module]

    def _module(self, path: Path) -> _Module:
        if path not in self._modules:
            self._modules[path] = _read(path, self._package_of(path))
        return self._modules[path]

    def _package_of(self, path: Path) -> str:
        """Return the package that the relative imports of a file start from, if it has one."""
        for root in self._roots:
            if path.is_relative_to(root):
                return ".".join(path.relative_to(root).parent.parts)
        return ""


def _read(path: Path, package: str) -> _Module:
    try:
        data = path.read_bytes()
    except OSError:
        return _NO_MODULE
    raw = _Module(hashlib.sha256(data).hexdigest())
    if path.suffix != ".py":
        return raw
    try:
        tree = ast.parse(data)
    except (SyntaxError, ValueError):
        return raw
    imports = tuple(dict.fromkeys(_imports(tree, package)))
    exports = {bound: source for bound, source in _exports(tree, package) if bound != "*"}
    _drop_docstrings(tree)
    # Unparsed, because the format of `ast.dump` changes between Python releases.
    return _Module(hashlib.sha256(ast.unparse(tree).encode()).hexdigest(), imports, exports)


def _drop_docstrings(tree: ast.Module) -> None:
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body[0] = ast.Pass()


def _imports(tree: ast.Module, package: str) -> Iterator[tuple[str, str]]:
    """Yield what a file imports anywhere, and modules that it names in strings (`python -m …`)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = _absolute(node, package)
            yield from ((module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            parts = node.value.split(".")
            if len(parts) > 1 and all(part.isidentifier() for part in parts):
                yield node.value, ""


def _exports(tree: ast.Module, package: str) -> Iterator[tuple[str, tuple[str, str]]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = _absolute(node, package)
            yield from ((a.asname or a.name, (module, a.name)) for a in node.names)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    start = parts[: len(parts) - node.level + 1]
    return ".".join([*start, *([node.module] if node.module else [])])
