"""Asks for known vulnerabilities of what is locked, with pip-audit.

The answer is one of three: checked and clean, a finding (the command fails), or NOT CHECKED, when
no service answered for a package. `--required` makes NOT CHECKED fail, too. audit-allow.toml lists
what is accepted for a while: the vulnerability, the package, the reason, and the last day.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

from release.statements import LOCKS

ALLOWED: Final = Path(__file__).parent / "audit-allow.toml"
_SECONDS: Final = 90
_SERVICES: Final = (("-s", "pypi"), ("-s", "osv"))
_NOT_CHECKED: Final = 3


@dataclass(slots=True)
class Answer:
    """Vulnerabilities by (package, version), and the packages for which nobody answered."""

    findings: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    known: set[str] = field(default_factory=set)
    problem: str = ""


def read_answer(text: str) -> Answer:
    """Return what pip-audit's JSON says.

    Raises:
        ValueError: it is not such a document.
    """
    found = Answer()
    try:
        for one in json.loads(text)["dependencies"]:
            if "skip_reason" in one:
                found.unknown.add(one["name"])
                continue
            found.known.add(one["name"])
            if one["vulns"]:
                found.findings[one["name"], one["version"]] = one["vulns"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"not an answer of pip-audit: {error!r}") from error
    return found


def ask(lock: Path, service: Sequence[str]) -> Answer:
    """Ask one service about each package of a lock file."""
    options = ["--require-hashes", "--disable-pip", "--progress-spinner=off", "--timeout=15"]
    command = [sys.executable, "-m", "pip_audit", "-r", str(lock), "-f", "json", *options, *service]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_SECONDS
        )
        return read_answer(done.stdout)
    except subprocess.TimeoutExpired:
        return Answer(problem=f"no answer in {_SECONDS} s")
    except ValueError:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        return Answer(problem=lines[-1][:200] if lines else f"exit code {done.returncode}")


def first_answer(lock: Path, services: Sequence[Sequence[str]]) -> Answer:
    """Return the answer of the first service that knows every package, else the last one.

    A finding of a service that knows only some packages is kept.
    """
    total = Answer()
    for service in services:
        answer = ask(lock, service)
        total.findings |= answer.findings
        total.problem = answer.problem
        total.known |= answer.known
        total.unknown = (total.unknown | answer.unknown) - total.known
        if not answer.problem and not answer.unknown:
            break
    return total


def is_accepted(entry: Mapping[str, Any], name: str, ids: set[str], today: date) -> bool:
    """Return whether an entry of the list covers this vulnerability today."""
    return entry["package"] == name and entry["id"] in ids and today <= entry["until"]


def judge(
    findings: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]],
    allowed: Sequence[Mapping[str, Any]],
    today: date,
) -> tuple[list[str], list[str]]:
    """Return the lines for findings that count, and for those that the list covers."""
    red, covered = [], []
    for (name, version), vulnerabilities in sorted(findings.items()):
        for one in vulnerabilities:
            ids = {one["id"], *one.get("aliases", [])}
            line = f"{name} {version}: {', '.join(sorted(ids))}"
            if fixed := one.get("fix_versions"):
                line += f"; fixed in {', '.join(fixed)}"
            entry = next((e for e in allowed if is_accepted(e, name, ids, today)), None)
            if entry:
                covered.append(f"{line}; accepted until {entry['until']}: {entry['reason']}")
            else:
                red.append(line)
    return red, covered


def read_allowed(text: str) -> list[dict[str, Any]]:
    """Return the entries of the list.

    Raises:
        ValueError: an entry lacks a field, or has another.
    """
    entries: list[dict[str, Any]] = tomllib.loads(text).get("accepted", [])
    for entry in entries:
        if entry.keys() != {"id", "package", "reason", "until"} or not entry["reason"]:
            raise ValueError(f"an entry has id, package, reason and until: {entry}")
        if type(entry["until"]) is not date:
            raise ValueError(f"`until` is a day such as 2026-12-31: {entry}")
    return entries


def main(root: Path, *, osv: str, required: bool) -> int:
    """Ask about both lock files; return 1 for a finding, 3 for a missing answer if required."""
    services = [("-s", "osv", "--osv-url", osv)] if osv else _SERVICES
    allowed = read_allowed(ALLOWED.read_text())
    today = datetime.now(UTC).date()
    total = 0
    missing: list[str] = []
    for lock in LOCKS:
        answer = first_answer(root / lock, services)
        red, covered = judge(answer.findings, allowed, today)
        for line in covered:
            print(f"audit: {lock}: {line}")
        for line in red:
            print(f"audit: {lock}: VULNERABLE: {line}")
        total += len(red)
        if answer.problem and not answer.known:
            missing.append(f"{lock}: {answer.problem}")
        elif answer.unknown:
            missing.append(f"{lock}: no service knows {len(answer.unknown)} packages")
        else:
            print(f"audit: {lock}: {len(answer.known)} packages checked")
    for line in missing:
        print(f"audit: NOT CHECKED: {line}")
    if total:
        return 1
    return _NOT_CHECKED if missing and required else 0
