"""Contract tests for guests in which the agent sandboxes compiles: virtual machines and containers.

They extend the guest contract. A backend's test class inherits VmContract and provides the fixtures
that GuestContract needs.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Final

import pytest

from hpcc.core import ExecLimits, StdioEvent
from hpcc.ports import Guest
from hpcc.runtime.channel.warden_launch import warden_label
from hpcc_testkit.guests.guest_contract import GuestContract, MemoryBlobs, request, run

MIB: Final = 1 << 20
_SCRATCH: Final = (
    "/tmp/x", "/var/tmp/x", "/dev/shm/x", "/out/x", "/src/x",  # noqa: S108 - places in the guest
)  # fmt: skip


# Mode and whether the compile owns it: a link, a copy, a link.
LINK_COPY_LINK: Final = (b"444 0", b"644 1", b"444 0")


_SMALL: Final = ExecLimits(wall_seconds=60.0, memory_bytes=64 * MIB)


def small(
    *,
    memory_bytes: int = 64 * MIB,
    pids: int = _SMALL.pids,
    output_bytes: int = _SMALL.output_bytes,
) -> ExecLimits:
    """Return limits that a test can reach."""
    return replace(_SMALL, memory_bytes=memory_bytes, pids=pids, output_bytes=output_bytes)


class VmContract(GuestContract):
    """Inherit it in a test module; every method is a test."""

    @pytest.mark.transport
    async def test_its_row_says_how_its_warden_is_kept_apart(self, guest: Guest) -> None:
        assert guest.identity.warden == warden_label()

    async def test_host_name_ids_and_umask_are_pinned(self, guest: Guest, program: str) -> None:
        seen = {(await run(guest, request(program, "who", cwd="a/b"))).stdout for _ in range(2)}
        assert seen == {b"host=hpcc uid=1000 gid=1000 cwd=/src/a/b umask=022 sid=1\n"}

    async def test_process_ids_domain_and_time_zone_are_pinned(
        self, guest: Guest, program: str
    ) -> None:
        seen = {(await run(guest, request(program, "pinned"))).stdout for _ in range(2)}
        assert seen == {b"pid=2 ppid=1 domain=(none) zone=0\n"}

    @pytest.mark.transport
    async def test_the_clock_is_the_hosts(self, guest: Guest, program: str) -> None:
        done = await run(guest, request(program, "time"))
        assert abs(int(done.stdout) - time.time()) < 30

    @pytest.mark.transport
    async def test_what_a_compile_may_not_call_is_refused(self, guest: Guest, program: str) -> None:
        done = await run(guest, request(program, "forbidden"))
        eperm, enosys = 1, 38
        answers = dict(word.split("=") for word in done.stdout.decode().split())
        assert answers == {
            **dict.fromkeys(
                [
                    "vsock",
                    "netlink",
                    "packet",
                    "mount",
                    "ptrace",
                    "bpf",
                    "keyctl",
                    "unshare",
                    "clone",
                    "uring",
                    "chroot",
                ],
                str(eperm),
            ),
            "clone3": str(enosys),
            "setuid": "22",  # EINVAL: there is no root in its user namespace
            "unix": "0",
        }

    @pytest.mark.transport
    async def test_a_link_in_an_output_directory_is_that_compiles_error(
        self, guest: Guest, program: str
    ) -> None:
        link = request(program, "link", "/etc/passwd", "d/l", output_directories=("d",))
        done = await run(guest, link)
        assert (done.result.exit_code, done.result.reason) == (1, "output-tree")
        assert done.outputs == {}
        # The error affects only that compile.
        assert (await run(guest, request(program, "exit", "0"))).result.reason == ""

    @pytest.mark.transport
    async def test_there_is_no_network(self, guest: Guest, program: str) -> None:
        done = await run(guest, request(program, "copy", "/proc/net/dev", "o", outputs=("o",)))
        names = [
            line.split(":")[0].strip()
            for line in done.outputs["o"].decode().splitlines()
            if ":" in line
        ]
        assert names == ["lo"]

    async def test_only_its_own_processes_are_seen(self, guest: Guest, program: str) -> None:
        assert (await run(guest, request(program, "pids"))).stdout == b"2\n"

    @pytest.mark.parametrize("directory", ["/.hpcc", "/sys", "/run", "/run/hpcc"])
    async def test_the_agents_places_are_empty_or_absent(
        self, guest: Guest, program: str, directory: str
    ) -> None:
        assert (await run(guest, request(program, "list", directory))).stdout in (
            b"\n",
            b"errno=2\n",
        )

    @pytest.mark.transport
    async def test_devices_are_the_harmless_ones(self, guest: Guest, program: str) -> None:
        done = await run(guest, request(program, "list", "/dev"))
        assert set(done.stdout.decode().split()) == {
            "null", "zero", "full", "random", "urandom", "fd", "stdin", "stdout", "stderr", "shm",
        }  # fmt: skip

    @pytest.mark.parametrize("path", ["/x", "/etc-x", "/dev/x", "/probe", "/var/x", "/run/x"])
    async def test_the_image_cannot_be_written(self, guest: Guest, program: str, path: str) -> None:
        done = await run(guest, request(program, "touch", path))
        assert done.stdout in (b"errno=30\n", b"errno=13\n")

    @pytest.mark.parametrize("path", _SCRATCH)
    async def test_scratch_places_are_private_to_one_exec(
        self, guest: Guest, program: str, path: str
    ) -> None:
        assert (await run(guest, request(program, "touch", path))).stdout == b"errno=0\n"
        directory = path.rpartition("/")[0]
        assert (await run(guest, request(program, "list", directory))).stdout == b"\n"

    async def test_memory_is_limited(self, guest: Guest, program: str) -> None:
        done = await run(guest, request(program, "eat", "300", limits=small()))
        assert (done.result.reason, done.result.signal) == ("memory", 9)

    async def test_files_count_as_memory(self, guest: Guest, program: str) -> None:
        done = await run(
            guest, request(program, "write", "/src/big", str(200 * MIB), limits=small())
        )
        assert done.result.reason == "memory"

    async def test_a_full_disk_is_the_compilers_error_and_leaves_the_guest_usable(
        self, guest: Guest, program: str
    ) -> None:
        limits = small(memory_bytes=1 << 40)
        done = await run(
            guest, request(program, "write", f"{_SCRATCH[0]}-big", str(1000 * MIB), limits=limits)
        )
        # The limits are lowered to the guest's size: the tmpfs or the memory limit comes first.
        assert (done.result.exit_code, done.result.reason) in [(3, ""), (137, "memory")]
        assert (await run(guest, request(program, "exit", "0"))).result.exit_code == 0

    async def test_inputs_that_do_not_fit_are_an_agent_error(
        self, guest: Guest, program: str
    ) -> None:
        """A running compile fills most of the room, so that a small input does not fit any more."""
        held, data = bytes(16 * MIB), bytes(60 * MIB)
        # The first is a link to the guest's blob and takes no room.
        names = [(f"held{number}", held) for number in range(13)]
        running = guest.exec(request(program, "hold", "1", inputs=names), MemoryBlobs(held))
        try:
            assert isinstance(await anext(running), StdioEvent)
            received = await run(
                guest, request(program, "exit", "0", inputs=[("a", data)]), MemoryBlobs(data)
            )
            # The guest has this blob already; only the copies exceed the room.
            staged = await run(guest, request(program, "exit", "0", inputs=names))
        finally:
            await running.aclose()
        assert (received.result.reason, staged.result.reason) == ("agent-error", "agent-error")
        assert (await run(guest, request(program, "exit", "0"))).result.exit_code == 0

    async def test_processes_are_limited(self, guest: Guest, program: str) -> None:
        done = await run(guest, request(program, "forks", "100", limits=small(pids=16)))
        assert 0 < int(done.stdout) < 16

    async def test_an_output_over_the_limit_is_not_sent(self, guest: Guest, program: str) -> None:
        limits = small(output_bytes=MIB)
        done = await run(
            guest, request(program, "write", "o", str(2 * MIB), outputs=("o",), limits=limits)
        )
        assert (done.result.reason, done.outputs) == ("output-limit", {})
        both = request(
            program, "write", "o", str(MIB), inputs=[("p", b"x")], outputs=("o", "p"), limits=limits
        )
        done = await run(guest, both, MemoryBlobs(b"x"))
        assert (done.result.reason, done.outputs) == ("output-limit", {})

    async def test_what_a_compile_leaves_running_is_ended(self, guest: Guest, program: str) -> None:
        """It holds 150 MiB. The guest's memory has that only once."""
        limits = small(memory_bytes=200 * MIB)
        done = await run(guest, request(program, "orphan", "150", limits=limits))
        assert (done.result.exit_code, done.result.reason) == (0, "")
        done = await run(guest, request(program, "eat", "150", limits=limits))
        assert (done.result.exit_code, done.result.reason) == (0, "")

    async def test_two_execs_cannot_see_each_other(self, guest: Guest, program: str) -> None:
        async with asyncio.TaskGroup() as group:
            one = group.create_task(
                run(
                    guest,
                    request(program, "sleep", "3", inputs=[("secret", b"s")]),
                    MemoryBlobs(b"s"),
                )
            )
            await asyncio.sleep(1.5)
            files = group.create_task(run(guest, request(program, "list", "/src")))
            pids = group.create_task(run(guest, request(program, "pids")))
        assert one.result().result.exit_code == 0
        assert files.result().stdout == b"\n"
        assert pids.result().stdout == b"2\n"

    async def test_a_crash_starts_no_handler(self, guest: Guest, program: str) -> None:
        """A container's host may run a core handler as root; a limit of 1 byte prevents that."""
        req = request(program, "copy", "/proc/self/limits", "o", outputs=("o",))
        lines = (await run(guest, req)).outputs["o"].decode().splitlines()
        (core,) = [line.split() for line in lines if line.startswith("Max core file size")]
        assert core[4:6] == ["1", "1"]

    async def test_execs_at_once_cannot_kill_each_other(self, guest: Guest, program: str) -> None:
        tiny = small(memory_bytes=32 * MIB)
        async with asyncio.TaskGroup() as group:
            one = group.create_task(run(guest, request(program, "sleep", "3")))
            await asyncio.sleep(1.0)
            kill = group.create_task(run(guest, request(program, "killall", limits=small())))
            eat = group.create_task(run(guest, request(program, "eat", "64", limits=tiny)))
        # Its PID namespace holds nothing else to kill, and PID 1 ignores signals from inside.
        assert kill.result().result.exit_code == 0
        assert eat.result().result.reason == "memory"
        assert (one.result().result.exit_code, one.result().result.signal) == (0, 0)

    async def test_a_cancelled_compile_gives_back_what_its_tree_held(
        self, guest: Guest, program: str
    ) -> None:
        """Two halves of 150 MiB, in two sessions; the guest's memory holds that only once."""
        limits = small(memory_bytes=200 * MIB)
        events = guest.exec(request(program, "hold", "150", limits=limits), MemoryBlobs())
        assert isinstance(await anext(events), StdioEvent)
        await events.aclose()
        done = await run(guest, request(program, "eat", "150", limits=limits))
        assert (done.result.exit_code, done.result.reason) == (0, "")

    async def test_a_compile_cannot_change_an_input_for_others(
        self, guest: Guest, program: str
    ) -> None:
        header = b"int shared;\n"
        attack = request(program, "attack", "a.h", inputs=[("a.h", header)])
        read = request(program, "copy", "b.h", "o", inputs=[("b.h", header)], outputs=("o",))
        for _ in range(2):
            done = await run(guest, attack, MemoryBlobs(header))
            answers = dict(word.split("=") for word in done.stdout.decode().split())
            # EPERM, EACCES, and EOPNOTSUPP from a file system without such marks.
            assert answers.pop("mark") in {"1", "13", "95"}
            assert answers == {
                **dict.fromkeys(["write", "append", "both", "cut", "touch"], "13"),
                **dict.fromkeys(["chmod", "chown", "time"], "1"),
            }
            assert (await run(guest, read, MemoryBlobs(header))).outputs == {"o": header}

    async def test_an_input_that_a_compile_replaced_is_the_right_one_for_the_next(
        self, guest: Guest, program: str
    ) -> None:
        header = b"int replaced;\n"
        for _ in range(2):
            swap = request(program, "swap", "a.h", inputs=[("a.h", header)])
            assert (await run(guest, swap, MemoryBlobs(header))).stdout == b"errno=0\n"
            read = request(program, "copy", "a.h", "o", inputs=[("a.h", header)], outputs=("o",))
            assert (await run(guest, read, MemoryBlobs(header))).outputs == {"o": header}

    async def test_a_directory_that_a_compile_changed_is_a_new_one_for_the_next(
        self, guest: Guest, program: str
    ) -> None:
        inputs = [(f"inc/{name}.h", name.encode()) for name in ("a", "b", "c")]
        blobs = MemoryBlobs(*(data for _, data in inputs))

        async def told(*argv: str) -> bytes:
            done = await run(guest, request(program, *argv, inputs=inputs), blobs)
            assert (done.result.exit_code, done.result.reason) == (0, "")
            return done.stdout

        first = await told("state", "inc")
        assert sorted(first.decode().split()[3:]) == ["a.h", "b.h", "c.h"]
        # The first of them lets the agent keep the directory.
        for way in ("read", "order", "gone", "name", "mode", "time", "mark", "moved", "link"):
            await told("unsettle", "inc", way)
            assert await told("state", "inc") == first

    async def test_inputs_of_one_content_are_separate_files_of_one_time(
        self, guest: Guest, program: str
    ) -> None:
        """Clang takes two names of one inode for one file, GCC two files of one time."""
        twins = [("a.h", b"#pragma once\n"), ("b.h", b"#pragma once\n"), ("c.h", b"other\n")]
        blobs = MemoryBlobs(*{data for _, data in twins})
        wanted = b"".join(b"%s 946684800 %d\n" % (kind, n) for n, kind in enumerate(LINK_COPY_LINK))
        for _ in range(2):
            names = [name for name, _ in twins]
            done = await run(guest, request(program, "identity", *names, inputs=twins), blobs)
            assert done.stdout == wanted

    async def test_an_input_that_is_an_output_too_is_the_compiles_own(
        self, guest: Guest, program: str
    ) -> None:
        inputs = [("o", b"before"), ("new", b"after!")]
        blobs = MemoryBlobs(b"before", b"after!")
        for _ in range(2):
            copy = request(program, "copy", "new", "o", inputs=inputs, outputs=("o",))
            assert (await run(guest, copy, blobs)).outputs == {"o": b"after!"}
            below = request(
                program, "copy", "new", "d/o", inputs=[("d/o", b"before"), inputs[1]],
                output_directories=("d",),
            )  # fmt: skip
            assert (await run(guest, below, blobs)).outputs == {"d/": b"", "d/o": b"after!"}
