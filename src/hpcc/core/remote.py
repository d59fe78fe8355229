"""The requests of the daemon's cache side to its remote side, and the results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hpcc.core.names import Isolation
from hpcc.core.parity import LocalSlots

# What became of a pack's entry. It is the result:
PACK_USED: Final = "used"
# The tenant refuses packs, or no worker takes reports of uses now.
PACK_NOT_ALLOWED: Final = "not-allowed"
# It is the result of other inputs, or its messages are too long for a report.
PACK_OTHER: Final = "other-inputs"
# It does not count here.
PACK_REFUSED: Final = "refused"


@dataclass(frozen=True, slots=True)
class RemoteInput:
    """A file on this machine and its place in the tree (see `check_guest_path`).

    `sha256` (hex) is the content that the compile was planned with; "" means its current content.
    """

    path: str
    host_path: str
    is_executable: bool
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class SharedInputs:
    """Inputs encoded for the dispatcher, once for many requests.

    `encoded` stands for all inputs of a request except those in `own`; see `encode_inputs`. `name`
    is its SHA-256, by which a dispatcher that has it identifies it. `text` is the content of the
    only input in `own`, or None, and then the file is read again.
    """

    encoded: bytes
    own: tuple[RemoteInput, ...]
    name: bytes = b""
    text: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteRequest:
    """A compile ready for a guest: argv and env as the guest will see them (root at /src).

    `outputs` and `cwd` are root-relative, and the first output is the object. `directories` must
    exist in the tree although they contain no files. `injected` are the flags that hpcc added to
    argv. `toolchain` is this machine's compiler of the same name, as `encode_toolchains` writes it;
    "" if unknown. `folds_case`: the guest's file system compares names as NTFS does, and so does
    the tree (docs/adr/0032-clang-cl-in-guests.md). `may_run_here`: whether the answer may be
    `RunHere`; "exact" only if the farm accepts results that nothing isolated. `build` names the
    build, as the client claims. `packed` is what a build pack has for this command, unchecked; b""
    for nothing. `wants_entry`: the answer carries the entry for a pack. `needs_exact`: it runs only
    in an image whose tool is the same as `toolchain`, headers included.
    """

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    cwd: str
    inputs: tuple[RemoteInput, ...]
    outputs: tuple[str, ...]
    directories: tuple[str, ...] = ()
    injected: tuple[str, ...] = ()
    client_version: str = ""
    shared: SharedInputs | None = None
    toolchain: str = ""
    folds_case: bool = False
    may_run_here: LocalSlots = "off"
    build: str = ""
    packed: bytes = b""
    wants_entry: bool = False
    needs_exact: bool = False


@dataclass(frozen=True, slots=True)
class RemoteOutput:
    """A file that the guest's compiler wrote, already checked against its digest."""

    path: str
    data: bytes
    is_executable: bool


@dataclass(frozen=True, slots=True)
class FarmRun:
    """Which worker answered, and what it says of an execution: guest, waiting and running time.

    Of a result that the worker had, guest and times are "" and 0. It is for the build's record.
    """

    worker: str
    guest: str = ""
    waited_seconds: float = 0.0
    ran_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteResult:
    """A finished remote compile. `is_cached` distinguishes a probe's hit from an execution.

    `sharing` is the class of a result that may be a colleague's ("fresh", "agreed(2)"); else "".
    `basis` is the text of a `ResultBasis`, with which a copy is stored; "" of an engine's result.
    `entry` is what a build pack may carry of it; b"" if it may not serve colleagues. `pack` says
    what became of the request's `packed`, as one of the words `PACK_…`; "" if it had none. `ran` is
    None for what no worker sent now.
    """

    exit_code: int
    stdout: bytes
    stderr: bytes
    outputs: tuple[RemoteOutput, ...]
    is_cached: bool
    isolation: Isolation
    action: str
    sharing: str = ""
    basis: str = ""
    entry: bytes = b""
    pack: str = ""
    ran: FarmRun | None = None


@dataclass(frozen=True, slots=True)
class RemoteFailure:
    """No usable result: compile locally. `reason` is counted, `message` is for a person."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class RunHere:
    """All places of the farm are taken, and this machine has an idle processor: compile here.

    The processor is reserved until the caller gives it back, in one of the two ways. `end` gets
    whether a compiler ran; a second call does nothing.
    """

    end: Callable[[bool], None]

    def ran(self) -> None:
        """Give the processor back after a compile."""
        self.end(True)  # noqa: FBT003 - the only argument

    def give_back(self) -> None:
        """Give the processor back without a compile that shows how long one takes here."""
        self.end(False)  # noqa: FBT003 - as above


RemoteOutcome = RemoteResult | RemoteFailure | RunHere
