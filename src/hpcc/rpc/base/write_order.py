"""Checks the order of an upload's messages. Worker and gateway use the same rules."""

from __future__ import annotations

from buildgrid.common.protos.google.bytestream import bytestream_pb2 as bs

from hpcc.core import CallerError
from hpcc.reapi.resource import parse_write_name
from hpcc.rpc.base.channel import MAX_UPLOAD_BYTES


class WriteOrder:
    """State of one ByteStream.Write: messages in order, one name, at most the digest's size."""

    def __init__(self, first: bs.WriteRequest) -> None:
        """Read the resource name of the first message.

        Raises:
            CallerError: the name does not name a blob, or the blob is over `MAX_UPLOAD_BYTES`.
        """
        self.name = first.resource_name
        self.instance, self.digest = parse_write_name(self.name)
        if self.digest.size_bytes > MAX_UPLOAD_BYTES:
            raise CallerError(f"a blob may have {MAX_UPLOAD_BYTES} bytes", reason="blob-size")
        self.received_bytes = 0

    def take(self, message: bs.WriteRequest) -> bool:
        """Check the next message and return whether it is the last.

        Raises:
            CallerError: the offset or name is wrong, or there are more bytes than the digest has.
        """
        if message.write_offset != self.received_bytes or (
            message.resource_name not in {"", self.name}
        ):
            raise CallerError("write is not in order", reason="write-order")
        if self.received_bytes + len(message.data) > self.digest.size_bytes:
            raise CallerError("more bytes than the digest says", reason="digest-mismatch")
        self.received_bytes += len(message.data)
        return message.finish_write
