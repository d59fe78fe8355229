"""Reads the tenants file, checks its owner and mode, and reads it again when it changes."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from hpcc.core import CallerError, TenantId
from hpcc.ports import Clock
from hpcc.scheduler.tenants.table import MAX_TABLE_BYTES, TenantPolicy, parse_tenants

_log: Final = logging.getLogger(__name__)
POLL_SECONDS: Final = 1.0
_CHANGING: Final = "tenants-changing"

Stamp = tuple[int, ...]
Tenants = Mapping[TenantId, TenantPolicy]


def load_tenants(path: Path) -> tuple[Tenants, Stamp]:
    """Return the table, and a stamp that identifies this content of the file.

    Raises:
        CallerError: unreadable, writable by other users, changed while it was read, or invalid
            (see `parse_tenants`).
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            raw = file.read(MAX_TABLE_BYTES + 1)
            after = os.fstat(descriptor)
    except OSError as error:
        raise CallerError(f"cannot read {path}: {error.strerror}", reason="tenants") from error
    if not stat.S_ISREG(status.st_mode) or status.st_uid not in {0, os.geteuid()}:
        raise CallerError(f"{path} must be owned by root or by you", reason="tenants")
    if status.st_mode & 0o022:
        raise CallerError(
            f"others can write {path}, which decides who may log in: chmod 644 it", reason="tenants"
        )
    if _stamp(after) != _stamp(status):
        raise CallerError(f"{path} changed while it was read: try again", reason=_CHANGING)
    return parse_tenants(raw, source=str(path)), _stamp(status)


def _stamp(status: os.stat_result) -> Stamp:
    return (
        status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns,
    )  # fmt: skip


class TenantsFile:
    """The table in force. An invalid new file is logged, and the old table stays in force.

    A file that is edited in place may be half written when it is read, and half a table can be a
    valid table. A change is therefore adopted only if the file rested between two polls.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        """Read the file for the first time; raises as `load_tenants` does."""
        self._path, self._clock = path, clock
        self.tenants, self._stamp = load_tenants(path)
        # Why the file on disk is not the table in force; "" if it is.
        self.trouble = ""
        # Logged once per content, not at each poll.
        self._refused: Stamp | None = None
        # The changed stamp that the last poll found, and when (monotonic).
        self._changed: Stamp | None = None
        self._changed_at = 0.0

    def reload(self) -> bool:
        """Adopt a changed file that has rested for a second; return whether the table differs."""
        try:
            seen = _stamp(self._path.stat())
        except OSError:
            seen = ()
        if seen in (self._stamp, self._refused):
            self._changed = None
            if seen == self._stamp:
                self.trouble = ""
            return False
        if not self._has_rested(seen):
            return False
        try:
            tenants, stamp = load_tenants(self._path)
        except CallerError as error:
            self._changed = None
            if error.reason == _CHANGING:
                return False  # the next polls find the result
            self._refused, self.trouble = seen, f"the old table stays in force: {error}"
            _log.error("tenants table not reloaded, the old one stays in force: %s", error)
            return False
        self._changed = None
        if stamp != seen:
            return False  # the file changed again since it was polled
        self._stamp, self._refused, self.trouble = stamp, None, ""
        is_other, self.tenants = tenants != self.tenants, tenants
        _log.warning("tenants table reloaded: %d tenants", len(tenants))
        return is_other

    def _has_rested(self, seen: Stamp) -> bool:
        now = self._clock.monotonic()
        if seen != self._changed:
            self._changed, self._changed_at = seen, now
        return now - self._changed_at >= POLL_SECONDS

    async def watch(self) -> None:
        """Poll for changes until cancelled."""
        while True:
            await self._clock.sleep(POLL_SECONDS)
            await asyncio.to_thread(self.reload)
