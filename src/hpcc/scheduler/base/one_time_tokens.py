"""One-time tokens: an operator makes one, and a machine uses it up to become a worker."""

from __future__ import annotations

import re
import secrets
from dataclasses import replace
from typing import Final

from hpcc.core import CallerError
from hpcc.ports import Clock, ConflictError, ControlStore, Entry
from hpcc.scheduler.base.enrolled import TOKEN_SPACE, EnrolToken, decode, encode, name_of_token
from hpcc.scheduler.base.refusals import (
    WORKER_ID,
    printable_name,
    token_replayed,
    worker_refused,
)

MAX_TOKENS: Final = 4096
MAX_VALID_SECONDS: Final = 7 * 86_400.0
TOKEN_BEGINNING: Final = "hpcc-enrol-"  # noqa: S105 - not one
_TOKEN: Final = re.compile(r"hpcc-enrol-[A-Za-z0-9_-]{43}")
_TOKEN_BYTES: Final = 32
_SWEEP_SECONDS: Final = 60.0
# A used token is kept so long after it expired, so that a replay is recognised.
_KEEP_SECONDS: Final = 86_400.0


class OneTimeTokens:
    """The tokens in the control store, by their SHA-256."""

    def __init__(self, store: ControlStore, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._swept_at = float("-inf")

    async def new(self, worker_id: str, valid_seconds: float) -> str:
        """Make a token that enrols one worker, once.

        With a worker id it is valid only for that worker, even if the worker is enrolled already.

        Raises:
            CallerError: worker id or lifetime are invalid, or there are too many tokens.
            ControlStoreError: the store does not answer.
        """
        if worker_id and not WORKER_ID.fullmatch(worker_id):
            raise CallerError("a worker id is 1 to 128 of a-z, 0-9, '.' and '-'")
        if not 0 < valid_seconds <= MAX_VALID_SECONDS:
            raise CallerError(f"a token is valid for at most {MAX_VALID_SECONDS / 86400:g} days")
        await self._sweep()
        now, token = self._clock.now(), f"{TOKEN_BEGINNING}{secrets.token_urlsafe(_TOKEN_BYTES)}"
        kept = EnrolToken(worker_id=worker_id, made_at=now, expires_at=now + valid_seconds)
        await self._store.put(TOKEN_SPACE, name_of_token(token), encode(kept), expect=0)
        return token

    async def fresh(self, token: str, worker_id: str) -> tuple[Entry, EnrolToken]:
        """Look up a token; errors and logs never hold a part of it."""
        name = printable_name(worker_id)
        if not _TOKEN.fullmatch(token):
            raise worker_refused("enrol-token-unknown", name, "not an enrolment token")
        entry = await self._store.entry_or_none(TOKEN_SPACE, name_of_token(token))
        if entry is None:
            raise worker_refused("enrol-token-unknown", name, "the token is unknown")
        known = decode(EnrolToken, entry)
        if known.used_at:
            raise token_replayed(name)
        if known.expires_at <= self._clock.now():
            raise worker_refused(
                "enrol-token-expired", name, "the token has ended: ask for another"
            )
        return entry, known

    async def use(self, entry: Entry, known: EnrolToken, worker_id: str) -> None:
        """Use a token up; of two callers at once one does.

        Raises:
            UnauthenticatedError: it was used meanwhile.
            ControlStoreError: the store does not answer; it may be used up nevertheless.
        """
        used = replace(known, used_at=self._clock.now())
        try:
            await self._store.put(TOKEN_SPACE, entry.key, encode(used), expect=entry.version)
        except ConflictError as error:
            raise token_replayed(worker_id) from error

    async def _sweep(self) -> None:
        """Delete tokens that expired more than a day ago.

        Raises:
            CallerError: too many others remain.
        """
        if self._clock.monotonic() - self._swept_at < _SWEEP_SECONDS:
            return
        entries = await self._store.entries(TOKEN_SPACE)
        now, kept = self._clock.now(), 0
        for entry in entries:
            token = decode(EnrolToken, entry)
            if now > token.expires_at + _KEEP_SECONDS:
                await self._store.delete(TOKEN_SPACE, entry.key)
            else:
                kept += 1
        if kept >= MAX_TOKENS:
            raise CallerError(f"more than {MAX_TOKENS} tokens in a day", reason="too-many-tokens")
        self._swept_at = self._clock.monotonic()
