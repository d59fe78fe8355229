"""`hpcc audit determinism` on a worker's trail and store: which sections of real objects differ.

A real compiler, scheduler, worker and trail. The guests are local processes.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from pathlib import Path

import pytest

from hpcc.cli.main import main
from hpcc.config.private_file import write_private_file
from hpcc_testkit.farm.actions import run_script
from hpcc_testkit.farm.audit_rows import opened
from hpcc_testkit.farm.in_process import TENANT, FarmUnderTest, farm_under_test

# By output: a constant with a stamp, a name in debug information, and the names of LTO's sections,
# which are random without -frandom-seed.
UNITS = {
    "stamp.o": 'echo "const char at[] = \\"$ID\\";" > t.c; gcc -c t.c -o a.o',
    "name.o": 'echo "static int x$ID; int *f(void) { return &x$ID; }" > t.c; gcc -g -c t.c -o a.o',
    "lto.o": "gcc -flto -c a.c -o a.o",
    "same.o": "gcc -c a.c -o a.o",
    "text": "echo same $ID > a.o",
}
_ID = "ID=$(tr -d - < /proc/sys/kernel/random/uuid)"


async def built(farm: FarmUnderTest) -> None:
    """Let two people execute all units."""
    for person in ("ann", "bob"):
        async with farm.client(principal=person) as client:
            for name, script in UNITS.items():
                made, is_cached = await run_script(client, f": {name}; {_ID}; {script}")
                assert made
                assert not is_cached


async def report(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[list[str], str]:
    """Return where the outputs differ, and what is below the table."""
    assert await asyncio.to_thread(main, ["audit", "determinism", *args]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    at = head.index("DIFFERS IN")
    table = [line for line in lines if " a.o " in line]
    assert all(line.split()[1:3] == ["2", "2"] for line in table)
    return sorted(line[at:] for line in table), "\n".join(lines[len(table) :])


async def test_sections_that_differ_between_guests_are_named_while_the_store_has_the_objects(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with farm_under_test(tmp_path, max_guests=4, memory_mib=1 << 20) as farm:
        config = farm.worker_config()
        async with opened(config.audit) as log, farm.serving(log):
            await built(farm)
    values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    file = tmp_path / "worker.json"
    write_private_file(file, json.dumps(values, default=str).encode())
    where, below = await report(capsys, "--config", str(file))
    names, stamp, text, lto = where
    assert names.startswith(".debug_str, ")
    # What differs because of others comes last. The order of the names in `.debug_str` is random, so
    # that more sections may differ than are named.
    assert names.endswith((".strtab", " more"))
    assert stamp == ".rodata"
    # The first of the random bytes behind the fifth are sometimes equal.
    assert re.fullmatch(r"bytes from [5-9] on", text)
    assert lto.startswith("sections of some only: .gnu.lto_")
    assert "5 of 5 actions were executed more than once, 4 of them" in below
    # Another trail may not be that of the worker here.
    where, below = await report(capsys, "--directory", str(config.audit))
    assert where == ["-"] * 4
    assert "--config" in below
    # One of two is not enough.
    for blob in (config.store / TENANT.value / "cas").glob("??/*"):
        if blob.stat().st_size and blob.read_bytes()[:4] in {b"\x7fELF", b"same"}:
            blob.unlink()
    where, _ = await report(capsys, "--config", str(file))
    assert where == ["not held here any more"] * 4
    state = ["--scheduler-state", str(tmp_path / "scheduler/state"), "--config", str(file)]
    assert await asyncio.to_thread(main, ["audit", "determinism", *state]) == 2
