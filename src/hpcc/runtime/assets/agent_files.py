"""The files of the guest's agent, besides an interpreter: its modules and its packages."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import hpcc
from hpcc.core import InfrastructureError

PACKAGES: Final = ("grpclib", "h2", "hpack", "hyperframe", "multidict", "google")
_HPCC_PACKAGES: Final = ("core", "wire", "agent")
# Texts for people: a change of one must not change the agent's digest, and so the farm's keys.
_NOT_IN_GUEST: Final = Path("core/reasons")
_LEFT_OUT: Final = frozenset({"__pycache__", "tests", "testing", "compiler"})
_NO_CODE: Final = (".pyi", ".pyc", ".proto", ".pyx", ".c", ".h")


def own_files() -> Iterator[tuple[str, Path]]:
    """Yield the agent's own modules: (name below a directory of packages, file)."""
    root = Path(hpcc.__file__).parent
    yield "hpcc/__init__.py", root / "__init__.py"
    for package in _HPCC_PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            below = path.relative_to(root)
            if not below.is_relative_to(_NOT_IN_GUEST):
                yield f"hpcc/{below.as_posix()}", path
    for name in ("__init__.py", "agent_pb2.py", "agent_grpc.py"):
        yield f"hpcc/_proto/{name}", root / "_proto" / name


def package_files(package: str) -> Iterator[tuple[str, Path]]:
    """Yield an installed package's files that a program needs, native modules included.

    Yields (name below a directory of packages, file).

    Raises:
        InfrastructureError: the package is not installed.
    """
    distribution = "protobuf" if package == "google" else package
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise InfrastructureError(
            f"{distribution} is not installed beside hpcc; reinstall hpcc", reason="host-tool"
        ) from error
    for file in files:
        parts = file.parts
        if parts[0] == package and not _LEFT_OUT & set(parts) and not parts[-1].endswith(_NO_CODE):
            yield "/".join(parts), Path(str(file.locate()))
