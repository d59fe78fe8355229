"""The initramfs is a newc archive as cpio's format defines it."""

from __future__ import annotations

import stat

from hypothesis import given
from hypothesis import strategies as st

from hpcc.runtime.assets.initramfs import ArchiveFile, build_initramfs, newc


def parse(archive: bytes) -> list[tuple[str, int, bytes]]:
    out, at = [], 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        name = archive[at + 110 : at + 110 + fields[11] - 1].decode()
        start = (at + 110 + fields[11] + 3) // 4 * 4
        data = archive[start : start + fields[6]]
        at = (start + fields[6] + 3) // 4 * 4
        if name == "TRAILER!!!":
            assert at == len(archive)
            return out
        out.append((name, fields[1], data))


@given(
    st.lists(st.tuples(st.text("abc/", min_size=1, max_size=9), st.binary(max_size=50)), max_size=5)
)
def test_what_goes_in_comes_out(files: list[tuple[str, bytes]]) -> None:
    entries = [ArchiveFile(n, stat.S_IFREG | 0o644, d) for n, d in files]
    assert parse(newc(entries)) == [(n, stat.S_IFREG | 0o644, d) for n, d in files]


def test_modules_keep_their_order_and_init_is_a_program() -> None:
    archive = build_initramfs(b"INIT", [("zzz", b"1"), ("aaa", b"2")])
    entries = {name: (mode, data) for name, mode, data in parse(archive)}
    assert entries["init"] == (stat.S_IFREG | 0o755, b"INIT")
    assert [n for n in entries if n.startswith("m/")] == ["m/00-zzz.ko", "m/01-aaa.ko"]
    assert stat.S_ISCHR(entries["dev/console"][0])
    assert build_initramfs(b"INIT", [("zzz", b"1"), ("aaa", b"2")]) == archive
