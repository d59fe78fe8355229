"""hpcc.exe, the Windows launcher, under Wine: what it runs and prints, which servers it trusts."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpcc.wire import launcher
from hpcc.wire.build_facts import decode_facts
from hpcc.wire.launcher_version import encode_version
from hpcc.wire.pipe import daemon_pipe, pipe_sddl
from hpcc_testkit.cache.launcher import ROOT, build_windows_launcher
from hpcc_testkit.windows.wine import Wine, cross_build

pytestmark = pytest.mark.timeout(500)
_HERE = Path(__file__).parent
# Stands in for a compiler: prints its arguments in hex, one a line. `fail CODE` sets the exit code.
_COMPILER = r"""
#include <stdio.h>
#include <stdlib.h>
#include <windows.h>
#include <shellapi.h>
int main(void) {
    int argc;
    wchar_t **argv = CommandLineToArgvW(GetCommandLineW(), &argc);
    wchar_t line[] = L"cl stays-behind", self[1024];
    STARTUPINFOW startup = {.cb = sizeof startup};
    PROCESS_INFORMATION left;
    if (argc > 1 && !wcscmp(argv[1], L"stays-behind")) Sleep(300000);
    if (argc > 1 && !wcscmp(argv[1], L"leaves")) { /* a process with our streams, as cl leaves mspdbsrv */
        GetModuleFileNameW(NULL, self, 1024);
        return CreateProcessW(self, line, NULL, NULL, TRUE, 0, NULL, NULL, &startup, &left) ? 6 : 7;
    }
    for (int i = 1; i < argc; i++) {
        for (wchar_t *c = argv[i]; *c; c++) printf("%04x", *c);
        printf(";\n");
    }
    fprintf(stderr, "compiled%s\n", getenv("VS_UNICODE_OUTPUT") ? " for Visual Studio" : "");
    return argc > 1 && !wcscmp(argv[1], L"fail") ? (int)wcstoul(argv[2], NULL, 0) : 0;
}
"""


@dataclass
class Desk:
    """A working directory, and the programs: launcher, server and compiler (`cl.exe`)."""

    wine: Wine
    cwd: Path
    launcher: Path
    server: Path
    compiler: Path
    sid: str

    @property
    def home(self) -> Path:
        return self.cwd / "home"

    @property
    def pipe(self) -> str:
        return daemon_pipe(self.sid, windows(self.home))

    def marks(self) -> str:
        """Return the marks that compiles without a daemon left, for the daemon to count."""
        file = self.home / "run/fallbacks"
        return file.read_text() if file.exists() else ""

    def run(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return self.wine.run(self.launcher, *arguments, cwd=self.cwd)

    @contextmanager
    def answers(self, *replies: bytes | None, sddl: str = "") -> Iterator[None]:
        """Serve one launcher; with None it gets no answer."""
        words = [sddl or pipe_sddl(self.sid)]
        for number, reply in enumerate(replies):
            words += [f"got{number}", "-" if reply is None else f"reply{number}"]
            if reply is not None:
                (self.cwd / f"reply{number}").write_bytes(reply)
        with self.wine.start(self.server, self.pipe, *words, cwd=self.cwd) as process:
            assert process.stdout is not None
            assert process.stdout.readline().split() == [b"ready"], process.stderr
            try:
                yield
            finally:
                process.kill()
                process.wait(60)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("launcher")
    build_windows_launcher(directory / "hpcc.exe")
    (directory / "compiler.c").write_text(_COMPILER)
    cross_build(directory / "compiler.c", directory / "cl.exe", "-lshell32")
    (directory / "cli.c").write_text(_CLI)
    cross_build(directory / "cli.c", directory / "cli.exe")
    cross_build(_HERE / "pipe_server.c", directory / "server.exe", "-ladvapi32")
    return directory


@pytest.fixture(scope="module")
def sid(wine: Wine, programs: Path) -> str:
    return wine.run(programs / "server.exe", "sid", cwd=programs).stdout.decode().strip()


@pytest.fixture
def desk(wine: Wine, programs: Path, sid: str, tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(
        wine, tmp_path, programs / "hpcc.exe", programs / "server.exe", programs / "cl.exe", sid
    )
    wine.env["HPCC_DIR"] = windows(desk.home)
    yield desk
    del wine.env["HPCC_DIR"]


# Appends what it was called with; with "1" beside it leaves the server behind, from this directory.
_CLI = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>
int main(int argc, char **argv) {
    char line[2048], path[1024], answer;
    STARTUPINFOA startup = {.cb = sizeof startup};
    PROCESS_INFORMATION left;
    GetModuleFileNameA(NULL, path, sizeof path);
    *strrchr(path, '\\') = 0;
    strcpy(line, path);
    strcat(line, "\\starts");
    FILE *log = fopen("started", "a"), *starts = fopen(line, "r");
    for (int i = 1; i < argc; i++) fprintf(log, i > 1 ? " %s" : "%s", argv[i]);
    fprintf(log, "|%s", getenv("PYTHONHOME") ? "PYTHONHOME" : "no PYTHONHOME");
    fclose(log);
    answer = (char)fgetc(starts);
    if (answer != '1') return 1;
    snprintf(line, sizeof line, "\"%s\\server.exe\" \"%s\" \"%s\" got0 \"%s\\reply0\"", path,
             getenv("HPCC_TEST_PIPE"), getenv("HPCC_TEST_SDDL"), path);
    if (!CreateProcessA(NULL, line, NULL, NULL, FALSE, 0, NULL, NULL, &startup, &left)) return 2;
    for (int i = 0; i < 200 && !WaitNamedPipeA(getenv("HPCC_TEST_PIPE"), 1); i++) Sleep(20);
    return 0;
}
"""


