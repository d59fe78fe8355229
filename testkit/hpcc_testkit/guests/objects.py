"""A result of a farm with its checks, for tests of what shows it."""

from __future__ import annotations

from hpcc.cli.base.farm_object import CheckState, FarmObject, ObjectCheck
from hpcc.core import Digest, GuestReuse, ImageDigest, ImageRef, Isolation, SharingClass
from hpcc.reapi.action import ActionSpec
from hpcc.reapi.command import CommandSpec
from hpcc.reapi.result import ResultOutput, ResultRecord, ResultSignature, SharingEvidence

ACTION = Digest.of(b"action")
IMAGE = ImageRef("test/gcc", ImageDigest("sha256:" + "ab" * 32))
ROW = "0123456789abcdef" * 2


def farm_object(text: str = "", **changes: object) -> FarmObject:
    """Return an object; `text` stands where a worker may write what it likes."""
    values: dict[str, object] = {
        "exit_code": 0,
        "stdout": b"",
        "stderr": b"",
        "outputs": (ResultOutput(f"out/{text}route_table.o", Digest.of(b"object")),),
        "isolation": Isolation.QEMU_KVM,
        "reuse": GuestReuse.PRINCIPAL,
        "guest_id": f"w1-g6{text}",
        "guest_execs_before": 0,
        "worker": f"w1{text}",
        "image": IMAGE.digest.value,
        "queued_at": 1_800_000_000.0,
        "started_at": 1_800_000_000.04,
        "completed_at": 1_800_000_058.0,
        "kernel_digest": f"sha256:e7aa{text}",
        "agent_digest": f"sha256:30b2{text}",
        "lineage_digest": "sha256:11fd",
        "evidence": SharingEvidence(sharing=SharingClass.FRESH, row=text or ROW),
        "signature": ResultSignature("5c0e" * 8, 1_800_000_058_100, b"s" * 64),
        **changes,
    }  # fmt: skip
    return FarmObject(
        tenant="acme",
        action=ACTION,
        record=ResultRecord(**values),  # type: ignore[arg-type]  # built by name
        asked="w1",
        spec=ActionSpec(
            command=Digest.of(b"c"), input_root=Digest.of(b"i"), image=IMAGE, salt=text.encode()
        ),
        command=CommandSpec(
            argv=("g++", "-c", f"{text}route_table.cc"), env=(("PATH", "/usr/bin"),), cwd="net",
            outputs=("out/route_table.o",), image=None,
        ),
        checks=(
            ObjectCheck("Signature", CheckState.HOLDS, f"listed{text}", f"key {text}"),
            ObjectCheck("Bytes", CheckState.HOLDS, "the SHA-256 of each output is its name"),
            ObjectCheck("Audit row", CheckState.UNKNOWN, f"in the trail of {text}", text or ROW),
        ),
    )  # fmt: skip
