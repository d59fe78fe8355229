"""Hostile layers: each is refused with a clear error, or made harmless and counted."""

import gzip
import io
import tarfile
from pathlib import Path

import pytest
import zstandard

from hpcc.core import IntegrityError
from hpcc.images.assembly.flatten import FlattenReport, flatten
from hpcc.images.assembly.tree import MOUNT_POINTS
from hpcc.images.base.limits import FlattenLimits
from hpcc.images.oci.blobfile import LayerFile
from hpcc_testkit.guests.images import (
    BLK,
    CHR,
    DIR,
    FIFO,
    HARD,
    SYM,
    Item,
    layer_files,
    read_clean_tar,
    tar_bytes,
)

MOUNTS = {path for path, _ in MOUNT_POINTS}


def flat(
    tmp_path: Path, *layers: list[Item] | bytes, limits: FlattenLimits | None = None
) -> tuple[dict[str, str], FlattenReport]:
    blobs = [one if isinstance(one, bytes) else tar_bytes(one) for one in layers]
    out = io.BytesIO()
    report = flatten(layer_files(tmp_path, blobs), out, limits=limits)
    tree = read_clean_tar(out.getvalue())
    return {path: what for path, what in tree.items() if path not in MOUNTS}, report


def refused(
    tmp_path: Path, *layers: list[Item] | bytes, limits: FlattenLimits | None = None
) -> IntegrityError:
    with pytest.raises(IntegrityError) as caught:
        flat(tmp_path, *layers, limits=limits)
    return caught.value


@pytest.mark.parametrize("name", ["../x", "a/../../x", "a/..", "..", "./../x"])
def test_a_name_with_dotdot_is_refused(tmp_path: Path, name: str) -> None:
    error = refused(tmp_path, [Item(name, text="1")])
    assert error.reason == "tar-parent-name"
    assert "'..'" in str(error)


@pytest.mark.parametrize("name", ["/etc/passwd", "//etc/passwd", "/"])
def test_an_absolute_name_is_refused(tmp_path: Path, name: str) -> None:
    error = refused(tmp_path, [Item(name, text="1")])
    assert error.reason == "tar-absolute-name"
    assert "/" in str(error)


def test_device_nodes_and_fifos_are_dropped_and_counted(tmp_path: Path) -> None:
    tree, report = flat(
        tmp_path,
        [Item("null", CHR), Item("sda", BLK), Item("pipe", FIFO), Item("ok", text="1")],
    )
    assert tree == {"ok": "file 644 1"}
    assert dict(report.dropped)["device or fifo"] == 3


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6755])
def test_setuid_and_setgid_are_masked_and_counted(tmp_path: Path, mode: int) -> None:
    tree, report = flat(tmp_path, [Item("su", text="1", mode=mode), Item("d", DIR, mode=mode)])
    assert tree == {"su": "file 755 1", "d": "dir 755"}
    assert dict(report.dropped)["setuid or setgid bit"] == 2


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("/etc/shadow", "tar-absolute-name"),
        ("../../etc/shadow", "tar-parent-name"),
        ("etc/shadow", "tar-hard-link"),
        ("", "tar-hard-link"),
    ],
)
def test_a_hard_link_out_of_the_image_is_refused(tmp_path: Path, target: str, reason: str) -> None:
    assert refused(tmp_path, [Item("x", HARD, target)]).reason == reason


def test_a_hard_link_to_a_directory_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, [Item("d", DIR), Item("x", HARD, "d")]).reason == "tar-hard-link"


def test_a_hard_link_to_a_symlink_is_that_symlink_again(tmp_path: Path) -> None:
    tree, _ = flat(tmp_path, [Item("s", SYM, "/etc/shadow"), Item("h", HARD, "s")])
    assert tree == {"s": "symlink /etc/shadow", "h": "symlink /etc/shadow"}


def test_a_name_below_a_symlink_lands_inside_the_image(tmp_path: Path) -> None:
    tree, _ = flat(
        tmp_path,
        [Item("etc", DIR), Item("d", SYM, "/../../etc"), Item("d/passwd", text="evil")],
    )
    assert tree == {
        "d": "symlink /../../etc",
        "etc": "dir 644",
        "etc/passwd": "file 644 evil",
    }


