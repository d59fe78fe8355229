"""A compile leaves something other than regular output files: not sent, or the limit's error."""

from __future__ import annotations

import asyncio
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

import hpcc_testkit
from hpcc.core import Digest as Sha
from hpcc.core import ExecLimits, ExecRequest, InputFile
from hpcc.ports import Guest
from hpcc.runtime.assets.assets import find_static_compiler
from hpcc_testkit.guests.guest_contract import MemoryBlobs, Outcome, request, run

pytestmark = [
    pytest.mark.vm, pytest.mark.timeout(400), pytest.mark.asyncio(loop_scope="module"),
]  # fmt: skip
MIB = 1 << 20
EPERM, EXDEV, ENOENT = 1, 18, 2
HEADER = b"#define SECRET 1\n"
LIMITS = ExecLimits(wall_seconds=60.0, memory_bytes=128 * MIB, output_bytes=16 * MIB)


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the hostile compiler, a static program."""
    target = tmp_path_factory.mktemp("evil") / "evil"
    source = Path(hpcc_testkit.__file__).parent / "hostile/compile.c"
    compiler = find_static_compiler()
    assert compiler is not None
    subprocess.run([compiler, "-O1", "-static", "-w", "-o", target, source], check=True)
    return target.read_bytes()


async def attack(
    guest: Guest,
    evil: bytes,
    *words: str,
    outputs: tuple[str, ...] = ("o",),
    limits: ExecLimits = LIMITS,
) -> Outcome:
    plain = request("/src/evil", *words, inputs=[("a.h", HEADER)], outputs=outputs, limits=limits)
    program = InputFile("evil", Sha.of(evil), is_executable=True)
    asked: ExecRequest = replace(plain, inputs=(*plain.inputs, program))
    return await run(guest, asked, MemoryBlobs(evil, HEADER))


async def still_works(guest: Guest, evil: bytes) -> None:
    """Check that a compile gives a second name to what it was given and may write."""
    done = await attack(guest, evil, "hardlink", "o", "a.h", outputs=("o", "a.h"))
    assert done.outputs == {"o": HEADER, "a.h": HEADER}


@pytest.mark.parametrize(
    "words",
    [
        ("directory", "o"),
        ("symlink", "o", "/etc/passwd"),
        ("symlink", "o", "/proc/1/environ"),
        ("symlink", "o", "a.h"),
        ("symlink", "o", "o"),
        ("socket", "o"),
    ],
    ids=" ".join,
)
async def test_what_is_no_plain_file_is_no_output(
    guest: Guest, evil: bytes, words: tuple[str, ...]
) -> None:
    done = await attack(guest, evil, *words)
    assert (done.stdout, done.result.exit_code, done.outputs) == (b"errno=0\n", 0, {})


async def test_a_directory_that_became_a_link_is_not_followed(guest: Guest, evil: bytes) -> None:
    done = await attack(guest, evil, "parent", "w", "/etc", outputs=("w/passwd", "w/hostname"))
    assert (done.stdout, done.result.exit_code, done.outputs) == (b"errno=0\n", 0, {})


async def test_no_device_is_made(guest: Guest, evil: bytes) -> None:
    done = await attack(guest, evil, "device", "o")
    assert (done.stdout, done.outputs) == (f"errno={EPERM}\n".encode(), {})


async def test_a_hard_link_reaches_nothing_outside(guest: Guest, evil: bytes) -> None:
    await still_works(guest, evil)
    # Of its inputs only those that are outputs, too, are its own; the others are root's.
    for outside in ("a.h", "/etc/passwd", "/proc/self/environ", "/run/hpcc"):
        done = await attack(guest, evil, "hardlink", "o", outside)
        assert done.stdout != b"errno=0\n"
        assert done.outputs == {}


@pytest.mark.parametrize("words", [("sparse", "o", str(1 << 40)), ("beyond", "o")], ids=" ".join)
async def test_a_sparse_file_of_a_tebibyte_is_over_the_limit(
    guest: Guest, evil: bytes, words: tuple[str, ...]
) -> None:
    done = await attack(guest, evil, *words)
    assert (done.result.reason, done.outputs) == ("output-limit", {})


async def test_sparse_files_count_with_their_size_and_together(guest: Guest, evil: bytes) -> None:
    done = await attack(guest, evil, "sparse", "o", str(9 * MIB), outputs=("o",))
    assert len(done.outputs["o"]) == 9 * MIB
    twice = await attack(guest, evil, "hardlink", "o", "evil", outputs=("o", "evil"))
    assert twice.result.exit_code == 0
    done = await attack(guest, evil, "sparse", "o", str(16 * MIB), outputs=("o", "a.h"))
    assert (done.result.reason, done.outputs) == ("output-limit", {})


async def test_a_hundred_thousand_extra_files_are_left_behind(guest: Guest, evil: bytes) -> None:
    done = await attack(guest, evil, "many", "100000")
    assert done.outputs == {}
    await still_works(guest, evil)


async def test_directories_deeper_than_any_path_are_cleared_away(guest: Guest, evil: bytes) -> None:
    done = await attack(guest, evil, "deep", "3000")
    assert (done.stdout, done.outputs) == (b"errno=0\n", {})
    await still_works(guest, evil)


async def test_a_file_that_still_grows_is_sent_as_it_was_at_the_end(
    guest: Guest, evil: bytes
) -> None:
    done = await attack(guest, evil, "grow", "o")
    assert done.result.reason in ("", "output-limit")
    assert done.outputs.get("o", b"x").startswith(b"x")
    await still_works(guest, evil)


async def test_an_abstract_name_ends_with_its_compile(guest: Guest, evil: bytes) -> None:
    first, second = [await attack(guest, evil, "abstract", "n", "0", outputs=()) for _ in range(2)]
    assert first.stdout.endswith(b" errno=0\n")
    # The same network, in which nothing of the first is left.
    assert second.stdout == first.stdout


async def test_an_abstract_name_joins_no_two_compiles(guest: Guest, evil: bytes) -> None:
    both = await asyncio.gather(
        *(attack(guest, evil, "abstract", "n", "2000", outputs=()) for _ in range(2))
    )
    networks = {done.stdout.removesuffix(b" errno=0\n") for done in both}
    assert len(networks) == 2
    assert not [network for network in networks if b"errno" in network]


async def test_a_network_of_a_killed_compile_is_not_used_again(guest: Guest, evil: bytes) -> None:
    before = await attack(guest, evil, "abstract", "n", "0", outputs=())
    hasty = replace(LIMITS, wall_seconds=1.0)
    killed = await attack(guest, evil, "abstract", "n", "60000", outputs=(), limits=hasty)
    assert killed.result.reason == "deadline"
    assert killed.stdout == before.stdout
    after = await attack(guest, evil, "abstract", "n", "0", outputs=())
    assert after.stdout.endswith(b" errno=0\n")
    assert after.stdout != before.stdout
