"""Standard output of a compile may be its product: what could not be written is a failure."""

from __future__ import annotations

import array
import fcntl
import os
import signal
import subprocess
import termios
from pathlib import Path

import pytest

from hpcc_testkit.cache.launcher import Bench, counters, wait_until

_TEXT = "x" * 4000


@pytest.fixture
def printing(bench: Bench) -> Path:
    return bench.script("cc-text", f"echo {_TEXT}; echo told >&2")


@pytest.mark.parametrize("answer", ["run", "tentative", f"done:0:{_TEXT}:told"])
def test_a_full_disk_behind_standard_output_fails_the_command(
    bench: Bench, daemon: subprocess.Popen[bytes], printing: Path, answer: str
) -> None:
    with Path("/dev/full").open("wb") as full:
        done = bench.run(
            "wrap",
            printing,
            answer=answer,
            stdout=full,
            stderr=subprocess.PIPE,
            capture_output=False,
        )
    assert done.returncode == 1
    assert b"told" in done.stderr
    assert b"hpcc: cannot write standard output: No space left on device\n" in done.stderr


@pytest.mark.parametrize("answer", ["run", "tentative", f"done:0:{_TEXT}:told"])
@pytest.mark.parametrize("closed", [">&-", "<&- >&-"])
def test_a_closed_standard_output_fails_a_command_that_prints(
    bench: Bench, daemon: subprocess.Popen[bytes], printing: Path, closed: str, answer: str
) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{bench.launcher} wrap {printing} {closed}"],
        cwd=bench.work,
        env={**bench.env, "HPCC_TEST_ANSWER": answer},
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"told" in done.stderr
    assert b"hpcc: cannot write standard output: Bad file descriptor\n" in done.stderr


def test_the_status_of_the_compiler_wins(bench: Bench, daemon: subprocess.Popen[bytes]) -> None:
    script = bench.script("cc-7", f"echo {_TEXT}; exit 7")
    with Path("/dev/full").open("wb") as full:
        done = bench.run("wrap", script, answer="run", stdout=full, stderr=subprocess.PIPE,
                         capture_output=False)  # fmt: skip
    assert (done.returncode, done.stderr) == (7, b"")


def test_messages_that_could_not_be_written_fail_nothing(
    bench: Bench, daemon: subprocess.Popen[bytes], printing: Path
) -> None:
    for answer in ("run", f"done:0:{_TEXT}:told"):
        with Path("/dev/full").open("wb") as full:
            done = bench.run("wrap", printing, answer=answer, stdout=subprocess.PIPE, stderr=full,
                             capture_output=False)  # fmt: skip
        assert (done.returncode, done.stdout.rstrip()) == (0, _TEXT.encode())


@pytest.mark.parametrize("restores", [True, False])
def test_a_reader_that_has_gone_is_no_success(
    bench: Bench, daemon: subprocess.Popen[bytes], printing: Path, restores: bool
) -> None:
    """`restores`: SIGPIPE has its default action, as under a shell."""
    ended = []
    for answer in ("run", f"done:0:{_TEXT}:told"):
        reader, writer = os.pipe()
        os.close(reader)
        done = bench.run("wrap", printing, answer=answer, stdout=writer, stderr=subprocess.PIPE,
                         capture_output=False, restore_signals=restores)  # fmt: skip
        os.close(writer)
        ended.append(done.returncode)
        assert b"hpcc" not in done.stderr
    assert ended == [1, -signal.SIGPIPE if restores else 1]


def test_what_a_reader_left_behind_is_reported_as_cut(
    bench: Bench, daemon: subprocess.Popen[bytes]
) -> None:
    """Else the start of the text would be kept as the whole."""
    script = bench.script("cc-late", "trap '' PIPE; head -c 300000 /dev/zero; exit 0")
    reader, writer = os.pipe()
    os.close(reader)
    done = bench.run("wrap", script, answer="run", stdout=writer, stderr=subprocess.PIPE,
                     capture_output=False)  # fmt: skip
    os.close(writer)
    assert done.returncode == 1
    wait_until(lambda: counters(bench.env).get("truncated") == 1)


def _waiting(pipe: int) -> int:
    size = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, size)
    return size[0]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("answer", ["exec", "run", "tentative"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_ends_a_command_whose_reader_does_not_read(
    bench: Bench, daemon: subprocess.Popen[bytes], answer: str, number: signal.Signals
) -> None:
    script = bench.script("cc-long-text", "exec head -c 9000000 /dev/zero")
    reader, writer = os.pipe()
    try:
        child = bench.popen("wrap", script, answer=answer, stdout=writer)
        wait_until(lambda: _waiting(reader) == 1 << 16)
        child.send_signal(number)
        assert child.wait(20) == -number
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.timeout(60)
def test_a_signal_that_the_compiler_survives_loses_no_text(
    bench: Bench, daemon: subprocess.Popen[bytes]
) -> None:
    script = bench.script("cc-deaf", "trap : USR1; head -c 3000000 /dev/zero; exit 5")
    reader, writer = os.pipe()
    child = bench.popen("wrap", script, answer="run", stdout=writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as text:
        wait_until(lambda: _waiting(reader) == 1 << 16)
        child.send_signal(signal.SIGUSR1)
        assert len(text.read()) == 3_000_000
    assert child.wait(20) == 5
