"""Actions and tokens for tests of a whole farm.

`made_action` and `run_script` make and run good actions. `forged_token` signs a token that only a
bug in the scheduler could issue.
"""

from __future__ import annotations

from dataclasses import replace

from hpcc.core import Blob, ImageRef, InputFile, Isolation
from hpcc.identity.keys import key_id, load_or_create_tls
from hpcc.identity.tls import certificate_id
from hpcc.identity.token import RouteClaims, TokenSigner
from hpcc.reapi.action import ActionSpec, encode_action
from hpcc.reapi.command import CommandSpec, encode_command
from hpcc.reapi.tree import build_tree
from hpcc.rpc.reapi.client import ReapiClient
from hpcc_testkit.farm.in_process import IMAGE, TENANT, FarmUnderTest


def made_action(
    script: str, *, image: ImageRef = IMAGE, in_action: ImageRef | None = None
) -> list[Blob]:
    """Return the blobs of an action that makes `a.o` of `a.c`, the action last."""
    source = Blob.of(b"int x;\n")
    tree = build_tree([InputFile("a.c", source.digest)])
    command = Blob.of(
        encode_command(
            CommandSpec(
                argv=("sh", "-c", script),
                env=(("PATH", "/usr/bin:/bin"),),
                cwd="",
                outputs=("a.o",),
                image=image,
            )
        )
    )
    action = Blob.of(
        encode_action(
            ActionSpec(
                command=command.digest, input_root=tree.root, image=in_action or image, salt=b"t"
            )
        )
    )
    return [source, *(Blob.of(d) for d in tree.directories.values()), command, action]


async def run_script(client: ReapiClient, script: str) -> tuple[bytes, bool]:
    """Run an action of `made_action`; return `a.o` and whether it was a hit."""
    blobs = made_action(script)
    await client.upload(blobs)
    record, is_cached = await client.execute(blobs[-1].digest, ["a.o"])
    return record.inline.get("a.o", b""), is_cached


def forged_token(farm: FarmUnderTest, **changes: object) -> str:
    """Sign claims with the scheduler's real key, as a bug in the scheduler could."""
    key = farm.signing_key()
    tls = load_or_create_tls(
        farm.directory / "worker/keys", "worker.hpcc.internal", clock=farm.clock
    )
    now = farm.clock.now()
    claims = RouteClaims(
        issuer=farm.scheduler.scheduler_id,
        subject="ann",
        tenant=TENANT,
        audience=certificate_id(tls.certificate_der),
        image=IMAGE.digest,
        minimum_isolation=Isolation.LOCAL_NONE,
        generation=1,
        rights=frozenset({"cache", "execute"}),
        not_before=now,
        expires_at=now + 60,
        token_id="t",  # noqa: S106 - the name of a token, no secret
    )
    return TokenSigner(key, kid=key_id(key.public_key())).sign(replace(claims, **changes))  # type: ignore[arg-type]  # built by name
