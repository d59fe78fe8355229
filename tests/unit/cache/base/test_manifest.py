from __future__ import annotations

import contextlib
import hashlib
import os
import random
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcc.cache.base.counters import Counters, read_counters
from hpcc.cache.base.fields import decode_fields, encode_fields
from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.manifest import (
    MAX_SETS,
    Absence,
    InputSet,
    SortedNames,
    add_set,
    decode_manifest,
    encode_manifest,
    make_part,
    make_set,
)
from hpcc.cache.base.twins import (
    Twins,
    decode_twins,
    encode_twins,
    existing_directories,
    links_of,
    look_at_twins,
    missing_directories,
    odd_directories,
    related_files,
)
from hpcc.cache.base.uncacheable import UncacheableError, absolute
from hpcc.cache.farm import BREAKER_FAILURES, BREAKER_SECONDS, FarmBreaker
from hpcc.cache.host.driver_answers import search_lines
from hpcc.cache.inputs.closure import find_closure
from hpcc.cache.inputs.closure_types import ClosureRequest
from hpcc.compilers.invocation.share import ROOT_MARK
from hpcc.compilers.scan.twins import TwinRule
from hpcc.core import IntegrityError


@pytest.fixture
def memo() -> FileMemo:
    return FileMemo(time.time_ns)


def _age(path: Path) -> None:
    os.utime(path, (1, 1))


@given(st.lists(st.binary(max_size=30), max_size=20))
def test_fields_read_back(fields: list[bytes]) -> None:
    assert decode_fields(encode_fields(fields)) == fields


@given(st.binary(max_size=200))
def test_any_bytes_are_fields_or_an_integrity_error(data: bytes) -> None:
    with contextlib.suppress(IntegrityError):
        assert encode_fields(decode_fields(data)) == data


_NAMES = st.binary(min_size=1, max_size=9).filter(lambda name: b"\0" not in name)
# A root that is any clone's stands as a NUL.
_PATHS = st.one_of(_NAMES, _NAMES.map(ROOT_MARK.__add__))
_FILES = st.lists(st.tuples(_PATHS, st.binary(min_size=32, max_size=32))).map(tuple)
_ABSENCES = st.lists(
    st.builds(
        Absence,
        st.binary(max_size=9),
        st.frozensets(_NAMES),
        st.frozensets(_NAMES),
    )
).map(tuple)
_KEYS = st.binary(min_size=32, max_size=32)
_PRESENT = st.lists(_PATHS).map(tuple)
_PARTS = st.builds(make_part, _FILES, _ABSENCES)
_SETS = st.one_of(
    st.builds(make_set, _KEYS, _FILES, _PRESENT, _ABSENCES),
    st.builds(make_set, _KEYS, _FILES, _PRESENT, st.just(()), _PARTS),
)


def _plain(inputs: InputSet) -> object:
    absences = [(a.directory, a.files, a.directories) for a in inputs.absences]
    return inputs.files, inputs.present, absences, inputs.result_key


@given(st.lists(_SETS, max_size=MAX_SETS))
def test_manifests_read_back(sets: list[InputSet]) -> None:
    decoded = decode_manifest(encode_manifest(tuple(sets)))
    assert list(map(_plain, decoded)) == list(map(_plain, sets))


@given(st.binary(max_size=300))
def test_any_bytes_are_a_manifest_or_an_integrity_error(data: bytes) -> None:
    texts = (
        data,
        encode_fields([b"manifest-5", data]),
        encode_fields([b"manifest-6", encode_fields([data]), data]),
        encode_fields([b"manifest-6", b"", encode_fields([b"k" * 32, data, b"\0"])]),
    )
    for text in texts:
        try:
            decode_manifest(text)
        except IntegrityError:
            continue


def test_names_that_many_directories_lack_are_stored_once() -> None:
    names = frozenset(b"header-number-%d.h" % i for i in range(500))
    absences = [Absence(b"/d%d" % i, names - {b"header-number-%d.h" % i}, names) for i in range(40)]
    inputs = make_set(b"k", (), (), tuple(absences))
    data = encode_manifest((inputs,))
    assert len(data) < 2 * sum(map(len, names))
    assert list(map(_plain, decode_manifest(data))) == [_plain(inputs)]