def place_launcher(desk: Desk, programs: Path, directory: Path, *, starts: str) -> Path:
    """Install a launcher with a stand-in for hpcc-cli.exe beside it."""
    for name in ("hpcc.exe", "server.exe", "cl.exe"):
        (directory / name).write_bytes((programs / name).read_bytes())
    (directory / "hpcc-cli.exe").write_bytes((programs / "cli.exe").read_bytes())
    (directory / "starts").write_text(starts)
    return directory / "hpcc.exe"


def windows(path: Path) -> str:
    """Return the Windows path; Wine's Z: is the root directory."""
    return "Z:" + str(path).replace("/", "\\")


def said(output: bytes) -> list[str]:
    words = [bytes.fromhex(word.decode()) for word in output.replace(b"\r\n", b"").split(b";")]
    return [word.decode("utf-16-be", "surrogatepass") for word in words[:-1]]


def test_two_builds_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.exe", "two.exe"):
        build_windows_launcher(tmp_path / name)
    assert (tmp_path / "one.exe").read_bytes() == (tmp_path / "two.exe").read_bytes()


def test_without_a_daemon_the_compiler_gets_every_argument_as_it_was(desk: Desk) -> None:
    arguments = ["", "a b", 'a"b', "a\\", "a b\\", 'a\\"b', "\\\\s\\t", "é\u4e2d", "/c", "*.c"]
    done = desk.run("wrap", windows(desk.compiler), *arguments)
    assert (done.returncode, done.stderr) == (0, b"compiled\r\n"), done
    assert said(done.stdout) == arguments


def test_the_compilers_exit_code_is_the_launchers(desk: Desk) -> None:
    done = desk.run(windows(desk.compiler), "fail", "3")
    assert done.returncode == 3, done


def test_the_compiler_is_found_on_path_past_the_launcher(
    desk: Desk, programs: Path, tmp_path: Path
) -> None:
    front, back = tmp_path / "front", tmp_path / "back"
    for directory, source in ((front, desk.launcher), (back, desk.compiler)):
        directory.mkdir()
        (directory / "cl.exe").write_bytes(source.read_bytes())
    (tmp_path / "cl.exe").write_bytes(b"planted in the working directory")
    desk.wine.env["WINEPATH"] = f"{windows(front)};{windows(back)}"
    try:
        done = desk.wine.run(front / "cl.exe", "/c", "x.c", cwd=tmp_path)
        assert said(done.stdout) == ["/c", "x.c"], done
    finally:
        del desk.wine.env["WINEPATH"]


