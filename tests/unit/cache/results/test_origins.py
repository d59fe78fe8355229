"""Origins of binary inputs: which contents count as equal for the users, and damaged records."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import cast

import pytest

from hpcc.cache.base.fields import encode_fields
from hpcc.cache.results.origins import _FORMAT, Origins, contents_of
from hpcc.store.private import PrivateStore

A, B, C, D, ORIGIN, OTHER = (bytes([number]) * 32 for number in range(6))

ROOT = b"/own"


class Store(dict[bytes, bytes]):
    """Entries in memory."""

    def put(self, key: bytes, payload: bytes) -> bool:
        self[key] = payload
        return True

    def remove(self, key: bytes) -> None:
        del self[key]


@pytest.fixture
def store() -> Store:
    return Store()


def opened(store: Store) -> Origins:
    return Origins(cast("PrivateStore", store))


def test_an_origin_belongs_to_a_name_a_content_and_a_checkout(store: Store, tmp_path: Path) -> None:
    path, link = os.fsencode(tmp_path / "x.gch"), os.fsencode(tmp_path / "link")
    os.symlink(tmp_path, tmp_path / "link")
    opened(store).remember(path, b"one", ORIGIN, ROOT)
    opened(store).remember(path, b"one", OTHER, ROOT)
    digest = hashlib.sha256(b"one").digest()
    for origins in (opened(store), opened(store)):
        assert origins.of(path, digest, ROOT) == (OTHER, ORIGIN)
        assert origins.of(link + b"/x.gch", digest, ROOT) == (OTHER, ORIGIN)
        assert origins.of(path + b"2", digest, ROOT) == ()
        assert origins.of(path, A, ROOT) == ()
        assert origins.of(path, digest, b"/other") == ()


def test_contents_are_equal_once_they_were_compared(store: Store) -> None:
    origins = opened(store)
    assert origins.are_equal(ORIGIN, A, A)
    assert not origins.are_equal(ORIGIN, A, B)
    origins.note_equal(ORIGIN, A, B)
    origins.note_equal(ORIGIN, B, C)
    for its in (origins, opened(store)):
        assert its.are_equal(ORIGIN, A, C)
        assert its.are_equal(ORIGIN, C, A)
        assert not its.are_equal(ORIGIN, A, D)
        assert not its.are_equal(OTHER, A, B)


def test_two_contents_prove_nothing_about_two_others(store: Store) -> None:
    origins = opened(store)
    origins.note_equal(ORIGIN, A, B)
    origins.note_equal(ORIGIN, C, D)
    assert origins.are_equal(ORIGIN, C, D)
    assert not origins.are_equal(ORIGIN, A, C)


def test_after_a_difference_each_content_counts_only_for_itself(store: Store) -> None:
    origins = opened(store)
    origins.note_equal(ORIGIN, A, B)
    origins.note_different(ORIGIN)
    for its in (origins, opened(store)):
        its.note_equal(ORIGIN, A, B)
        assert not its.are_equal(ORIGIN, A, B)
        assert its.are_equal(ORIGIN, A, A)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"torn",
        encode_fields([b"origin-0", A, B]),
        encode_fields([_FORMAT, A, b"short"]),
        encode_fields([_FORMAT, b"differs", A, B]),
        encode_fields([_FORMAT, *[A, B] * 200]),
    ],
)
def test_a_damaged_record_is_no_record(data: bytes, store: Store) -> None:
    opened(store).note_equal(ORIGIN, A, B)
    (key,) = store
    store[key] = data
    assert not opened(store).are_equal(ORIGIN, A, B)
    assert not store


def test_digests_are_split() -> None:
    assert contents_of(A + B) == (A, B)
    assert contents_of(b"") == contents_of(A + b"x") == ()
