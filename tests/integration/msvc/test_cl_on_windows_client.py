r"""A client with Windows paths, and a guest whose root is C:\src, around the real clang-cl.

Everything between client and guest is real; `hpcc_testkit.windows.cl_drive` has the client.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from hpcc.cache.base.api import Done, Exec, RemoteClient
from hpcc.cache.base.counters import Counters
from hpcc.cache.remote.cl_plan import ClCompile
from hpcc.compilers.msvc.family import image_version
from hpcc.config.farm_session import FarmSession
from hpcc.config.paths import Paths
from hpcc.config.settings import RemoteSettings, Settings
from hpcc.core import (
    Level,
    RemoteFailure,
    RemoteOutcome,
    RemoteRequest,
    Toolchain,
    WindowsPath,
    compare,
)
from hpcc.core.toolchain import Family
from hpcc.dispatch.remote import start_remote
from hpcc.dispatch.remote_inside import InsideClient
from hpcc_testkit.cache.compiles import FakeRemote, farm_session
from hpcc_testkit.farm.in_process import FarmUnderTest, farm_under_test
from hpcc_testkit.windows.cl_drive import (
    ARGV,
    REPORTED,
    Drive,
    checkout,
    client_of,
    posix,
    request_in,
)
from hpcc_testkit.windows.image import windows_image

pytestmark = pytest.mark.timeout(200)


class OnDrive:
    """The connection to the farm, with inputs at their paths on this machine."""

    def __init__(self, remote: RemoteClient) -> None:
        self._remote = remote
        self.farm, self.session, self.close = remote.farm, remote.session, remote.close

    def compile(self, request: RemoteRequest, is_cancelled: Callable[[], bool]) -> RemoteOutcome:
        inputs = tuple(replace(i, host_path=posix(i.host_path)) for i in request.inputs)
        return self._remote.compile(replace(request, inputs=inputs), is_cancelled)


def compile_all(directory: Path, farm: FarmUnderTest, drive: Drive) -> list[tuple[bytes, Counters]]:
    """Compile in checkouts whose paths differ in case, each with a separate client."""
    found = []
    for name, program, *case in (
        ("one", "cl.exe"), ("Two", "cl.exe", "Inc", "X.c"), ("three", "clang-cl.exe"),
    ):  # fmt: skip
        root = checkout(directory / name, *case)
        reported = REPORTED if program == "cl.exe" else ()
        paths = Paths.from_env({"HPCC_DIR": str(directory / f"{name}-home")})
        paths.farm_file.parent.mkdir(parents=True)
        paths.farm_file.write_text(farm.farm().to_json())
        remote = OnDrive(
            InsideClient(paths, Settings()) if reported else start_remote(paths, Settings())
        )
        counters = Counters(str(directory / f"{name}-counters"), now=lambda: 0.0)
        client = client_of(remote, drive, counters)
        try:
            request = request_in(root, *ARGV, *reported, program=program)
            done = client.begin(ClCompile(request, root), lambda: False)
        finally:
            remote.close()
        assert done == Done(0, b"", b""), (done, counters.snapshot())
        found.append(((directory / name / "X.obj").read_bytes(), counters))
        if reported:
            data = json.loads((directory / name / "x.json").read_text())["Data"]
            assert (data["Source"], data["Includes"]) == (f"{root}\\x.c", [f"{root}\\inc\\h.h"])
    return found


@pytest.fixture
def drive(programs: Path) -> Drive:
    return Drive(programs / "clang-cl")


async def test_objects_of_guests_are_the_compilers_and_serve_other_checkouts(
    tmp_path: Path, drive: Drive
) -> None:
    async with farm_under_test(tmp_path / "farm") as farm:
        farm.runtime.guest_class = windows_image(drive.clang_cl)
        async with farm.serving():
            found = await asyncio.to_thread(compile_all, tmp_path / "w", farm, drive)
        counted = [c.snapshot() for _, c in found]
        assert [c.get("miss.remote.executed", 0) for c in counted] == [1, 0, 1]
        assert counted[1]["miss.remote.cached"] == 1
        assert [r.cache_status for r in farm.audit.rows] == ["executed", "hit", "executed"]
        rows = [" ".join(row.argv) for row in farm.audit.rows]
        assert "-experimental:deterministic -pathmap:C:\\src=. -wd5049" in rows[0]
        assert "-clang:-ffile-prefix-map=C:\\src=." in rows[2]
    argv: list[str | Path] = [drive.clang_cl, "/nologo", "/c", "/O1", "/Brepro", "-Iinc", "x.c"]
    await asyncio.to_thread(lambda: subprocess.run(argv, cwd=tmp_path / "w/one", check=True))
    assert {data for data, _ in found} == {(tmp_path / "w/one/x.obj").read_bytes()}


def planned(
    drive: Drive, root: WindowsPath, *argv: str, **more: str
) -> tuple[Done | Exec | None, FakeRemote]:
    remote = FakeRemote()
    client = client_of(remote, drive, Counters(tempfile.mktemp(), now=lambda: 0.0))
    remote.failure = RemoteFailure("no", "no")
    return client.begin(ClCompile(request_in(root, *argv, **more), root), lambda: False), remote


@pytest.mark.parametrize("version", ["191627050", "193833130"])
def test_files_are_known_without_english_whatever_the_version(
    tmp_path: Path, drive: Drive, version: str
) -> None:
    drive.msc_version = version
    root = checkout(tmp_path / "p")
    _, remote = planned(drive, root, *ARGV)
    (request,) = remote.requests
    assert [i.path for i in request.inputs] == ["inc/h.h", "x.c"]
    assert request.folds_case
    assert request.outputs == ("X.obj",)
    assert request.argv[:6] == (
        "cl.exe", "/nologo", "/c", "/O1", "-IC:\\src\\inc", "-FoC:\\src\\X.obj",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("files", "argv", "env", "reason"),
    [
        ({"x.c": "const char *t = __TIME__;\n"}, ARGV, {}, "date-time"),
        ({"x.c": "#define H <y.h>\n#if __has_include(H)\n#endif\n"}, ARGV, {}, "has-include"),
        ({"x.c": '#if __has_include("../y.h")\n#endif\n'}, ARGV, {}, "has-include"),
        ({"../o.h": "", "x.c": '#include "../o.h"\n'}, ARGV, {}, "outside-root"),
        ({"x.c": "#error no\n"}, ARGV, {}, "dependencies-failed"),
        ({}, (*ARGV[:-1], "\\\\server\\x.c"), {}, "windows-path"),
        ({}, (*ARGV, "/Zi"), {}, "pdb"),
        ({}, (*ARGV, "/FC"), {}, "full-paths"),
        ({}, (*ARGV, "/Yuh.h"), {}, "pch"),
        ({}, ARGV, {"_CL_": "y.c"}, "multiple-sources"),
        ({}, ARGV, {"VS_UNICODE_OUTPUT": "1"}, "environment"),
        ({}, ARGV, {"CCC_OVERRIDE_OPTIONS": "+-DX"}, "environment"),
        ({}, (*ARGV, "@args.rsp"), {}, "response-file"),
    ],
)  # fmt: skip
def test_what_cannot_run_in_a_guest_is_left_to_the_compiler(
    tmp_path: Path,
    drive: Drive,
    files: dict[str, str],
    argv: tuple[str, ...],
    env: dict[str, str],
    reason: str,
) -> None:
    root = checkout(tmp_path / "p")
    for name, text in files.items():
        (tmp_path / "p" / name).write_text(text)
    answer, remote = planned(drive, root, *argv, **env)
    assert answer == Exec(reason)
    assert not remote.requests


@pytest.mark.parametrize("flag", ["/MP", "/MP4", "/Oi"])
def test_a_flag_of_the_table_is_no_piece_of_a_clock(
    tmp_path: Path, drive: Drive, flag: str
) -> None:
    root = checkout(tmp_path / "p")
    _, remote = planned(drive, root, flag, *ARGV)
    assert len(remote.requests) == 1


@pytest.mark.parametrize("flag", ["/DX=__DA##TE__", "/D__TIME__", "/FI__DATE__"])
def test_a_flag_with_text_may_be_one(tmp_path: Path, drive: Drive, flag: str) -> None:
    root = checkout(tmp_path / "p")
    answer, remote = planned(drive, root, flag, *ARGV)
    assert answer == Exec("date-time")
    assert not remote.requests


def test_clang_cl_names_files_in_utf_8_whatever_the_console(tmp_path: Path, drive: Drive) -> None:
    root = checkout(tmp_path / "Jürgen/漢字", "größe")
    argv = tuple(a.replace("\\inc", "\\größe") for a in ARGV)
    _, remote = planned(drive, root, *argv, program="clang-cl.exe")
    assert [i.path for i in remote.requests[0].inputs] == ["größe/h.h", "x.c"]


def test_a_file_that_is_only_asked_for_is_sent_too(tmp_path: Path, drive: Drive) -> None:
    root = checkout(tmp_path / "p")
    (tmp_path / "p/x.c").write_text(
        "#if __has_include(<y.h>) && __has_include(<z.h>)\n#error both\n#endif\nint x;\n"
    )
    _, remote = planned(drive, root, *ARGV)
    assert [i.path for i in remote.requests[0].inputs] == ["x.c"]
    (tmp_path / "p/inc/Y.h").write_text("never read\n")
    _, remote = planned(drive, root, *(a.replace("X.obj", "Z.obj") for a in ARGV))
    assert [i.path for i in remote.requests[0].inputs] == ["inc/y.h", "x.c"]


def image_with(*versions: str, target: str = "x64", family: Family = "msvc") -> FarmSession:
    return farm_session(
        *(
            Toolchain(names=("cl",), family=family, version=v, target=target, build="0")
            for v in versions
        )
    )


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (image_with("19.38.33130"), None),
        (image_with("19.29.30154", "19.38.33130"), None),  # each in a directory named after it
        (image_with("19.38.33133"), b"cl of image toolchain@sha256:aaaaaaaaaaaa is msvc 19.38.33133"),
        (image_with("19.38.33130", target="arm64"), b"msvc 19.38.33130 (0) for arm64"),
        (image_with("19.1.7", family="clang-cl"), b"call clang-cl 19.1 for x64 here"),
        (farm_session(), b"it has no compiler that answers"),
    ],
)  # fmt: skip
def test_a_policy_of_equal_compilers_keeps_others_here(
    tmp_path: Path, drive: Drive, image: FarmSession, said: bytes | None
) -> None:
    remote = FakeRemote()
    remote.said, remote.failure = image, RemoteFailure("no", "no")
    counters = Counters(str(tmp_path / "counters"), now=lambda: 0.0)
    settings = RemoteSettings(parity="refuse", fallback="never")
    client = client_of(remote, drive, counters, settings)
    root = checkout(tmp_path / "p")
    compiled = ClCompile(request_in(root, *ARGV), root)
    done = client.begin(compiled, lambda: False)
    assert isinstance(done, Done)
    if said is None:
        (request,) = remote.requests
        assert request.injected
        return
    assert said in done.stderr
    assert b'set parity = "warn"' in done.stderr
    assert counters.snapshot()["fallback.parity"] == 1
    assert not remote.requests


@pytest.mark.parametrize("name", ["clang-cl", "cl"])
def test_of_several_clang_the_worst_counts(name: str) -> None:
    def of(family: Family, version: str) -> Toolchain:
        return Toolchain(names=(name,), family=family, version=version, target="x64")

    for family in ("clang-cl", "msvc"):
        image = [of(cast("Family", family), v) for v in ("19.38.1", "17.1.1")]
        # Directories of LLVM are not named after the version, and those of Microsoft are.
        assert compare(name, image[0], image).is_exact is False
        expected = Level.EXACT if family == "msvc" else Level.OTHER
        assert compare(name, image[0], image).level is expected
        assert compare(name, image[1], image).level is expected
        if name == "clang-cl" and family == "msvc":
            continue  # such a name is that of no cl
        version = image_version(name.encode(), image, (17, 1, 1))
        assert version == ((17, 1, 1) if family == "msvc" else (19, 38, 1))


def test_an_image_that_nobody_has_asked_is_not_refused(tmp_path: Path, drive: Drive) -> None:
    remote = FakeRemote()
    remote.failure = RemoteFailure("no", "no")
    settings = RemoteSettings(parity="refuse")
    client = client_of(remote, drive, Counters(tempfile.mktemp(), now=lambda: 0.0), settings)
    root = checkout(tmp_path / "p")
    for said in (None, replace(image_with("19.1.7"), compilers=None)):
        remote.said = said
        client.begin(ClCompile(request_in(root, *ARGV), root), lambda: False)
    assert len(remote.requests) == 2


def test_a_link_out_of_the_project_stays_here(tmp_path: Path, drive: Drive) -> None:
    root = checkout(tmp_path / "p")
    (tmp_path / "secret.h").write_text("")
    (tmp_path / "p/inc/h.h").unlink()
    (tmp_path / "p/inc/h.h").symlink_to(tmp_path / "secret.h")
    (tmp_path / "p/x.c").write_text('#include "h.h"\n')
    answer, _ = planned(drive, root, *ARGV)
    assert answer == Exec("symlink-outside-root")


def test_headers_of_the_installation_are_the_images(tmp_path: Path, drive: Drive) -> None:
    root = checkout(tmp_path / "p")
    (tmp_path / "sdk").mkdir()
    (tmp_path / "sdk/s.h").write_text("")
    (tmp_path / "p/x.c").write_text("#include <s.h>\n#include <h.h>\nint x = X;\n")
    sdk = "Z:" + str(tmp_path / "SDK").replace("/", "\\")
    argv = (*ARGV, f"/I{sdk}")
    answer, remote = planned(drive, root, *argv, WindowsSdkDir=sdk + "\\", INCLUDE=sdk)
    assert [i.path for i in remote.requests[0].inputs] == ["inc/h.h", "x.c"], answer
    assert f"-I{sdk}" in remote.requests[0].argv
    path = "Z:\\VC\\bin;C:\\Windows\\System32;C:\\Windows"
    assert remote.requests[0].env == (("INCLUDE", sdk), ("PATH", path))
    assert planned(drive, root, *ARGV, INCLUDE="C:\\vcpkg")[0] == Exec("environment")
    kits = "D:\\PROGRAM FILES\\Kits"
    _, remote = planned(drive, root, *argv, WindowsSdkDir=sdk, INCLUDE=kits)
    assert remote.requests[0].env[0] == ("INCLUDE", kits)
    assert planned(drive, root, *argv)[0] == Exec("outside-root")
    inside = f"{root}\\inc".upper()
    assert planned(drive, root, *ARGV, INCLUDE=f"C:\\x;{inside}")[0] == Exec("environment")


def test_clang_in_cl_mode_is_clang_cl(tmp_path: Path, drive: Drive) -> None:
    root = checkout(tmp_path / "p")
    argv = ("--driver-mode=cl", *ARGV)
    _, remote = planned(drive, root, *argv, program="clang.exe")
    assert "-clang:-fno-file-reproducible" in remote.requests[0].injected
    assert planned(drive, root, *ARGV, program="clang.exe")[0] == Exec("other-compiler")


def test_a_machine_that_cannot_be_asked_costs_no_build(tmp_path: Path, drive: Drive) -> None:
    root = checkout(tmp_path / "p")
    drive.write = refuse
    assert planned(drive, root, *ARGV)[0] == Exec("dependencies-failed")


def refuse(path: str, data: bytes) -> None:
    raise OSError(f"no room for {len(data)} bytes at {path}")
