"""How a warden that is not a fork is started, and what it receives before its frames."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcc.core import IntegrityError
from hpcc.runtime.channel.warden_windows import warden_argv, warden_label
from hpcc.wire.warden_share import (
    decode_warden_pid,
    decode_warden_share_length,
    encode_warden_pid,
    encode_warden_share,
)


def test_a_pid_and_a_share_arrive_as_they_were() -> None:
    assert decode_warden_pid(encode_warden_pid(4_000_000_000)) == 4_000_000_000
    message = encode_warden_share(b"x" * 628)
    assert decode_warden_share_length(message[:2]) == 628 == len(message[2:])


@pytest.mark.parametrize("data", [b"", b"\0\0\0\0", b"abc", b"abcde"])
def test_what_is_no_pid_is_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        decode_warden_pid(data)


@pytest.mark.parametrize("data", [b"", b"\0\0", b"\x01", b"\x01\x04", b"abc"])
def test_a_share_that_is_too_long_or_none_is_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        decode_warden_share_length(data)
    with pytest.raises(IntegrityError):
        encode_warden_share(bytes(1025) if data else b"")


def test_a_warden_is_started_with_little_and_in_a_job() -> None:
    argv = warden_argv(Path("stub"), "python.exe", Path("main.py"))
    at = argv.index("--")
    assert argv[:2] == ["stub", "run"]
    assert argv[argv.index("--restricted") + 1] == "low"
    assert {"--memory", "--processes"} <= set(argv[:at])
    assert argv[at + 1 :] == ["python.exe", "-I", "-B", "main.py"]
    assert warden_label() == "low-integrity"
