"""Protocols without I/O: bytes in, values out."""

from hpcc.wire import _launcher as launcher
from hpcc.wire import _warden as warden
from hpcc.wire._container import (
    CONTAINER_LINK,
    CONTAINER_LINK_DIRECTORY,
    CONTAINER_MEMORY_VARIABLE,
    CONTAINER_PIDS_VARIABLE,
    CONTAINER_TOKEN_VARIABLE,
)
from hpcc.wire._exec_frames import (
    CHUNK_BYTES,
    ENTROPY_BYTES,
    GUEST_ID_PATTERN,
    MAX_DETAIL_BYTES,
    MAX_FRAME_BYTES,
    MAX_HEADER_FRAME_BYTES,
    MAX_INPUT_BYTES,
    MAX_STDIO_PIECES,
    MAX_TRACEPARENT_CHARS,
    MIN_CHUNK_BYTES,
    NEED_PER_FRAME,
    PORT_NAME,
    TOKEN_PARAMETER,
    VSOCK_PARAMETER,
    VSOCK_PORT,
    check_exec_request,
)
from hpcc.wire._frame_gate import PROTOCOL_VIOLATION, FrameGate
from hpcc.wire._link import MAX_JUNK_BYTES, NONCE_BYTES, READY, TOKEN_BYTES, GuestLink, HostLink
from hpcc.wire._pipe import check_sid, daemon_pipe, pipe_sddl
from hpcc.wire._warden_share import (
    WARDEN_PID_BYTES,
    WARDEN_SHARE_HEAD_BYTES,
    decode_warden_pid,
    decode_warden_share_length,
    encode_warden_pid,
    encode_warden_share,
)

__all__ = [
    "CHUNK_BYTES",
    "CONTAINER_LINK",
    "CONTAINER_LINK_DIRECTORY",
    "CONTAINER_MEMORY_VARIABLE",
    "CONTAINER_PIDS_VARIABLE",
    "CONTAINER_TOKEN_VARIABLE",
    "ENTROPY_BYTES",
    "GUEST_ID_PATTERN",
    "MAX_DETAIL_BYTES",
    "MAX_FRAME_BYTES",
    "MAX_HEADER_FRAME_BYTES",
    "MAX_INPUT_BYTES",
    "MAX_JUNK_BYTES",
    "MAX_STDIO_PIECES",
    "MAX_TRACEPARENT_CHARS",
    "MIN_CHUNK_BYTES",
    "NEED_PER_FRAME",
    "NONCE_BYTES",
    "PORT_NAME",
    "PROTOCOL_VIOLATION",
    "READY",
    "TOKEN_BYTES",
    "TOKEN_PARAMETER",
    "VSOCK_PARAMETER",
    "VSOCK_PORT",
    "WARDEN_PID_BYTES",
    "WARDEN_SHARE_HEAD_BYTES",
    "FrameGate",
    "GuestLink",
    "HostLink",
    "check_exec_request",
    "check_sid",
    "daemon_pipe",
    "decode_warden_pid",
    "decode_warden_share_length",
    "encode_warden_pid",
    "encode_warden_share",
    "launcher",
    "pipe_sddl",
    "warden",
]
