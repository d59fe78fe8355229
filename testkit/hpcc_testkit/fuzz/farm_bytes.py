"""Targets: what an agent, a worker, a scheduler, a gateway or the helper reads of its callers."""

from __future__ import annotations

import atexit
import base64
import hashlib
import io
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as reapi
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.message import DecodeError

from hpcc._proto import agent_pb2, scheduler_pb2
from hpcc.agent.base.intake import Intake
from hpcc.core import (
    CallerError,
    Digest,
    GuestReuse,
    ImageDigest,
    Isolation,
    TenantId,
    check_guest_path,
)
from hpcc.helper import __main__ as helper
from hpcc.identity.keys import load_or_create_tls
from hpcc.identity.known_certificates import KnownCertificates
from hpcc.identity.oidc.verify import IdentityPolicy, IdpTokenError, peek_claims, read_header
from hpcc.identity.proof import check_proof
from hpcc.identity.session_token import (
    SessionClaims,
    SessionTokenError,
    open_session_token,
    seal_session,
)
from hpcc.identity.token import RouteClaims, TokenError, TokenSigner, TokenVerifier
from hpcc.ports import SystemClock
from hpcc.reapi.limits import ReapiError
from hpcc.reapi.tree import TreeWalk, build_tree
from hpcc.rpc.base.lobby import address_of
from hpcc.rpc.base.method import Call
from hpcc.rpc.reapi.session import client_of
from hpcc.rpc.scheduler.api import MAX_CERTIFICATES
from hpcc.wire import helper as helper_wire
from hpcc.worker.execute.announced import announced
from hpcc_testkit.services.idp_tokens import NOW, FixedClock

PEER_NAME: Final = "scheduler.fuzz.hpcc.internal"
_IMAGE: Final = ImageDigest("sha256:" + "1" * 64)
_ROUTE_KEY: Final = Ed25519PrivateKey.from_private_bytes(b"r" * 32)
_SESSION_KEYS: Final = {"s1": b"s" * 32}
_POLICY: Final = IdentityPolicy(issuer="https://id.example", audience="hpcc")


def exec_header(data: bytes) -> None:
    """The agent's reader of an Exec's first frame, with directories that hold nothing."""
    try:
        frame = agent_pb2.ClientFrame.FromString(data)
        intake = Intake()
        request, _ = intake.header(frame)
    except (DecodeError, CallerError):
        return
    assert intake.blobs.keys() <= {file.digest.hash for file in request.inputs}
    files = {file.path for file in request.inputs}
    for path in request.input_directories:
        parts = check_guest_path(path).split("/")
        assert files.isdisjoint("/".join(parts[: n + 1]) for n in range(len(parts)))


def exec_header_seeds() -> Mapping[str, bytes]:
    """Return frames with and without empty directories."""
    limits = agent_pb2.Limits(
        wall_seconds=1.5, memory_bytes=1 << 20, pids=9, output_bytes=1 << 20, stdio_bytes=99
    )
    file = agent_pb2.Input(path="a/b/c.h", digest=b"d" * 32, size_bytes=7)
    header = agent_pb2.Header(
        exec_id="e-1", argv=["gcc", "-c", "a.c"], cwd="a", inputs=[file], outputs=["o/a.o"],
        limits=limits, env=[agent_pb2.Variable(name="A", value="b")],
        output_directories=["d"], input_directories=["a/empty", "a/b/none", "z"],
    )  # fmt: skip
    carrying = agent_pb2.Header()
    carrying.CopyFrom(header)
    carrying.blobs.append(b"int x;\n")
    carrying.inputs[0].digest = hashlib.sha256(carrying.blobs[0]).digest()
    below = agent_pb2.Header()
    below.CopyFrom(header)
    below.input_directories.append("a/b/c.h/below")
    twice = agent_pb2.Header()
    twice.CopyFrom(header)
    twice.input_directories.append("z")
    return {
        name: agent_pb2.ClientFrame(header=one).SerializeToString()
        for name, one in {
            "good": header,
            "below-a-file": below,
            "twice": twice,
            "carrying": carrying,
        }.items()
    }


def input_tree(data: bytes) -> None:
    """The worker's reader of a tree of `Directory` messages, to files and empty directories."""
    pieces = [piece for piece in data.split(b"\n---\n") if piece][:8]
    by_digest = {Digest.of(piece): piece for piece in pieces}
    walk = TreeWalk(Digest.of(pieces[-1] if pieces else b""))
    with suppress(ReapiError, CallerError):
        while walk.wanted:
            for digest in walk.wanted:
                walk.feed(digest, by_digest.get(digest, b""))
    if pieces and not walk.wanted:
        # No file is where a directory is, or this raises.
        build_tree(walk.files, walk.empty_directories)
        assert len(set(walk.empty_directories)) == len(walk.empty_directories)


