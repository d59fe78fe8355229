"""ByteStream resource names of REAPI (`remote_execution.proto`, ContentAddressableStorage)."""

from __future__ import annotations

from typing import Final

from hpcc.core import CallerError, Digest
from hpcc.reapi.limits import ReapiError

_MAX_NAME_CHARS = 512
_MAX_INSTANCE_CHARS: Final = 255
_RESERVED: Final = frozenset(
    {"blobs", "uploads", "actions", "operations", "compressed-blobs", "", "..", "."}
)


def check_instance(instance: str) -> None:
    """Check the name of a foreign service's instance; the empty one passes.

    Raises:
        CallerError: it is too long, has what no line of text has, or would change the meaning of a
            resource name.
    """
    parts = instance.split("/") if instance else []
    is_plain = instance.isprintable()  # no end of a line, which rows and logs would show
    if len(instance) > _MAX_INSTANCE_CHARS or not is_plain or _RESERVED & set(parts):
        raise CallerError("not the name of a REAPI instance", reason="config")


def read_name(instance: str, digest: Digest) -> str:
    """Return the name of a blob to read; `instance` may be empty for a foreign service."""
    return f"{instance}/blobs/{digest}".removeprefix("/")


def write_name(instance: str, upload_id: str, digest: Digest) -> str:
    """Return the name of a blob to upload; `instance` may be empty for a foreign service."""
    return f"{instance}/uploads/{upload_id}/blobs/{digest}".removeprefix("/")


def parse_read_name(name: str) -> tuple[str, Digest]:
    """Split `{instance}/blobs/{hash}/{size}` into instance name and digest.

    Raises:
        ReapiError: the name has another form, as for a compressed blob.
    """
    instance, _, rest = _bounded(name).partition("/blobs/")
    parts = rest.split("/")
    if not instance or "/" in instance or len(parts) != 2:  # noqa: PLR2004 - hash and size
        raise ReapiError("not a resource name of the form INSTANCE/blobs/HASH/SIZE")
    return instance, _digest(parts)


def parse_write_name(name: str) -> tuple[str, Digest]:
    """Split `{instance}/uploads/{id}/blobs/{hash}/{size}[/…]` into instance name and digest.

    Raises:
        ReapiError: the name has another form, as for a compressed blob.
    """
    instance, _, rest = _bounded(name).partition("/uploads/")
    parts = rest.split("/")
    if not instance or "/" in instance or len(parts) < 4 or parts[1] != "blobs":  # noqa: PLR2004 - id, blobs, hash, size
        raise ReapiError("not a resource name of the form INSTANCE/uploads/ID/blobs/HASH/SIZE")
    return instance, _digest(parts[2:4])


def _bounded(name: str) -> str:
    if len(name) > _MAX_NAME_CHARS:
        raise ReapiError("resource name is too long")
    return name


def _digest(parts: list[str]) -> Digest:
    try:
        return Digest.parse("/".join(parts))
    except CallerError as error:
        raise ReapiError(str(error), reason="bad-digest") from error
