"""The state of a signer on its disk: whole or the one before, whatever ends a write."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from hpcc.audit.base.trail_signer import WantedSeal
from hpcc.audit.signer.fields import SignerMessageError
from hpcc.audit.signer.ledger import Ledger, LedgerState, begun
from hpcc.audit.signer.slots import SignerStateError, StateSlots, decode_state, encode_state
from hpcc.core import InfrastructureError
from hpcc_testkit.farm.audit_rows import KEY
from hpcc_testkit.signer.records import EMPTY, chain


@pytest.fixture
def states() -> list[LedgerState]:
    """Return the states of a signer: begun, a group, a second one."""
    ledger, records = Ledger("w1", KEY), chain(5)
    first = begun("w1", EMPTY)
    second, _ = ledger.records(first, records[:3])
    return [first, second, ledger.records(second, records[3:])[0]]


def stored(directory: Path, states: list[LedgerState]) -> None:
    slots = StateSlots(directory)
    for state in states:
        slots.store(encode_state(state, b"k" * 32))
    slots.close()


def loaded(directory: Path) -> LedgerState | None:
    slots = StateSlots(directory)
    try:
        data = slots.load()
    finally:
        slots.close()
    return None if data is None else decode_state(data)[0]


def test_a_state_is_read_as_it_was_stored(tmp_path: Path, states: list[LedgerState]) -> None:
    assert loaded(tmp_path) is None
    for count in (1, 2, 3):
        stored(tmp_path, states[:count])
        assert loaded(tmp_path) == states[count - 1]


def test_a_sealed_state_is_read_as_it_was_stored(states: list[LedgerState]) -> None:
    wanted = WantedSeal(first=0, signed_from=0, at=9.0, index=None)
    sealed, _ = Ledger("w1", KEY).text(states[2], wanted)
    assert decode_state(encode_state(sealed, b"k" * 32)) == (sealed, b"k" * 32)


def test_a_write_that_was_cut_leaves_the_state_before(
    tmp_path: Path, states: list[LedgerState]
) -> None:
    stored(tmp_path, states)
    whole = (tmp_path / "state-1").read_bytes()
    newest = encode_state(states[2], b"k" * 32)
    for cut in range(0, len(newest) + 52, 97):
        (tmp_path / "state-1").write_bytes(whole[:cut] + b"\xff" * (len(whole) - cut))
        assert loaded(tmp_path) == states[1]
    (tmp_path / "state-1").write_bytes(whole)
    assert loaded(tmp_path) == states[2]


def test_two_damaged_files_are_an_error(tmp_path: Path, states: list[LedgerState]) -> None:
    stored(tmp_path, states)
    for name in ("state-0", "state-1"):
        data = bytearray((tmp_path / name).read_bytes())
        data[60] ^= 1
        (tmp_path / name).write_bytes(data)
    with pytest.raises(SignerStateError, match="damaged"):
        loaded(tmp_path)


def test_a_full_disk_keeps_the_state_before(tmp_path: Path, states: list[LedgerState]) -> None:
    full = False

    def fault(step: str) -> None:
        if full and step == failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for failing in ("signer-write", "signer-sync"):
        directory = tmp_path / failing
        directory.mkdir()
        slots = StateSlots(directory, fault)
        slots.store(encode_state(states[0], b"k" * 32))
        full = True
        with pytest.raises(OSError, match="No space"):
            slots.store(encode_state(states[1], b"k" * 32))
        full = False
        slots.close()
        assert loaded(directory) == states[0]
        # The next state takes the same file.
        slots = StateSlots(directory)
        assert slots.load() is not None
        slots.store(encode_state(states[1], b"k" * 32))
        slots.store(encode_state(states[2], b"k" * 32))
        slots.close()
        assert loaded(directory) == states[2]


def test_one_process_has_the_files(tmp_path: Path) -> None:
    slots = StateSlots(tmp_path)
    waits: list[float] = []
    with pytest.raises(InfrastructureError, match="another process signs"):
        StateSlots(tmp_path, sleep=waits.append)
    assert 4.9 < sum(waits) < 5.1
    slots.close()
    StateSlots(tmp_path, sleep=waits.append).close()


def test_a_state_takes_no_new_blocks(tmp_path: Path, states: list[LedgerState]) -> None:
    stored(tmp_path, states)
    for name in ("state-0", "state-1"):
        assert (tmp_path / name).stat().st_size == 64 << 10
        assert (tmp_path / name).stat().st_blocks * 512 >= 64 << 10


def test_each_cut_state_is_refused(states: list[LedgerState]) -> None:
    data = encode_state(states[2], b"k" * 32)
    for end in range(0, len(data), 53):
        with pytest.raises(SignerMessageError):
            decode_state(data[:end])
    with pytest.raises(SignerMessageError, match="behind its end"):
        decode_state(data + b"\0")
