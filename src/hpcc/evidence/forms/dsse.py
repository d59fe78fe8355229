"""DSSE envelopes with one Ed25519 signature, in one canonical spelling.

Source: https://github.com/secure-systems-lab/dsse. Another spelling of the same envelope is
refused: else somebody could change bytes of an evidence file, and nobody would notice.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Final, NamedTuple

from hpcc.audit.base.heads import is_signed
from hpcc.evidence.forms.errors import EvidenceDamagedError

IN_TOTO: Final = "application/vnd.in-toto+json"
SIGNATURE_BYTES: Final = 64
# No reader of JSON sees bytes that nobody signed.
_FORM: Final = re.compile(
    rb'\{"payload":"([A-Za-z0-9+/=]*)","payloadType":"([A-Za-z0-9./+-]{1,100})",'
    rb'"signatures":\[\{"keyid":"([0-9a-f]{0,64})","sig":"([A-Za-z0-9+/=]{88})"\}\]\}'
)


class Envelope(NamedTuple):
    """An envelope: what was signed, by which key, and the signature."""

    payload: bytes
    payload_type: str
    key_id: str
    signature: bytes


def signed_bytes(payload: bytes, payload_type: str) -> bytes:
    """Return DSSE's pre-authentication encoding, over which the signature is."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal_statement(payload: bytes, key_id: str, sign: Callable[[bytes], bytes]) -> bytes:
    """Return the envelope of an in-toto statement, signed now."""
    signature = sign(signed_bytes(payload, IN_TOTO))
    return envelope_text(Envelope(payload, IN_TOTO, key_id, signature))


def envelope_text(envelope: Envelope) -> bytes:
    """Return an envelope as canonical JSON, without a newline.

    Types and ids have nothing that JSON escapes: `_FORM` holds that of what is read.
    """
    return b'{"payload":"%b","payloadType":"%b","signatures":[{"keyid":"%b","sig":"%b"}]}' % (
        base64.b64encode(envelope.payload), envelope.payload_type.encode(),
        envelope.key_id.encode(), base64.b64encode(envelope.signature),
    )  # fmt: skip


def read_envelope(data: bytes, what: str) -> Envelope:
    """Parse an envelope; the signature is not checked.

    Raises:
        EvidenceDamagedError: it has another form, or is spelled in another way.
    """
    found = _FORM.fullmatch(data)
    if found is None:
        raise EvidenceDamagedError(f"{what} is not a DSSE envelope with one signature")
    try:
        envelope = Envelope(
            base64.b64decode(found[1], validate=True), found[2].decode(), found[3].decode(),
            base64.b64decode(found[4], validate=True),
        )  # fmt: skip
    except binascii.Error as error:
        raise EvidenceDamagedError(f"{what} is not base64") from error
    if envelope_text(envelope) != data or len(envelope.signature) != SIGNATURE_BYTES:
        raise EvidenceDamagedError(f"{what} is not in canonical form")
    return envelope


def check_envelope(envelope: Envelope, key: bytes, kind: str, what: str) -> None:
    """Check an envelope's signature and the type of its payload.

    Raises:
        EvidenceDamagedError: the type is another one, or the signature is not good under `key`.
    """
    if envelope.payload_type != kind:
        raise EvidenceDamagedError(f"{what} has a payload of another type")
    message = signed_bytes(envelope.payload, envelope.payload_type)
    if not is_signed(key, envelope.signature, message):
        raise EvidenceDamagedError(f"{what}: the signature is wrong")