def test_a_hit_is_printed_and_the_request_is_what_the_codec_reads(desk: Desk) -> None:
    env = desk.wine.env
    env.update({"INCLUDE": "C:\\inc", "HPCC_X": "y", "UNRELATED": "z"})
    env.update({"HPCC_BUILD": "é-7", "CI_PIPELINE_ID": "9" * 500})
    try:
        with desk.answers(launcher.encode_done(launcher.LauncherDone(2, b"out", b"err"))):
            done = desk.run(windows(desk.compiler), "/c", "é.c")
    finally:
        for name in ("INCLUDE", "HPCC_X", "UNRELATED", "HPCC_BUILD", "CI_PIPELINE_ID"):
            del desk.wine.env[name]
    assert (done.returncode, done.stdout, done.stderr) == (2, b"out", b"err")
    got = (desk.cwd / "got0").read_bytes()
    assert launcher.parse_header(got) == (launcher.REQUEST, len(got) - launcher.HEADER_BYTES)
    request = launcher.decode_request(got[launcher.HEADER_BYTES :], is_windows=True)
    assert request.build_id == launcher.BUILD_ID.encode()
    assert request.compiler == windows(desk.compiler).encode()
    assert request.cwd == windows(desk.cwd).encode()
    assert request.argv == (windows(desk.compiler).encode(), b"/c", "é.c".encode())
    sent = dict(request.env)
    assert (sent[b"INCLUDE"], sent[b"HPCC_X"]) == (b"C:\\inc", b"y")
    assert b"PATH" in sent
    assert b"UNRELATED" not in sent
    assert b"HPCC_BUILD" not in sent
    facts = decode_facts(request.facts)
    assert facts == {b"HPCC_BUILD": "é-7".encode(), b"CI_PIPELINE_ID": b"9" * 193}
    assert request.cwd_id != (0, 0)


def test_a_run_is_reported_and_ends_as_the_compiler_did(desk: Desk) -> None:
    argv = (windows(desk.compiler).encode(), b"fail", b"5")
    order = launcher.encode_run(launcher.LauncherRun(argv, filter_headers=False), is_windows=True)
    with desk.answers(order, launcher.encode_finish(b"", b"more")):
        done = desk.run(windows(desk.compiler), "/c", "x.c")
    assert done.returncode == 5, done
    assert (said(done.stdout), done.stderr) == (["fail", "5"], b"compiled\r\nmore")
    report = launcher.decode_report((desk.cwd / "got1").read_bytes()[launcher.HEADER_BYTES :])
    assert (report.exit_code, report.stdout, report.stderr) == (5, done.stdout, b"compiled\r\n")


def test_a_filtered_run_shows_what_the_daemon_makes_of_both_streams(desk: Desk) -> None:
    argv = (windows(desk.compiler).encode(), b"a")
    order = launcher.encode_run(launcher.LauncherRun(argv, filter_headers=True), is_windows=True)
    with desk.answers(order, launcher.encode_finish(b"out", b"err")):
        done = desk.run(windows(desk.compiler), "/c", "x.c")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"out", b"err")
    with desk.answers(order, b"nonsense"):
        done = desk.run(windows(desk.compiler), "/c", "x.c")
    assert (done.returncode, said(done.stdout), done.stderr) == (0, ["a"], b"compiled\r\n")


def test_a_compiler_in_our_pipes_writes_nowhere_else(desk: Desk) -> None:
    desk.wine.env["VS_UNICODE_OUTPUT"] = "1234"
    argv = (windows(desk.compiler).encode(), b"a")
    order = launcher.encode_run(launcher.LauncherRun(argv, filter_headers=False), is_windows=True)
    try:
        with desk.answers(order, launcher.encode_finish(b"", b"")):
            assert desk.run(windows(desk.compiler), "/c").stderr == b"compiled\r\n"
        request = (desk.cwd / "got0").read_bytes()[launcher.HEADER_BYTES :]
        sent = dict(launcher.decode_request(request, is_windows=True).env)
        assert b"VS_UNICODE_OUTPUT" not in sent
        with desk.answers(launcher.encode_exec("no")):
            assert desk.run(windows(desk.compiler)).stderr == b"compiled for Visual Studio\r\n"
    finally:
        del desk.wine.env["VS_UNICODE_OUTPUT"]


