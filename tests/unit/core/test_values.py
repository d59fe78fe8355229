"""Digests, names and paths reject invalid values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcc.core import (
    EMPTY_DIGEST,
    Blob,
    CallerError,
    Digest,
    GuestMitigations,
    GuestReuse,
    ImageDigest,
    ImageRef,
    IntegrityError,
    Isolation,
    TenantId,
    check_guest_path,
)

SHA = "a" * 64


@given(st.binary(max_size=200))
def test_a_digest_reads_back_from_its_text(data: bytes) -> None:
    digest = Digest.of(data)
    assert Digest.parse(str(digest)) == digest
    assert Blob.checked(digest, data).data == data


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        SHA,
        f"{SHA}/",
        f"{SHA}/-1",
        f"{SHA}/1x",
        f"{SHA.upper()}/1",
        f"{SHA}/²",
        f"{SHA}/" + "9" * 30,
        f"../{SHA}/1",
    ],
)
def test_a_malformed_digest_is_refused(text: str) -> None:
    with pytest.raises(CallerError):
        Digest.parse(text)


def test_bytes_that_do_not_match_their_digest_are_refused() -> None:
    with pytest.raises(IntegrityError) as caught:
        Blob.checked(EMPTY_DIGEST, b"x")
    assert caught.value.reason == "digest-mismatch"


@pytest.mark.parametrize("name", ["", "A", "-a", "a-", "a/b", "..", "a" * 64, "a b", "a\n"])
def test_a_tenant_id_that_could_be_a_path_or_an_option_is_refused(name: str) -> None:
    with pytest.raises(CallerError):
        TenantId(name)


@pytest.mark.parametrize(
    "text",
    [
        "gcc",
        "gcc:12",
        f"gcc@sha256:{SHA[:-1]}",
        f"gcc@md5:{SHA}",
        f"../x@sha256:{SHA}",
        f"-x@sha256:{SHA}",
        f"a@b@sha256:{SHA}",
        "x" * 300 + f"@sha256:{SHA}",
    ],
)
def test_an_image_that_is_not_pinned_or_not_a_name_is_refused(text: str) -> None:
    with pytest.raises(CallerError):
        ImageRef.parse(text)


def test_an_image_reads_back_from_its_platform_value() -> None:
    ref = ImageRef("127.0.0.1:5000/team/gcc", ImageDigest(f"sha256:{SHA}"))
    assert ImageRef.parse(ref.platform_value) == ref


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/etc/passwd",
        "..",
        "a/../b",
        "./a",
        "a/",
        "a//b",
        "a\0b",
        "x" * 256,
        "a/" * 3000 + "a",
        "\udcff",
    ],
)
def test_a_guest_path_that_is_absolute_escaping_or_not_normal_is_refused(path: str) -> None:
    with pytest.raises(CallerError):
        check_guest_path(path)


@pytest.mark.parametrize("path", ["a", "a/b.c", "..a/b..", "...", "ä/ö"])
def test_a_normal_guest_path_is_accepted(path: str) -> None:
    assert check_guest_path(path) == path


def test_isolation_ranks_a_kernel_of_its_own_above_a_container_above_nothing() -> None:
    assert Isolation.QEMU_TCG.rank > Isolation.PROCESS_RUNC.rank > Isolation.LOCAL_NONE.rank


def test_of_two_reuse_policies_the_stricter_counts() -> None:
    exec_, principal, tenant = GuestReuse.EXEC, GuestReuse.PRINCIPAL, GuestReuse.TENANT
    assert {exec_.stricter(r) for r in GuestReuse} == {exec_}
    assert {r.stricter(tenant) for r in GuestReuse} == set(GuestReuse)
    assert tenant.stricter(principal) is principal.stricter(tenant) is principal


def test_mitigations_are_on_where_code_of_several_principals_runs_or_the_setting_asks() -> None:
    on = {m: {r for r in GuestReuse if m.are_on(r)} for m in GuestMitigations}
    assert on == {
        GuestMitigations.AUTO: {GuestReuse.TENANT},
        GuestMitigations.ON: set(GuestReuse),
        GuestMitigations.OFF: set(),
    }
