"""Receives frames of a grpclib stream; the length is checked before memory is allocated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from google.protobuf.message import DecodeError

from hpcc._proto import agent_pb2 as pb
from hpcc.core import CallerError

if TYPE_CHECKING:
    from grpclib.server import Stream

_PREFIX_BYTES: Final = 5


async def receive(
    stream: Stream[pb.ClientFrame, pb.ServerFrame], max_bytes: int
) -> pb.ClientFrame | None:
    """Return the next frame, or None after the client's half-close.

    grpclib's own `recv_message` trusts the length that the peer announces.

    Raises:
        CallerError: the frame exceeds `max_bytes`, is compressed, or is not a ClientFrame.
    """
    raw = stream._stream  # noqa: SLF001 - grpclib has no limit; 0.4.x is pinned
    prefix = await raw.recv_data(_PREFIX_BYTES)
    if not prefix:
        return None
    size = int.from_bytes(prefix[1:], "big")
    if prefix[0] or size > max_bytes:
        raise CallerError(f"a frame of {size} bytes, or a compressed one", reason="frame-too-large")
    data = await raw.recv_data(size)
    try:
        return pb.ClientFrame.FromString(data)
    except DecodeError as error:
        raise CallerError("not a ClientFrame") from error


def need(digests: list[bytes], *, more: bool) -> pb.ServerFrame:
    """Return the frame that asks for blobs (32 bytes each); `more` announces another one."""
    return pb.ServerFrame(need=pb.Need(digests=digests, more=more))