def test_what_the_compiler_leaves_running_is_not_waited_for(desk: Desk) -> None:
    argv = (windows(desk.compiler).encode(), b"leaves")
    order = launcher.encode_run(launcher.LauncherRun(argv, filter_headers=False), is_windows=True)
    with desk.answers(order, launcher.encode_finish(b"", b"")):
        with desk.wine.start(desk.launcher, windows(desk.compiler), "/c", cwd=desk.cwd) as process:
            assert process.wait(100) == 6
        left = desk.wine.processes("stays-behind")
        for number in left:
            os.kill(number, signal.SIGKILL)
    assert left


def test_a_tentative_run_that_fails_leaves_the_users_own_command(desk: Desk) -> None:
    argv = (windows(desk.compiler).encode(), b"fail", b"5")
    run = launcher.LauncherRun(argv, filter_headers=False, is_tentative=True)
    with desk.answers(launcher.encode_run(run, is_windows=True), b"unread"):
        done = desk.run(windows(desk.compiler), "/c", "x.c")
    assert (done.returncode, said(done.stdout)) == (0, ["/c", "x.c"]), done


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"hpc1" + struct.pack("<II", launcher.DONE, 1 << 31),
        b"hpc1" + struct.pack("<II", launcher.RUN, 14) + struct.pack("<II", 0, 1) + b"cl.ex\0",
        launcher.frame(launcher.DONE, struct.pack("<III", 0, 0, 0)) + b"and more",
        launcher.encode_done(launcher.LauncherDone(0, b"half", b""))[:-1],
        encode_version("other", is_draining=False),
        launcher.encode_exec("no"),
    ],
    ids=["other protocol", "too long", "relative program", "two answers", "cut off",
         "other version", "exec"],
)  # fmt: skip
def test_nonsense_ends_in_the_compiler(desk: Desk, answer: bytes) -> None:
    (desk.home / "run").mkdir(parents=True)
    with desk.answers(answer):
        done = desk.run(windows(desk.compiler), "/c")
    assert (done.returncode, said(done.stdout)) == (0, ["/c"]), done
    marks = {launcher.VERSION: "v", launcher.EXEC: ""}  # the rest is a lost daemon
    assert desk.marks() == marks.get(answer[4], "l")


@pytest.mark.parametrize("owner", ["O:S-1-5-21-1-2-3-1001", ""], ids=["another", "none"])
def test_a_pipe_of_another_user_is_not_believed(desk: Desk, owner: str) -> None:
    hit = launcher.encode_done(launcher.LauncherDone(0, b"from a stranger", b""))
    with desk.answers(hit, sddl=f"{owner}D:(A;;GA;;;WD)"):
        done = desk.run(windows(desk.compiler), "/c")
    assert (done.returncode, said(done.stdout)) == (0, ["/c"]), done
    assert not (desk.cwd / "got0").exists()  # and received nothing


