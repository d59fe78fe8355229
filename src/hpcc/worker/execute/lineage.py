"""Describes an execution for its audit row, and for the rows of later hits."""

from __future__ import annotations

import hashlib
import json

from hpcc.ports import GuestIdentity
from hpcc.reapi.action import ActionSpec
from hpcc.reapi.command import CommandSpec
from hpcc.worker.base.rows import Lineage, argv_of_a_row


def lineage_of(
    action: ActionSpec,
    command: CommandSpec,
    identity: GuestIdentity,
    *,
    injected: tuple[str, ...],
    keeps_argv: bool,
) -> Lineage:
    """Describe the command and the guest. `injected` are flags that the caller added to argv."""
    argv = command.argv
    kept = argv_of_a_row(argv)
    return Lineage(
        input_root_digest=str(action.input_root),
        argv=kept if keeps_argv else (),
        argv_omitted=len(argv) - len(kept) if keeps_argv else 0,
        argv_digest=_digest_of(argv),
        env_digest=_digest_of(command.env),
        kernel_digest=identity.kernel_digest,
        vmm_digest=identity.vmm_digest,
        vmm_version=identity.vmm_version,
        jailer_digest=identity.jailer_digest,
        agent_digest=identity.agent_digest,
        warden=identity.warden,
        snapshot_digest=identity.snapshot_digest,
        kernel_command_line=identity.kernel_command_line,
        vmm_jail=identity.vmm_jail,
        injected_flags=tuple(f for f in injected if f in argv),
        working_directory=command.cwd,
    )


def _digest_of(value: object) -> str:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
