"""`LocalMachine` on Windows: programs, files and their state. Not yet run there."""

from __future__ import annotations

import os
import secrets
import stat
import subprocess
import tempfile
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import BinaryIO, Final

from hpcc.cache.base.tools import MAX_ANSWER_BYTES, ProgramOutput
from hpcc.compilers.msvc.text import join_windows

_SECONDS: Final = 120.0
# Prevents a console window when a service runs a program (Win32, "Process Creation Flags").
_CREATE_NO_WINDOW: Final = 0x08000000

# Without these, Windows programs do not start or have no directory for temporary files.
_OWN: Final = {n: os.environ[n] for n in ("SystemRoot", "TEMP", "TMP") if n in os.environ}


def read_regular(file: BinaryIO, limit: int) -> bytes | None:
    """Return a file's content; None if it is not regular, too long or growing."""
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
        return None
    # A buffer of the file's size: one of the limit's size would be made for each read.
    data = file.read(status.st_size + 1)
    return data if len(data) == status.st_size else None


class LocalWindowsMachine:
    """See `LocalMachine`."""

    # Programs write to pipes in the code page of consoles.
    encoding: str = "oem"

    def run(self, argv: Sequence[bytes], env: Mapping[bytes, bytes], cwd: bytes) -> ProgramOutput:
        # Files, not pipes: long output is not lost and does not block the program.
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = subprocess.Popen(
                join_windows(argv).decode(),
                executable=argv[0].decode(),
                env=_OWN | {n.decode(): v.decode() for n, v in env.items()},
                cwd=cwd.decode(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                creationflags=_CREATE_NO_WINDOW,
            )
            try:
                code = process.wait(_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                code = -1
            for file in (out, err):
                file.seek(0)
            return ProgramOutput(code, out.read(MAX_ANSWER_BYTES), err.read(MAX_ANSWER_BYTES))

    @contextmanager
    def scratch(self) -> Iterator[str]:
        with tempfile.TemporaryDirectory(prefix="hpcc-cl-", ignore_cleanup_errors=True) as name:
            yield name

    def read(self, path: str, limit: int) -> bytes | None:
        try:
            with open(path, "rb") as file:
                return read_regular(file, limit)
        except (OSError, ValueError):
            return None

    def write(self, path: str, data: bytes) -> None:
        aside = f"{path}.{secrets.token_hex(8)}.hpcc"
        try:
            with open(aside, "xb") as file:
                file.write(data)
            os.replace(aside, path)
        except OSError:
            with suppress(OSError):
                os.unlink(aside)
            raise

    def real(self, path: str) -> str:
        return os.path.realpath(path)

    def state(self, path: str) -> Hashable:
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            return None
        return status.st_size, status.st_mtime_ns
