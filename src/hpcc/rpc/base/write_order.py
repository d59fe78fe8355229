"""The order of an upload's pieces, the same at a worker and at a gateway."""

from __future__ import annotations

from buildgrid.common.protos.google.bytestream import bytestream_pb2 as bs

from hpcc.core import CallerError
from hpcc.reapi.resource import parse_write_name
from hpcc.rpc.base.channel import MAX_UPLOAD_BYTES


class WriteOrder:
    """The rules of one ByteStream.Write: in order, of one name, no more than the digest says."""

    def __init__(self, first: bs.WriteRequest) -> None:
        """Take the first message's name.

        Raises:
            CallerError: it is no name of a blob, or of one too large.
        """
        self.name = first.resource_name
        self.instance, self.digest = parse_write_name(self.name)
        if self.digest.size_bytes > MAX_UPLOAD_BYTES:
            raise CallerError(f"a blob may have {MAX_UPLOAD_BYTES} bytes", reason="blob-size")
        self.received_bytes = 0

    def take(self, message: bs.WriteRequest) -> bool:
        """Check the next message; return whether it is the last.

        Raises:
            CallerError: it breaks a rule.
        """
        if message.write_offset != self.received_bytes or (
            message.resource_name not in {"", self.name}
        ):
            raise CallerError("write is not in order", reason="write-order")
        if self.received_bytes + len(message.data) > self.digest.size_bytes:
            raise CallerError("more bytes than the digest says", reason="digest-mismatch")
        self.received_bytes += len(message.data)
        return message.finish_write
