"""What a stored copy of a farm's result is worth under the policy of the moment."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hpcc.core import (
    ALL_SHARING,
    PRIVATE_ONLY,
    CallerError,
    GuestReuse,
    Isolation,
    SharingClass,
    SharingPolicy,
)
from hpcc.core.basis import NO_TERMS, FarmTerms, ResultBasis

OWN = ResultBasis(isolation=Isolation.QEMU_KVM, reuse=GuestReuse.PRINCIPAL)
FRESH = replace(OWN, sharing=SharingClass.FRESH)
AGREED = replace(OWN, sharing=SharingClass.AGREED, voters=3, workers=2)
TERMS = FarmTerms(
    minimum_isolation=Isolation.QEMU_TCG, guest_reuse=GuestReuse.PRINCIPAL, sharing=ALL_SHARING
)
STRICT = SharingPolicy(fresh=True, agree=3, across_workers=True)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (ALL_SHARING, [OWN, FRESH, AGREED]),
        (SharingPolicy(fresh=True), [OWN, FRESH]),
        (SharingPolicy(agree=3), [OWN, AGREED]),
        (SharingPolicy(agree=4), [OWN]),
        (SharingPolicy(fresh=True, agree=4), [OWN, FRESH]),
        (SharingPolicy(fresh=True, agree=2, across_workers=True), [OWN, AGREED]),
        (STRICT, [OWN]),
        (PRIVATE_ONLY, [OWN]),
    ],
)
def test_a_copy_counts_as_the_result_would(
    policy: SharingPolicy, expected: list[ResultBasis]
) -> None:
    terms = replace(TERMS, sharing=policy)
    assert [b for b in (OWN, FRESH, AGREED) if b.counts(terms)] == expected
    # A user's demand does the same where the tenant accepts all.
    met = TERMS.meet(policy)
    assert [b for b in (OWN, FRESH, AGREED) if b.counts(met)] == expected


def test_a_copy_of_weaker_isolation_or_of_a_guest_of_more_people_does_not_count() -> None:
    weak = replace(OWN, isolation=Isolation.PROCESS_RUNC)
    of_all = replace(OWN, reuse=GuestReuse.TENANT)
    assert [b.counts(TERMS) for b in (weak, of_all)] == [False, False]
    assert all(b.counts(NO_TERMS) for b in (weak, of_all, FRESH, AGREED))
    assert of_all.counts(replace(TERMS, guest_reuse=GuestReuse.TENANT))
    assert not OWN.counts(replace(TERMS, guest_reuse=GuestReuse.EXEC))


@pytest.mark.parametrize("basis", [OWN, FRESH, AGREED])
def test_a_basis_is_read_as_it_was_written(basis: ResultBasis) -> None:
    assert ResultBasis.parse(basis.text) == basis


@pytest.mark.parametrize(
    "text",
    [
        "", "qemu/kvm principal fresh 0", "qemu/kvm principal fresh 0 0 ", "x principal fresh 0 0",
        "qemu/kvm x fresh 0 0", "qemu/kvm principal x 0 0", "qemu/kvm principal agreed -1 0",
        "qemu/kvm principal agreed 2 3", "qemu/kvm principal agreed 1000 2",
        "qemu/kvm principal agreed 02 2", "qemu/kvm principal agreed 2 x", "y" * 1000,
    ],
)  # fmt: skip
def test_what_is_no_basis_is_refused(text: str) -> None:
    with pytest.raises(CallerError):
        ResultBasis.parse(text)
