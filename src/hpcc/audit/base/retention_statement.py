"""What the retention role says about a trail: keep this, release it, remove what is older.

A statement is canonical JSON in a DSSE envelope. People of the role sign it with their keys
(Ed25519), which no worker has. A worker has the public keys in its configuration.

What must never happen: a statement counts for another worker, or under another action, than the one
that was signed.
"""

from __future__ import annotations

import base64
import binascii
import enum
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.audit.base.canonical import canonical
from hpcc.audit.base.heads import KEY_BYTES, is_signed
from hpcc.core import CallerError

PAYLOAD_TYPE: Final = "application/vnd.hpcc.audit-retention+json"
MAX_STATEMENT_BYTES: Final = 16 << 10
MAX_TEXT_CHARS: Final = 200
MAX_SIGNATURES: Final = 8
_FORMAT: Final = 1
_ID: Final = re.compile(r"[0-9a-f]{16}")
# What a hold can name: the field of a row, under the name of the command's option.
SCOPES: Final = {"tenant": "tenant", "build": "build_id", "row": "row_id"}
_TEXTS: Final = ("by", "id", "reason", "value", "what", "worker")


class RetentionAction(enum.StrEnum):
    """What a statement wants."""

    HOLD = "hold"
    RELEASE = "release"
    RETIRE = "retire"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionStatement:
    """One statement about the trail of `worker`.

    A hold has an `id`, and names rows by `what` (of `SCOPES`) and `value`. A release has the `id`
    of its hold. With "retire" what was sealed before `before` may be removed. `at` and `before` are
    in seconds since the epoch. `by` and `reason` are for people.
    """

    action: RetentionAction
    id: str
    worker: str
    at: float
    by: str
    reason: str
    what: str = ""
    value: str = ""
    before: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what no worker could obey.

        Raises:
            CallerError: a part is missing or out of range.
        """
        texts = [getattr(self, name) for name in _TEXTS]
        if any(len(text) > MAX_TEXT_CHARS or not text.isprintable() for text in texts):
            raise CallerError(
                f"a retention statement has printable texts of at most {MAX_TEXT_CHARS} characters"
            )
        if not _ID.fullmatch(self.id) or not self.reason.strip() or not self.worker:
            raise CallerError(
                "a retention statement has an id of 16 hex digits, a worker, a reason"
            )
        if not (math.isfinite(self.at) and math.isfinite(self.before)):
            raise CallerError("a retention statement has no such time")
        is_hold = self.action is RetentionAction.HOLD
        if is_hold != (self.what in SCOPES and bool(self.value)) or (self.what and not is_hold):
            raise CallerError("a hold, and nothing else, names a tenant, a build or a row")
        if (self.action is RetentionAction.RETIRE) != (self.before > 0):
            raise CallerError("a permission to remove, and nothing else, names a time")

    def payload(self) -> bytes:
        """Return the bytes that are signed, within DSSE's encoding."""
        table = {name: getattr(self, name) for name in _TEXTS}
        return canonical(
            {**table, "action": self.action.value, "at": self.at, "before": self.before,
             "format": _FORMAT}
        )  # fmt: skip


def _message(payload: bytes) -> bytes:
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def raw_key(key: Ed25519PrivateKey) -> bytes:
    """Return the raw public key."""
    return key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def sign_statement(statement: RetentionStatement, keys: Iterable[Ed25519PrivateKey]) -> bytes:
    """Return the envelope with a signature of each key."""
    payload = statement.payload()
    message = _message(payload)
    signatures = {raw_key(key): key.sign(message) for key in keys}
    return _envelope(payload, signatures)


def _envelope(payload: bytes, signatures: dict[bytes, bytes]) -> bytes:
    return canonical(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [
                {"keyid": key.hex(), "sig": base64.b64encode(signature).decode()}
                for key, signature in sorted(signatures.items())
            ],
        }
    )


def open_statement(envelope: bytes) -> tuple[RetentionStatement, frozenset[bytes]]:
    """Return a statement, and the raw public keys whose signature is good.

    The caller checks whose keys these are.

    Raises:
        CallerError: it is not a statement, is too large, or has another spelling.
    """
    wrong = CallerError("this is not a retention statement of hpcc", reason="retention")
    if len(envelope) > MAX_STATEMENT_BYTES:
        raise wrong
    try:
        table = json.loads(envelope)
        payload = base64.b64decode(table["payload"], validate=True)
        signatures = {
            bytes.fromhex(one["keyid"]): base64.b64decode(one["sig"], validate=True)
            for one in table["signatures"]
        }
        statement = _statement(json.loads(payload))
    except (
        ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error,
    ) as error:  # fmt: skip
        raise wrong from error
    is_same = statement.payload() == payload and _envelope(payload, signatures) == envelope
    if not is_same or len(signatures) > MAX_SIGNATURES:
        raise wrong
    message = _message(payload)
    good = frozenset(
        key for key, signature in signatures.items()
        if len(key) == KEY_BYTES and is_signed(key, signature, message)
    )  # fmt: skip
    return statement, good


def _statement(table: dict[str, Any]) -> RetentionStatement:
    """Convert decoded JSON.

    Raises:
        ValueError: it has another form.
        CallerError: it says nothing that a worker could obey.
    """
    numbers, texts = [table["at"], table["before"]], {name: table[name] for name in _TEXTS}
    if any(type(n) is not float for n in numbers) or table["format"] != _FORMAT:
        raise ValueError("another form")
    if not all(isinstance(text, str) for text in texts.values()):
        raise ValueError("another form")
    return RetentionStatement(
        action=RetentionAction(table["action"]), at=numbers[0], before=numbers[1], **texts
    )
