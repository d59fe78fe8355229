"""What rows repeat of commands and guests, and how much of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace

import pytest

from hpcc.audit.base.canonical import GENESIS, encode_record
from hpcc.core import Digest, GuestReuse, InfrastructureError, Isolation, TenantId
from hpcc.ports import AuditRow, GuestIdentity
from hpcc.reapi.action import ActionSpec
from hpcc.reapi.command import CommandSpec
from hpcc.reapi.limits import ReapiError
from hpcc.reapi.result import ResultOutput, ResultRecord, encode_result
from hpcc.worker.base.rows import Caller, Lineage, audit_row
from hpcc.worker.execute.lineage import lineage_of
from hpcc.worker.execute.work import check_outputs
from hpcc.worker.stores.entries import lineage_digest, pack_entry, unpack_entry

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


RECORD = ResultRecord(
    exit_code=0, stdout=b"", stderr=b"", outputs=(), isolation=Isolation.QEMU_KVM,
    reuse=GuestReuse.PRINCIPAL, guest_id="g", guest_execs_before=0, worker="w", image="sha256:i",
)  # fmt: skip
CALLER = Caller(tenant=TenantId("acme"), principal="ann", build_id="", client_version="")


def row_of(record: ResultRecord, lineage: Lineage) -> AuditRow:
    return audit_row(
        record, lineage, action=Digest.of(b"a"), who=CALLER, status="hit", scheduler="s",
        started_at=1.0, ended_at=2.0,
    )  # fmt: skip


def stored(argv: tuple[str, ...]) -> Lineage:
    """Return the lineage of a command that was stored and read back."""
    action = ActionSpec(command=Digest.of(b"c"), input_root=Digest.of(b""), image=None, salt=b"")
    command = CommandSpec(argv=argv, env=(), cwd="", outputs=(), image=None)
    identity = GuestIdentity(
        guest_id="g", isolation=Isolation.QEMU_KVM, kernel_digest="k", vmm_digest="v",
        agent_digest="a",
    )  # fmt: skip
    lineage = lineage_of(action, command, identity, injected=(), keeps_argv=True)
    record = replace(RECORD, lineage_digest=lineage_digest(lineage))
    found, _ = unpack_entry(pack_entry(lineage, encode_result(record)))
    return found


@pytest.mark.parametrize(
    "argv",
    [("cc", "\x01" * (2 << 20)), ("cc", *["\x01" * 1000] * 2000), ("cc", *["\x01"] * (1 << 20))],
    ids=["one", "many", "short"],
)
def test_a_command_of_control_characters_makes_no_row_of_megabytes(argv: tuple[str, ...]) -> None:
    lineage = stored(argv)
    row = row_of(RECORD, lineage)
    record = encode_record(row, sequence=0, previous=GENESIS, worker="w")
    assert len(record.data) < 80 << 10
    assert row.argv == argv[: len(row.argv)]
    assert row.argv_omitted == len(argv) - len(row.argv) > 0
    # What was left out is still named: the digest is of the whole command.
    text = json.dumps(argv, separators=(",", ":"))
    assert row.argv_digest == f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    # An entry of before has all of it.
    old = row_of(RECORD, replace(lineage, argv=argv, argv_omitted=0))
    assert (old.argv, old.argv_omitted) == (row.argv, row.argv_omitted)


def test_a_long_command_of_a_build_is_in_its_row_as_it_is() -> None:
    argv = ("cc", *(f"-I/src/third_party/library-{n}/include" for n in range(1000)), "a.c")
    row = row_of(RECORD, stored(argv))
    assert (row.argv, row.argv_omitted) == (argv, 0)


def test_an_entry_of_an_ordinary_command_is_what_older_workers_read() -> None:
    entry = pack_entry(LINEAGE, encode_result(RECORD))
    assert b"argv_omitted" not in entry
    assert b"argv_omitted" in pack_entry(replace(LINEAGE, argv_omitted=1), encode_result(RECORD))


@pytest.mark.parametrize("count", [-1, True, "1", 1.0])
def test_a_number_of_arguments_that_is_none_is_refused(count: object) -> None:
    with pytest.raises(ValueError, match="not a count"):
        Lineage.of({**asdict(LINEAGE), "argv": ["cc"], "injected_flags": [], "argv_omitted": count})


def test_names_of_outputs_that_would_fill_a_row_are_refused_before_a_guest_boots() -> None:
    names = tuple(f"{n}/" + "/".join(["\x01" * 200] * 19) for n in range(64))
    command = CommandSpec(argv=("cc",), env=(), cwd="d", outputs=names, image=None)
    with pytest.raises(ReapiError) as caught:
        check_outputs(command)
    assert caught.value.reason == "output-names"
    # A result from before the limit gets no row of a megabyte, and is not released.
    outputs = tuple(ResultOutput(name, Digest.of(b"")) for name in names)
    with pytest.raises(InfrastructureError) as late:
        row_of(replace(RECORD, outputs=outputs), LINEAGE)
    assert late.value.reason == "output-names"
    few = replace(command, outputs=tuple(f"out/dir-{n}/object.o" for n in range(64)))
    assert check_outputs(few) is few
