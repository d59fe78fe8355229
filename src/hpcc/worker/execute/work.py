"""An action that may run, and how its parts are read from a tenant's store."""

from __future__ import annotations

from dataclasses import dataclass

from hpcc.core import Blob, Digest, NotFoundError
from hpcc.identity.token import RouteSharing
from hpcc.ports import BlobStore
from hpcc.reapi.action import ActionSpec, parse_action
from hpcc.reapi.command import CommandSpec, parse_command
from hpcc.reapi.limits import MAX_ACTION_BYTES, MAX_COMMAND_BYTES, ReapiError
from hpcc.rpc.base.errors import MissingBlobsError
from hpcc.rpc.reapi.session import Client
from hpcc.worker.base.domain import TrustDomain
from hpcc.worker.base.rows import MAX_NAMES_JSON_BYTES, has_room_for_names


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """An action that passed all checks, and the caller that sent it."""

    digest: Digest
    action: ActionSpec
    command: CommandSpec
    domain: TrustDomain
    principal: str
    client: Client
    client_version: str
    queued_at: float
    # None: the result serves its trust domain only.
    sharing: RouteSharing | None = None
    # Nobody waits for it: an idle worker executes a result again.
    is_verification: bool = False
    # The foreign engine that gave a lease for it, and the lease's id there.
    engine: str = ""
    lease: str = ""


async def read_action(blobs: BlobStore, digest: Digest) -> tuple[ActionSpec, CommandSpec]:
    """Read an action and its command.

    Raises:
        MissingBlobsError: either is not in the store.
        ReapiError: either breaks a rule.
    """
    action = parse_action((await _required(blobs, digest, MAX_ACTION_BYTES)).data)
    command = parse_command((await _required(blobs, action.command, MAX_COMMAND_BYTES)).data)
    return action, command


def check_outputs(command: CommandSpec) -> CommandSpec:
    """Check the names of a command's outputs before a guest boots.

    Raises:
        CallerError: an output lies outside the root.
        ReapiError: the names are longer than an audit row can have.
    """
    paths = {*command.root_outputs(), *command.root_directories()}
    if not has_room_for_names(paths):
        raise ReapiError(
            f"the names of the outputs exceed {MAX_NAMES_JSON_BYTES} bytes of an audit row: use"
            " fewer or shorter ones",
            reason="output-names",
        )
    return command


async def _required(blobs: BlobStore, digest: Digest, limit: int) -> Blob:
    if digest.size_bytes > limit:  # before reading: a blob may have hundreds of megabytes
        raise ReapiError(f"a message of {digest.size_bytes} bytes, over {limit}")
    try:
        return await blobs.get(digest)
    except NotFoundError as error:
        raise MissingBlobsError((digest,)) from error
