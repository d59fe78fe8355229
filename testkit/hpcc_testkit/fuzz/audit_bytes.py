"""What readers of an audit trail parse before anything is proved: blocks of packed segments."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from hpcc.audit.base.canonical import GENESIS, AuditDamagedError, Record, encode_record
from hpcc.audit.base.columns import HEADER, PackedBlock, pack_block, read_header
from hpcc_testkit.farm.audit_rows import row


def packed_block(data: bytes) -> None:
    """A block: frames of the announced size, or the documented error."""
    with suppress(AuditDamagedError):
        header = read_header(data[: HEADER.size])
        block = PackedBlock(header, data[HEADER.size :])
        assert len(block.frames()) == header.frames_bytes
        if block.has_columns:
            assert len(list(block.records(header.rows - 1))) == 1


def packed_block_seeds() -> Mapping[str, bytes]:
    """Return blocks of each kind."""
    records: list[Record] = []
    head = GENESIS
    for number in range(3):
        content = row(number, row_id=f"{number}" * 32, argv=("cc", f"a{number}.c"))
        records.append(encode_record(content, sequence=number, previous=head, worker="w1"))
        head = records[-1].hash
    signed = [replace(record, signature=b"s" * 64) for record in records]
    return {
        "unsigned": pack_block(records), "signed": pack_block(signed),
        "frames": pack_block([*records[:1], *signed[1:]]),
    }  # fmt: skip