def input_tree_seeds() -> Mapping[str, bytes]:
    """Return a tree with a directory that holds nothing, and one without."""
    empty, file = Digest.of(b""), Digest.of(b"text")
    inner = reapi.Directory(
        files=[reapi.FileNode(name="a.h", digest=_reapi(file))],
        directories=[reapi.DirectoryNode(name="none", digest=_reapi(empty))],
    ).SerializeToString(deterministic=True)
    outer = reapi.Directory(
        directories=[
            reapi.DirectoryNode(name="in", digest=_reapi(Digest.of(inner))),
            reapi.DirectoryNode(name="out", digest=_reapi(empty)),
        ]
    ).SerializeToString(deterministic=True)
    return {"with-empty-directories": inner + b"\n---\n" + outer, "one": inner}


def _reapi(digest: Digest) -> reapi.Digest:
    return reapi.Digest(hash=digest.hash, size_bytes=digest.size_bytes)


@cache
def _place() -> Path:
    place = Path(tempfile.mkdtemp(prefix="hpcc-fuzz-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return place


@cache
def _configured() -> str:
    return load_or_create_tls(_place(), PEER_NAME, clock=SystemClock()).certificate_pem.decode()


@cache
def _known() -> KnownCertificates:
    return KnownCertificates(_configured(), None)


def announced_certificates(data: bytes) -> None:
    """A client's reader of what a scheduler announces, and of the file that keeps it."""
    if data[:1] == b"F":
        _kept_file(data[1:])
        return
    try:
        answer = scheduler_pb2.AuthenticateResponse.FromString(data)
    except DecodeError:
        return
    ders = tuple(answer.scheduler_certificates)[:MAX_CERTIFICATES]
    known = _known()
    known.learn(ders)
    _check_trusted(known)


def _check_trusted(known: KnownCertificates) -> None:
    assert known.peer.name == PEER_NAME
    found = x509.load_pem_x509_certificates(known.peer.certificate_pem)
    assert 0 < len(found) <= MAX_CERTIFICATES


def _kept_file(data: bytes) -> None:
    file = _place() / "kept.json"
    file.unlink(missing_ok=True)
    file.touch(0o600)
    file.write_bytes(data)
    _check_trusted(KnownCertificates(_configured(), file))


def announced_certificates_seeds() -> Mapping[str, bytes]:
    """Return answers with one's own certificate, another of its name, and one of another name."""
    made = {}
    for kind, name in {"same": PEER_NAME, "next": PEER_NAME, "other": "mallory"}.items():
        der = load_or_create_tls(_place() / kind, name, clock=SystemClock()).certificate_der
        made[kind] = scheduler_pb2.AuthenticateResponse(
            session="s", expires_at=2e9, scheduler_certificates=[der]
        ).SerializeToString()
    table = {"configured": "0" * 64, "certificates": _configured()}
    return {
        **made, "file": b"F" + json.dumps(table).encode(), "deep-file": b"F" + b"[" * 12_000
    }  # fmt: skip


@cache
def _helpers_door() -> tuple[socket.socket, str]:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    place = str(_place() / "helper")
    listener.bind(place)
    listener.listen(4)
    atexit.register(listener.close)
    return listener, place


def helper_request(data: bytes) -> None:
    """The helper's reader of 16 bytes, behind its real socket; the caller is another user."""
    listener, place = _helpers_door()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as caller:
        caller.connect(place)
        if data:
            caller.send(data)
        caller.shutdown(socket.SHUT_WR)
        with redirect_stderr(io.StringIO()):
            helper.serve_one(listener, os.geteuid() + 1)
        answer = caller.recv(2)
    try:
        asked = helper_wire.decode_request(data[: helper_wire.READ_BYTES])
    except ValueError:
        assert answer == helper_wire.MALFORMED
        return
    assert answer == helper_wire.REFUSED
    assert helper_wire.encode_request(asked) == data
    assert asked.first >= helper_wire.FIRST_ID
    assert asked.first + asked.size <= helper_wire.FIRST_ID + helper_wire.IDS


def helper_request_seeds() -> Mapping[str, bytes]:
    """Return a good request, and one at the end of the range."""
    first, most = helper_wire.FIRST_ID, helper_wire.MAX_COUNT
    last = helper_wire.MapRequest(first + helper_wire.IDS - most, most)
    good = helper_wire.encode_request(helper_wire.MapRequest(first + 128, 1))
    return {"good": good, "last": helper_wire.encode_request(last), "short": good[:15]}


class _Headers:
    """gRPC's context of a call, as far as `Call.of` reads it."""

    def __init__(self, lines: list[bytes]) -> None:
        self._lines = lines

    def invocation_metadata(self) -> list[tuple[str, str | bytes]]:
        found: list[tuple[str, str | bytes]] = []
        for line in self._lines:
            name, _, value = line.partition(b": ")
            key = name.decode("latin-1")
            found.append((key, value if key.endswith("-bin") else value.decode("latin-1")))
        return found

    def peer(self) -> str:
        return self._lines[0].decode("latin-1") if self._lines else ""

    def auth_context(self) -> Mapping[str, list[bytes]]:
        return {"x509_pem_cert": self._lines[1:2]}


@cache
def _verifier() -> TokenVerifier:
    return TokenVerifier(
        keys={"r1": _ROUTE_KEY.public_key()},
        issuer="farm",
        audience="worker",
        clock=FixedClock(),
    )


def callers_headers(data: bytes) -> None:
    """What every service reads of a call before its message: metadata, tokens, proof, address."""
    call = Call.of(_Headers(data.split(b"\n")), "/hpcc.v1.Service/Method")
    assert call.peer.isprintable()
    assert 0 <= call.expected <= 4096
    assert len(address_of(call.peer)) <= len(call.peer) + 16
    client = client_of(call, "tenant")
    with suppress(TokenError):
        claims = _verifier().verify(call.credential)
        assert claims.audience == "worker"
        assert announced(client, claims).expected <= client.expected
        if claims.client_key:
            key, token = claims.client_key, call.credential
            check_proof(call.proof, key=key, token=token, method=call.method, now=NOW)
    with suppress(SessionTokenError):
        open_session_token(call.credential, _SESSION_KEYS)
    _read_idp_token(call.credential)
    # What the signature covers is a stranger's if a key is lost: the claims are read anyway.
    _read_claims(call.credential)


def _read_idp_token(token: str) -> None:
    reads: tuple[Callable[[], Any], ...] = (
        lambda: read_header(token, _POLICY),
        lambda: peek_claims(token),
    )
    for read in reads:
        with suppress(IdpTokenError):
            read()


def _read_claims(token: str) -> None:
    """Sign what is in a token's place for claims, and read it."""
    signed = f"{_route_token().partition('.')[0]}.{token.partition('.')[2].partition('.')[0]}"
    with suppress(TokenError, UnicodeEncodeError):
        mark = base64.urlsafe_b64encode(_ROUTE_KEY.sign(signed.encode())).rstrip(b"=").decode()
        _verifier().verify(f"{signed}.{mark}")


@cache
def _route_token() -> str:
    claims = RouteClaims(
        issuer="farm", subject="eve", tenant=TenantId("tenant"), audience="worker", image=_IMAGE,
        minimum_isolation=Isolation.QEMU_TCG, generation=3, rights=frozenset({"cache", "execute"}),
        guest_reuse=GuestReuse.TENANT, not_before=NOW - 10.0, expires_at=NOW + 100.0,
        token_id="t1",  # noqa: S106 - a number of a token
        client_key=b"k" * 32, leased=True,
    )  # fmt: skip
    return TokenSigner(_ROUTE_KEY, kid="r1").sign(claims)


def callers_headers_seeds() -> Mapping[str, bytes]:
    """Return the headers of a worker's, a scheduler's and a gateway's callers."""
    session = seal_session(
        SessionClaims(
            tenant="tenant", principal="eve", client_version="1", identity="i",
            expires_at=NOW + 9.0, serial=1,
        ),
        kid="s1", secret=_SESSION_KEYS["s1"],
    )  # fmt: skip
    tool = reapi.RequestMetadata(
        tool_details=reapi.ToolDetails(tool_name="bazel", tool_version="9"),
        tool_invocation_id="i",
    ).SerializeToString()
    kinds = {"route": _route_token(), "session": session, "idp": "eyJhbGciOiJSUzI1NiJ9.e30.AA"}
    return {
        kind: b"\n".join([
            b"ipv6:%5b2001:db8::1%5d:4711", b"authorization: Bearer " + token.encode(),
            b"hpcc-proof: 1800000000000." + b"A" * 86, b"hpcc-expected: 12",
            b"hpcc-injected-bin: -a\0-b",
            b"build.bazel.remote.execution.v2.requestmetadata-bin: " + tool,
        ])
        for kind, token in kinds.items()
    }  # fmt: skip
