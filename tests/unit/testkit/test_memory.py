"""The sums of a process's memory, from the kernel's text."""

from __future__ import annotations

import os

from hpcc_testkit.guests.memory import Memory, memory_of, parse_smaps

TEXT = """\
55d0c8a00000-55d0c8b00000 r-xp 00000000 fe:00 190545                     /usr/bin/qemu
Size:               1024 kB
Pss:                 512 kB
Pss_Dirty:             0 kB
Shared_Clean:       1024 kB
Private_Clean:         0 kB
Private_Dirty:         0 kB
7f3c40000000-7f3c50000000 rwxp 00000000 00:00 0
Size:             262144 kB
Pss:                4096 kB
Private_Clean:         0 kB
Private_Dirty:      4096 kB
VmFlags: rd wr ex mr mw me ac sd hg
7f3c60000000-7f3c80000000 rw-p 00000000 fe:00 77                         /state/snapshots/k/memory
Pss:                3072 kB
Private_Clean:      1024 kB
Private_Dirty:      1024 kB
"""


def test_own_pages_and_translated_code_are_counted_apart() -> None:
    assert parse_smaps(TEXT) == Memory(proportional=7.5, own=6.0, translated=4.0)


def test_this_process_translates_nothing() -> None:
    memory = memory_of(os.getpid())
    assert memory.proportional >= memory.own > 0
    assert memory.translated == 0
