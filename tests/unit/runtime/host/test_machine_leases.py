"""Workers of one machine never hold the same number, however one of them ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hpcc.ports import GuestBootError
from hpcc.runtime.host.machine_leases import MachineLeases, are_uids_used

COUNT = 8
# Takes numbers, prints them, gives the first one back, and holds the rest until its end.
HOLDER = """
import sys
from pathlib import Path
from hpcc.runtime.host.machine_leases import MachineLeases
leases = MachineLeases(int(sys.argv[2]), Path(sys.argv[1]), lambda number: False)
taken = [leases.take() for _ in range(int(sys.argv[3]))]
leases.give_back(taken[0])
print(*taken[1:], flush=True)
sys.stdin.read()
"""


@contextmanager
def holder(directory: Path, takes: int) -> Iterator[tuple[set[int], subprocess.Popen[str]]]:
    """Run a process that holds one number less than it takes."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, directory, str(COUNT), str(takes)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        yield set(map(int, process.stdout.readline().split())), process
        process.kill()


def taken(leases: MachineLeases) -> set[int]:
    """Take all that is left."""
    found: set[int] = set()
    with suppress(GuestBootError):
        for _ in range(COUNT + 1):
            found.add(leases.take())
    return found


def test_what_another_process_holds_is_not_given_out(tmp_path: Path) -> None:
    with holder(tmp_path / "ranges", 6) as (others, _):
        mine = taken(MachineLeases(COUNT, tmp_path / "ranges", lambda _: True))
    assert len(others) == 5
    # The one that was given back is free, although the process still runs.
    assert mine == set(range(COUNT)) - others


def test_numbers_of_a_killed_process_come_back_when_its_guests_are_gone(tmp_path: Path) -> None:
    with holder(tmp_path, 4) as (others, process):
        process.send_signal(signal.SIGKILL)
        process.wait()
    left_over = max(others)
    mine = taken(MachineLeases(COUNT, tmp_path, lambda number: number == left_over))
    assert mine == set(range(COUNT)) - {left_over}
    # Another worker, after the guest was swept: what the first one holds is still its own.
    assert taken(MachineLeases(COUNT, tmp_path, lambda _: False)) == {left_over}


def test_a_number_comes_back_and_is_taken_last(tmp_path: Path) -> None:
    leases = MachineLeases(3, tmp_path, lambda _: True, first=1)
    assert [leases.take(), leases.take()] == [1, 2]
    leases.give_back(1)
    assert [leases.take(), leases.take()] == [0, 1]


def test_without_a_directory_one_process_still_takes_each_number_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    leases = MachineLeases(COUNT, tmp_path / "file/below", lambda _: True)
    assert taken(leases) == set(range(COUNT))


def test_uids_are_used_while_a_process_has_one_of_them() -> None:
    assert are_uids_used(os.getuid(), 1)
    assert are_uids_used(max(os.getuid() - 3, 0), 5)
    assert not are_uids_used(0x7FFF_0000, 0x1000)
