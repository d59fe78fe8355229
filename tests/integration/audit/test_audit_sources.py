"""`hpcc audit sources`: a row leads to its files, and a checkout is compared by content."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from hpcc.cli.main import main
from hpcc.core import Blob, InputFile
from hpcc.evidence.checkout import project_path_or_none
from hpcc.ports import AuditRow
from hpcc.reapi.tree import build_tree
from hpcc_testkit.farm.audit_rows import made, opened, row
from hpcc_testkit.farm.in_process import TENANT, FarmUnderTest, farm_under_test

SCRIPT = "cat dir/a.c > a.o; cat b.h >> a.o"
FILES = {"b.h": b"int y;\n", "dir/a.c": b"int x;\n"}


class Compiled:
    """A compile of a farm, its trail, and a checkout that it may be of."""

    def __init__(self, farm: FarmUnderTest, row: AuditRow) -> None:
        self.farm, self.row = farm, row
        self.trail = farm.directory / "trail"
        self.store = farm.directory / "worker/store"
        self.checkout = farm.directory / "checkout"
        for name, data in FILES.items():
            (self.checkout / name).parent.mkdir(parents=True, exist_ok=True)
            (self.checkout / name).write_bytes(data)

    def run(self, *words: str) -> int:
        where = ("--directory", str(self.trail), "--store", str(self.store))
        return main(["audit", "sources", self.row.row_id[:12], *where, *words])

    def lose(self, *rooms: str) -> None:
        for room in rooms:
            shutil.rmtree(self.store / TENANT.value / room)


@pytest.fixture
async def compiled(tmp_path: Path) -> AsyncGenerator[Compiled]:
    async with farm_under_test(tmp_path) as farm:
        blobs = made(SCRIPT)
        async with farm.serving(), farm.client() as client:
            await client.upload(blobs)
            await client.execute(blobs[-1].digest, ["a.o"])
        found = Compiled(farm, farm.audit.rows[-1])
        async with opened(found.trail) as log:
            await log.append(found.row)
        yield found


def test_the_files_are_listed_after_their_contents_are_gone(
    compiled: Compiled, capsys: pytest.CaptureFixture[str]
) -> None:
    compiled.lose("retained", "cas")
    assert compiled.run() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[:-1]] == [
        [Blob.of(data).digest.hash, str(len(data)), name] for name, data in FILES.items()
    ]
    assert lines[-1] == f"row {compiled.row.row_id[:12]}: 2 files, 14 bytes"


def test_a_checkout_with_the_same_contents_is_the_one(
    compiled: Compiled, capsys: pytest.CaptureFixture[str]
) -> None:
    compiled.lose("retained", "cas")
    assert compiled.run("--checkout", str(compiled.checkout)) == 0
    assert "2 of 2 files are those of" in capsys.readouterr().out


def test_lists_are_second_names_of_files_of_the_cache(compiled: Compiled) -> None:
    tenant = compiled.store / TENANT.value
    for kept in (tenant / "sources").glob("??/*"):
        assert kept.samefile(tenant / "cas" / kept.parent.name / kept.name)


def test_an_edited_and_a_missing_file_are_named(
    compiled: Compiled, capsys: pytest.CaptureFixture[str]
) -> None:
    (compiled.checkout / "b.h").write_bytes(b"int z;\n")
    (compiled.checkout / "dir/a.c").unlink()
    (compiled.checkout / "dir/b.c").write_bytes(FILES["dir/a.c"])
    assert compiled.run("--checkout", str(compiled.checkout)) == 3
    out = capsys.readouterr().out
    assert f"different  {Blob.of(FILES['b.h']).digest.hash}  b.h" in out
    assert f"absent     {Blob.of(FILES['dir/a.c']).digest.hash}  dir/a.c" in out
    assert "0 of 2 files are those of" in out


def git(directory: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    done = subprocess.run(
        ["git", "-C", str(directory), *who, *words], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def committed(checkout: Path) -> str:
    git(checkout, "init", "-q", "-b", "main")
    git(checkout, "add", "-A")
    git(checkout, "commit", "-q", "-m", "one")
    return git(checkout, "rev-parse", "HEAD")


def test_a_commit_with_the_same_contents_is_the_one_whatever_is_checked_out(
    compiled: Compiled, capsys: pytest.CaptureFixture[str]
) -> None:
    first = committed(compiled.checkout)
    (compiled.checkout / "b.h").write_bytes(b"int z;\n")
    (compiled.checkout / "dir/a.c").unlink()
    for revision in ("HEAD", "main", first):
        assert compiled.run("--checkout", str(compiled.checkout), "--commit", revision) == 0
        said = capsys.readouterr().out
        assert f"2 of 2 files are those of commit {first} of {compiled.checkout}" in said
    second = committed(compiled.checkout)
    assert compiled.run("--checkout", str(compiled.checkout), "--commit", second) == 3
    out = capsys.readouterr().out
    assert f"different  {Blob.of(FILES['b.h']).digest.hash}  b.h" in out
    assert f"absent     {Blob.of(FILES['dir/a.c']).digest.hash}  dir/a.c" in out
    assert f"0 of 2 files are those of commit {second}" in out


def test_a_repository_that_lacks_or_changed_the_commit_proves_nothing(
    compiled: Compiled, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--checkout", str(compiled.checkout), "--commit")
    assert compiled.run("--commit", "HEAD") == 1
    assert compiled.run(*where, "HEAD") == 1
    assert "is in no git repository" in capsys.readouterr().err
    committed(compiled.checkout)
    assert compiled.run(*where, "v1") == 1
    assert "there is no tag or branch 'v1'" in capsys.readouterr().err
    tree, blob = (git(compiled.checkout, "rev-parse", f"HEAD:{name}") for name in ("dir", "b.h"))
    objects = compiled.checkout / ".git/objects"
    shutil.copy(objects / tree[:2] / tree[2:], compiled.checkout / "tree")
    (objects / tree[:2] / tree[2:]).unlink()
    assert compiled.run(*where, "HEAD") == 4
    assert "fetch the commit into a whole clone" in capsys.readouterr().err
    shutil.copy(objects / blob[:2] / blob[2:], objects / tree[:2] / tree[2:])
    assert compiled.run(*where, "HEAD") == 5
    assert "has another content than its name says" in capsys.readouterr().err


def test_a_pipe_in_a_checkout_does_not_hang_the_comparison(
    compiled: Compiled, capsys: pytest.CaptureFixture[str]
) -> None:
    (compiled.checkout / "b.h").unlink()
    subprocess.run(["mkfifo", compiled.checkout / "b.h"], check=True)
    assert compiled.run("--checkout", str(compiled.checkout)) == 3
    assert "unreadable" in capsys.readouterr().out


def test_sha256sum_checks_a_checkout_without_hpcc(
    compiled: Compiled, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compiled.run("--format", "sha256sum") == 0
    sums = capsys.readouterr().out
    check = ["sha256sum", "--check", "--strict", "--quiet"]
    subprocess.run(check, input=sums, text=True, cwd=compiled.checkout, check=True)
    (compiled.checkout / "b.h").write_bytes(b"int z;\n")
    done = subprocess.run(check, input=sums, text=True, cwd=compiled.checkout, check=False)
    assert done.returncode == 1


def test_contents_are_written_as_long_as_they_are_kept(
    compiled: Compiled, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compiled.run("--output", str(tmp_path / "there")) == 0
    assert {n: (tmp_path / "there" / n).read_bytes() for n in FILES} == FILES
    assert compiled.run("--output", str(tmp_path / "there")) == 1, "it exists"
    compiled.lose("retained", "cas")
    assert compiled.run("--output", str(tmp_path / "later")) == 4
    assert "0 of 2 files are in" in capsys.readouterr().out


def test_a_list_that_is_gone_or_changed_is_no_list(
    compiled: Compiled, capsys: pytest.CaptureFixture[str]
) -> None:
    compiled.lose("retained", "cas")
    root = compiled.row.input_root_digest.partition("/")[0]
    kept = compiled.store / TENANT.value / "sources" / root[:2] / root
    data = kept.read_bytes()
    kept.write_bytes(data.replace(b"b.h", b"c.h"))
    assert compiled.run("--checkout", str(compiled.checkout)) == 4
    compiled.lose("sources")
    assert compiled.run() == 4
    assert f"directory {compiled.row.input_root_digest} of the inputs is not kept here" in (
        capsys.readouterr().err
    )


async def test_a_row_that_names_no_input_tree_is_damage(
    compiled: Compiled, capsys: pytest.CaptureFixture[str]
) -> None:
    blob = Blob.of(b"\xff no directory")
    place = compiled.store / TENANT.value / "sources" / blob.digest.hash[:2] / blob.digest.hash
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(blob.data)
    compiled.trail = compiled.farm.directory / "other"
    async with opened(compiled.trail) as log:
        await log.append(
            row(1, row_id=compiled.row.row_id, tenant="acme", input_root_digest=str(blob.digest))
        )
    assert compiled.run() == 5


async def test_a_forged_row_shows_no_sources(
    compiled: Compiled, capsys: pytest.CaptureFixture[str]
) -> None:
    spool = compiled.trail / "spool.hpcc"
    tree = build_tree([InputFile("b.h", Blob.of(b"evil").digest)])
    digest = compiled.row.input_root_digest
    forged = f"{tree.root.hash}/{digest.partition('/')[2]}"
    spool.write_bytes(spool.read_bytes().replace(digest.encode(), forged.encode()))
    assert compiled.run() == 5
    assert "b.h" not in capsys.readouterr().out


async def test_a_compile_goes_on_without_room_for_its_sources(tmp_path: Path) -> None:
    async with farm_under_test(tmp_path) as farm:
        farm.worker_fields["audit_sources_bytes"] = 1
        blobs = made(SCRIPT)
        async with farm.serving(), farm.client() as client:
            await client.upload(blobs)
            await client.execute(blobs[-1].digest, ["a.o"])
        assert farm.audit.rows[-1].cache_status == "executed"
        assert farm.audit.names().count("inputs-not-retained") == 1
        assert list((tmp_path / "worker/store/acme/retained").glob("??/*")), (
            "the other store has it"
        )


def test_a_guest_has_the_project_at_the_root_or_in_a_directory_of_hpcc() -> None:
    assert project_path_or_none("src/a.c") == "src/a.c"
    assert project_path_or_none("hpcc-project/src/a.c") == "src/a.c"
    assert project_path_or_none("q7zk2xw9jvq7zk2/src/a.c") == "src/a.c"
    assert project_path_or_none("q7zother/src/a.c") == "q7zother/src/a.c"
    assert project_path_or_none("hpcc-installed/usr/src/g/g.h") is None
    assert project_path_or_none("hpcc-project") == "hpcc-project"
