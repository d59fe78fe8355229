"""The key that signs a worker's results, and the one that follows it.

A successor is registered with the scheduler for `announce_seconds` before it signs, so that every
scheduler can name it to daemons and workers from the first result on. Then its file takes the place
of the old key. A worker that dies in between continues with what it finds: if the successor's file
is there, the old key signs, and the successor is registered again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from hpcc.core import HpccError
from hpcc.files import sync_directory
from hpcc.identity.keys import load_or_create_signing_key
from hpcc.identity.results import ResultSigner
from hpcc.ports import Clock
from hpcc.rpc.scheduler.api import Registration

_log: Final = logging.getLogger(__name__)
# A separate key: the TLS key may be renewed, which would invalidate what it signed.
KEY_NAME: Final = "result-signing.key"
NEXT_NAME: Final = "result-signing.next.key"
_RETRY_SECONDS: Final = 30.0


class ResultKeyFiles:
    """A worker's result keys in its keys directory. One event loop uses it."""

    def __init__(self, keys: Path, clock: Clock, announce_seconds: float) -> None:
        """Load the key, and a successor that an earlier process made.

        Raises:
            CallerError: a file is not such a key, or others can read it.
            InfrastructureError: the key is absent and cannot be written.
        """
        self._keys, self._clock, self._announce_seconds = keys, clock, announce_seconds
        self.signer = self._load(KEY_NAME)
        self._next = self._load(NEXT_NAME) if (keys / NEXT_NAME).exists() else None
        self._is_announced = asyncio.Event()

    def _load(self, name: str) -> ResultSigner:
        return ResultSigner(load_or_create_signing_key(self._keys / name), self._clock)

    def put_into(self, registration: Registration) -> Registration:
        """Return the registration with the newest key, which may be one that does not sign yet."""
        newest = self._next or self.signer
        return replace(
            registration,
            result_key=newest.public,
            result_proof=newest.possession(registration.worker_id, registration.certificate),
            is_key_announced=self._next is not None,
        )

    def public_or_none(self, kid: str) -> bytes | None:
        """Return the 32 bytes of the key that signs, if that is `kid`."""
        return self.signer.public if kid == self.signer.key_id else None

    def make_next(self, kid: str) -> bool:
        """Make the successor of key `kid`; False if that does not sign, or has a successor."""
        if self._next is not None or kid != self.signer.key_id:
            return False
        try:
            self._next = self._load(NEXT_NAME)
        except HpccError as error:
            _log.error("no new result key: %s", error)
            return False
        seconds = self._announce_seconds
        _log.warning("result key %s follows in %g s", self._next.key_id, seconds)
        return True

    def admitted(self, registration: Registration) -> None:
        """Note that the scheduler has listed a key: the successor signs a little later."""
        if self._next is not None and registration.result_key == self._next.public:
            self._is_announced.set()

    async def run(self, on_signing: Callable[[], None]) -> None:
        """Let announced successors sign, until cancelled; `on_signing` is called for each."""
        while True:
            await self._is_announced.wait()
            await self._clock.sleep(self._announce_seconds)
            while not await asyncio.to_thread(self._has_moved):
                await self._clock.sleep(_RETRY_SECONDS)
            assert self._next is not None
            self.signer.use(self._next)
            self._next = None
            self._is_announced.clear()
            _log.warning("result key %s signs", self.signer.key_id)
            on_signing()

    def _has_moved(self) -> bool:
        """Put the successor's file in place of the old key, which is gone then."""
        try:
            (self._keys / NEXT_NAME).replace(self._keys / KEY_NAME)
        except OSError as error:
            _log.error("the old result key stays: %s", error)
            return False
        with suppress(OSError):
            sync_directory(self._keys)
        return True
