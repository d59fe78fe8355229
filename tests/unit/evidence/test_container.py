"""The zip file of evidence has one form; sizes are limited before anything is unpacked."""

from __future__ import annotations

import struct
import zipfile
import zlib
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcc.evidence.forms import container
from hpcc.evidence.forms.container import pack_files, unpack_files
from hpcc.evidence.forms.errors import EvidenceDamagedError
from hpcc_testkit.suite.examples import examples

FILES = {"a.txt": b"one", "b.json": b"", "c": b"three" * 1000}
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._%~-]{0,30}", fullmatch=True)


@settings(max_examples=examples(40))
@given(st.dictionaries(NAMES, st.binary(max_size=300), min_size=1, max_size=5))
def test_files_come_back_and_other_readers_find_the_same(files: dict[str, bytes]) -> None:
    data = pack_files(files)
    assert unpack_files(data) == files
    with zipfile.ZipFile(BytesIO(data)) as file:
        assert file.testzip() is None
        assert {name: file.read(name) for name in file.namelist()} == files


def test_the_same_files_give_the_same_bytes() -> None:
    assert pack_files(FILES) == pack_files(dict(reversed(FILES.items())))


@settings(max_examples=examples(60))
@given(st.data())
def test_a_changed_byte_is_refused_or_is_only_in_compressed_data(data: st.DataObject) -> None:
    packed = bytearray(pack_files(FILES))
    at = data.draw(st.integers(0, len(packed) - 1))
    packed[at] ^= data.draw(st.integers(1, 255))
    try:
        assert unpack_files(bytes(packed)) == FILES
    except EvidenceDamagedError:
        return


def bomb(announced: int, actual: int) -> bytes:
    """Return a file whose headers announce another size than the data has."""
    whole = pack_files({"a": b"\0" * actual})
    fixed = bytearray(whole)
    size = struct.pack("<I", announced)
    central = whole.index(b"PK\1\2")
    fixed[22:26] = size
    fixed[central + 24 : central + 28] = size
    return bytes(fixed)


def test_data_that_is_longer_or_shorter_than_announced_is_refused() -> None:
    assert unpack_files(bomb(5000, 5000)) == {"a": b"\0" * 5000}
    for announced in (0, 10, 4999, 5001, 100_000):
        with pytest.raises(EvidenceDamagedError):
            unpack_files(bomb(announced, 5000))


def test_what_is_announced_is_limited_before_it_is_unpacked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*_: object) -> object:
        raise AssertionError("it was unpacked")

    data = bomb(container.MAX_TOTAL_BYTES + 1, 100)
    monkeypatch.setattr(zlib, "decompressobj", never)
    with pytest.raises(EvidenceDamagedError, match="announces more than is read"):
        unpack_files(data)
    with pytest.raises(EvidenceDamagedError, match="larger than any"):
        unpack_files(b"\0" * (container.MAX_FILE_BYTES + 1))


def test_impossible_names_and_numbers_of_files_are_refused() -> None:
    for name in ("../a", "/a", "", "a/b", "a\n", "ä", "a" * 201, ".a"):
        with pytest.raises(ValueError, match="impossible name"):
            pack_files({name: b""})
    with pytest.raises(ValueError, match="too large"):
        pack_files({str(n): b"" for n in range(container.MAX_FILES + 1)})
    with pytest.raises(ValueError, match="too large"):
        pack_files({})
    data = pack_files({"aa": b"x", "bb": b"y"})
    for old, new in ((b"aa", b"bb"), (b"aa", b"cc"), (b"bb", b"/b")):
        with pytest.raises(EvidenceDamagedError, match="impossible or unsorted names"):
            unpack_files(data.replace(old, new))


def test_other_forms_of_zip_files_are_refused() -> None:
    data = pack_files(FILES)
    for other in (b"", b"PK", data[:-1], data + b"\0", b"\0" + data, data[22:], data[:30]):
        with pytest.raises(EvidenceDamagedError):
            unpack_files(other)
    target = BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in FILES.items():
            file.writestr(name, content)
    with pytest.raises(EvidenceDamagedError, match="as hpcc writes it"):
        unpack_files(target.getvalue())