def test_a_loop_of_symlinks_is_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, [Item("a", SYM, "b"), Item("b", SYM, "a"), Item("a/x", text="1")])
    assert error.reason == "tar-symlink-loop"


def test_an_upper_layer_writes_through_the_lower_layers_symlink(tmp_path: Path) -> None:
    tree, _ = flat(
        tmp_path,
        [Item("usr/lib", DIR, mode=0o755), Item("lib", SYM, "usr/lib")],
        [Item("lib/x.so", text="1")],
    )
    assert tree["usr/lib/x.so"] == "file 644 1"
    assert tree["lib"] == "symlink usr/lib"


def test_the_last_of_several_entries_with_one_name_counts(tmp_path: Path) -> None:
    tree, _ = flat(
        tmp_path,
        [
            Item("f", text="one"),
            Item("f", text="two"),
            Item("g", DIR),
            Item("g", text="file"),
            Item("h", text="x"),
            Item("h/i", text="y"),
        ],
    )
    assert tree == {
        "f": "file 644 two",
        "g": "file 644 file",
        "h": "dir 755",
        "h/i": "file 644 y",
    }


def test_whiteouts_act_on_lower_layers_only_whatever_their_place(tmp_path: Path) -> None:
    tree, _ = flat(
        tmp_path,
        [Item("d/a", text="1"), Item("d/b", text="2"), Item("e", text="3"), Item("k/o", text="4")],
        [
            Item("d/.wh.a"),
            Item("e", text="new"),
            Item(".wh.e"),
            Item("k/n", text="5"),
            Item(".wh.k"),
        ],
    )
    assert tree == {
        "d": "dir 755",
        "d/b": "file 644 2",
        "e": "file 644 new",
        "k": "dir 755",
        "k/n": "file 644 5",
    }


def test_an_opaque_directory_hides_what_is_below(tmp_path: Path) -> None:
    tree, _ = flat(
        tmp_path,
        [Item("m/a", text="1"), Item("m/s/b", text="2")],
        [Item("m/c", text="3"), Item("m/.wh..wh..opq")],
    )
    assert tree == {"m": "dir 755", "m/c": "file 644 3"}


def test_hard_links_keep_the_content_that_they_had(tmp_path: Path) -> None:
    tree, report = flat(
        tmp_path,
        [Item("a", text="old"), Item("b", HARD, "a"), Item("c", HARD, "a")],
        [Item("a", text="new")],
    )
    assert tree == {"a": "file 644 new", "b": "file 644 old", "c": "hardlink b"}
    assert report.hard_links == 1


def test_a_hard_link_reaches_into_a_lower_layer(tmp_path: Path) -> None:
    tree, _ = flat(tmp_path, [Item("a", text="old")], [Item("b", HARD, "a")])
    assert tree == {"a": "file 644 old", "b": "hardlink a"}


def test_mount_points_are_directories_of_ours_whatever_the_image_has(tmp_path: Path) -> None:
    out = io.BytesIO()
    layer = tar_bytes(
        [
            Item(".hpcc/bin/python3", text="evil"),
            Item("proc", SYM, "/tmp"),
            Item("tmp", text="a file"),
            Item("dev/sda", text="a trap"),
            Item("var", SYM, "/.hpcc"),
        ]
    )
    report = flatten(layer_files(tmp_path, [layer]), out)
    tree = read_clean_tar(out.getvalue())
    assert set(tree) == MOUNTS
    assert {path: what for path, what in tree.items() if "1777" in what} == {
        "tmp": "dir 1777",
        "var/tmp": "dir 1777",
    }
    assert dict(report.dropped) == {
        "content of /.hpcc": 1,
        "content of /dev": 1,
        "replaced mount point": 3,
    }


@pytest.mark.parametrize("name", ["a" * 300, "/".join(["d"] * 200), "ab/" * 2000 + "c"])
def test_names_beyond_a_file_systems_limits_are_refused(tmp_path: Path, name: str) -> None:
    assert refused(tmp_path, [Item(name, text="1")]).reason == "tar-name-limit"


