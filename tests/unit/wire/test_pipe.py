"""The daemon's named pipe: its name, its descriptor, and requests with Windows paths."""

from __future__ import annotations

import pytest

from hpcc.core import CallerError
from hpcc.wire import launcher
from hpcc.wire.pipe import check_sid, daemon_pipe, pipe_sddl

SID = "S-1-5-21-1004336348-1177238915-682003330-512"


def test_each_user_and_each_directory_has_a_pipe_of_its_own() -> None:
    names = {
        daemon_pipe(SID),
        daemon_pipe(SID[:-1]),
        daemon_pipe(SID, "C:\\h"),
        daemon_pipe(SID, "D:"),
    }
    assert len(names) == 4
    assert all(n.startswith("\\\\.\\pipe\\hpcc-") and len(n) == 30 for n in names)


def test_only_its_owner_may_open_the_pipe_and_nobody_from_the_network() -> None:
    assert pipe_sddl(SID) == f"O:{SID}D:P(D;;GA;;;NU)(A;;GA;;;{SID})"


@pytest.mark.parametrize(
    "sid",
    ["", "WD", "S-1-5", f"{SID})(A;;GA;;;WD", f"{SID}\n", "S-1-5-" + "1-" * 16 + "1", "S-1-5-x"],
)
def test_a_sid_that_would_widen_the_descriptor_is_refused(sid: str) -> None:
    with pytest.raises(CallerError) as caught:
        check_sid(sid)
    assert caught.value.reason == "bad-sid"


def request_with(compiler: bytes, cwd: bytes) -> bytes:
    request = launcher.LauncherRequest(
        b"1", compiler, cwd, (b"cl",), (), 0, 0, False, (1, 2), (0, 0), (0, 0)
    )
    return launcher.encode_request(request)[launcher.HEADER_BYTES :]


def test_over_a_pipe_paths_begin_with_a_drive() -> None:
    body = request_with(b"C:\\b\\cl.exe", b"d:/w")
    assert launcher.decode_request(body, is_windows=True).cwd == b"d:/w"
    with pytest.raises(CallerError):
        launcher.decode_request(body)


@pytest.mark.parametrize("path", [b"/usr/bin/cc", b"C:cl.exe", b"\\\\srv\\cl.exe", b"cl.exe", b""])
def test_another_path_is_refused_over_a_pipe(path: bytes) -> None:
    for compiler, cwd in ((path, b"C:\\"), (b"C:\\cl.exe", path)):
        with pytest.raises(CallerError):
            launcher.decode_request(request_with(compiler, cwd), is_windows=True)
    with pytest.raises(CallerError):
        launcher.encode_run(launcher.LauncherRun((path,), filter_headers=False), is_windows=True)
