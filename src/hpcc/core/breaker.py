"""The product's one circuit breaker: stops calls to a failing service for a while."""

from __future__ import annotations


class CircuitBreaker:
    """Opens after `failures` failures in a row, for `open_seconds`. Not thread-safe.

    `tries_one` chooses what follows. True: one caller per `open_seconds` is admitted, and the
    breaker stays open until a call succeeds. False: all callers are admitted again and the count
    restarts at 0; the success of a call from before does not close the breaker earlier.
    `now` is a monotonic time in seconds.
    """

    def __init__(self, *, failures: int, open_seconds: float, tries_one: bool) -> None:
        self._max_failures, self._open_seconds = failures, open_seconds
        self._tries_one = tries_one
        self._failures = 0
        # Only with `tries_one`: the time since when the breaker waits for a successful call.
        self._opened_at: float | None = None
        self._retry_at = float("-inf")

    def admits(self, now: float) -> bool:
        """Return whether the service may be called; an admitted caller must call it."""
        if now < self._retry_at:
            return False
        if self._opened_at is not None:
            self._retry_at = now + self._open_seconds
        return True

    def failed(self, now: float, *, at_once: bool = False) -> bool:
        """Count a failure (enough to open if `at_once`); return whether it opened the breaker."""
        self._failures += 1
        is_enough = at_once or self._failures >= self._max_failures
        if self._opened_at is None and not is_enough:
            return False
        self._retry_at = now + self._open_seconds
        if not self._tries_one:
            self._failures = 0
            return True
        opens = self._opened_at is None
        if opens:
            self._opened_at = now
        return opens

    @property
    def is_open(self) -> bool:
        """Tell whether an admitted caller is the one that tries; always False without one."""
        return self._opened_at is not None

    def abandoned(self) -> None:
        """Admit another caller at once: the one that tries was cancelled without an answer."""
        if self._opened_at is not None:
            self._retry_at = float("-inf")

    def succeeded(self, now: float) -> float | None:
        """Count a success; return the seconds that the breaker was open, None if it was closed."""
        self._failures = 0
        if self._opened_at is None:
            return None
        seconds = now - self._opened_at
        self._opened_at, self._retry_at = None, float("-inf")
        return seconds
