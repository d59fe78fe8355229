"""The command that starts QEMU in its jail."""

from __future__ import annotations

import json
import os
from pathlib import Path

from hpcc.runtime.host.users import VmmUser
from hpcc.runtime.qemu.jail import Jailing, QemuJail, jail_argv


def plan_of(argv: list[str]) -> dict[str, object]:
    plan = json.loads(argv[-1])
    assert isinstance(plan, dict)
    return plan


def jailing(user: VmmUser) -> Jailing:
    jail = QemuJail("/bin/sh", ("/bin/sh",))
    return Jailing(
        jail=jail, root=Path("/g/jail"), argv=["sh", "-nodefaults"], user=user, status_fd=9,
        guest_files=[("/dev/fd/5", Path("/k"), False), ("/dev/fd/6", Path("/m"), True)],
    )  # fmt: skip


def test_a_worker_of_root_gives_its_vmm_a_uid_and_others_a_user_namespace() -> None:
    roots, others = (jail_argv(jailing(VmmUser(u, ()))) for u in (2_000_683_008, None))
    assert "--user" not in roots
    assert plan_of(roots)["uid"] == 2_000_683_008
    assert {"--user", "--keep-caps", f"--map-user={os.geteuid()}"} <= set(others)
    for argv in (roots, others):
        assert {"--pid", "--net", "--ipc", "--uts", "--mount", "--kill-child=KILL"} <= set(argv)
        assert argv.index("--pdeathsig=KILL") < argv.index("unshare")


def test_only_the_template_writes_and_only_its_memory() -> None:
    files = plan_of(jail_argv(jailing(VmmUser(None, ()))))["files"]
    assert isinstance(files, list)
    assert [kind for _, place, kind in files if place.startswith("/dev/fd/")] == ["read", "write"]
    assert [place for _, place, kind in files if kind == "write"] == ["/dev/fd/6"]
