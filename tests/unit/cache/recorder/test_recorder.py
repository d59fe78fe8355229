"""The recorder's files: complete, bounded, private, and read back by build."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from hpcc.cache.recorder.compiles import Compile
from hpcc.cache.recorder.places import DIRECTORY_NAME, Limits, find_parts
from hpcc.cache.recorder.reading import BuildLines, find_build, list_builds
from hpcc.cache.recorder.recorder import Recorder
from hpcc.core import CallerError, NotFoundError
from hpcc_testkit.cache.recorded import AT_US, compile_at

HIT = compile_at(0, 0, "hit.local")


class Clock:
    def __init__(self) -> None:
        self.seconds = AT_US / 1e6

    def __call__(self) -> float:
        self.seconds += 1
        return self.seconds


def recorder_in(cache: Path, limits: Limits | None = None) -> Recorder:
    return Recorder(str(cache / DIRECTORY_NAME), Clock(), limits)


def hit(recorder: Recorder, build: str, began_us: int, unit: Compile = HIT) -> None:
    if not recorder.hit(build, unit.source, began_us, 300):
        assert recorder.define(build, unit.source, unit)
        assert recorder.hit(build, unit.source, began_us, 300)


def files(cache: Path) -> list[Path]:
    return sorted((cache / DIRECTORY_NAME).iterdir())


def test_what_was_added_is_read_back_once(tmp_path: Path) -> None:
    recorder = recorder_in(tmp_path)
    recorder.add("one", compile_at(5, 10))
    hit(recorder, "one", AT_US)
    hit(recorder, "two", AT_US + 1)
    recorder.flush()
    hit(recorder, "one", AT_US + 2)
    recorder.flush()
    recorder.flush()
    one = find_build(str(tmp_path), "one")
    assert [c.began_us - AT_US for c in one.compiles] == [0, 2, 5000]
    assert one.compiles[0].source == HIT.source
    assert [(b.build, b.compiles, b.hits) for b in list_builds(str(tmp_path))] == [
        ("two", 1, 1), ("one", 3, 2),
    ]  # fmt: skip
    assert len(files(tmp_path)) == 2


def test_a_list_that_is_made_again_reads_only_files_that_grew(tmp_path: Path) -> None:
    recorder, listed = recorder_in(tmp_path), BuildLines(str(tmp_path))
    assert listed.lines() == []
    for build in ("one", "two"):
        recorder.add(build, compile_at(5, 10))
        recorder.add(build, compile_at(6, 10, "refused"))
        hit(recorder, build, AT_US)
    recorder.flush()
    first = listed.lines()
    assert [(b.compiles, b.lookups, b.hits) for b in first] == [(3, 2, 1)] * 2
    for file in files(tmp_path):
        file.write_bytes(bytes(file.stat().st_size))
    assert listed.lines() == first
    recorder.add("two", compile_at(9, 10))
    recorder.flush()  # behind bytes that are not frames any more
    assert [b.build for b in listed.lines()] == ["one"]
    for file in files(tmp_path):
        file.unlink()
    assert listed.lines() == []


def test_another_daemon_continues_a_build_in_another_file(tmp_path: Path) -> None:
    for offset in range(3):
        recorder = recorder_in(tmp_path)
        hit(recorder, "one", AT_US + offset)
        recorder.flush()
    assert len(files(tmp_path)) == 3
    assert len(find_build(str(tmp_path), "one").compiles) == 3


def test_files_and_their_place_are_the_owners_only(tmp_path: Path) -> None:
    place = tmp_path / DIRECTORY_NAME
    place.mkdir(mode=0o755)
    recorder = recorder_in(tmp_path)
    hit(recorder, "one", AT_US)
    recorder.flush()
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert {stat.S_IMODE(f.stat().st_mode) for f in files(tmp_path)} == {0o600}


def test_a_link_in_the_place_of_the_directory_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / DIRECTORY_NAME).symlink_to(tmp_path / "elsewhere")
    recorder = recorder_in(tmp_path)
    hit(recorder, "one", AT_US)
    recorder.flush()
    assert not list((tmp_path / "elsewhere").iterdir())


def test_the_oldest_builds_go_when_there_are_too_many(tmp_path: Path) -> None:
    recorder = recorder_in(tmp_path, Limits(builds=3))
    for number in range(6):
        hit(recorder, f"b{number}", AT_US + number)
        recorder.flush()
    assert [b.build for b in list_builds(str(tmp_path))] == ["b3", "b4", "b5"]


def test_an_endless_build_keeps_its_newest_compiles_within_the_bytes(tmp_path: Path) -> None:
    limits = Limits(total_bytes=64 << 10, part_bytes=8 << 10)
    recorder = recorder_in(tmp_path, limits)
    for number in range(2000):
        recorder.add("endless", compile_at(number, 1))
        if not number % 20:
            recorder.flush()
    recorder.flush()
    size = sum(f.stat().st_size for f in files(tmp_path))
    assert size <= limits.total_bytes + limits.part_bytes
    found = find_build(str(tmp_path), "endless").compiles
    began = [(c.began_us - AT_US) // 1000 for c in found]
    assert 50 < len(found) < 2000
    assert began == list(range(2000 - len(found), 2000))


def test_a_unit_is_defined_again_in_the_next_file(tmp_path: Path) -> None:
    recorder = recorder_in(tmp_path, Limits(part_bytes=1 << 10))
    for number in range(400):
        hit(recorder, "one", AT_US + number)
        recorder.flush()
    assert len(files(tmp_path)) > 2
    assert len(find_build(str(tmp_path), "one").compiles) == 400


def test_builds_under_way_and_new_builds_are_bounded(tmp_path: Path) -> None:
    recorder = recorder_in(tmp_path)
    recorded = 0
    for number in range(200):
        recorded += recorder.define(f"b{number}", 1, HIT) and recorder.hit(f"b{number}", 1, 1, 1)
    assert (recorded, recorder.dropped) == (64, 136)
    recorder.flush()
    assert len(find_parts(str(tmp_path / DIRECTORY_NAME))) == 64
    hit(recorder, "later", AT_US)
    recorder.flush()
    assert "later" in {b.build for b in list_builds(str(tmp_path))}


def test_an_idle_build_and_the_oldest_of_many_continue_in_another_file(tmp_path: Path) -> None:
    clock = Clock()
    recorder = Recorder(str(tmp_path / DIRECTORY_NAME), clock)
    for offset, pause in ((0, 0), (1, 0), (2, 400), (3, 0)):
        clock.seconds += pause
        hit(recorder, "other", AT_US + offset)
        if pause != 400:
            hit(recorder, "one", AT_US + offset)
        recorder.flush()
    assert [c.began_us - AT_US for c in find_build(str(tmp_path), "one").compiles] == [0, 1, 3]
    assert len(files(tmp_path)) == 3
    for number in range(20):
        hit(recorder, f"b{number}", AT_US)
        recorder.flush()
    hit(recorder, "one", AT_US + 4)
    recorder.flush()
    assert len(find_build(str(tmp_path), "one").compiles) == 4
    assert len(files(tmp_path)) == 3 + 20 + 1


def test_a_full_disk_costs_the_record_and_leaves_whole_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = recorder_in(tmp_path)
    hit(recorder, "one", AT_US)
    recorder.flush()
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[: len(data) // 2]))
    hit(recorder, "one", AT_US + 1)
    recorder.flush()
    monkeypatch.undo()
    hit(recorder, "one", AT_US + 2)
    recorder.flush()
    found = find_build(str(tmp_path), "one")
    assert [c.began_us - AT_US for c in found.compiles] == [0, 2]
    assert not found.is_damaged


def test_a_file_that_somebody_else_wrote_to_is_left_alone(tmp_path: Path) -> None:
    recorder = recorder_in(tmp_path)
    hit(recorder, "one", AT_US)
    recorder.flush()
    (file,) = files(tmp_path)
    with file.open("ab") as stream:
        stream.write(b"x")
    for offset in (1, 2):
        hit(recorder, "one", AT_US + offset)
        recorder.flush()
    found = find_build(str(tmp_path), "one")
    assert [c.began_us - AT_US for c in found.compiles] == [0, 2]
    assert found.is_damaged


def test_a_removed_directory_is_made_again(tmp_path: Path) -> None:
    recorder = recorder_in(tmp_path)
    for offset in range(3):
        hit(recorder, "one", AT_US + offset)
        recorder.flush()
        if not offset:
            for file in files(tmp_path):
                file.unlink()
            (tmp_path / DIRECTORY_NAME).rmdir()
    assert [c.began_us - AT_US for c in find_build(str(tmp_path), "one").compiles] == [2]


def test_other_files_links_and_long_files_are_not_read(tmp_path: Path) -> None:
    recorder = recorder_in(tmp_path)
    hit(recorder, "one", AT_US)
    recorder.flush()
    (good,) = files(tmp_path)
    began, build, _ = good.name.split("-")
    (good.parent / "notes.txt").write_text("x")
    (good.parent / f"{began}-{build}-{'0' * 16}.part").symlink_to(good)
    (good.parent / f"{began}-{build}-{'1' * 16}.part").mkdir()
    os.mkfifo(good.parent / f"{began}-{build}-{'2' * 16}.part")
    with (good.parent / f"{began}-{build}-{'3' * 16}.part").open("wb") as long:
        long.write(good.read_bytes())
        long.truncate(8 << 20)
    assert len(find_build(str(tmp_path), "one").compiles) == 1


def test_a_build_is_found_by_its_name_a_part_of_it_or_as_the_last(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="compile through hpcc"):
        find_build(str(tmp_path), "last")
    recorder = recorder_in(tmp_path)
    for number, name in enumerate(("release-7", "release-71", "guessed/0af1")):
        hit(recorder, name, AT_US + number)
    recorder.flush()
    cache = str(tmp_path)
    names = ("last", "release-7", "0af1", "71")
    assert [find_build(cache, name).build for name in names] == [
        "guessed/0af1", "release-7", "guessed/0af1", "release-71",
    ]  # fmt: skip
    with pytest.raises(CallerError, match="2 builds"):
        find_build(cache, "release")
    with pytest.raises(NotFoundError, match="hpcc builds"):
        find_build(cache, "nightly")