def test_without_the_owners_check_a_stranger_would_be_believed(desk: Desk, tmp_path: Path) -> None:
    """This shows that the two tests above pass because of that check."""
    source = (ROOT / "launcher/hpcc_win.c").read_text()
    check = "is_own_object(pipe->handle) && "
    assert source.count(check) == 1
    tree = tmp_path / "tree"
    for name in ("launcher", "native"):
        shutil.copytree(ROOT / name, tree / name)
    for name in ("src/hpcc/__init__.py", "src/hpcc/wire/launcher.py"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text((ROOT / name).read_text())
    unused = "__attribute__((unused)) static bool is_own_object"
    source = source.replace(check, "").replace("static bool is_own_object", unused)
    (tree / "launcher/hpcc_win.c").write_text(source)
    desk.launcher = build_windows_launcher(tmp_path / "hpcc.exe", root=tree)
    hit = launcher.encode_done(launcher.LauncherDone(0, b"from a stranger", b""))
    with desk.answers(hit, sddl="O:S-1-5-21-1-2-3-1001D:(A;;GA;;;WD)"):
        assert desk.run(windows(desk.compiler), "/c").stdout == b"from a stranger"


def test_a_server_that_hangs_is_left_alone_for_a_while(desk: Desk) -> None:
    (desk.home / "run").mkdir(parents=True)
    with desk.answers(None):
        done = desk.run(windows(desk.compiler), "/c")
    assert (done.returncode, said(done.stdout)) == (0, ["/c"]), done
    hit = launcher.encode_done(launcher.LauncherDone(0, b"a hit", b""))
    with desk.answers(hit):
        assert said(desk.run(windows(desk.compiler), "/c").stdout) == ["/c"]
        assert desk.marks() == "sb"
        os.utime(desk.home / "run/backoff")
        assert desk.run(windows(desk.compiler), "/c").stdout == b"a hit"


def test_the_first_compile_starts_the_daemon(desk: Desk, programs: Path, tmp_path: Path) -> None:
    """hpcc-cli.exe is a stand-in that leaves a server behind and ends."""
    desk.launcher = place_launcher(desk, programs, tmp_path, starts="1")
    (desk.cwd / "reply0").write_bytes(launcher.encode_done(launcher.LauncherDone(0, b"hit", b"")))
    desk.wine.env.update({"PYTHONHOME": "C:\\builds", "HPCC_TEST_PIPE": desk.pipe})
    desk.wine.env["HPCC_TEST_SDDL"] = pipe_sddl(desk.sid)
    try:
        done = desk.run(windows(desk.compiler), "/c")
    finally:
        for name in ("PYTHONHOME", "HPCC_TEST_PIPE", "HPCC_TEST_SDDL"):
            del desk.wine.env[name]
    assert (done.returncode, done.stdout) == (0, b"hit"), done
    started = (desk.home / "run/started").read_text()
    assert started == "start --quiet|no PYTHONHOME"
    assert desk.marks() == ""


def test_a_start_that_fails_is_not_tried_again_at_once_and_all_are_counted(
    desk: Desk, programs: Path, tmp_path: Path
) -> None:
    desk.launcher = place_launcher(desk, programs, tmp_path, starts="0")
    for _ in range(2):
        assert said(desk.run(windows(desk.compiler), "/c").stdout) == ["/c"]
    assert desk.marks() == "nb"
    assert (desk.home / "run/started").read_text() == "start --quiet|no PYTHONHOME"


def test_compiles_at_the_same_time_start_it_once(
    desk: Desk, programs: Path, tmp_path: Path
) -> None:
    desk.launcher = place_launcher(desk, programs, tmp_path, starts="0")
    compiles = [
        desk.wine.start(desk.launcher, windows(desk.compiler), "/c", cwd=desk.cwd) for _ in range(4)
    ]
    outs = [compile_.communicate(timeout=100)[0] for compile_ in compiles]
    assert [said(out) for out in outs] == [["/c"]] * 4
    assert (desk.home / "run/started").read_text() == "start --quiet|no PYTHONHOME"
    assert sorted(desk.marks()) in (
        ["n"] * 4,
        ["b", "n", "n", "n"],
        ["b", "b", "n", "n"],
        ["b", "b", "b", "n"],
    )


def test_a_place_that_is_on_no_drive_leaves_the_compile_alone(desk: Desk) -> None:
    desk.wine.env["HPCC_DIR"] = "\\\\server\\share"
    assert said(desk.run(windows(desk.compiler), "/c").stdout) == ["/c"]
    assert not desk.home.exists()


def test_a_compiler_that_is_not_there_is_said(desk: Desk) -> None:
    done = desk.run("wrap", "nosuch-cl")
    assert done.returncode == 127
    assert b"nosuch-cl" in done.stderr
