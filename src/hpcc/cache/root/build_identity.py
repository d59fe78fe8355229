"""Which build a compile belongs to: the one definition, and the memory of builds without a name.

The identity is the first of these that is there and good:

1. `TRACEPARENT` (W3C Trace Context, level 1, section 3.2): `trace/` and the trace id. All compiles
   of one trace are one build, whatever their parent span is.
2. `HPCC_BUILD`: this text, at most 128 printable characters.
3. The run of a CI system (`_SYSTEMS`): `github/acme/app/1658821493/1`.
4. A guess: `guessed/` and 16 random digits. Compiles with one project root are one build until no
   compile ran there for 30 seconds.

A value that is not good is dropped and counted (`FactReason`), and the next source decides. So a
bad identity costs a name, never a compile.

All of this is what the client claims. An identity is in no key and decides nothing: it names the
build in records, in the request metadata of a farm, and in audit rows.

Example of a guess: `make` at 10:00 in a clone, `make` in another clone, `make` in the first at
10:05. These are three builds. A compile of a minute does not end its build, because it runs.

Only the daemon decides. Its hit processes report the facts of each hit and the dispatcher gets the
decided text, so one build has one name in all processes. What must never happen: an unbounded
memory (the number of roots and texts is bounded), or a cost before a hit is answered.
"""

from __future__ import annotations

import hashlib
import re
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from hpcc.core.memo import BoundedMemo, LruMemo
from hpcc.wire.build_facts import MAX_VALUE_BYTES, decode_facts

PAUSE_SECONDS: Final = 30.0
MAX_IDENTITY_CHARS: Final = 128
# More than one user builds in at once. An evicted root gets a new build, as after a pause.
MAX_ROOTS: Final = 256
_MAX_TEXTS: Final = 1024
_MAX_DIRECTORIES: Final = 4096
_GUESS: Final = "guessed"
_HASH_DIGITS: Final = 32
_TRACEPARENT: Final = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"
)


class FactReason(StrEnum):
    """Why a fact was dropped; counted as `build.REASON` for each compile."""

    TRACEPARENT = "bad-traceparent"
    NAME = "bad-name"
    RUN = "bad-run"
    FORM = "bad-facts"


class _System(NamedTuple):
    """A CI system: the variables that name one run of it, and those that may be missing."""

    name: str
    variables: tuple[bytes, ...]
    optional: frozenset[bytes] = frozenset()
    # The value of the last variable must begin so, because other programs set it too.
    prefix: bytes = b""


# In each, all jobs of one run are one build. Sources, read in November 2026:
_SYSTEMS: Final = (
    # docs.github.com, "Variables reference": the run id is unique in its repository and stays the
    # same when a run is repeated; the attempt counts from 1. Gitea and Forgejo set the same.
    _System(
        "github",
        (b"GITHUB_REPOSITORY", b"GITHUB_RUN_ID", b"GITHUB_RUN_ATTEMPT"),
        frozenset({b"GITHUB_RUN_ATTEMPT"}),
    ),
    # docs.gitlab.com, "Predefined CI/CD variables reference": the pipeline id is unique in one
    # GitLab instance.
    _System("gitlab", (b"CI_SERVER_HOST", b"CI_PIPELINE_ID"), frozenset({b"CI_SERVER_HOST"})),
    # buildkite.com/docs, "Environment variables": a UUID.
    _System("buildkite", (b"BUILDKITE_BUILD_ID",)),
    # learn.microsoft.com, Azure Pipelines, "Use predefined variables": Build.BuildId is a record's
    # number in the organization, System.CollectionId the organization's GUID.
    _System(
        "azure", (b"SYSTEM_COLLECTIONID", b"BUILD_BUILDID"), frozenset({b"SYSTEM_COLLECTIONID"})
    ),
    # circleci.com/docs, "Project values and variables": a UUID, the same in all jobs of a workflow.
    _System("circleci", (b"CIRCLE_WORKFLOW_ID",)),
    # jetbrains.com/help/teamcity, "List of Predefined Build Parameters". Numbers are unique in a
    # build configuration.
    _System("teamcity", (b"TEAMCITY_PROJECT_NAME", b"TEAMCITY_BUILDCONF_NAME", b"BUILD_NUMBER")),
    # jenkins.io, "Using environment variables": "jenkins-${JOB_NAME}-${BUILD_NUMBER}". Last, since
    # other programs have a BUILD_TAG, too.
    _System("jenkins", (b"BUILD_TAG",), prefix=b"jenkins-"),
)


class Told(NamedTuple):
    """What build facts say: an identity, "" without one, and why facts were dropped."""

    identity: str
    dropped: tuple[FactReason, ...] = ()


def told_build(facts: bytes) -> Told:
    """Return what the facts in front of a request say. Never raises: the bytes are hostile."""
    found = decode_facts(facts)
    if found is None:
        return Told("", (FactReason.FORM,))
    dropped: list[FactReason] = []
    for reason, source in (
        (FactReason.TRACEPARENT, _of_trace),
        (FactReason.NAME, _of_name),
        (FactReason.RUN, _of_run),
    ):
        identity = source(found)
        if identity:
            return Told(identity, tuple(dropped))
        if identity is None:
            dropped.append(reason)
    return Told("", tuple(dropped))


