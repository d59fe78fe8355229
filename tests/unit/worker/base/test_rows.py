"""What an entry keeps of the guest that made it, for the rows of later hits."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from hpcc.worker.base.rows import Lineage

LINEAGE = Lineage(
    input_root_digest="i", argv=("cc",), argv_digest="a", env_digest="e", kernel_digest="k",
    vmm_digest="v", vmm_version="", jailer_digest="", agent_digest="g", warden="own-uid",
    injected_flags=(), working_directory="", snapshot_digest="s",
    kernel_command_line="quiet mitigations=auto", vmm_jail="hpcc",
)  # fmt: skip


def test_a_lineage_reads_back_whole() -> None:
    assert Lineage.of(json.loads(json.dumps(asdict(LINEAGE)))) == LINEAGE


def test_an_entry_older_than_the_kernels_line_and_the_jail_does_not_state_them() -> None:
    table = json.loads(json.dumps(asdict(LINEAGE)))
    for name in ("kernel_command_line", "vmm_jail"):
        del table[name]
    old = Lineage.of(table)
    assert (old.kernel_command_line, old.vmm_jail, old.snapshot_digest) == ("", "", "s")


@pytest.mark.parametrize("change", [{"vmm_jail": 1}, {"kernel_command_line": None}, {"other": ""}])
def test_a_field_of_another_type_or_name_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"not a text|other fields"):
        Lineage.of({**json.loads(json.dumps(asdict(LINEAGE))), **change})
