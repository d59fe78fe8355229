"""What the reports call things: kinds of ends, reasons with their remedies, durations, names."""

from __future__ import annotations

import ntpath
import posixpath
import time
from collections.abc import Iterable
from typing import Final, NamedTuple

from hpcc.cache.base.times import Phase
from hpcc.cache.recorder.compiles import Compile, CompileKind
from hpcc.core.reasons.bypass import BypassReason
from hpcc.core.reasons.fallback import FallbackReason
from hpcc.core.reasons.reason import Reason
from hpcc.core.reasons.uncacheable import UncacheableReason

KINDS: Final = {
    CompileKind.HIT: "from the cache of this machine",
    CompileKind.FARM_CACHE: "from the farm's cache",
    CompileKind.FARM: "compiled on the farm",
    CompileKind.HERE: "compiled here and stored",
    CompileKind.NOT_KEPT: "compiled here, result not stored",
    CompileKind.FAILED: "failed",
    CompileKind.BYPASS: "not for the cache",
    CompileKind.GIVEN_UP: "given up",
    CompileKind.REFUSED: "refused: the farm did not do it, and this machine may not",
}
PHASES: Final = {
    Phase.CLASSIFY: "read the command line",
    Phase.LOOK_UP: "look up",
    Phase.WAIT: "wait for an equal compile",
    Phase.FARM: "attempt on the farm",
    Phase.PLAN: "find the inputs",
    Phase.CALL: "farm's answer",
    Phase.QUEUE: "wait for a guest",
    Phase.GUEST: "guest",
    Phase.PLACE: "place the outputs",
    Phase.COMPILE: "compiler",
    Phase.STORE: "store",
}
_MINUTE: Final = 60
_SECOND_US: Final = 1_000_000


class ReasonWords(NamedTuple):
    """What a reason is called, what it means, and what to do about it."""

    title: str
    text: str
    remedy: str


_MISSED: Final = {
    "new-command": ReasonWords(
        "new command", "this command had no result yet",
        "Nothing to do: the next build has it. A team shares results (docs/sharing.md).",
    ),
    "inputs-changed": ReasonWords(
        "inputs changed", "a source or header changed", "`hpcc explain FILE` names what changed.",
    ),
    "evicted": ReasonWords(
        "evicted", "the result had been removed", "Raise `cache.max_size_bytes` in hpcc.toml.",
    ),
    "names-elsewhere": ReasonWords(
        "shows a name", "another directory has the result, whose object holds a file's whole name",
        "Put a `.hpcc` at the root of the project: docs/cookbook.md.",
    ),
    "directory-elsewhere": ReasonWords(
        "holds a directory", "another directory has the result, whose object holds its name (`-g`)",
        "Put a `.hpcc` at the root of the project: docs/cookbook.md.",
    ),
    "unproved": ReasonWords(
        "compared", "the first use here of a file that another checkout made, too",
        "Nothing to do: it was compiled to compare the result.",
    ),
    "": ReasonWords("missed", "no result was found", "`hpcc explain FILE` says more."),
}  # fmt: skip
_OTHER: Final = {
    "failed": ReasonWords("failed", "the compile failed", "Fix what the compiler says."),
    "given-up": ReasonWords(
        "given up", "the launcher ended before its compiler", "Nothing to do: it was interrupted.",
    ),
}  # fmt: skip
_REASONS: Final[dict[str, type[Reason]]] = {
    "bypass": BypassReason,
    "uncacheable": UncacheableReason,
    "fallback": FallbackReason,
    "refused": FallbackReason,
}
_FAMILIES: Final = {
    "bypass": "not for the cache", "uncacheable": "not stored", "fallback": "not on the farm",
    "refused": "refused",
}  # fmt: skip


def words_of(family: str, word: str) -> ReasonWords:
    """Return the words for a cause; of an unknown one the word itself."""
    if family == "missed":
        return _MISSED.get(word, ReasonWords(word, "", "`hpcc explain FILE` says more."))
    if family in _OTHER:
        return _OTHER[family]
    title = f"{_FAMILIES.get(family, family)}: {word.partition(':')[0]}"
    kind = _REASONS.get(family)
    reason = None if kind is None else kind.of_word(word.partition(":")[0])
    if reason is None:
        return ReasonWords(title, "", "`hpcc explain FILE` and `daemon.log` say more.")
    return ReasonWords(title, reason.text, reason.remedy)


def duration(us: int) -> str:
    """Return a duration for people: `0.3 ms`, `1.25 s`, `2 min 14 s`, `1 h 3 min`."""
    seconds = us / _SECOND_US
    if seconds < 1:
        return f"{us / 1000:.1f} ms" if us < 10_000 else f"{us // 1000} ms"  # noqa: PLR2004 - two digits
    if seconds < _MINUTE:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"  # noqa: PLR2004 - as above
    minutes, rest = divmod(int(seconds), _MINUTE)
    hours, minutes = divmod(minutes, _MINUTE)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def moment(us: int) -> str:
    """Return a time of day with its date, in this machine's zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(us / _SECOND_US))


def percent(part: int, whole: int) -> str:
    """Return a share with its unit; `-` of nothing."""
    return f"{100 * part / whole:.1f} %" if whole else "-"


def common_directory(compiles: Iterable[Compile]) -> str:
    """Return the directory that holds all sources, "" without one."""
    paths = [c.source for c in compiles]
    if any(path[1:3] == ":\\" for path in paths):
        homes = {ntpath.dirname(path) for path in paths if path[1:3] == ":\\"}
        if len({ntpath.splitdrive(home)[0].lower() for home in homes}) > 1:
            return ""
        common = ntpath.commonpath(homes)
        return "" if common.endswith("\\") else common
    found = {posixpath.dirname(path) for path in paths if path.startswith("/")}
    if not found:
        return ""
    common = posixpath.commonpath(found)
    return "" if common == "/" else common


def name_of(compile_: Compile, base: str) -> str:
    """Return the source below a directory, or what was made if there is no source."""
    return below(compile_.source or compile_.output or "(no file)", base)


def below(path: str, base: str) -> str:
    """Return a path as seen from a directory, if it is below it."""
    is_below = base and path.startswith((base + "/", base + "\\"))
    return path[len(base) + 1 :] if is_below else path


def place_of(compile_: Compile) -> str:
    """Return where it ran or was found."""
    if compile_.where and compile_.kind in {CompileKind.FARM, CompileKind.FARM_CACHE}:
        return compile_.where
    return "farm" if compile_.kind in {CompileKind.FARM, CompileKind.FARM_CACHE} else "here"
