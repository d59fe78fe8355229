"""What the daemon's cache side asks of its remote side, and what it gets back."""

from __future__ import annotations

from dataclasses import dataclass

from hpcc.core.names import Isolation


@dataclass(frozen=True, slots=True)
class RemoteInput:
    """A file on this machine and its place in the tree (see `check_guest_path`).

    `sha256` (hex) is the content the compile was planned with; "" means: whatever it is now.
    """

    path: str
    host_path: str
    is_executable: bool
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class SharedInputs:
    """Inputs in the form in which they cross to the dispatcher, made once for many requests.

    `encoded` stands for all inputs of a request but those in `own`; see `encode_inputs`. `name` is
    its SHA-256, by which a dispatcher that has it knows it. `text` is the content of the one
    input that is `own`, or None: then it is read again.
    """

    encoded: bytes
    own: tuple[RemoteInput, ...]
    name: bytes = b""
    text: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteRequest:
    """A compile ready for a guest: argv and env as the guest will see them (root at /src).

    `outputs` and `cwd` are root-relative; the first output is the object. `directories` must exist
    in the tree although no file is in them. `injected` are the flags hpcc added to argv.
    `toolchain` is this machine's compiler of the same name, as `encode_toolchains` writes it; ""
    where it is not known. `folds_case`: the guest's file system compares names as NTFS does, and so
    does the tree (docs/adr/0032-clang-cl-in-guests.md).
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


@dataclass(frozen=True, slots=True)
class RemoteOutput:
    """One file that the guest's compiler wrote, already checked against its digest."""

    path: str
    data: bytes
    is_executable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteResult:
    """A finished remote compile. `is_cached` tells a probe's hit from an execution."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    outputs: tuple[RemoteOutput, ...]
    is_cached: bool
    isolation: Isolation
    action: str


@dataclass(frozen=True, slots=True)
class RemoteFailure:
    """Nothing usable came back; compile locally. `reason` is counted, `message` is for a person."""

    reason: str
    message: str


RemoteOutcome = RemoteResult | RemoteFailure
