"""A guest's description of its compilers is hostile input; the stored part is checked again."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hpcc.compilers.probe import MAX_PREPROCESSED_BYTES, PROBE_FORMAT
from hpcc.compilers.windows_probe import describe_question
from hpcc.core import (
    MAX_TOOLCHAINS,
    ExecEvent,
    ExecRequest,
    ImageDigest,
    OutputEvent,
    ResultEvent,
    StdioEvent,
    Toolchain,
)
from hpcc.images.survey import AnswerKind, SurveyLog
from hpcc.images.toolchains import label_trouble, probe_guest, read_toolchains, write_toolchains
from hpcc.ports import BlobSource, GuestLostError
from hpcc_testkit.guests.fake_runtime import FakeGuest

DIGEST = ImageDigest("sha256:" + "ab" * 32)
ABOUT = b"Target: x86_64-linux-gnu\ngcc version 14.2.0 (Debian 14.2.0-19)\n"
GCC = Toolchain(
    names=("gcc",), family="gcc", version="14.2.0", build="Debian 14.2.0-19",
    target="x86_64-linux-gnu", probe=PROBE_FORMAT,
)  # fmt: skip
ENDED = ResultEvent(exit_code=0)
ABSENT = ResultEvent(exit_code=127, reason="no-such-program")
Says = Callable[[tuple[str, ...]], list[ExecEvent]]


class Guest(FakeGuest):
    """Gives the answers that the test sets."""

    def __init__(self, says: Says) -> None:
        self.says = says
        self.asked: list[tuple[str, ...]] = []

    async def exec(self, request: ExecRequest, blobs: BlobSource) -> AsyncGenerator[ExecEvent]:
        del blobs
        self.asked.append(request.argv)
        for event in self.says(request.argv):
            yield event


def listing(lines: bytes, about: bytes = ABOUT) -> Says:
    def says(argv: tuple[str, ...]) -> list[ExecEvent]:
        stream = StdioEvent("stdout", lines) if argv[0] == "sh" else StdioEvent("stderr", about)
        return [stream, ENDED]

    return says


async def test_names_of_one_program_are_one_compiler() -> None:
    lines = b"/usr/bin/gcc /usr/bin/gcc\n/usr/bin/cc /usr/bin/gcc\n/usr/bin/g++ /usr/bin/g++\n"
    lines += b"/bin/gcc /usr/bin/gcc\n"
    guest = Guest(listing(lines))
    found = await probe_guest(guest)
    assert [t.names for t in found] == [("gcc", "cc", "g++")]  # g++ says the same here
    assert [argv[0] for argv in guest.asked] == ["sh", "gcc", "g++"]


async def test_clang_and_clang_cl_are_one_file_and_two_compilers() -> None:
    lines = b"/usr/bin/clang-19 /usr/bin/clang-19\n/usr/bin/clang-cl-19 /usr/bin/clang-19\n"
    about = b"Debian clang version 19.1.7 (3+b1)\nTarget: x86_64-pc-windows-msvc\n"
    guest = Guest(listing(lines, about))
    found = await probe_guest(guest)
    assert [(t.names, t.family) for t in found] == [
        (("clang-19",), "clang"), (("clang-cl-19",), "clang-cl"),
    ]  # fmt: skip
    assert guest.asked[2] == (
        "clang-cl-19", "-v", "-P", "-Fiprobe.i", "-clang:-dD", "--", "probe.c",
    )  # fmt: skip


async def test_analysers_are_asked_by_the_shell_and_last() -> None:
    lines = b"/usr/bin/clang-tidy-19 /usr/bin/clang-tidy-19\n/usr/bin/gcc /usr/bin/gcc\n"
    tidy = b"Debian clang version 19.1.7 (3+b1)\nTarget: x86_64-pc-linux-gnu\n"

    def says(argv: tuple[str, ...]) -> list[ExecEvent]:
        if argv[0] == "gcc":
            return [StdioEvent("stderr", ABOUT), ENDED]
        if len(argv) == 3:
            return [StdioEvent("stdout", lines), ENDED]
        output = OutputEvent("probe.i", b"/x\nint x;\n", is_executable=False, last=True)
        return [StdioEvent("stderr", tidy), ENDED, output]

    guest = Guest(says)
    found = await probe_guest(guest)
    assert [(t.names, t.family) for t in found] == [
        (("gcc",), "gcc"), (("clang-tidy-19",), "clang-tidy"),
    ]  # fmt: skip
    assert len(found[1].headers) == 1
    assert guest.asked[2][3:] == ("probe", "clang-tidy-19", "probe.cc", "probe.i")


async def test_an_analyser_that_tells_nothing_keeps_no_image_from_being_understood() -> None:
    lines = b"/usr/bin/gcc /usr/bin/gcc\n/usr/bin/cppcheck /usr/bin/cppcheck\n"
    log = SurveyLog()
    # cppcheck prints the listing here instead of an answer.
    found = await probe_guest(Guest(listing(lines)), log)
    assert [t.names for t in found] == [("gcc",)]
    assert log.survey.is_understood


async def test_an_image_without_shell_and_compiler_has_none() -> None:
    guest = Guest(lambda _: [ABSENT])
    assert await probe_guest(guest) == ()
    assert len(guest.asked) == 9


async def test_an_image_without_a_shell_is_asked_for_the_plain_names() -> None:
    def says(argv: tuple[str, ...]) -> list[ExecEvent]:
        return [StdioEvent("stderr", ABOUT), ENDED] if argv[0] == "gcc" else [ABSENT]

    assert [t.names for t in await probe_guest(Guest(says))] == [("gcc",)]


def windows_says(listed: bytes, about: dict[str, bytes]) -> Says:
    """Answer as a guest with Windows; `about` has what the program of a path prints."""

    def says(argv: tuple[str, ...]) -> list[ExecEvent]:
        if argv[0] == "cmd.exe":
            return [StdioEvent("stdout", listed), ENDED]
        said = about.get(argv[0])
        return [ABSENT] if said is None else [StdioEvent("stdout", said), ENDED]

    return says


VS = "C:\\Program Files (x86)\\VS\\VC\\Tools\\MSVC\\14.38.33130\\bin\\"


async def test_a_guest_with_windows_is_asked_for_each_compiler_by_its_path() -> None:
    cl = b"HPCC_PROBE cl 193833130\r\nHPCC_BUILD 1\r\nHPCC_TARGET %b\r\n"
    clang = b'HPCC_PROBE clang 19 1 7\r\nHPCC_BUILD "19.1.7 (vendor)"\r\nHPCC_TARGET x64\r\n'
    about = {
        f"{VS}Hostx64\\x64\\cl.exe": cl % b"x64",
        f"{VS}Hostx86\\x64\\CL.exe": cl % b"x64",
        f"{VS}Hostx64\\x86\\cl.exe": cl % b"x86",
        "C:\\LLVM\\bin\\clang-cl.exe": clang,
        "C:\\LLVM\\bin\\clang.exe": clang,
    }
    for_arm = f"{VS}Hostarm64\\x64\\cl.exe"  # it does not start here
    lines = "".join(f"{path}\r\n" for path in (*about, for_arm)).encode()
    guest, log = Guest(windows_says(lines, about)), SurveyLog()
    found = await probe_guest(guest, log)
    assert [(t.names, t.family, t.version, t.build, t.target) for t in found] == [
        (("cl",), "msvc", "19.38.33130", "1", "x64"),
        (("cl",), "msvc", "19.38.33130", "1", "x86"),
        (("clang-cl", "clang"), "clang-cl", "19.1.7", "(vendor)", "x64"),
    ]
    assert [a[0] for a in guest.asked] == ["sh", "cmd.exe", *about, for_arm]
    assert guest.asked[6][1:] == ("--driver-mode=cl", "-nologo", "-EP", "v.c")
    assert log.survey.is_understood


@pytest.mark.parametrize(
    "lines",
    [
        b"", b"\\\\server\\share\\cl.exe\r\n", b"C:cl.exe", b"cl.exe", b"D:\\x\\cl.exe",
        b"C:\\x\\cl.exe:stream", b"C:\\x\\\x1b[2Jcl.exe", b"C:\\x\\cl.exe & del x", b"C:\\x/y\\cl.exe",
        b"C:\\" + b"x" * 300 + b"\\cl.exe", "C:\\Jürgen\\cl.exe".encode("cp850"),
    ],
)  # fmt: skip
async def test_odd_lines_of_a_guest_with_windows_are_no_programs(lines: bytes) -> None:
    guest, log = Guest(windows_says(lines, {})), SurveyLog()
    assert await probe_guest(guest, log) == ()
    assert [a[0] for a in guest.asked] == ["sh", "cmd.exe"]
    assert log.survey.is_complete
    assert not log.survey.is_understood


async def test_a_guest_with_windows_and_no_end_of_compilers() -> None:
    lines = b"".join(b"C:\\%d\\cl.exe\r\n" % n for n in range(1000))
    guest, log = Guest(windows_says(lines, {})), SurveyLog()
    await probe_guest(guest, log)
    assert len(guest.asked) == 2 + 48
    assert not log.survey.is_complete  # those that were not asked are not absent


async def test_many_compilers_of_windows_that_are_equal_are_few() -> None:
    paths = [f"C:\\{n}\\cl.exe" for n in range(40)]
    cl = b"HPCC_PROBE cl 1938331%02d\r\nHPCC_BUILD 1\r\nHPCC_TARGET x64\r\n"
    lines = "\r\n".join(paths).encode()
    for kinds, is_whole in ((MAX_TOOLCHAINS, True), (MAX_TOOLCHAINS + 1, False)):
        about = {path: cl % (n % kinds) for n, path in enumerate(paths)}
        log = SurveyLog()
        found = await probe_guest(Guest(windows_says(lines, about)), log)
        assert len(found) == MAX_TOOLCHAINS
        assert log.survey.is_understood is is_whole


async def test_a_program_of_windows_that_fails_is_not_a_compiler() -> None:
    good, bad = "C:\\a\\cl.exe", "C:\\VC\\bin\\Hostx64\\x86\\cl.exe"
    cl = b"HPCC_PROBE cl 193833130\r\nHPCC_BUILD 1\r\nHPCC_TARGET x64\r\n"
    listed = windows_says(f"{good}\r\n{bad}".encode(), {good: cl})

    def says(argv: tuple[str, ...]) -> list[ExecEvent]:
        return [ResultEvent(exit_code=255)] if argv[0] == bad else listed(argv)

    log = SurveyLog()
    assert len(await probe_guest(Guest(says), log)) == 1
    assert log.survey.is_understood


def test_a_cross_compiler_finds_the_libraries_of_its_host() -> None:
    bin_, windows = "C:\\VC\\bin", "C:\\Windows\\System32;C:\\Windows"
    for home, path in (
        (f"{bin_}\\Hostx64\\x86", f"{bin_}\\Hostx64\\x86;{bin_}\\Hostx64\\x64"),
        (f"{bin_}\\Hostx64\\x64", f"{bin_}\\Hostx64\\x64"),
        (f"{bin_}", f"{bin_}"),
    ):
        assert describe_question(f"{home}\\cl.exe").env == (("PATH", f"{path};{windows}"),)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (b"", AnswerKind.FOREIGN),
        (b"HPCC_PROBE cl 193833130\r\n", AnswerKind.FOREIGN),
        (b"HPCC_PROBE cl 19\r\nHPCC_BUILD 1\r\nHPCC_TARGET x64\r\n", AnswerKind.FOREIGN),
        (b"HPCC_PROBE cl 193833130\nHPCC_BUILD \xff\nHPCC_TARGET x64\n", AnswerKind.FOUND),
    ],
)
async def test_what_a_program_of_windows_prints_is_checked(said: bytes, kind: AnswerKind) -> None:
    path, log = "C:\\x\\cl.exe", SurveyLog()
    await probe_guest(Guest(windows_says(path.encode(), {path: said})), log)
    assert [a.kind for a in log.survey.answers] == [AnswerKind.FOUND, kind]


async def test_a_list_that_windows_did_not_end_proves_nothing() -> None:
    def says(argv: tuple[str, ...]) -> list[ExecEvent]:
        late = ResultEvent(exit_code=124, reason="deadline")
        return [late] if argv[0] == "cmd.exe" else [ABSENT]

    log = SurveyLog()
    assert await probe_guest(Guest(says), log) == ()
    assert not log.survey.is_complete


@pytest.mark.parametrize(
    "lines",
    [
        b"/usr/bin/gcc-ar /usr/bin/gcc-ar\n",
        b"/etc/gcc /etc/gcc\n",
        b"/usr/bin/../../gcc /x\n",
        b"/usr/bin/gcc\x1b[2J /x\n",
        b"gcc\n",
        b"\xff\xfe\n",
    ],
)
async def test_a_listing_of_nonsense_names_no_program(lines: bytes) -> None:
    guest = Guest(listing(lines))
    await probe_guest(guest)
    assert {argv[0] for argv in guest.asked} == {
        "sh",
        "gcc",
        "g++",
        "cc",
        "c++",
        "clang",
        "clang++",
        "clang-cl",
    }


async def test_a_listing_without_end_starts_few_programs() -> None:
    lines = b"".join(b"/usr/bin/gcc-%d /usr/bin/gcc-%d\n" % (n, n) for n in range(20_000))
    guest = Guest(listing(lines))
    (only,) = await probe_guest(guest)
    assert len(guest.asked) <= 17
    assert len(only.names) <= 32


async def test_a_compiler_that_says_nonsense_is_left_out() -> None:
    guest = Guest(listing(b"/usr/bin/gcc /usr/bin/gcc\n", b"\x1b]0;owned\x07"))
    assert await probe_guest(guest) == ()


@pytest.mark.parametrize(
    "event",
    [
        OutputEvent("other.i", b"x", is_executable=False, last=True),
        StdioEvent("stdout", b"x" * (1 << 20) + b"x"),
        OutputEvent("probe.i", b"x" * (MAX_PREPROCESSED_BYTES + 1), is_executable=False, last=True),
    ],
)
async def test_a_guest_that_sends_more_than_it_was_asked_for_is_given_up(event: ExecEvent) -> None:
    with pytest.raises(GuestLostError):
        await probe_guest(Guest(lambda _: [event, ENDED]))


def test_what_a_probe_found_is_kept_for_its_image_alone(tmp_path: Path) -> None:
    path = tmp_path / "found"
    assert read_toolchains(path, DIGEST) is None
    write_toolchains(path, DIGEST, (GCC,))
    assert read_toolchains(path, DIGEST) == (GCC,)
    assert read_toolchains(path, ImageDigest("sha256:" + "cd" * 32)) is None
    # What an earlier release kept of a guest that answered nothing in time.
    write_toolchains(path, DIGEST, ())
    assert read_toolchains(path, DIGEST) is None


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b"[" * 9999, b"\xff", b" " * (1 << 20)])
def test_a_damaged_answer_is_asked_for_again(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "found"
    path.write_bytes(raw)
    assert read_toolchains(path, DIGEST) is None


def test_an_answer_to_another_probe_is_asked_for_again(tmp_path: Path) -> None:
    path = tmp_path / "found"
    write_toolchains(path, DIGEST, (GCC,))
    assert read_toolchains(path, DIGEST) == (GCC,)
    good = json.loads(path.read_text())
    for other in ({**good, "probe": PROBE_FORMAT + 1}, {k: good[k] for k in good if k != "asked"}):
        path.write_text(json.dumps(other))
        assert read_toolchains(path, DIGEST) is None


def test_a_label_is_a_claim_that_the_probe_confirms_or_not() -> None:
    claim = {"io.hpcc.toolchain.id": "gcc", "io.hpcc.toolchain.version": "14.2.0"}
    assert label_trouble({}, [GCC]) == ""
    assert label_trouble(claim, [replace(GCC, version="13.1.0"), GCC]) == ""
    lie = label_trouble({**claim, "io.hpcc.toolchain.version": "15.1.0"}, [GCC])
    assert "version '15.1.0'" in lie
    assert label_trouble(claim, []) != ""
