"""A team builds a real project on a real farm: who hits, how often what ran, what is not shared.

The farm has PostgreSQL, an S3 server, OpenID providers, two schedulers and two workers as
processes. Guests are microVMs, under KVM where it works, else emulated. With `--guests processes`
they are processes of this machine that carry the label of a microVM: all but the boundary is real.
Each person has a login, a daemon with an empty cache, and a checkout at another path, and builds by
the project's own Makefile. Two tenants of one farm tell two stories:

  with-ci      `ci` is in `publish_fresh` and builds first; then `dana` builds for the first time
  without-ci   `ann`, `bob` and `carol` build one after the other, and nothing is set

Every compile that did not hit is named with its reason, every object is compared with everybody's
and with the bare compiler's, and executions are counted in the workers' audit trails. Only counts
are reported: an emulated guest is slow, and how slow says nothing. Ends with 0 if both stories
reach what docs/performance.md promises.

  sharing_story.py                        Redis, 160 compiles; hours if guests are emulated
  sharing_story.py --guests processes     the same in minutes
  sharing_story.py --project lua          34 compiles: does everything work?
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from _measure import BenchError, SkipRow
from _projects import unpack_upstream
from _story import Execution, Reason, executions, reasons, summed

from hpcc_testkit.farm.estate import Estate, Rules, estate
from hpcc_testkit.farm.machine import Machine

RESULT: Final = Path(__file__).parent / "results" / "sharing-story.json"
WITH_CI, WITHOUT_CI = "acme", "globex"
_RULES: Final = {WITH_CI: Rules(sharing='publish_fresh = ["ci"]'), WITHOUT_CI: Rules()}
# Who builds in which order, and where the checkout is: no two paths have the same length.
_STORIES: Final[Mapping[str, Mapping[str, str]]] = {
    WITH_CI: {"ci": "builds/42/project", "dana": "src"},
    WITHOUT_CI: {"ann": "project", "bob": "work/checkout", "carol": "git/upstream/project"},
}
_TITLES: Final = {WITH_CI: "with-ci", WITHOUT_CI: "without-ci"}
GOAL: Final = 0.99
# How a result that serves the tenant came about; one of the person's own is counted as cached.
_COLLEAGUES: Final = ("fresh", "agreed")
_JOBS: Final = 4
_STARTS: Final = 5
_FARM_SECONDS: Final = 6 * 3600
_BUILD_SECONDS: Final = 2 * 3600
_SETTLE_SECONDS: Final = 600
# The image's compiler, by the name that it has here and there.
_VERSION: Final = "-14" if shutil.which("gcc-14") and shutil.which("g++-14") else ""
_BARE: Final = "bare"
# The weakest guests that have their own kernel: with weaker ones votes need as many workers.
_LABEL: Final = "qemu/tcg"


@dataclass(frozen=True, slots=True)
class Project:
    """A source package with the arguments of `make` in its own Makefile's directory."""

    package: str
    make: tuple[str, ...]


PROJECTS: Final = {
    # As `make noopt`: -O3 would bring link-time optimization. Without jemalloc and its configure.
    "redis": Project("redis", ("MALLOC=libc", "BUILD_TLS=no", "OPTIMIZATION=-O0")),
    "lua": Project("lua5.4", ("-C", "src", "generic")),
}


@dataclass(frozen=True, slots=True)
class Built:
    """What one person's first build did; `local` and `refused` count by reason."""

    person: str
    hits: int
    executed: int
    colleagues: Mapping[str, int]
    local: Mapping[str, int]
    refused: Mapping[str, int]
    private: Mapping[str, int]
    unasked: Mapping[str, int]
    repeated: int
    counters: Mapping[str, int]
    objects: Mapping[str, str]

    @property
    def units(self) -> int:
        """How many compiles the farm or a fallback did; repeated ones are hits of the own cache."""
        return self.hits + self.executed + sum(self.local.values())

    @property
    def share(self) -> float:
        return self.hits / self.units if self.units else 0.0


def checkout(machine: Machine, project: Project, place: str) -> Path:
    """Unpack the project into a person's directory, with a marker at its root."""
    root = machine.root / place
    root.mkdir(parents=True)
    unpack_upstream(project.package, root)
    (root / ".hpcc").touch()
    return root


