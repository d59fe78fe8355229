"""What the control store holds of enrolments: tokens, and the workers that used them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final

from hpcc.ports import ControlStoreError, Entry

TOKEN_SPACE: Final = "enrol-token"  # noqa: S105 - where they are kept, not one
POD_SPACE: Final = "enrol-pod-token"
WORKER_SPACE: Final = "enrolled-worker"
CA_SPACE: Final = "worker-ca"
CA_KEY: Final = "ca"
CA_PURPOSE: Final = b"worker CA"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolToken:
    """A token in the store, under its SHA-256. An empty `worker_id` allows any new name.

    Times are seconds since the epoch; `used_at` is 0 before its use.
    """

    worker_id: str
    made_at: float
    expires_at: float
    used_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class UsedPodToken:
    """The key that a pod's token was used for, under the SHA-256 of what its issuer signed."""

    key_id: str
    expires_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolledWorker:
    """A worker. Its certificates are valid while they have this key and `revoked_at` is 0.

    `pool` is the pool in whose name a pod enrolled; "" if a one-time token was used.
    """

    key_id: str
    enrolled_at: float
    expires_at: float
    revoked_at: float = 0.0
    pool: str = ""


def name_of_token(token: str) -> str:
    """Return the entry's name: the store must not hold a usable token."""
    return hashlib.sha256(token.encode()).hexdigest()


def encode(value: EnrolToken | EnrolledWorker | UsedPodToken) -> bytes:
    """Return an entry's value. Schedulers of earlier versions know no pools, so "" is left out."""
    table = asdict(value)
    if not table.get("pool", "-"):
        del table["pool"]
    return json.dumps(table, sort_keys=True).encode()


def decode[T](kind: Callable[..., T], entry: Entry) -> T:
    """Parse an entry's value.

    Raises:
        ControlStoreError: it is malformed.
    """
    try:
        return kind(**json.loads(entry.value))
    except (ValueError, TypeError, RecursionError) as error:
        raise ControlStoreError("an enrolment entry is malformed") from error
