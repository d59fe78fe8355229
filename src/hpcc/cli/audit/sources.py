"""`hpcc audit sources ROW`: the files that a compile had, and which a checkout or a commit has.

Exit statuses are those of evidence: 0 all is there and the same, 3 the checkout differs, 4 the list
or a content is not kept any more, 5 it was changed, 1 the command was called wrongly.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpcc.cli.audit.evidence import (
    EXIT_MISSING,
    EXIT_NOT_PROVED,
    EXIT_PROVED,
    with_statuses,
)
from hpcc.cli.base.terminal import emit
from hpcc.config.paths import Paths
from hpcc.core import CallerError, Digest, HpccError, IntegrityError, NotFoundError
from hpcc.obs.text import one_line

if TYPE_CHECKING:
    from hpcc.core import InputFile
    from hpcc.evidence.checkout import ComparedSource
    from hpcc.ports import AuditRow
    from hpcc.worker.stores.retained import RetainedReader
    from hpcc.worker.stores.source_list import SourceList

_SHOWN: Final = 50
_ROW_CHARS: Final = 12


def register(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `sources`."""
    parser.add_argument("row", metavar="ROW", help="row id, or the start of one")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--checkout",
        type=Path,
        metavar="DIR",
        help="compare with the files of this directory, which was the project's root",
    )
    what.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="write the contents into this new directory, as far as they are kept",
    )
    parser.add_argument(
        "--commit",
        default="",
        metavar="REV",
        help="with --checkout: compare with this commit of the git repository there, not with the"
        " files; a whole id, HEAD, a tag or a branch",
    )
    parser.add_argument(
        "--format",
        choices=("table", "sha256sum"),
        default="table",
        help="sha256sum: lines that `sha256sum --check` reads in a checkout",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="the worker's config file (default: that of `hpcc up`)",
    )
    where.add_argument(
        "--store", type=Path, metavar="DIR", help="`store` of the worker's config file, or a copy"
    )
    parser.set_defaults(handler=with_statuses(_run))


def _run(args: argparse.Namespace) -> int:
    from hpcc.audit.base.canonical import row_of
    from hpcc.audit.lookup.reader import TrailReader
    from hpcc.core import TenantId
    from hpcc.worker.stores.retained import RetainedReader
    from hpcc.worker.stores.source_list import read_sources

    if args.commit and args.checkout is None:
        raise CallerError("--commit needs --checkout, the project's root in a git repository")
    trail, store = _places(args)
    reader = TrailReader(trail)
    row = row_of(reader.row(args.row))
    if reader.unproved:
        raise IntegrityError("nothing signs this row: it may have been put in", reason="unsigned")
    kept = RetainedReader(store, TenantId(row.tenant))
    try:
        found = read_sources(kept, Digest.parse(row.input_root_digest))
    except CallerError as error:
        raise IntegrityError(f"row {row.row_id}: {error}", reason="audit-row") from error
    if args.commit:
        status = _compare_commit(row, found, args.checkout, args.commit)
    elif args.checkout is not None:
        status = _compare(row, found, args.checkout)
    elif args.output is not None:
        status = _write(row, found, kept, args.output)
    else:
        _list(row, found, is_plain=args.format == "table")
        status = EXIT_PROVED
    return max(status, _say_gone(found))


def _places(args: argparse.Namespace) -> tuple[Path, Path]:
    """Return the directories of the trail and of the worker's store."""
    from hpcc.config.service_file import load_service_file
    from hpcc.worker.base.config import WorkerConfig

    if args.scheduler_state is not None:
        raise CallerError("a scheduler's trail has no rows with sources")
    if args.store is not None:
        if args.directory is None:
            raise CallerError("--store needs --directory, the trail that belongs to it")
        return args.directory, args.store
    file = args.config or Paths.from_env(os.environ).state / "worker.json"
    if args.config is None and not file.exists():
        raise CallerError(
            "`hpcc up` has never run here: name the worker's config file with --config"
        )
    config = load_service_file(file.absolute(), WorkerConfig)
    return args.directory or config.audit, config.store


def _say_gone(found: SourceList) -> int:
    for digest in found.gone[:_SHOWN]:
        emit(f"hpcc: directory {digest} of the inputs is not kept here", file=sys.stderr)
    if not found.gone:
        return EXIT_PROVED
    emit(
        f"hpcc: {len(found.gone)} directories are not kept: the row is older than hpcc keeps lists,"
        " audit_sources_bytes was too small, or this is another worker's store",
        file=sys.stderr,
    )
    return EXIT_MISSING


