"""All rows of a run, in order. A row that cannot be measured is named, and the rest continues."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from _builds import Builder, cold_rows, fill, warm_row
from _content import content_rows
from _hits import cold_row, hit_rows
from _measure import BenchError, SkipRow, settle
from _places import ext4, file_system
from _projects import PROJECTS, Build, unpack
from _report import Report
from _rows import Row, total
from _settings import BARE, FRESH, OURS, Settings
from _tools import callers_env, running
from _trees import age

PARTS = ("hit", "content", "cold", "warm", "ext4", "up", "guest")


class Suite:
    """Fills a report. `scratch` is the bench's private directory."""

    def __init__(self, settings: Settings, scratch: Path, report: Report) -> None:
        self._settings, self._scratch, self._report = settings, scratch, report
        self._builds: list[Build] | None = None

    def run(self, parts: set[str]) -> None:
        """Measure the rows of the parts; `cold` and `warm` share their builds."""
        if "hit" in parts:
            with self._may_skip("hits"):
                for row in hit_rows(self._settings, self._directory("hits")):
                    self._add(row)
        if "content" in parts:
            with self._may_skip("hits by content"):
                for row in content_rows(self._settings, self._directory("content")):
                    self._add(row)
        if "cold" in parts:
            with self._may_skip("cold C file"):
                self._add(cold_row(self._settings, self._directory("cold")))
        if parts & {"cold", "warm"}:
            with self._may_skip("builds"):
                self._project_rows(parts)
        if "ext4" in parts:
            with self._may_skip("warm builds on ext4"):
                self._ext4_rows()
        if parts & {"up", "guest"}:
            self._guest_rows(parts)

    def _add(self, row: Row) -> None:
        self._report.rows.append(row)
        say(f"done: {row.what}")

    @contextmanager
    def _may_skip(self, what: str) -> Iterator[None]:
        """Record a failure in the block, so that it does not lose the rows measured before."""
        try:
            yield
        except SkipRow as reason:
            self._report.skipped.append((what, str(reason)))
            say(f"skipped: {what}: {reason}")
        except BenchError as error:
            self._report.failed.append((what, str(error)))
            say(f"FAILED: {what}: {error}")

    def _directory(self, name: str) -> Path:
        directory = self._scratch / name
        directory.mkdir()
        return directory

    def builds(self) -> list[Build]:
        """Return the projects that this machine can build, unpacked and ready."""
        if self._builds is None:
            self._builds = []
            home = self._directory("projects")
            for project in PROJECTS:
                if project.name in self._settings.projects:
                    with self._may_skip(project.name):
                        self._builds.append(unpack(project, home / project.name))
                        age(home / project.name)
            settle()
        return self._builds

    def _project_rows(self, parts: set[str]) -> None:
        builds = self.builds()
        names = [*self._settings.tools, *([FRESH] if "cold" in parts else [])]
        cold, warm, launcher = [], [], self._settings.launcher
        with running(names, self._directory("caches"), launcher=launcher) as tools:
            lasting = [tool for tool in tools if tool.name != FRESH]
            for build in builds:
                builder = Builder(build)
                if "cold" in parts:
                    # A new daemon costs the same in all builds, so the smallest shows it best.
                    compared = tools if build is builds[0] else lasting
                    for row in cold_rows(builder, compared, self._settings.cold_rounds):
                        self._add(row)
                        cold += [row] if row.ours == OURS else []
                else:
                    fill(builder, lasting)
                if "warm" in parts:
                    warm.append(warm_row(builder, lasting, self._settings.rounds))
                    self._add(warm[-1])
        self._add_total("cold-all", "cold build", cold)
        self._add_total("warm-all", "warm build", warm)

    def _add_total(self, key: str, what: str, rows: list[Row], *, where: str = "") -> None:
        if len(rows) > 1:
            self._add(total(key, f"{what}, all {len(rows)} projects -j2{where}", rows))

    def _ext4_rows(self) -> None:
        rows = []
        builds = self.builds()
        with ext4(self._scratch) as place:
            copies = [_copy(build, place / build.name) for build in builds]
            home, launcher = place / "caches", self._settings.launcher
            with running(self._settings.tools, home, launcher=launcher) as tools:
                for build in copies:
                    builder = Builder(build)
                    fill(builder, tools)
                    rows.append(warm_row(builder, tools, self._settings.rounds, where="ext4"))
                    self._add(rows[-1])
        self._add_total("ext4-all", "warm build", rows, where=", on ext4")

    def _guest_rows(self, parts: set[str]) -> None:
        # Imported late: these need the whole product, and a broken guest must not lose other rows.
        from _guest import guest_overhead, up_seconds

        from hpcc.core import HpccError

        takers: dict[str, Callable[[], list[dict[str, object]]]] = {
            "up": lambda: up_seconds(self._settings.launcher),
            "guest": lambda: guest_overhead(self._scratch),
        }
        for part, take in takers.items():
            if part in parts:
                with self._may_skip(part):
                    try:
                        self._report.guest_rows += take()
                    except HpccError as error:
                        raise BenchError(str(error)) from error


def _copy(build: Build, directory: Path) -> Build:
    """Return a copy of the build in another directory."""
    shutil.copytree(build.root, directory, symlinks=True)
    age(directory)
    inside = directory / build.directory.relative_to(build.root)
    return Build(build.name, directory, inside, build.build, build.clean)


def own_project(settings: Settings, scratch: Path, report: Report, builder: Builder) -> None:
    """Measure cold and warm rows of the user's project, in place, in the user's environment."""
    home, env = scratch / "caches", callers_env()
    with running(settings.tools, home, launcher=settings.launcher, base_env=env) as tools:
        settle()
        # A second bare build, to find the files that differ between any two builds.
        fill(builder, tools[:1])
        report.rows += cold_rows(builder, tools, settings.cold_rounds)
        report.rows.append(warm_row(builder, tools, settings.rounds))
    report.conditions["file_system_of_the_project"] = file_system(builder.build.directory)


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


__all__ = ["BARE", "PARTS", "Suite", "own_project", "say"]
