"""Takes notes of compiles that ended here, and writes them as signed statements.

The launcher waits for one look at the object. It is read later, on the thread that writes counters,
and has no record if another look then shows another file.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from hpcc.cache.base.api import CompileRequest
from hpcc.cache.base.counters import Counters
from hpcc.cache.base.files import FileMemo, signature_of
from hpcc.cache.claims.places import BOOK, DIRECTORY_NAME, LIMITS, key_path, public_path
from hpcc.cache.recorder.link_record import digest_of_command
from hpcc.cache.recorder.places import find_parts, hash_of, new_name, superfluous
from hpcc.cache.results.pending import Pending
from hpcc.config.paths import Paths
from hpcc.core import HpccError
from hpcc.files import make_own_directory

# Objects between two flushes; of more the oldest have no record.
_MAX_PENDING: Final = 8192
# What one flush reads at most, since a stop of the daemon waits for it.
_MAX_READ_BYTES: Final = 2 << 30
_log: Final = logging.getLogger("hpcc.daemon.claims")


class _Ended(NamedTuple):
    path: bytes
    status: os.stat_result
    at: float
    request: CompileRequest
    tools: bytes
    reason: str
    fallback: str


class LocalClaims:
    """Records local compiles. Thread-safe. No failure of it costs a compile."""

    def __init__(
        self,
        directory: str,
        key: Path,
        public: Path,
        memo: FileMemo,
        counters: Counters,
        now: Callable[[], float],
    ) -> None:
        self._directory, self._key, self._public = directory, key, public
        self._memo, self._counters, self._now = memo, counters, now
        self._ended: deque[_Ended] = deque(maxlen=_MAX_PENDING)
        self._lock = threading.Lock()
        self._path, self._size = "", 0

    def ended(self, pending: Pending) -> None:
        """Note a compile that ended with status 0. Raises nothing."""
        path = pending.prepared.output
        if not path:
            return
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            return
        if stat.S_ISREG(status.st_mode) and pending.started.may_have_changed(status):
            prepared = pending.prepared
            self._ended.append(
                _Ended(
                    path, status, self._now(), prepared.request, prepared.identity.digest,
                    pending.missed, pending.fallback,
                )
            )  # fmt: skip

    def flush(self) -> None:
        """Read the objects, and write signed statements about them. Raises nothing."""
        with self._lock:
            ended = []
            with suppress(IndexError):
                while True:
                    ended.append(self._ended.popleft())
            if not ended:
                return
            try:
                self._write(ended)
            except (HpccError, OSError, ImportError) as error:  # cryptography is an extra
                why = error.strerror if isinstance(error, OSError) else error
                _log.warning("%d local compiles have no record: %s", len(ended), why)
                self._path = ""

    def _write(self, ended: list[_Ended]) -> None:
        # Both import what no hit needs.
        from hpcc.evidence.forms.dsse import seal_statement
        from hpcc.evidence.local_record import MAX_COMPILES, LocalCompile, local_statement
        from hpcc.evidence.statement import time_text

        room, compiles = _MAX_READ_BYTES, []
        for one in ended:
            digest, room = self._digest(one, room)
            if digest is None:
                continue
            request = one.request
            compiles.append(
                LocalCompile(
                    path=os.fsdecode(one.path), digest=digest.hex(), size_bytes=one.status.st_size,
                    compiler=os.fsdecode(request.compiler), tools=one.tools.hex(),
                    command_digest=digest_of_command(request.argv), cwd=os.fsdecode(request.cwd),
                    build=request.build, reason=one.reason, fallback=one.fallback,
                    finished_on=time_text(one.at),
                )
            )  # fmt: skip
        if not compiles:
            return
        sign, key_id = self._signer()
        for first in range(0, len(compiles), MAX_COMPILES):
            statement = local_statement(compiles[first : first + MAX_COMPILES])
            self._append(seal_statement(statement, key_id, sign) + b"\n")
        self._counters.add("claims.recorded", len(compiles))

    def _digest(self, one: _Ended, room: int) -> tuple[bytes | None, int]:
        """Return the digest of an object that is still the one that was seen, and the room left."""
        if not _is_as_it_was(one) or one.status.st_size > room:
            return None, room
        digest = self._memo.digest_at(one.path, one.status)
        return (digest if _is_as_it_was(one) else None), room - one.status.st_size

    def _signer(self) -> tuple[Callable[[bytes], bytes], str]:
        """Return what signs, and the key's id. The first call makes the key.

        Raises:
            HpccError: the key cannot be read or made.
        """
        from cryptography.hazmat.primitives import serialization

        from hpcc.evidence.keys import key_id_of, pem_of
        from hpcc.files.whole import Sync, write_whole
        from hpcc.identity.keys import load_or_create_signing_key

        os.makedirs(self._key.parent, mode=0o700, exist_ok=True)
        key = load_or_create_signing_key(self._key)
        raw = key.public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw
        )
        if not self._public.exists():
            write_whole(self._public, pem_of(raw), sync=Sync.CONTENT, mode=0o644)
        return key.sign, key_id_of(raw)

    def _append(self, line: bytes) -> None:
        """Append one line to this daemon's file; a file that is full is not written to again."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        if not self._path:
            make_own_directory(self._directory)
            for part in superfluous(find_parts(self._directory), LIMITS, newest=hash_of(BOOK)):
                with suppress(OSError):
                    os.unlink(os.path.join(self._directory, part.name))
            name = new_name(BOOK, int(max(self._now(), 0) * 1000))
            self._path, self._size = os.path.join(self._directory, name), 0
            flags |= os.O_CREAT | os.O_EXCL
        path = self._path
        self._path = ""  # after an error another file: this one may end in half a line
        fd = os.open(path, flags, 0o600)
        try:
            written = os.write(fd, line)
        finally:
            os.close(fd)
        self._size += written
        if written == len(line) and self._size < LIMITS.part_bytes:
            self._path = path


def open_claims(
    paths: Paths, memo: FileMemo, counters: Counters, now: Callable[[], float]
) -> LocalClaims:
    """Build what signs records; `Records.flush` writes them."""
    directory = os.path.join(paths.cache, DIRECTORY_NAME)
    return LocalClaims(directory, key_path(paths), public_path(paths), memo, counters, now)


def _is_as_it_was(one: _Ended) -> bool:
    try:
        return signature_of(os.stat(one.path)) == signature_of(one.status)
    except (OSError, ValueError):
        return False
