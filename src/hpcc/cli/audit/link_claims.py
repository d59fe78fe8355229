"""Recorded links of this machine, as evidence has them."""

from __future__ import annotations

from hpcc.cache.recorder.reading import RecordedLink
from hpcc.evidence.making import LinkClaim
from hpcc.evidence.statement import time_text


def claim_of(link: RecordedLink) -> LinkClaim:
    """Return a recorded link as the claim of this machine."""
    record = link.record
    facts = {
        "build": link.build, "commandDigest": record.command_digest, "compiler": record.compiler,
        "compilerFiles": record.tools, "inputsDigest": record.inputs_digest,
        "output": record.output.path, "workingDirectory": record.cwd,
        "startedOn": time_text(record.began_us / 1e6),
        "finishedOn": time_text((record.began_us + record.took_us) / 1e6),
    }  # fmt: skip
    return LinkClaim(
        output=record.output.path,
        digest=record.output.digest,
        inputs=tuple((file.path, file.digest) for file in record.inputs),
        left_out=record.left_out,
        command=record.command,
        facts=facts,
    )
