"""Where GCC writes and reads compiled interfaces of modules, from the map and the source's text."""

from __future__ import annotations

from collections.abc import Mapping

from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.uncacheable import absolute
from hpcc.compilers.invocation.invocation import Invocation
from hpcc.compilers.invocation.modules import (
    LISTING_FLAG,
    MAPPER_FLAG,
    declared_module,
    interfaces_in_map,
)


def interfaces_of_map(memo: FileMemo, cwd: bytes, invocation: Invocation) -> dict[bytes, bytes]:
    """Return the file of each module that the map of a compile names; empty without a map."""
    mappers = invocation.values(MAPPER_FLAG)
    path = absolute(cwd, mappers[0]) if len(mappers) == 1 else b""
    digest = memo.digest(path) if path else None
    if digest is None:
        return {}
    return memo.derived(path, digest, interfaces_in_map.__name__, interfaces_in_map) or {}


def interface_of(
    memo: FileMemo, cwd: bytes, invocation: Invocation, files: Mapping[bytes, bytes]
) -> tuple[bytes, bytes]:
    """Return the module whose interface a compile seems to write, and that file; b"" for none.

    `files` are those of the map.
    """
    if not files or not invocation.values(LISTING_FLAG):
        return b"", b""
    source = absolute(cwd, invocation.source)
    digest = memo.digest(source)
    if digest is None:
        return b"", b""
    module = memo.derived(source, digest, declared_module.__name__, declared_module) or b""
    return (module, files[module]) if module in files else (b"", b"")


def lines_in_order(module_map: bytes) -> bytes:
    """Return a map with its lines in one order: GCC's scans, and so CMake, give them in any."""
    return b"\n".join(sorted(module_map.splitlines()))
