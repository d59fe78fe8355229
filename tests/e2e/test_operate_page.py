"""docs/operate.md is what this test types: a farm on new machines, from the database on.

Nothing here runs a command of hpcc to set the farm up. A step that the page does not say is not
done, and one that it says wrongly fails. What the tests add are looks at what came out.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcc_testkit.operate.page import Block, read_page
from hpcc_testkit.operate.site import Site, fresh_site, missing_or_none
from hpcc_testkit.operate.typist import PERSON, Typist

pytestmark = [pytest.mark.vm, pytest.mark.nightly, pytest.mark.timeout(2400)]
_PAGE = Path(__file__).parents[2] / "docs/operate.md"
_DATABASE = "2. The database"
_FIRST_COMPILE = "hpcc wrap gcc -c answer.c"
_LOGIN = re.compile(r"^or    (\S+)$")


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, shared_cache: Path, toolchain: str
) -> Iterator[Site]:
    if missing := missing_or_none():
        pytest.skip(missing)
    digest = toolchain.partition("@")[2]
    layout = shared_cache / "images/layouts" / digest.removeprefix("sha256:")
    directory = tmp_path_factory.mktemp("site")
    with fresh_site(directory, shared_cache, layout, digest) as site:
        yield site


@pytest.fixture(scope="module")
def typist(site: Site) -> Typist:
    def watch(line: str) -> None:
        sys.stdout.write(line)
        if page := _LOGIN.match(line.rstrip()):
            site.provider.confirm(page[1], PERSON)

    page = read_page(_PAGE.read_text())
    return Typist(page, site.machines, site.addresses, watcher=watch, spent=site.processor_seconds)


def _has_first_compile(block: Block) -> bool:
    return _FIRST_COMPILE in block.text


def _as_person(site: Site, *argv: str) -> str:
    command = f"cd && {' '.join(argv)}"
    return site.machines["d1"].run("runuser", "-l", PERSON, "-c", command)


def _executed(site: Site) -> int:
    counters = json.loads(_as_person(site, "hpcc", "stats", "--json"))
    return int(counters.get("miss.remote.executed", 0))


def test_the_page_makes_a_farm_from_the_database_to_the_first_compile(
    typist: Typist, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    typist.type_all(until=_has_first_compile)
    with capsys.disabled():
        sys.stdout.write(f"\nfrom the database to the first compile:\n{typist.report(_DATABASE)}\n")
    assert _executed(site) == 1
    trail = ("--directory", "/var/lib/hpcc-worker/audit")
    rows = site.machines["w1"].run(
        "runuser", "-u", "hpcc-worker", "--", "hpcc", "audit", "list", *trail
    )
    assert "qemu/" in rows, "with /dev/kvm or, as the page says where it does not work, without"
    # Both schedulers show one certificate, and the passwords of the database's owner are gone.
    shown = {
        site.machines[s].run("sh", "-c", "cat /var/lib/hpcc-scheduler/keys/*.crt")
        for s in ("s1", "s2")
    }
    assert len(shown) == 1
    for name in ("s1", "s2"):
        files = site.machines[name].run("ls", "/etc/hpcc/scheduler")
        assert "owner" not in files
        assert "sealing.key" in files
    modes = site.machines["w1"].run(
        "find", "/etc/hpcc/worker", "-type", "f", "-printf", "%u %m %f\n"
    )
    assert {line.rpartition(" ")[0] for line in modes.splitlines()} == {"hpcc-worker 600"}


def test_each_command_of_the_page_that_names_a_machine_was_typed(
    typist: Typist, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    typist.type_all()
    with capsys.disabled():
        sys.stdout.write(f"\nall blocks:\n{typist.report()}\n")
    assert typist.untyped() == []
    _as_person(site, "echo 'int again;' > again.c && hpcc gcc -c again.c")
    assert _executed(site) == 2