def start(machine: Machine) -> None:
    """Start the daemon; on a loaded machine a start may take longer than `hpcc start` waits."""
    for _ in range(_STARTS - 1):
        if not machine.hpcc("start", check=False).returncode:
            return
    machine.hpcc("start")


def build(machine: Machine, root: Path, project: Project, prefix: str, maps: str = "") -> None:
    """Build by the project's Makefile.

    Raises:
        BenchError: the build failed or did not end.
    """
    compilers = (f"CC={prefix}gcc{_VERSION}{maps}", f"CXX={prefix}g++{_VERSION}{maps}")
    argv = ["make", f"-j{_JOBS}", *project.make, *compilers]
    process = machine.spawn(argv, cwd=root)
    try:
        said, _ = process.communicate(timeout=_BUILD_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"the build in {root} does not end") from error
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if process.returncode:
        raise BenchError(f"the build in {root} failed:\n{said[-4000:]}")


def objects(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*.o"))
    }


def built(machine: Machine, person: str, root: Path) -> Built:
    found = machine.counters()

    def below(name: str) -> dict[str, int]:
        return {k.partition(".")[2]: v for k, v in found.items() if k.startswith(name + ".") and v}

    return Built(
        person=person,
        hits=sum(found.get(f"miss.remote.{how}", 0) for how in ("cached", *_COLLEAGUES)),
        executed=found.get("miss.remote.executed", 0),
        colleagues={k: found.get(f"miss.remote.{k}", 0) for k in _COLLEAGUES},
        local=below("fallback"),
        refused=below("bypass") | below("uncacheable"),
        private=below("private"),
        unasked=below("launcher"),
        repeated=found.get("hit.local", 0) + found.get("hit.remote", 0),
        counters=found,
        objects=objects(root),
    )


def bare_objects(farm: Estate, project: Project) -> dict[str, str]:
    """Build without hpcc, with the map that a guest's compile has in a project with a marker."""
    machine = Machine(farm.directory / _BARE, farm.shared_cache)
    root = checkout(machine, project, "somewhere/else")
    build(machine, root, project, "", f" -ffile-prefix-map={root}=.")
    return objects(root)


def trail(farm: Estate, *filters: str) -> list[dict[str, Any]]:
    """Return the rows (or events) of all workers that the filters of `hpcc audit export` leave."""
    found: list[dict[str, Any]] = []
    for worker in farm.workers:
        where = ("--directory", str(farm.directory / worker.name / "audit"))
        text = farm.operator("audit", "export", *where, "--format", "jsonl", *filters)
        found += [json.loads(line) for line in text.splitlines()]
    return found


def wait_until_written(farm: Estate, tenant: str) -> None:
    """Wait until the store gets no more of a tenant's results and claims: writes follow answers.

    Raises:
        BenchError: they do not end.
    """
    deadline = time.monotonic() + _SETTLE_SECONDS
    before, quiet = -1, 0
    while quiet < 5:
        count = sum("/ac/" in key for key in farm.s3.list_keys(f"{tenant}/"))
        quiet = quiet + 1 if count == before else 0
        before = count
        if time.monotonic() > deadline:
            raise BenchError("the workers' writes do not end")
        time.sleep(1)


@dataclass(slots=True)
class Story:
    """One tenant's builds, and what the trail says of them."""

    tenant: str
    people: list[Built]
    reasons: dict[str, list[Reason]]
    ran: list[Execution]
    isolation: str
    events: Mapping[str, int]

    def document(self, bare: Mapping[str, str]) -> dict[str, object]:
        times = Counter(len(e.people) for e in self.ran)
        first, *others = self.people
        return {
            "story": _TITLES[self.tenant],
            "isolation": self.isolation,
            "events": self.events,
            "people": [
                {k: v for k, v in asdict(b).items() if k not in ("objects", "counters")}
                | {"units": b.units, "share": round(b.share, 4), "counters": dict(b.counters)}
                for b in self.people
            ],
            "not_hits": {who: [asdict(r) for r in found] for who, found in self.reasons.items()},
            "actions": len(self.ran),
            "actions_by_executions": {str(k): times[k] for k in sorted(times)},
            "objects": len(first.objects),
            "unequal_among_people": sorted(
                n for n, d in first.objects.items() if any(b.objects.get(n) != d for b in others)
            ),
            "unequal_to_bare": sorted(n for n, d in first.objects.items() if bare.get(n) != d),
            "absent_in_bare": sorted(first.objects.keys() ^ bare.keys()),
        }

    @property
    def holds(self) -> bool:
        """Whether the last person hit often enough, and no action ran more often than it may."""
        most = 1 if self.tenant == WITH_CI else 2
        return self.people[-1].share >= GOAL and all(len(e.people) <= most for e in self.ran)


