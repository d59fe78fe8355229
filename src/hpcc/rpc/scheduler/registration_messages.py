"""Converts a worker's registration between message and value, for the wire and the store."""

from __future__ import annotations

import re
from typing import Final

from google.protobuf.message import DecodeError

from hpcc._proto import scheduler_pb2 as pb
from hpcc.core import CallerError, ImageDigest, Isolation
from hpcc.rpc.scheduler.api import MAX_SLOTS, Registration
from hpcc.rpc.scheduler.toolchain_messages import image_message, images_of

_WORKER_ID: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,127}")
_ENDPOINT: Final = re.compile(r"[A-Za-z0-9.\[\]:-]{1,255}:[0-9]{1,5}")
_MAX_CERTIFICATE_BYTES: Final = 16 << 10
_STORE: Final = re.compile(r"[0-9a-f]{64}")
_MAX_IMAGES: Final = 1024
# Formats of tokens: with the claim `share`, with `leased` too, with `sharing` too, and with a
# budget in the last.
_SHARES, _LEASES, _SHARING, _VERIFY = 1, 2, 3, 4
MAX_GENERATION: Final = 1 << 62


def registration_message(registration: Registration) -> pb.RegisterRequest:
    """Build the message of a registration."""
    return pb.RegisterRequest(
        worker_id=registration.worker_id,
        endpoint=registration.endpoint,
        certificate=registration.certificate,
        isolation=registration.isolation.value,
        images=[i.value for i in registration.images],
        capacity=registration.capacity,
        result_key=pb.WorkerResultKey(
            public_key=registration.result_key,
            proof=registration.result_proof,
            is_announced=registration.is_key_announced,
        ),
        toolchains=[image_message(t) for t in registration.toolchains],
        generation=registration.generation,
        token_format=_token_format(registration),
        store=registration.store,
        is_draining=registration.is_draining,
    )


def _token_format(registration: Registration) -> int:
    if registration.knows_verify:
        return _VERIFY
    if registration.knows_sharing:
        return _SHARING
    return _LEASES if registration.knows_leases else int(registration.knows_shares)


def registration_of(request: pb.RegisterRequest) -> Registration:
    """Parse a registration.

    Raises:
        CallerError: a field is malformed or out of range.
    """
    check_address(request.endpoint, request.certificate)
    if len(request.images) > _MAX_IMAGES or not 0 < request.capacity <= MAX_SLOTS:
        raise CallerError("too many images, or an impossible capacity")
    return Registration(
        worker_id=worker_id_of(request.worker_id),
        endpoint=request.endpoint,
        certificate=request.certificate,
        isolation=isolation_of(request.isolation),
        images=tuple(ImageDigest(i) for i in request.images),
        capacity=request.capacity,
        result_key=request.result_key.public_key,
        result_proof=request.result_key.proof,
        is_key_announced=request.result_key.is_announced,
        toolchains=images_of(request.toolchains),
        generation=generation_of(request.generation),
        knows_shares=request.token_format >= _SHARES,
        knows_leases=request.token_format >= _LEASES,
        knows_sharing=request.token_format >= _SHARING,
        knows_verify=request.token_format >= _VERIFY,
        store=_store(request.store),
        is_draining=request.is_draining,
    )


def pack_registration(registration: Registration) -> bytes:
    """Return the bytes of a registration that schedulers store."""
    return registration_message(registration).SerializeToString(deterministic=True)


def unpack_registration(data: bytes) -> Registration:
    """Parse a registration that another scheduler stored.

    Raises:
        CallerError: the bytes are not a valid registration.
    """
    try:
        return registration_of(pb.RegisterRequest.FromString(data))
    except DecodeError as error:
        raise CallerError("not a registration") from error


def _store(text: str) -> str:
    if text and not _STORE.fullmatch(text):
        raise CallerError("a store's name is not 64 hex digits")
    return text


def check_address(endpoint: str, certificate: bytes) -> None:
    """Check the form of a worker's endpoint and certificate.

    Raises:
        CallerError: one of them is malformed.
    """
    if not _ENDPOINT.fullmatch(endpoint):
        raise CallerError("endpoint is not host:port")
    if not 0 < len(certificate) <= _MAX_CERTIFICATE_BYTES:
        raise CallerError("certificate is absent or too large")


def worker_id_of(text: str) -> str:
    """Return a worker id unchanged.

    Raises:
        CallerError: it is not 1 to 128 characters of a-z, 0-9, dot and hyphen.
    """
    if not _WORKER_ID.fullmatch(text):
        raise CallerError("not a worker id")
    return text


def isolation_of(text: str) -> Isolation:
    """Parse an isolation label.

    Raises:
        CallerError: the label is unknown.
    """
    try:
        return Isolation(text)
    except ValueError as error:
        raise CallerError("unknown isolation label") from error


def generation_of(number: int) -> int:
    """Return a generation unchanged.

    Raises:
        CallerError: it is over `MAX_GENERATION`.
    """
    if number > MAX_GENERATION:
        raise CallerError("not a generation")
    return number
