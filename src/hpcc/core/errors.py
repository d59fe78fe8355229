"""The four families of errors, by what the caller may do next."""

from __future__ import annotations

from typing import ClassVar


class HpccError(Exception):
    """Root of every error that hpcc raises on purpose.

    `reason` is a stable, lower-case, dashed word for tests, counters and the CLI's advice;
    the text is for a person, and says what was wrong and what to do. It never contains a secret
    or source text.
    """

    default_reason: ClassVar[str] = "error"

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        self.reason: str = reason or self.default_reason


class CallerError(HpccError):
    """The input is wrong; the same call will fail again."""

    default_reason = "bad-request"


class InfrastructureError(HpccError):
    """A part of the farm failed; another worker, or a later try, may succeed."""

    default_reason = "infrastructure"


class IntegrityError(HpccError):
    """Bytes or a peer are not what they claim. Never retried there, always recorded."""

    default_reason = "integrity"


class NotFoundError(HpccError):
    """The requested object does not exist."""

    default_reason = "not-found"


class PolicyError(CallerError):
    """No rule allows it: a wrong, expired or foreign token, tenant, image or isolation."""

    default_reason = "policy"