def told(farm: Estate, tenant: str, project: Project) -> Story:
    """Let a tenant's people build one after the other."""
    people: list[Built] = []
    for person, place in _STORIES[tenant].items():
        machine = farm.person(person, tenant)
        root = checkout(machine, project, place)
        start(machine)
        build(machine, root, project, "hpcc ")
        people.append(built(machine, person, root))
        last = people[-1]
        print(f"{_TITLES[tenant]:11} {person:6} {last.hits} hits of {last.units}", flush=True)
        machine.close()
        wait_until_written(farm, tenant)
    rows = sorted(trail(farm, "--tenant", tenant), key=lambda row: float(row["started_at"]))
    # An event of a guest or a store names no tenant.
    events = Counter(str(event["name"]) for event in trail(farm, "--events"))
    found = {b.person: reasons(rows, b.person) for b in people}
    isolation = ", ".join(sorted({str(row["isolation"]) for row in rows}))
    return Story(tenant, people, found, executions(rows), isolation, dict(events))


def show(story: Story, document: Mapping[str, Any]) -> None:
    print(f"\n{document['story']}: guests are labelled {document['isolation']}")
    print("| who | compiles | hits | executed | here instead | commands passed through |")
    print("| --- | --- | --- | --- | --- | --- |")
    for b in story.people:
        share = f"{b.hits} ({100 * b.share:.1f} %)"
        here, passed = summed(b.local), summed(b.refused)
        print(f"| {b.person} | {b.units} | {share} | {b.executed} | {here} | {passed} |")
    by = document["actions_by_executions"]
    print(f"{document['actions']} actions, by how often they ran: {by}")
    for who, found in list(story.reasons.items())[1:]:
        for why, count in Counter(r.why for r in found).most_common():
            names = [r.output for r in found if r.why == why]
            shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
            print(f"{who}: {count} executed because {why}: {shown}")
    for name in ("unequal_among_people", "unequal_to_bare", "absent_in_bare"):
        print(f"objects {name.replace('_', ' ')}: {document[name] or 'none'}")
    print(f"security events so far: {document['events'] or 'none'}")
    print(f"the figure {'holds' if story.holds else 'does not hold'}")


def main(argv: Sequence[str] | None = None) -> int:
    """Tell both stories, print, write; return 1 if one does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--project", choices=PROJECTS, default="redis")
    parser.add_argument("--make", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--guests", choices=("vms", "processes"), default="vms")
    parser.add_argument("--story", choices=_TITLES.values(), help="only this one")
    parser.add_argument("--json", type=Path, default=RESULT, help=f"where to write ({RESULT.name})")
    args = parser.parse_args(argv)
    project = PROJECTS[args.project]
    project = replace(project, make=(*project.make, *args.make))
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    cache = Path(base, "hpcc-tests")
    documents = []
    holds = True
    with tempfile.TemporaryDirectory(prefix="hpcc-story-") as name:
        directory = Path(name)
        image_maker = Machine(directory / "image", cache)
        said = image_maker.hpcc("image", "build-debian", "--if-missing", "gcc", "g++", timeout=900)
        image = said.stdout.split()[-1]
        with estate(directory, cache, image, rules=_RULES, life_seconds=_FARM_SECONDS) as farm:
            bare = bare_objects(farm, project)
            print(f"{project.package}: {len(bare)} objects", flush=True)
            farm.start_schedulers(_LABEL)
            farm.start_workers(
                _LABEL if args.guests == "processes" else "",
                runtime="qemu", guest_memory_mib=512, max_guests=2, vcpus=2,
            )  # fmt: skip
            for tenant, title in _TITLES.items():
                if args.story in (None, title):
                    story = told(farm, tenant, project)
                    documents.append(story.document(bare))
                    show(story, documents[-1])
                    holds = holds and story.holds
    document = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "project": args.project,
        "make": project.make,
        "guests": args.guests,
        "stories": documents,
    }
    args.json.write_text(json.dumps(document, indent=1) + "\n")
    return int(not holds)


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except (BenchError, SkipRow) as error:
        raise SystemExit(f"bench: {error}") from None