def test_an_impossible_symlink_target_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, [Item("a", SYM, "b" * 5000)]).reason == "tar-symlink-target"


def test_odd_names_survive_as_they_are(tmp_path: Path) -> None:
    tree, _ = flat(tmp_path, [Item("a\nb", text="1"), Item("\udcff\udcfe", text="2"), Item("é")])
    assert tree == {"a\nb": "file 644 1", "\udcff\udcfe": "file 644 2", "é": "file 644 "}


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_are_read_in_both_spellings(tmp_path: Path, form: int) -> None:
    name = "/".join(["d" * 60] * 5)
    layer = tar_bytes([Item(name, text="1"), Item("l", SYM, "t" * 300)], form=form)
    tree, _ = flat(tmp_path, layer)
    assert tree[name] == "file 644 1"
    assert tree["l"] == "symlink " + "t" * 300


@pytest.mark.parametrize(
    ("kind", "size"),
    [(tarfile.XHDTYPE, 8 << 30), (tarfile.GNUTYPE_LONGNAME, 1 << 31), (tarfile.XGLTYPE, 2 << 20)],
)
def test_a_huge_extended_header_is_refused_before_it_is_read(
    tmp_path: Path, kind: bytes, size: int
) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, size
    error = refused(tmp_path, info.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    assert error.reason == "tar-header-size"


def test_endless_extended_headers_are_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2
    one = info.tobuf(tarfile.GNU_FORMAT) + b"a\0" + bytes(510)
    assert refused(tmp_path, one * 20 + bytes(1024)).reason == "tar-header"


def test_a_file_that_claims_more_than_there_is_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("big")
    info.size = 1 << 40
    error = refused(tmp_path, info.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    assert error.reason == "layer-truncated"


@pytest.mark.parametrize("keep", [100, 512, 700, 1024, 1400])
def test_a_truncated_archive_is_refused_wherever_it_was_cut(tmp_path: Path, keep: int) -> None:
    whole = tar_bytes([Item("a", text="x" * 600), Item("b", text="y")])
    error = refused(tmp_path, whole[:keep])
    assert error.reason == "layer-truncated"
    assert "truncated" in str(error)


def test_a_truncated_gzip_layer_is_refused(tmp_path: Path) -> None:
    packed = gzip.compress(tar_bytes([Item("a", text=str(list(range(5000))))]))
    assert refused(tmp_path, packed[: len(packed) // 2]).reason == "layer-truncated"


def test_a_truncated_zstd_layer_is_refused(tmp_path: Path) -> None:
    packed = zstandard.ZstdCompressor().compress(
        tar_bytes([Item("a", text=str(list(range(5000))))])
    )
    assert refused(tmp_path, packed[: len(packed) // 2]).reason == "layer-truncated"


def test_damage_inside_compressed_data_is_refused(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(tar_bytes([Item("a", text=str(list(range(5000))))])))
    packed[len(packed) // 2] ^= 0xFF
    assert refused(tmp_path, bytes(packed)).reason in {
        "layer-damaged",
        "layer-truncated",
        "tar-header",
    }


def test_a_blob_that_changed_under_its_digest_is_named(tmp_path: Path) -> None:
    (layer,) = layer_files(tmp_path, [tar_bytes([Item("a", text="1")])])
    data = bytearray(layer.path.read_bytes())
    data[513] ^= 1
    layer.path.write_bytes(data)
    with pytest.raises(IntegrityError) as caught:
        flatten([layer], io.BytesIO())
    assert caught.value.reason == "digest-mismatch"


def test_a_blob_cut_short_on_disk_is_named(tmp_path: Path) -> None:
    (layer,) = layer_files(tmp_path, [tar_bytes([Item("a", text="1")])])
    layer.path.write_bytes(layer.path.read_bytes()[:-512])
    with pytest.raises(IntegrityError, match="truncated or replaced"):
        flatten([layer], io.BytesIO())


def test_a_blob_that_is_a_symlink_is_refused(tmp_path: Path) -> None:
    (layer,) = layer_files(tmp_path, [tar_bytes([Item("a", text="1")])])
    link = tmp_path / "link"
    link.symlink_to(layer.path)
    with pytest.raises(IntegrityError) as caught:
        flatten([LayerFile(link, layer.digest)], io.BytesIO())
    assert caught.value.reason == "blob-not-a-file"


def _bomb(size: int) -> bytes:
    info = tarfile.TarInfo("z")
    info.size = size
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    parts = [packer.compress(info.tobuf(tarfile.GNU_FORMAT))]
    zeros = bytes(1 << 22)
    parts += [packer.compress(zeros) for _ in range(size >> 22)]
    return b"".join([*parts, packer.flush()])


def test_a_tar_bomb_is_stopped_by_the_byte_budget(tmp_path: Path) -> None:
    bomb = _bomb(256 << 20)
    assert len(bomb) < 1 << 20
    error = refused(tmp_path, bomb, limits=FlattenLimits(stream_bytes=32 << 20))
    assert error.reason == "image-too-large"
    assert "tar bomb" in str(error)


def test_the_byte_budget_counts_all_layers_together(tmp_path: Path) -> None:
    layer = tar_bytes([Item("a", text="x" * 10_000)])
    other = tar_bytes([Item("b", text="x" * 10_000)])
    limits = FlattenLimits(stream_bytes=24_000)
    flat(tmp_path, layer, limits=limits)
    assert refused(tmp_path, layer, other, limits=limits).reason == "image-too-large"


@pytest.mark.timeout(300)
def test_a_million_entries_are_refused_early(tmp_path: Path) -> None:
    # One header block repeated: 512 MB of tar that zstd packs into some kilobytes.
    block = tarfile.TarInfo("file").tobuf(tarfile.GNU_FORMAT)
    many = zstandard.ZstdCompressor(level=1).compress(block * 1_000_000 + bytes(1024))
    error = refused(tmp_path, many, limits=FlattenLimits(entries=10_000))
    assert error.reason == "too-many-entries"
    assert "10000" in str(error)
    assert FlattenLimits().entries == 200_000


def test_parents_that_no_entry_names_count_as_entries(tmp_path: Path) -> None:
    items = [Item(f"{i}/" + "/".join("abcdefghij"), text="") for i in range(10)]
    assert refused(tmp_path, items, limits=FlattenLimits(entries=60)).reason == "too-many-entries"


@pytest.mark.parametrize("kind", [b"S", b"M", b"V", b"Z", b"D"])
def test_an_entry_of_an_unknown_type_is_refused(tmp_path: Path, kind: bytes) -> None:
    block = bytearray(tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT))
    block[156:157] = kind
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    error = refused(tmp_path, bytes(block) + bytes(1024))
    assert error.reason == "tar-entry-type"


def test_a_sparse_file_in_pax_spelling_is_refused(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("x")
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
        archive.addfile(info)
    assert refused(tmp_path, out.getvalue()).reason == "tar-entry-type"


def test_a_global_header_that_renames_everything_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type = tarfile.XGLTYPE
    body = b"15 path=../evil\n"
    body = b"%d path=../evil\n" % len(body)
    info.size = len(body)
    layer = info.tobuf(tarfile.USTAR_FORMAT) + body.ljust(512, b"\0") + bytes(1024)
    assert refused(tmp_path, layer).reason == "tar-header"


def test_a_damaged_header_in_the_middle_is_no_end_of_archive(tmp_path: Path) -> None:
    layer = bytearray(tar_bytes([Item("a", text="1"), Item("b", text="2")]))
    layer[1024 + 10] ^= 0xFF
    assert refused(tmp_path, bytes(layer)).reason == "tar-header"


def test_errors_show_hostile_names_on_one_short_line(tmp_path: Path) -> None:
    error = refused(tmp_path, [Item("../\x1b[31m\n" + "x" * 500, text="1")])
    assert "\x1b" not in str(error)
    assert "\n" not in str(error)
    assert len(str(error)) < 400
