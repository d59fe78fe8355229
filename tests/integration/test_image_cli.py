"""`hpcc image …` as a person or a script uses it."""

import json
import shutil
import tarfile
from pathlib import Path

import pytest

from hpcc.cli.main import main
from hpcc.core import ImageRef, IntegrityError
from hpcc.images.oci.layout import OciLayout
from hpcc.images.oci.unpack import unpack_layout
from hpcc_testkit.guests.images import SYM, Item, LyingRegistry, SmallImage, make_image, tar_bytes

pytestmark = pytest.mark.skipif(shutil.which("mkfs.erofs") is None, reason="no erofs-utils")


@pytest.fixture(autouse=True)
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPCC_DIR", str(tmp_path / "hpcc"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))


def small(text: str = "1") -> SmallImage:
    return make_image([tar_bytes([Item("bin/cc", text=text)])], labels={"a": "b"})


def archive_of(layout: Path, path: Path, **extra: str) -> Path:
    with tarfile.open(path, "w") as archive:
        archive.add(layout, arcname=".")
        for name, target in extra.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = SYM, target
            archive.addfile(info)
    return path


def test_an_image_is_imported_listed_inspected_and_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = small()
    layout = image.write_layout(tmp_path / "l")
    assert main(["image", "import", str(layout), "--name", "localhost/me"]) == 0
    said = capsys.readouterr()
    ref = ImageRef("localhost/me", image.digest)
    assert said.out == f"{ref}\n"
    assert "making the file system image" in said.err

    assert main(["image", "list"]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["DIGEST", "NAME", "SIZE", "CREATED", "LAST", "USED"]
    assert row.split()[:2] == [image.digest.hex[:12], "localhost/me"]

    assert main(["image", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reference"] == str(ref)

    assert main(["image", "inspect", image.digest.hex[:8]]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["labels"] == {"a": "b"}
    assert shown["digest"] == shown["manifest_digest"] == image.digest.value
    assert Path(shown["path"]).stat().st_size == shown["size_bytes"]
    assert (shown["compilers"], shown["label_trouble"]) == (None, "")

    assert main(["image", "rm", "localhost/me"]) == 0
    assert not Path(shown["path"]).exists()
    assert main(["image", "rm", "localhost/me"]) == 1
    assert "hpcc image list" in capsys.readouterr().err


def test_an_archive_is_imported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = small()
    archive = archive_of(image.write_layout(tmp_path / "l"), tmp_path / "a.tar", evil="/etc")
    assert main(["image", "import", str(archive), "--ref", "t:1"]) == 0
    assert capsys.readouterr().out.endswith(f"@{image.digest}\n")


def test_a_name_that_the_layout_does_not_have_lists_what_it_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = small().write_layout(tmp_path / "l")
    assert main(["image", "import", str(layout), "--ref", "other"]) == 1
    assert "t:1" in capsys.readouterr().err


def test_an_archive_writes_only_the_layouts_own_names(tmp_path: Path) -> None:
    layout = small().write_layout(tmp_path / "l")
    (layout / "blobs/sha256/../../evil").resolve().write_text("x")
    archive = archive_of(layout, tmp_path / "a.tar")
    out = tmp_path / "out"
    out.mkdir()
    unpack_layout(archive, out)
    assert sorted(p.name for p in out.iterdir()) == ["blobs", "index.json", "oci-layout"]
    assert OciLayout(out).find("t:1") == small().digest


def test_an_archive_with_a_blob_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(tar_bytes([Item("index.json", text="{}"), Item("./index.json", text="[]")]))
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(IntegrityError, match="twice"):
        unpack_layout(path, out)


@pytest.mark.parametrize("data", [b"", b"x" * 2000, tar_bytes([])[:300]])
def test_an_archive_that_is_none_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(data)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(IntegrityError):
        unpack_layout(path, out)


def test_a_file_that_is_not_there_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["image", "import", "/nonexistent/x.tar"]) == 1
    assert "/nonexistent/x.tar is not there" in capsys.readouterr().err


async def test_a_tag_is_pulled_and_printed_pinned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import asyncio

    image = small()
    async with LyingRegistry(image, tags={"1.0": image.manifest_digest}).serve() as registry:
        code = await asyncio.to_thread(_main_without_signals, f"{registry.repository}:1.0")
        assert code == 0
        assert capsys.readouterr().out == f"{registry.repository}@{image.digest}\n"
        registry.respond = lambda _asked: None
        registry.asked.clear()
        code = await asyncio.to_thread(
            _main_without_signals, f"{registry.repository}@{image.digest}"
        )
        assert code == 0
        assert registry.asked == []  # it is here already


def _main_without_signals(image: str) -> int:
    """Call main without signal handlers, which only the main thread can set."""
    import asyncio

    from hpcc.cli.image import image as _image

    return asyncio.run(_image._pull(image, []))


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("x@sha256:123", "not an image digest"),
        ("a b", "not an image"),
        ("127.0.0.1:1/x:", "not an image"),
    ],
)
def test_a_name_that_is_none_is_refused(
    image: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["image", "pull", image]) == 2
    assert words in capsys.readouterr().err


def test_a_package_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["image", "build-debian", "gcc", "a;b"]) == 2
    assert "not a package name" in capsys.readouterr().err