def test_what_sets_share_is_stored_once_and_is_in_each_name() -> None:
    headers = tuple((b"/p/h%d.h" % i, bytes([i]) * 32) for i in range(200))
    part = make_part(headers, (Absence(b"/p", frozenset({b"x.h"}), frozenset()),))
    sets = tuple(
        make_set(b"k", ((b"/p/unit.c", bytes([i]) * 32),), (), (), part) for i in range(MAX_SETS)
    )
    data = encode_manifest(sets)
    assert len(data) < 2 * len(part.body)
    assert list(map(_plain, decode_manifest(data))) == list(map(_plain, sets))
    other = make_part((*headers[:-1], (headers[-1][0], b"x" * 32)), part.absences)
    again = make_set(b"k", sets[0].files[:1], (), (), other)
    assert again.result_key != sets[0].result_key


def test_sets_of_one_source_look_at_it_once(tmp_path: Path) -> None:
    path = tmp_path / "unit.c"
    path.write_bytes(b"int a;")
    asked: list[bytes] = []

    class Counting(FileMemo):
        def digest(self, path: bytes) -> bytes | None:
            asked.append(path)
            return super().digest(path)

    memo = Counting(time.time_ns)
    source, known = os.fsencode(path), FileMemo(time.time_ns).digest(os.fsencode(path))
    assert known is not None
    first: dict[bytes, bytes | None] = {}
    other = make_set(b"k", ((source, b"x" * 32), (b"/never/asked", b"y" * 32)), (), ())
    same = make_set(b"k", ((source, known),), (), ())
    assert [s.holds(memo, first) for s in (other, other, same)] == [False, False, True]
    assert asked == [source]


def test_the_order_of_directories_does_not_name_a_result() -> None:
    one = Absence(b"/a", frozenset({b"x"}), frozenset())
    two = Absence(b"/b", frozenset({b"y"}), frozenset())
    assert make_set(b"k", (), (), (one, two)) == make_set(b"k", (), (), (two, one))
    other = Absence(b"/b", frozenset(), frozenset({b"y"}))
    assert (
        make_set(b"k", (), (), (one, two)).result_key
        != make_set(b"k", (), (), (one, other)).result_key
    )


def test_only_the_newest_sets_are_kept() -> None:
    sets: tuple[InputSet, ...] = ()
    for number in range(MAX_SETS + 3):
        sets = add_set(sets, make_set(b"k", ((b"f", bytes([number]) * 32),), (), ()))
    assert len(sets) == MAX_SETS
    assert sets[0].files[0][1][0] == MAX_SETS + 2
    again = add_set(sets, sets[3])
    assert len(again) == MAX_SETS
    assert again[0] is sets[3]


def test_a_digest_is_remembered_only_for_a_quiet_file(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"one")
    now = [path.stat().st_ctime_ns + 10**9]
    memo = FileMemo(lambda: now[0])
    raw = os.fsencode(path)
    first = memo.digest(raw)
    assert raw not in memo._digests
    now[0] += 10**10
    assert memo.digest(raw) == first
    assert raw in memo._digests
    path.write_bytes(b"two")
    assert memo.digest(raw) != first


