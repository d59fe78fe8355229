"""Targets: what is read of files from elsewhere, and of a traced command."""

from __future__ import annotations

import atexit
import base64
import importlib
import json
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.cache.host import wrappers
from hpcc.cache.host.exec_trace import parent_of
from hpcc.cache.host.scripts import executed_by
from hpcc.compilers.scan.bitcode import MAGIC, may_direct_assembler, modules_of_index
from hpcc.core import IntegrityError
from hpcc.runtime.assets.bundle import FILES, MANIFEST, unpack

_ROOT: Final = Path(__file__).resolve().parents[3]
_BLOCK: Final = 512
_CHECKSUM: Final = slice(148, 156)
_KEY: Final = Ed25519PrivateKey.from_private_bytes(b"k" * 32)


@cache
def fuzz_place() -> Path:
    """Return a directory in memory, which the end of the process removes."""
    memory = Path("/dev/shm")  # noqa: S108 - a new directory in it
    place = Path(tempfile.mkdtemp(prefix="hpcc-fuzz-", dir=memory if memory.is_dir() else None))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return place


def guest_bundle(data: bytes) -> None:
    """A worker's reader of a bundle of kernel, initramfs and agent.

    Input that begins with `{` is the manifest in a bundle of good form; else it is the file, in
    which headers get the right checksum, because no input would come past it.
    """
    store, file = fuzz_place() / "guest", fuzz_place() / "b.tar"
    store.mkdir(exist_ok=True)
    file.write_bytes(_tar(data) if data[:1] == b"{" else _with_checksums(data))
    try:
        kept = unpack(file, store)
    except IntegrityError as error:
        if error.reason != "bundle":
            raise
    else:
        assert sorted(p.name for p in kept.directory.iterdir()) == sorted([MANIFEST, *FILES])
        shutil.rmtree(kept.directory)
    assert not list((store / "bundles").iterdir()), "nothing is left"


def _tar(manifest: bytes) -> bytes:
    members = {MANIFEST: manifest, **{name: name.encode() for name in FILES}}
    made = bytearray()
    for name, content in members.items():
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(content), 0o444
        made += info.tobuf(tarfile.USTAR_FORMAT)
        made += content + bytes(-len(content) % _BLOCK)
    return bytes(made + bytes(2 * _BLOCK))


def _with_checksums(data: bytes) -> bytes:
    fixed = bytearray(data)
    for at in range(0, len(data) - _BLOCK + 1, _BLOCK):
        block = fixed[at : at + _BLOCK]
        if b"ustar" in block[257:265]:
            block[_CHECKSUM] = b" " * 8
            block[_CHECKSUM] = b"%06o\0 " % sum(block)
            fixed[at : at + _BLOCK] = block
    return bytes(fixed)


def guest_bundle_seeds() -> Mapping[str, bytes]:
    """Return a manifest, a whole bundle, and the start of one with a long name."""
    from hashlib import sha256

    files = {
        name: {"digest": sha256(name.encode()).hexdigest(), "size": len(name)} for name in FILES
    }
    table = {"format": 1, "hpcc": "1", "kernel": "k", "agent_sources": "a", "files": files}
    manifest = json.dumps(table).encode()
    long = tarfile.TarInfo(MANIFEST + "x" * 120).tobuf(tarfile.PAX_FORMAT)
    endless = manifest.replace(b'"size": 7', b'"size": 1e999')
    return {
        "manifest": manifest, "whole": _tar(manifest)[:4096], "pax": long, "endless": endless,
        "deep": b'{"files":' + b"[" * 12_000,
    }  # fmt: skip


def release_files(data: bytes) -> None:
    """The reader of a release: envelopes, statements, checksums, bill of materials.

    The first byte chooses: an envelope as it is, a payload that is signed, a statement without a
    signature, a bill of materials, `SHA256SUMS`, or a lock file.
    """
    _readers()[data[0] % len(_readers()) if data else 0](data[1:])


def _tool(name: str) -> Any:  # noqa: ANN401 - a module outside the packages
    if (place := str(_ROOT / "tools")) not in sys.path:
        sys.path.insert(0, place)
    return importlib.import_module(f"release.{name}")


@cache
def _readers() -> tuple[Any, ...]:
    bom, build, dsse, make, statements, verify = map(
        _tool, ("bom", "build", "dsse", "make", "statements", "verify")
    )

    wanted, public = verify.Wanted(None), _KEY.public_key()
    refused = dsse.RefusedError

    def no_commit(root: Path, revision: str) -> Any:  # noqa: ANN401 - it returns nothing
        raise refused(f"{root} has no commit {revision}")

    def check(found: dict[str, Any]) -> None:
        for kind in (statements.PROVENANCE, bom.PREDICATE):
            with suppress(refused):
                predicate = verify.check_statement(found, kind, [])
                named(predicate)
        named(found)

    def named(predicate: object) -> None:
        with suppress(refused), patch.object(build, "source", no_commit):
            verify.check_provenance(predicate, _ROOT, wanted)

    def envelope(data: bytes) -> None:
        with suppress(refused):
            check(dsse.unseal(data, public))

    def signed(data: bytes) -> None:
        mark = _KEY.sign(dsse.pre_authentication(dsse.PAYLOAD_TYPE, data))
        envelope(json.dumps({
            "payloadType": dsse.PAYLOAD_TYPE, "payload": base64.b64encode(data).decode(),
            "signatures": [{"sig": base64.b64encode(mark).decode()}],
        }).encode())  # fmt: skip

    def unsigned(data: bytes) -> None:
        with suppress(refused):
            check(verify._object(data, "fuzz"))  # noqa: SLF001 - the file is read before

    def bill(data: bytes) -> None:
        with suppress(refused):
            bom.validate(data.decode(errors="replace"))

    def sums(data: bytes) -> None:
        directory = fuzz_place() / "release"
        directory.mkdir(exist_ok=True)
        (directory / make.SUMS).write_bytes(data)
        with suppress(refused):
            verify.check_sums(directory)

    return envelope, signed, unsigned, bill, sums


