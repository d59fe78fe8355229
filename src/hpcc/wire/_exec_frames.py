"""Limits of the guest's Exec stream (proto/hpcc/v1/agent.proto), the same on both sides."""

from __future__ import annotations

from typing import Final

# MAX_INPUTS inputs of about 110 bytes (path of 60, digest, framing) are 11 MiB.
MAX_HEADER_FRAME_BYTES: Final = 32 << 20
# A chunk with its framing, and a Need of NEED_PER_FRAME digests (34 bytes each), fit well.
MAX_FRAME_BYTES: Final = 1 << 20
# Measured: larger pieces are not faster over virtio-serial.
CHUNK_BYTES: Final = 256 << 10
NEED_PER_FRAME: Final = 16_384
# The largest single source file; the guest keeps it in memory twice.
MAX_INPUT_BYTES: Final = 256 << 20
MAX_TRACEPARENT_CHARS: Final = 55
MAX_DETAIL_BYTES: Final = 1024
ENTROPY_BYTES: Final = 64
EXEC_ID_PATTERN: Final = r"[A-Za-z0-9._-]{1,128}"
GUEST_ID_PATTERN: Final = r"[a-z0-9-]{1,64}"
# name=value pairs of the guest's kernel command line and its port, read by the agent.
PORT_NAME: Final = "hpcc.agent"
TOKEN_PARAMETER: Final = "hpcc.tok"  # noqa: S105 - the parameter's name, not a secret
