"""What signed results cost, in docs/performance.md: processor time to sign one and to check one.

Prints a table and writes JSON. Each figure is the median of rounds in one process, with the
spread between the quickest and the slowest round. A figure that misses its goal ends nothing.

  signing.py                          everything; some seconds
  signing.py --quick                  one short round: does everything work?
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.core import Digest, GuestReuse, ImageDigest, Isolation, TenantId
from hpcc.identity.proof import ProofKey, check_proof
from hpcc.identity.results import ResultSigner, verify_result
from hpcc.ports import SystemClock
from hpcc.reapi.result import ResultOutput, ResultRecord, encode_result, parse_result
from hpcc.reapi.signed import ResultScope, ResultTerms, signed_bytes

RESULT = Path(__file__).parent / "results" / "signing.json"
ROUNDS, CALLS = 15, 400
IMAGE = ImageDigest("sha256:" + "ab" * 32)
SCOPE = ResultScope(tenant=TenantId("acme"), action=Digest.of(b"action"), principal="ann")
TERMS = ResultTerms(
    scope=SCOPE,
    image=IMAGE,
    minimum_isolation=Isolation.QEMU_TCG,
    reuse=GuestReuse.PRINCIPAL,
)


@dataclass(frozen=True, slots=True)
class Row:
    """One line: a figure in microseconds, the quickest and slowest round, its goal or none."""

    what: str
    value: float
    low: float
    high: float
    goal: float | None = None


def record_of(stderr_bytes: int) -> ResultRecord:
    """Return a compile's usual result: an object, a depfile, and so much to say."""
    return ResultRecord(
        exit_code=0,
        stdout=b"",
        stderr=b"w" * stderr_bytes,
        outputs=(
            ResultOutput("src/a.o", Digest.of(b"object")),
            ResultOutput("src/a.d", Digest.of(b"depfile")),
        ),
        isolation=Isolation.QEMU_KVM,
        reuse=GuestReuse.PRINCIPAL,
        guest_id="g-0123456789abcdef",
        guest_execs_before=12,
        worker="builder-7.example",
        image=IMAGE.value,
        kernel_digest="sha256:" + "1" * 64,
        agent_digest="sha256:" + "2" * 64,
        lineage_digest="sha256:" + "3" * 64,
        completed_at=1_800_000_000.0,
    )


def timed(what: str, call: Callable[[], object], plan: tuple[int, int], goal: float | None) -> Row:
    """Call it `plan[1]` times in each of `plan[0]` rounds."""
    rounds, calls = plan
    found = []
    for _ in range(rounds):
        begin = time.process_time()
        for _ in range(calls):
            call()
        found.append((time.process_time() - begin) / calls * 1e6)
    return Row(what, statistics.median(found), min(found), max(found), goal)


def rows(plan: tuple[int, int]) -> list[Row]:
    """Measure everything."""
    clock = SystemClock()
    key = Ed25519PrivateKey.generate()
    signer, public, now = ResultSigner(key, clock), key.public_key(), clock.now()
    found: list[Row] = []
    for name, size in (("quiet compile", 0), ("64 KiB of warnings", 64 << 10)):
        signed = signer.sign(record_of(size), SCOPE)
        assert signed.signature is not None
        data, signature = encode_result(signed), signed.signature
        parts: tuple[tuple[str, Callable[[], object], float | None], ...] = (
            ("bytes to sign", lambda s=signed, n=signature: signed_bytes(s, SCOPE, n), None),
            ("sign", lambda s=signed: signer.sign(s, SCOPE), 300.0),
            ("check", lambda s=signed: verify_result(s, TERMS, public, now=now), 500.0),
            (
                "read and check",
                lambda d=data: verify_result(parse_result(d), TERMS, public, now=now),
                None,
            ),
        )
        found += [timed(f"{name}: {what}", call, plan, goal) for what, call, goal in parts]
    proof_key, method = ProofKey(), "/p.Service/Method"
    proof = proof_key.sign("t" * 900, method, now)
    found.append(
        timed("a call's proof: make", lambda: proof_key.sign("t" * 900, method, now), plan, None)
    )
    check = {"key": proof_key.public, "token": "t" * 900, "method": method, "now": now}
    found.append(timed("a call's proof: check", lambda: check_proof(proof, **check), plan, None))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args(argv)
    found = rows((1, 20) if args.quick else (ROUNDS, CALLS))
    for row in found:
        goal = f"   goal {row.goal:.0f}" if row.goal is not None else ""
        print(f"{row.what:40} {row.value:8.1f} us  ({row.low:.1f} to {row.high:.1f}){goal}")
    if not args.quick:
        document = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": platform.machine(),
            "python": platform.python_version(),
            "rows": [
                {
                    "what": r.what,
                    "us": round(r.value, 1),
                    "low": round(r.low, 1),
                    "high": round(r.high, 1),
                }
                for r in found
            ],
        }
        RESULT.write_text(json.dumps(document, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