def _list(row: AuditRow, found: SourceList, *, is_plain: bool) -> None:
    from hpcc.evidence.checkout import project_path_or_none

    for file in found.files:
        if is_plain:
            emit(f"{file.digest.hash}  {file.digest.size_bytes:>10}  {one_line(file.path)}")
        elif (path := project_path_or_none(file.path)) is not None:
            emit(_sum_line(file.digest.hash, path))
    if is_plain:
        size = sum(file.digest.size_bytes for file in found.files)
        emit(f"row {row.row_id[:_ROW_CHARS]}: {len(found.files)} files, {size} bytes")


def _sum_line(digest: str, path: str) -> str:
    """Return a line as sha256sum writes it: names with line ends are escaped."""
    escaped = path.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{'\\' if escaped != path else ''}{digest}  {escaped}"


def _compare(row: AuditRow, found: SourceList, checkout: Path) -> int:
    from hpcc.evidence.checkout import compare_checkout

    return _say_compared(row, compare_checkout(found.files, checkout), one_line(checkout))


def _compare_commit(row: AuditRow, found: SourceList, checkout: Path, revision: str) -> int:
    """Compare with a commit. No program is started and nothing of the configuration is read."""
    from hpcc.cache.git.commit_files import MAX_FILE_BYTES, CommitFiles, NoFile, repository_around
    from hpcc.cache.git.reading import GitError
    from hpcc.evidence.checkout import SourceState, compare_contents

    try:
        repository, below = repository_around(str(checkout))
        commit = CommitFiles(repository, revision, below)
    except GitError as error:
        raise _refused(error, CallerError(f"no such commit: {error}")) from error

    def content(path: str) -> bytes | SourceState:
        there = commit.content(path)
        return SourceState(there.value) if isinstance(there, NoFile) else there

    with commit:
        try:
            compared = compare_contents(found.files, content, MAX_FILE_BYTES)
        except GitError as error:
            changed = IntegrityError(f"the repository: {error}", reason="git-repository")
            raise _refused(error, changed) from error
    return _say_compared(row, compared, f"commit {commit.commit} of {one_line(checkout)}")


def _refused(error: Exception, other: HpccError) -> HpccError:
    from hpcc.cache.git.commit_files import MissingObjectError

    if isinstance(error, MissingObjectError):
        return NotFoundError(f"{error}: fetch the commit into a whole clone")
    return other


def _say_compared(row: AuditRow, compared: list[ComparedSource], what: str) -> int:
    from hpcc.evidence.checkout import SourceState

    same = sum(source.state is SourceState.SAME for source in compared)
    for state in SourceState:
        if state is not SourceState.SAME:
            _name_some([source for source in compared if source.state is state])
    emit(f"row {row.row_id[:_ROW_CHARS]}: {same} of {len(compared)} files are those of {what}")
    return EXIT_PROVED if same == len(compared) and compared else EXIT_NOT_PROVED


def _name_some(sources: list[ComparedSource]) -> None:
    from hpcc.evidence.checkout import is_in_build

    for source in sources[:_SHOWN]:
        note = "  (in the build directory)" if is_in_build(source.path) else ""
        emit(f"{source.state.value:<11}{source.file.digest.hash}  {one_line(source.path)}{note}")
    if len(sources) > _SHOWN:
        emit(f"… and {len(sources) - _SHOWN} more {sources[0].state.value}")


def _write(row: AuditRow, found: SourceList, kept: RetainedReader, output: Path) -> int:
    """Write each file whose content is kept; the directory must be new."""
    try:
        output.mkdir(mode=0o700)
    except OSError as error:
        raise CallerError(
            f"cannot make {output}: {error.strerror}; it must not exist yet"
        ) from error
    lost = [file for file in found.files if not _write_one(file, kept, output)]
    for file in lost[:_SHOWN]:
        emit(f"expired    {file.digest.hash}  {one_line(file.path)}")
    written = len(found.files) - len(lost)
    emit(
        f"row {row.row_id[:_ROW_CHARS]}: {written} of {len(found.files)} files are in"
        f" {one_line(output)}"
    )
    return EXIT_MISSING if lost else EXIT_PROVED


def _write_one(file: InputFile, kept: RetainedReader, output: Path) -> bool:
    blob = kept.get_or_none(file.digest)
    if blob is None:
        return False
    # Names are those of an input tree: relative, without `..`, and no link is among them.
    path = output / file.path
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_bytes(blob.data)
    if file.is_executable:
        path.chmod(0o700)
    return True
