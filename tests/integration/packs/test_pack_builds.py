"""Packs and real builds: CI builds a commit, a colleague builds it or a later one without a request."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from hpcc.core import CallerError, NotFoundError
from hpcc_testkit.cache.machines import TeamMachine, signing_key
from hpcc_testkit.services.object_server import ObjectServer

from .conftest import UNITS, PackTeam, git, push_at_once

_PATIENCE_SECONDS = 60.0
_ALL = ["done"] * UNITS


def pushed(team: PackTeam, change: str = "") -> TeamMachine:
    """Let CI compile a commit in an empty cache and push its pack."""
    ci = team.ci(f"ci{len(team.machines)}", trusted_keys=())
    if change:
        team.commit(ci, change)
    assert team.build(ci) == ["run"] * UNITS
    assert team.push(ci)["entries"] == UNITS
    return ci


def test_after_a_pull_a_build_asks_nobody_and_has_the_compilers_bytes(
    pack_team: PackTeam, place: Path
) -> None:
    ci, ann = pushed(pack_team), pack_team.machine("ann")
    assert pack_team.pull(ann).entries == UNITS
    shutil.rmtree(place)
    assert pack_team.build(ann) == _ALL
    assert ann.counted("remote-cache.") == {"pack-found": UNITS}
    assert ann.count("hit.signed") == UNITS
    for number in range(UNITS):
        assert ann.read(f"unit{number}.o") == ci.read(f"unit{number}.o")
    # From now on they are ordinary local results.
    shutil.rmtree(ann.paths.cache / "packs")
    ann.restart()
    assert pack_team.build(ann) == _ALL


def test_a_later_commit_uses_its_ancestors_pack(pack_team: PackTeam) -> None:
    pushed(pack_team)
    ann = pack_team.machine("ann")
    first = pack_team.head(ann)
    pack_team.commit(ann, "more")
    assert pack_team.pull(ann).commit == first
    assert pack_team.build(ann) == ["run", *_ALL[1:]]


def test_an_edited_header_is_compiled_and_never_taken_from_a_pack(pack_team: PackTeam) -> None:
    pushed(pack_team)
    ann = pack_team.machine("ann")
    pack_team.pull(ann)
    (ann.root / "src/all.h").write_text("#include <stdio.h>\n#define LIMIT 8\n")
    ann.age()
    assert pack_team.build(ann) == ["run"] * UNITS
    assert ann.count("remote-cache.pack-found") == 0


def test_a_revocation_ends_what_a_pack_has(pack_team: PackTeam) -> None:
    pushed(pack_team)
    ann = pack_team.machine("ann")
    pack_team.pull(ann)
    ann.remote["revoked_keys"] = (pack_team.key.key.kid,)
    assert pack_team.build(ann) == ["run"] * UNITS
    assert ann.counted("hit.") == {}


def test_a_pack_that_was_confirmed_for_one_checkout_serves_no_other(pack_team: PackTeam) -> None:
    """The other checkout trusts another key only."""
    pushed(pack_team)
    ann = pack_team.machine("ann")
    pack_team.pull(ann)
    other = signing_key(pack_team.directory / "other.key").key.line
    ann.remote["trusted_keys"] = (other,)
    assert pack_team.build(ann) == ["run"] * UNITS
    assert ann.counted("remote-cache.refused.") == {"unknown-key": UNITS * 2}


def test_a_new_head_is_pulled_in_the_background_and_once(
    http_team: PackTeam, server: ObjectServer
) -> None:
    pushed(http_team)
    ann = http_team.machine("ann", pull_packs=True)
    # Only the pack can serve it: single entries are gone.
    for name in [n for n in server.objects if "/packs/" not in n and "/chunks/" not in n]:
        del server.objects[name]
    assert ann.compile("gcc", "-Isrc", "-c", "src/unit0.c", "-o", "first.o").answer == "run"
    wait_for(ann, "remote-cache.pack-pulled")
    server.requests.clear()
    assert http_team.build(ann) == _ALL
    assert server.requests == []
    # Another daemon of this user does not ask again for this commit.
    ann.restart()
    assert ann.compile("gcc", "-Isrc", "-c", "src/unit1.c", "-o", "first.o").answer == "run"
    assert wait_for_look(ann)
    assert not [path for _, path in server.requests if "/packs/" in path]


def wait_for(machine: TeamMachine, counter: str) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not machine.count(counter):
        assert time.monotonic() < deadline, machine.counted("remote-cache.")
        time.sleep(0.01)


def wait_for_look(machine: TeamMachine) -> bool:
    """Wait until the thread that looks at HEAD has nothing to do."""
    packs = machine.cache._packs
    assert packs is not None
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while packs._waiting.unfinished_tasks:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return True


def test_without_a_key_or_with_the_switch_off_nothing_is_pulled(
    http_team: PackTeam, server: ObjectServer
) -> None:
    pushed(http_team)
    server.requests.clear()
    ann = http_team.machine("ann", pull_packs=True, trusted_keys=())
    bob = http_team.machine("bob", pull_packs=False)
    for machine in (ann, bob):
        assert machine.compile("gcc", "-Isrc", "-c", "src/unit0.c", "-o", "x.o").answer == "run"
        assert wait_for_look(machine)
    assert not [path for _, path in server.requests if "/packs/" in path]


def test_a_hostile_clone_costs_no_compile(http_team: PackTeam, server: ObjectServer) -> None:
    pushed(http_team)
    ann = http_team.machine("ann", pull_packs=True)
    (ann.root / ".git/HEAD").write_text("ref: refs/heads/../../../../etc/passwd\n")
    server.requests.clear()
    assert http_team.build(ann) == _ALL  # by single entries
    assert wait_for_look(ann)
    assert not [path for _, path in server.requests if "/packs/" in path]


def test_only_what_this_run_compiled_or_took_from_packs_is_pushed(pack_team: PackTeam) -> None:
    ci = pushed(pack_team)
    ci.restart()
    assert pack_team.build(ci) == _ALL  # of the run before
    with pytest.raises(CallerError, match="compiled nothing"):
        pack_team.push(ci)
    # CI pulls, changes one file, compiles it, and pushes a whole pack for the new commit.
    second = pack_team.ci("second")
    first = pack_team.head(second)
    pack_team.commit(second, "more")
    assert pack_team.pull(second).commit == first
    assert pack_team.build(second) == ["run", *_ALL[1:]]
    assert pack_team.push(second)["entries"] == UNITS
    ann = pack_team.machine("ann")
    head = pack_team.commit(ann, "more")
    assert pack_team.pull(ann).commit == head
    assert pack_team.build(ann) == _ALL


def test_what_another_key_signed_keeps_its_signature_in_the_next_pack(pack_team: PackTeam) -> None:
    """Who revokes the first key loses what it signed, also in packs of the second one."""
    pushed(pack_team)
    file = pack_team.directory / "second.key"
    key = signing_key(file).key
    lines = (pack_team.key.key.line, key.line)
    second = pack_team.machine(
        "second", mode="write", signing_key_file=str(file), trusted_keys=lines
    )
    pack_team.commit(second, "more")
    pack_team.pull(second)
    assert pack_team.build(second) == ["run", *_ALL[1:]]
    pack_team.push(second)
    ann = pack_team.machine("ann", trusted_keys=(key.line,))
    pack_team.commit(ann, "more")
    pack_team.pull(ann)
    assert pack_team.build(ann) == ["done", *["run"] * (UNITS - 1)]


def test_a_result_that_changed_on_the_disk_is_not_signed(pack_team: PackTeam) -> None:
    ci = pack_team.ci(trusted_keys=())
    pack_team.build(ci)
    store, results = ci.cache._store, ci.cache._local._results
    packs = ci.cache._packs
    assert packs is not None
    (note, *_) = packs._log.of(bytes(ci.root))
    found = results.result(note.result_key)
    assert found is not None
    from hpcc.cache.results.results import encode_result

    store.put(note.result_key, encode_result(found._replace(object_data=b"evil")))
    results._results.clear()
    report = pack_team.push(ci)
    assert (report["lost"], report["entries"]) == (1, UNITS - 1)


def test_a_reader_pushes_nothing(pack_team: PackTeam) -> None:
    ann = pack_team.machine("ann")
    pack_team.build(ann)
    with pytest.raises(CallerError, match="write"):
        pack_team.push(ann)


def test_jobs_of_one_commit_that_push_at_once_keep_both_builds(
    http_team: PackTeam, server: ObjectServer
) -> None:
    debug, release = http_team.ci("debug"), http_team.ci("release")
    http_team.build(debug, ("-O0",))
    http_team.build(release, ("-O2",))
    push_at_once(http_team, server, (debug, release))
    ann = http_team.machine("ann", timeout_seconds=60.0)
    assert http_team.pull(ann).entries == 2 * UNITS
    for flags in (("-O0",), ("-O2",)):
        assert http_team.build(ann, flags) == _ALL
    assert ann.count("remote-cache.pack-found") == 2 * UNITS


def test_a_worktree_pulls_for_its_own_head(pack_team: PackTeam) -> None:
    pushed(pack_team, "more")
    ann = pack_team.machine("ann")
    head = pack_team.commit(ann, "more")
    git(ann.root, "checkout", "-q", "--detach", "HEAD^")
    with pytest.raises(NotFoundError):
        pack_team.pull(ann)
    assert pack_team.pull(ann, head).commit == head
