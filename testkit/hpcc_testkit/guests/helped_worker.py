"""A worker of a user without rights, as far as a guest needs one, with its helper."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path

from hpcc.runtime.assets.assets import GuestAssets
from hpcc_testkit.guests.worker_helper import as_user, worker_environment

# A worker as far as a guest needs one. It says what runs, and ends when its input does.
_WORKER = """
import asyncio, json, pathlib, pickle, sys
from hpcc.ports import GuestBootError, SystemClock
from hpcc.runtime.assets.assets import probe_spec
from hpcc.runtime.channel.warden import process_zygote
from hpcc.runtime.qemu.backend import QemuConfig, QemuRuntime
from hpcc.runtime.vm.warm import WarmStart, open_store

async def main(assets, home):
    config = QemuConfig(accelerator=sys.argv[2], directory=home / "guests")
    spec = probe_spec(assets, 300.0)
    if sys.argv[1] == "cold":
        async with QemuRuntime(config, assets, SystemClock()).guest(spec) as guest:
            await show(guest)
        return
    async def note(name, fields):
        print(json.dumps([name, dict(fields)]), flush=True)
    async with WarmStart(open_store(home), SystemClock(), note) as warm:
        runtime = QemuRuntime(config, assets, SystemClock(), warm)
        async with runtime.guest(spec):
            await warm.settle()
        async with runtime.guest(spec) as guest:
            await show(guest)

async def show(guest):
    said = {"vmm": guest.vmm_pid, "zygote": process_zygote().pid, "warden": guest.identity.warden,
            "snapshot": guest.identity.snapshot_digest}
    print(json.dumps(said), flush=True)
    await asyncio.to_thread(sys.stdin.read)

data = pickle.load(sys.stdin.buffer)
try:
    asyncio.run(main(*data))
except GuestBootError as error:
    print(json.dumps({"error": str(error)}), flush=True)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class HelpedWorker:
    """A worker of `user` whose helper listens at `place`; `home` is its directory.

    It boots a guest (`kind` "cold") or restores one ("warm"). It starts in `cgroup`, if there is
    one, and is also in `groups`.
    """

    user: str
    place: Path
    home: Path
    kind: str = "cold"
    accelerator: str = "tcg"
    groups: tuple[int, ...] = ()
    cgroup: Path | None = None

    @contextmanager
    def started(
        self, assets: GuestAssets
    ) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, object]]]:
        """Yield the worker and what it says about its guest."""
        words = [sys.executable, "-B", "-c", _WORKER, self.kind, self.accelerator]
        who = {**as_user(self.user), "extra_groups": list(self.groups)}
        with subprocess.Popen(
            words, cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env=worker_environment(self.place, self.home),
            **who,  # type: ignore[call-overload]  # a mapping
        ) as process:  # fmt: skip
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                if self.cgroup is not None:
                    (self.cgroup / "cgroup.procs").write_text(str(process.pid))
                pickle.dump((assets, self.home), process.stdin)
                process.stdin.flush()
                yield process, json.loads(process.stdout.readline())
            finally:
                process.kill()


def copied_assets(assets: GuestAssets, home: Path) -> GuestAssets:
    """Return the guest's files in a directory where the worker's user can read them."""
    paths = {f.name: getattr(assets, f.name) for f in fields(assets)}
    ours = {n: p for n, p in paths.items() if isinstance(p, Path) and n != "firmware"}
    copies = {n: home / n for n in ours}
    for name, path in ours.items():
        shutil.copyfile(path, copies[name])
    return replace(assets, **copies)  # type: ignore[arg-type]  # none of these is text


def names_of_files(vmm: int, home: Path, assets: GuestAssets) -> frozenset[str]:
    """Return how a VMM may name the files that it holds.

    It opens a snapshot's memory by a name in its jail.
    """
    held = (assets.kernel, assets.initramfs, assets.agent_drive)
    kept = [path.stat().st_ino for path in home.glob("snapshots/*/memory")]
    fds = list(Path(f"/proc/{vmm}/fd").iterdir())
    memory = [os.readlink(fd) for fd in fds if fd.stat().st_ino in kept]
    return frozenset({*(p.name for p in held), *memory, "state"})