def _of_trace(facts: Mapping[bytes, bytes]) -> str | None:
    """Return the build of a trace, "" without one, None for a bad value; so do the others."""
    value = facts.get(b"TRACEPARENT")
    if value is None:
        return ""
    match = _TRACEPARENT.fullmatch(value)
    if match is None or len(value) > MAX_VALUE_BYTES or (match[3] and match[1] == b"00"):
        return None
    return f"trace/{match[2].decode()}"


def _of_name(facts: Mapping[bytes, bytes]) -> str | None:
    value = facts.get(b"HPCC_BUILD")
    text = "" if value is None else _text(value)
    return None if text is None or len(text) > MAX_IDENTITY_CHARS else text


def _of_run(facts: Mapping[bytes, bytes]) -> str | None:
    is_bad = False
    for system in _SYSTEMS:
        if not all(name in facts or name in system.optional for name in system.variables):
            continue
        values = [facts[name] for name in system.variables if name in facts]
        if not values[-1].startswith(system.prefix):
            continue
        values[-1] = values[-1].removeprefix(system.prefix)
        texts = [text for value in values if (text := _text(value))]
        if len(texts) == len(values):
            return _fitting(system.name, "/".join(texts))
        is_bad = True
    return None if is_bad else ""


def _fitting(system: str, run: str) -> str:
    """Return the identity of a run; of a run with long names its hash, which is as unique."""
    identity = f"{system}/{run}"
    if len(identity) <= MAX_IDENTITY_CHARS:
        return identity
    return f"{system}/{hashlib.sha256(run.encode()).hexdigest()[:_HASH_DIGITS]}"


def _text(value: bytes) -> str | None:
    """Return a value as text; None if it is cut, not UTF-8, not printable, or ends in spaces."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return None
    is_good = len(value) <= MAX_VALUE_BYTES and text.isprintable() and text == text.strip()
    return text if is_good else None


def is_guessed(identity: str) -> bool:
    """Tell whether an identity has the form of a guess."""
    return identity.startswith(f"{_GUESS}/")


def _guess() -> str:
    return f"{_GUESS}/{uuid.uuid4().hex[:16]}"


@dataclass(slots=True)
class _Guess:
    """The guessed build of one root. `last` is when a compile last began or ended there."""

    identity: str
    last: float
    running: int = 0


class Builds:
    """Names the build of each compile. Thread-safe.

    `count` increments a counter, `monotonic` is in seconds, `root_of` finds the root of a working
    directory. For each identity that `begin` returned, `end` is called once with the same request.
    """

    def __init__(
        self,
        count: Callable[[str], None],
        monotonic: Callable[[], float],
        root_of: Callable[[bytes], bytes],
        guess: Callable[[], str] = _guess,
    ) -> None:
        self._count, self._monotonic, self._root_of, self._guess = count, monotonic, root_of, guess
        self._lock = threading.Lock()
        self._told: BoundedMemo[bytes, Told] = BoundedMemo(_MAX_TEXTS)
        self._roots: LruMemo[bytes, _Guess] = LruMemo(MAX_ROOTS)
        # Working directory to its root, and when that was found.
        self._found: BoundedMemo[bytes, tuple[bytes, float]] = BoundedMemo(_MAX_DIRECTORIES)

    def begin(self, facts: bytes, cwd: bytes) -> str:
        """Return the build of a compile that begins; it runs until `end`."""
        return self._told_by(facts) or self._guessed(cwd, 1)

    def end(self, facts: bytes, cwd: bytes) -> None:
        """Note the end of a compile."""
        if not self._told_by(facts, is_counted=False):
            self._guessed(cwd, -1)

    def hit(self, facts: bytes, cwd: bytes) -> str:
        """Return the build of a compile that begins and ends now."""
        return self._told_by(facts) or self._guessed(cwd, 0)

    def _told_by(self, facts: bytes, *, is_counted: bool = True) -> str:
        told = self._told.get(facts)
        if told is None:
            told = self._told[facts] = told_build(facts)
        if told.dropped and is_counted:
            for reason in told.dropped:
                self._count(f"build.{reason}")
        return told.identity

    def _guessed(self, cwd: bytes, change: int) -> str:
        now = self._monotonic()
        root = self._root(cwd, now)
        with self._lock:
            guess = self._roots.use(root)
            if change < 0:
                if guess is None:  # evicted meanwhile
                    return ""
            elif guess is None or (not guess.running and now - guess.last >= PAUSE_SECONDS):
                guess = self._roots[root] = _Guess(self._guess(), now)
            guess.last = now
            guess.running = max(0, guess.running + change)
            return guess.identity

    def _root(self, cwd: bytes, now: float) -> bytes:
        """Return the root of a directory; it is looked for again after a while."""
        found = self._found.get(cwd)
        if found is None or now - found[1] >= PAUSE_SECONDS:
            found = self._found[cwd] = (self._root_of(cwd), now)
        return found[0]
