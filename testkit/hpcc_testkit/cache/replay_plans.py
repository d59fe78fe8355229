"""Plans for native/fuzz_replay.c. The first letter of a file's name decides what is there.

`python -m hpcc_testkit.cache.replay_plans DIRECTORY` writes them as files, the seeds of a fuzz run.
The name of each plan begins with the answer that the target gives for it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from hpcc.cache.base.outputs import OutputFile
from hpcc.cache.replay.engine import Check, CheckKind, Plan
from hpcc.cache.replay.plan_bytes import encode_plan

# The stat values of every file and directory in the target's fake file system.
_STATE: Final = (1, 3, 4, 5, 6)
_SOURCE: Final = (1, 2)
_REGULAR: Final = 0o100600
_DIRECTORY: Final = 0o040600
_UNSENT: Final = b"x" * 13


def _state(path: bytes) -> Check:
    return Check(CheckKind.STATE, path, _STATE)


def _absent(*paths: bytes) -> tuple[Check, ...]:
    return tuple(Check(CheckKind.ABSENT, path) for path in paths)


def _place(path: bytes, uid: int, mode: int = _DIRECTORY) -> Check:
    return Check(CheckKind.PLACE, path, (1, 3, mode, uid))


def _lacks(path: bytes, *more: bytes, state: tuple[int, ...] = ()) -> Check:
    """Return a check of so many names that the directory is read; all but `more` are missing."""
    names = (*(b"a%d.h" % i for i in range(10)), *more)
    return Check(CheckKind.LACKS, path, state, names)


# How reading a directory fails or differs, by the second letter of its name.
_ODD: Final = {
    "other-file-system": b"df",
    "unreadable": b"dp",
    "failing": b"de",
    "endless": b"dm",
    "not-ascii": b"dn",
    "short-record": b"dr",
    "long-record": b"dl",
    "no-nul": b"du",
}


def plans(uid: int) -> dict[str, Plan]:
    """Return plans by name; `uid` is the uid that runs the target."""
    hit = Plan(
        checks=(
            _place(b"/w/d1/.", uid),
            *_absent(b"/w/absent", b"/fa/a.json", b"/w/d1/a.h", b"/w/d1/b.h"),
            _state(b"/w/d1/file.h"),
            _state(b"/usr/d2"),
            Check(CheckKind.PRESENT, b"/w/d1/file.c"),
            *_absent(b"/gone/a2/x.h", b"/gone/a2/y.h"),
        ),
        outputs=(
            OutputFile(b"/w/f.d", b"f.o: f.c\n", keeps_mode=True),
            OutputFile(b"/w/a.gcno", b""),
            OutputFile(b"/w/f2", b""),
            OutputFile(b"/w/f.o", b"object " * 9),
        ),
        mode=0o644,
        source=_SOURCE,
        answer=b"the answer",
    )
    first = hit.outputs[0]
    made = {
        "done-a-hit": hit,
        "done-nothing": Plan((), (), 0, (0, 0), b""),
        "done-most-outputs": hit._replace(outputs=(first,) * 64, checks=()),
        "done-longest-answer": hit._replace(answer=b"y" * 4096, outputs=(first,)),
        "unsent": hit._replace(answer=_UNSENT),
    }
    for name, path in {
        "elsewhere": b"/w/e.o",
        "full": b"/w/g.o",
        "hard-link": b"/w/h.o",
        "stubborn": b"/w/i.o",
        "pipe": b"/w/p",
        "source": b"/w/s.c",
        "directory": b"/w/d.o",
        "closed": b"/w/c.o",
        "below-a-file": b"/w/b.o",
    }.items():
        outputs = (first, OutputFile(path, b"some data"))
        made[f"not-ours-{name}"] = hit._replace(outputs=outputs, checks=())
    for name, check in {
        "state": _state(b"/w/s.h"),
        "place": _place(b"/w/f.h", uid),
        "place-owner": _place(b"/w/f.h", uid + 1, _REGULAR),
        "present": Check(CheckKind.PRESENT, b"/w/a.h"),
        "present-as-directory": Check(CheckKind.PRESENT, b"/w/d.h"),
        "absent": Check(CheckKind.ABSENT, b"/w/f.h"),
        "absent-closed": Check(CheckKind.ABSENT, b"/w/c.h"),
        "gone-directory": _state(b"/gone/a2/f.h"),
        "closed-directory": Check(CheckKind.ABSENT, b"/c/a.h"),
    }.items():
        group = _absent(check.path.rpartition(b"/")[0] + b"/a2")
        if not name.endswith("-directory"):  # for a single check, this world looks only at the name
            made[f"changed-{name}"] = hit._replace(checks=(check,))
        made[f"changed-{name}-in-group"] = hit._replace(checks=(*group, check))
    lacks = {
        "done-lacks": _lacks(b"/w/d1"),
        # Done without a look at any name: no name in the directory resembles these.
        "done-lacks-not-listed": _lacks(b"/w/d1", b"f-not-listed.h"),
        "done-lacks-by-state": _lacks(b"/w/d1", b"file.h", state=_STATE),
        "done-lacks-by-names": _lacks(b"/w/d1", state=(1, 3, 4, 5, 7)),
        "changed-lacks": _lacks(b"/w/d1", b"file.h"),
        "changed-lacks-long": _lacks(b"/w/d1", b"f-of-more-than-one-word.h"),
        "changed-lacks-other-case": _lacks(b"/w/d1", b"File.h"),
        "changed-lacks-other-state": _lacks(b"/w/d1", b"file.h", state=(1, 3, 4, 5, 7)),
        "changed-lacks-few": Check(CheckKind.LACKS, b"/w/d1", (), (b"a1.h", b"f1.h")),
        "done-lacks-few": Check(CheckKind.LACKS, b"/w/d1", (), (b"a1.h", b"a2.h")),
        "done-lacks-none": Check(CheckKind.LACKS, b"/w/d1"),
        "changed-lacks-gone": _lacks(b"/w/a1"),
        "changed-lacks-closed": _lacks(b"/w/c1"),
        **{f"done-lacks-{name}": _lacks(b"/w/" + path) for name, path in _ODD.items()},
        **{
            f"changed-lacks-{name}": _lacks(b"/w/" + path, b"f-not-listed.h")
            for name, path in _ODD.items()
        },
    }
    for name, check in lacks.items():
        made[name] = hit._replace(checks=(check,))
    # Checked with others of the same directory, through one descriptor.
    for name in ("done-lacks", "changed-lacks", "changed-lacks-few", "done-lacks-unreadable"):
        check = lacks[name]
        made[f"{name}-in-group"] = hit._replace(checks=(*_absent(check.path + b"/a2"), check))
    return made


def write_plans(directory: Path, uid: int) -> list[Path]:
    """Write each plan as a file; return the files."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, plan in plans(uid).items():
        path = directory / name
        path.write_bytes(encode_plan(plan, min_group=2))
        paths.append(path)
    return paths


if __name__ == "__main__":
    import os

    write_plans(Path(sys.argv[1]), os.getuid())