def test_a_process_that_is_stopped_after_a_read_does_not_make_a_young_file_quiet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second write in the tick of the first would keep the stat that was remembered."""
    path = tmp_path / "f"
    path.write_bytes(b"one")
    now = [path.stat().st_ctime_ns + 10**6]
    memo, read = FileMemo(lambda: now[0]), os.read

    def slow_read(fd: int, size: int) -> bytes:
        data = read(fd, size)
        now[0] += 10**10
        return data

    monkeypatch.setattr(os, "read", slow_read)
    assert memo.digest(os.fsencode(path)) == hashlib.sha256(b"one").digest()
    assert os.fsencode(path) not in memo._digests


def test_a_process_that_is_stopped_after_a_look_up_does_not_make_a_young_directory_quiet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [tmp_path.stat().st_ctime_ns + 10**6]
    memo, exists = FileMemo(lambda: now[0]), os.path.lexists

    def slow_exists(path: bytes) -> bool:
        found = exists(path)
        now[0] += 10**10
        return found

    monkeypatch.setattr(os.path, "lexists", slow_exists)
    absence = Absence(os.fsencode(tmp_path), frozenset({b"x.h"}), frozenset())
    assert absence.holds(memo)
    assert absence.signature is None


@pytest.mark.parametrize("what", ["missing", "directory", "fifo"])
def test_only_regular_files_have_a_digest(what: str, tmp_path: Path, memo: FileMemo) -> None:
    path = tmp_path / "x"
    if what == "directory":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    assert memo.digest(os.fsencode(path)) is None


@pytest.mark.parametrize("count", [1, 40])
def test_an_absent_name_that_appears_is_seen(count: int, tmp_path: Path, memo: FileMemo) -> None:
    names = frozenset(b"h%d.h" % i for i in range(count))
    absence = Absence(os.fsencode(tmp_path), names, frozenset({b"sub"}))
    assert absence.holds(memo)
    (tmp_path / "unrelated.o").write_text("")
    assert absence.holds(memo)
    (tmp_path / "h0.h").mkdir()  # a directory is not a header
    assert absence.holds(memo)
    (tmp_path / "h0.h").rmdir()
    (tmp_path / "sub").mkdir()
    assert not absence.holds(memo)
    (tmp_path / "sub").rmdir()
    (tmp_path / "h0.h").write_text("")
    assert not absence.holds(memo)


def test_a_link_that_leads_to_itself_does_not_hide_its_directory(
    tmp_path: Path, memo: FileMemo
) -> None:
    (tmp_path / "loop.h").symlink_to("loop.h")
    (tmp_path / "sub").mkdir()
    listing = memo.listing(os.fsencode(tmp_path))
    assert listing is not None
    assert (listing.names, listing.directories) == ({b"loop.h", b"sub"}, {b"sub"})


def test_a_quiet_directory_costs_one_stat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memo = FileMemo(lambda: time.time_ns() + 10**11)
    absence = Absence(os.fsencode(tmp_path), frozenset({b"a", b"b"}), frozenset())
    assert absence.holds(memo)
    assert absence.signature is not None
    monkeypatch.setattr(os.path, "lexists", lambda _p: pytest.fail("looked at a name"))
    assert absence.holds(memo)


def _request(tmp_path: Path, *files: str, **changes: object) -> ClosureRequest:
    values: dict[str, object] = {
        "cwd": os.fsencode(tmp_path),
        "source": b"a.c",
        "files": tuple(f.encode() for f in ("a.c", *files)),
        "search": (b"one", b"two", b"gone/deep"),
        "forced": (),
        "started_ns": time.time_ns() + 10**9,
        "allow_date": False,
    }
    return ClosureRequest(**{**values, **changes})  # type: ignore[arg-type]  # built by name above


def test_every_directory_before_and_after_is_watched(tmp_path: Path, memo: FileMemo) -> None:
    for name in ("one", "two", "sub"):
        (tmp_path / name).mkdir()
    (tmp_path / "a.c").write_text(
        '#include "x.h"\n#include <d/y.h>\n#if __has_include(<z.h>)\n#endif\n'
    )
    (tmp_path / "two/x.h").write_text("")
    found = find_closure(memo, _request(tmp_path, "two/x.h"))
    absent = {os.fsdecode(a.directory): a for a in found.absences}
    assert {b"x.h", b"x.h.gch"} <= absent[str(tmp_path)].files
    assert {b"x.h", b"z.h"} <= absent[str(tmp_path / "one")].files
    assert b"x.h" not in absent[str(tmp_path / "two")].files
    assert b"x.h.gch" in absent[str(tmp_path / "two")].files
    assert b"d" in absent[str(tmp_path / "one")].directories
    assert b"gone" in absent[str(tmp_path)].directories


@pytest.mark.parametrize("what", ["directory", "file", "loop"])
def test_whatever_appears_where_a_search_directory_was_missing_is_seen(
    what: str, tmp_path: Path, memo: FileMemo
) -> None:
    (tmp_path / "a.c").write_text('#include "x.h"\n')
    found = find_closure(memo, _request(tmp_path, search=(b"late",)))
    assert all(absence.holds(memo) for absence in found.absences)
    match what:
        case "directory":
            (tmp_path / "late").mkdir()
        case "file":
            (tmp_path / "late").write_text("")
        case _:
            (tmp_path / "late").symlink_to("late")
    assert not all(absence.holds(memo) for absence in found.absences)


def test_names_from_macro_includes_are_watched_too(tmp_path: Path, memo: FileMemo) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "a.c").write_text("#include HEADER\n")
    (tmp_path / "two/odd.h").write_text("")
    found = find_closure(memo, _request(tmp_path, "two/odd.h"))
    absent = {os.fsdecode(a.directory): a.files for a in found.absences}
    assert b"odd.h" in absent[str(tmp_path / "one")]


def test_a_file_newer_than_the_compile_is_refused(tmp_path: Path, memo: FileMemo) -> None:
    (tmp_path / "a.c").write_text("")
    with pytest.raises(UncacheableError) as caught:
        find_closure(memo, _request(tmp_path, started_ns=time.time_ns() - 10**9))
    assert caught.value.reason == "modified-during-compile"


@pytest.mark.parametrize(
    ("path", "expected"),
    [(b"a", b"/w/a"), (b"./a", b"/w/a"), (b"/x//y/./z", b"/x/y/z"), (b"../a", b"/w/../a")],
)
def test_paths_are_joined_without_resolving_dots(path: bytes, expected: bytes) -> None:
    assert absolute(b"/w", path) == expected


def test_search_lists_hold_directories_that_do_not_exist() -> None:
    text = (
        b'ignoring nonexistent directory "/none"\n#include "..." search starts here:\n q\n'
        b"#include <...> search starts here:\n /a\n /b b\nEnd of search list.\n /no\n"
    )
    assert search_lines(text) == (b"/none", b"q", b"/a", b"/b b")


def test_counts_outlive_the_process_and_damage(tmp_path: Path) -> None:
    path = str(tmp_path / "c/counters.json")
    first = Counters(path, now=lambda: 5.0)
    first.add("hit.local", 3)
    first.close()
    first.close()
    assert read_counters(path) == {"since": 5, "hit.local": 3}
    second = Counters(path, now=lambda: 9.0)
    second.add("hit.local")
    assert second.snapshot() == {"since": 5, "hit.local": 4}
    second.close()
    for text in ("", "{", "[1]", '{"a": -1, "b": "x", "c": true}'):
        Path(path).write_text(text)
        assert read_counters(path) == {}


def test_the_breaker_opens_after_failures_in_a_row_and_closes_by_time() -> None:
    now = [0.0]
    breaker = FarmBreaker(lambda: now[0])
    for _ in range(BREAKER_FAILURES - 1):
        breaker.note(worked=False)
    breaker.note(worked=True)
    for _ in range(BREAKER_FAILURES - 1):
        breaker.note(worked=False)
    assert not breaker.is_open()
    breaker.note(worked=False)
    assert breaker.is_open()
    now[0] = BREAKER_SECONDS
    assert not breaker.is_open()


@pytest.mark.parametrize("has_part", [False, True])
def test_a_relation_of_files_survives_and_counts_in_the_key(has_part: bool) -> None:
    part = make_part(((b"/p/h.h", b"h" * 32),), ()) if has_part else None
    files = ((b"/p/a.c", b"a" * 32),)
    one = Twins(TwinRule.SECOND, ((b"/p/h.h", b"/q/h.h"), (b"/r/h.h",)))
    other = Twins(TwinRule.SECOND, ((b"/p/h.h",), (b"/q/h.h", b"/r/h.h")))
    sets = [make_set(b"k", files, (), (), part, (twins,)) for twins in (one, other)]
    assert sets[0].result_key != sets[1].result_key
    decoded = decode_manifest(encode_manifest(tuple(sets)))
    assert [s.twins for s in decoded] == [(one,), (other,)]
    assert encode_manifest(decoded) == encode_manifest(tuple(sets))


@pytest.mark.parametrize("data", [b"", b"x", encode_fields([b"s"]), encode_fields([b"", b"z"])])
def test_bytes_that_are_no_relation_are_refused_or_empty(data: bytes) -> None:
    try:
        assert decode_twins(data) == ()
    except IntegrityError:
        return


def test_search_directories_are_related_by_what_they_are(tmp_path: Path) -> None:
    one, two, gone = (os.fsencode(tmp_path / name) for name in ("one", "two", "gone"))
    os.mkdir(one)
    os.mkdir(two)
    relation = look_at_twins(TwinRule.DIRECTORY, (one, two, gone))
    assert relation.groups == ((b"directory", one), (b"directory", two), (b"missing", gone))
    assert relation.holds()
    assert existing_directories((relation,)) == (one, two)
    assert missing_directories((relation,)) == (gone,)
    assert decode_twins(encode_twins((relation,))) == (relation,)
    moved = relation.renamed(lambda path: path.replace(b"one", b"zzz"))
    assert moved.renamed(lambda path: path.replace(b"zzz", b"one")) == relation

    os.rmdir(two)
    os.symlink(one, two)
    as_one = look_at_twins(TwinRule.DIRECTORY, (one, two, gone))
    assert as_one.groups == ((b"directory", one, two), (b"missing", gone))
    assert not relation.holds()

    os.unlink(two)
    Path(os.fsdecode(two)).touch()
    assert odd_directories((look_at_twins(TwinRule.DIRECTORY, (one, two)),)) == (two,)
    assert odd_directories((look_at_twins(TwinRule.DIRECTORY, (two + b"/below",)),))
    assert not relation.holds()


def test_a_search_directory_that_appears_breaks_its_relation(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path / "later")
    relation = look_at_twins(TwinRule.DIRECTORY, (path,))
    assert relation.holds()
    os.mkdir(path)
    assert not relation.holds()


def test_a_name_behind_a_link_is_related_to_its_real_name(tmp_path: Path) -> None:
    for version in ("v1", "v2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "x.h").touch()
    current = tmp_path / "current"
    current.symlink_to("v1")
    path, real = os.fsencode(current / "x.h"), os.fsencode(tmp_path / "v1" / "x.h")
    relation = look_at_twins(TwinRule.LINK, (path,))
    assert relation.groups == ((real, path),)
    assert relation.holds()
    assert decode_twins(encode_twins((relation,))) == (relation,)
    assert links_of((relation,)) == (path,)
    assert related_files((relation,)) == frozenset(), "it is one file"
    moved = relation.renamed(lambda name: b"/elsewhere" + name)
    assert moved.groups == ((b"/elsewhere" + real, b"/elsewhere" + path),)
    assert not moved.holds()
    current.unlink()
    current.symlink_to("v2")
    assert not relation.holds()
    current.unlink()
    assert not relation.holds()


def test_names_are_sorted_as_always_whatever_was_sorted_before() -> None:
    chosen = random.Random(7)
    every = [b"%x.h" % chosen.randrange(10**6) for _ in range(400)]
    names, sorts = frozenset(every[:300]), SortedNames()
    for _ in range(200):
        assert sorts.of(names) == sorted(names)
        match chosen.randrange(8):
            case 0:
                names = frozenset(chosen.sample(every, chosen.randrange(300)))
            case _:
                less = chosen.sample(sorted(names), min(len(names), chosen.randrange(4)))
                more = chosen.sample(every, chosen.randrange(4))
                names = (names - frozenset(less)) | frozenset(more)
