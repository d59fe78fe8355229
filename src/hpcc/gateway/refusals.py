"""Logs what was refused: a stable reason and a peer, never a token or bytes of the call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

from hpcc.core import CallerError, HpccError, PolicyError
from hpcc.ports import Clock, SecurityEvent
from hpcc.rpc.base.errors import BusyError

_log: Final = logging.getLogger(__name__)
# A refusal costs an attacker nothing, so beyond this rate refusals are only counted.
_LINES_PER_SECOND: Final = 20.0


class RefusalLog:
    """Logs refusals up to a rate; the next line has the number that was left out.

    `on_refusal` gets the reason of each one, also of those that are not logged. `listeners` get
    an event of each that is logged.
    """

    def __init__(
        self,
        clock: Clock,
        on_refusal: Callable[[str], None],
        listeners: Sequence[Callable[[SecurityEvent], None]],
    ) -> None:
        self._clock, self._on_refusal, self._listeners = clock, on_refusal, listeners
        self._allowance, self._at = _LINES_PER_SECOND, clock.monotonic()
        self._left_out = 0

    def note(self, method: str, peer: str, error: HpccError) -> None:
        """Log a line if the client is at fault or its tenant exceeds a limit."""
        if not isinstance(error, CallerError | PolicyError | BusyError):
            return
        self._on_refusal(error.reason)
        now = self._clock.monotonic()
        refill = (now - self._at) * _LINES_PER_SECOND
        self._allowance, self._at = min(self._allowance + refill, _LINES_PER_SECOND), now
        if self._allowance < 1:
            self._left_out += 1
            return
        self._allowance -= 1
        _log.warning(
            "refused: gateway method=%s reason=%s peer=%s suppressed_before=%d",
            method,
            error.reason,
            peer,
            self._left_out,
        )
        fields = [("method", method), ("reason", error.reason)]
        if self._left_out:
            fields.append(("suppressed_before", str(self._left_out)))
        event = SecurityEvent(
            name="gateway-refused", at=self._clock.now(), fields=tuple(fields), peer=peer
        )
        for listener in self._listeners:
            listener(event)
        self._left_out = 0