def release_files_seeds() -> Mapping[str, bytes]:
    """Return one input for each reader."""
    bom, dsse, statements = map(_tool, ("bom", "dsse", "statements"))
    statement = {
        "_type": statements.TYPE, "subject": [], "predicateType": statements.PROVENANCE,
        "predicate": {
            "buildDefinition": {
                "buildType": statements.BUILD_TYPE,
                "externalParameters": {"commit": "a" * 40, "version": "1"},
                "resolvedDependencies": [],
            },
            "runDetails": {"builder": {"id": "b"}},
        },
    }  # fmt: skip
    plain = json.dumps(statement).encode()
    listed = json.dumps({**statement, "predicateType": bom.PREDICATE}).encode()
    bill = {
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "components": [{"type": "library", "name": "a", "version": "1", "bom-ref": "a"}],
    }  # fmt: skip
    return {
        "envelope": b"\0" + dsse.seal(statement, _KEY),
        "signed-provenance": b"\1" + plain,
        "signed-contents": b"\1" + listed,
        "signed-no-json": b"\1{",
        "unsigned": b"\2" + plain,
        "bill": b"\3" + json.dumps(bill).encode(),
        "sums": b"\4" + b"0" * 64 + b"  hpcc-1.tar.gz\n",
    }


def exec_trace(data: bytes) -> None:
    """What a trace reads of a command: the kernel's line, whose name the program chose, and files.

    The first byte chooses: a process's name in /proc/PID/stat, the whole line, or a compiler's file
    with an assembler's behind a zero byte.
    """
    kind, text = (data[0] % 3, data[1:]) if data else (0, b"")
    if kind == 0:
        name = text[:15].partition(b"\0")[0]
        assert parent_of(b"17 (" + name + b") S 12 17 17 0 -1 4194560\n") == 12
    elif kind == 1:
        with suppress(ValueError, IndexError):
            parent_of(text)
    else:
        _look_at_files(text)


def _look_at_files(text: bytes) -> None:
    from hpcc.cache.base.api import CompileRequest

    compiler, assembler = (fuzz_place() / name for name in ("gcc", "as"))
    for path, content in zip((compiler, assembler), text.partition(b"\0as\0")[::2], strict=True):
        path.write_bytes(content)
        path.chmod(0o644)  # nothing executes it
    places = [str(path).encode() for path in (compiler, assembler)]
    with suppress(OSError):
        # Without the trace, which executes things.
        wrappers._looks_like_a_driver(places[0], places[1:])  # noqa: SLF001 - see above
    interpreter = wrappers._interpreter(places[1])  # noqa: SLF001 - see above
    assert not interpreter or Path(interpreter.decode(errors="surrogateescape")).exists()
    request = CompileRequest(
        compiler=places[0], argv=(b"gcc", b"-c", b"a.c"), cwd=b"/", env={b"PATH": b"/usr/bin"},
        umask=0o022, stderr_is_tty=False,
    )  # fmt: skip
    found = executed_by(request)
    assert found is None or found.compiler.startswith(b"/")


def exec_trace_seeds() -> Mapping[str, bytes]:
    """Return names, a line of the kernel, an ELF file's beginning and scripts."""
    return {
        "name": b"\0gcc) R 1 2 (", "line": b"\x0117 (gcc) S 12 17 17 0 -1\n",
        "elf": b"\2\x7fELF\2\1\1COLLECT_GCC_OPTIONS\0as\0\x7fELF",
        "script": b'\2#!/bin/sh\nexec gcc -std=c99 "$@"\n\0as\0#! /usr/bin/env python3\n',
        "empty-compiler": b"\2\0as\0\x7fELF",
        "musl": b'\2#!/bin/sh\nexec "${REALGCC:-gcc}" "$@" -specs "/x.specs"\n\0as\0#!as',
    }  # fmt: skip


# What the linker plug-in of LLVM 19 wrote for a module that imports from another.
_INDEX: Final = (
    "QkPA3iEMAAA3AAAACwIhEwMAAAATAAAAIgMImSCRAYRMjsgAQoYyBQQKgUKgECgECgMMgO88PnzT8B0GQ2y1Hc2r"
    "ldrua7x5AtUBQ+A7d+f3goSSzuOUHNa1B+vsN9SWvvoHAKEgAAAeAAAAowTKUEE4DCQMctv//9ii5sqzy0CC8LJo"
    "Tru3+6pkzgwkBPpb7/i8m+Ra3o2wBYQIkSFEhBARIkSMkJgGhAiRMUJSIhAiRIaQmByEiBAxQlJ2ECFihCgAABwG"
    "EAMAAIQBBBIAOIUBxAAAAGEAgQYCwEGgMQAAAAAAAAAAAF0MAAACAAAAEgOUAAAAAAA="
)


def thinlto_index(data: bytes) -> None:
    """The readers of LLVM bitcode: names in an index, and text for the assembler."""
    names = modules_of_index(data)
    assert names is None or all(names), "a name is never empty"
    assert may_direct_assembler(data) or data.startswith(MAGIC)


def thinlto_index_seeds() -> Mapping[str, bytes]:
    """Return an index, one that is cut off, one without a block, and none."""
    index = base64.b64decode(_INDEX)
    return {"index": index, "cut": index[:-40], "empty": b"", "magic": MAGIC}
