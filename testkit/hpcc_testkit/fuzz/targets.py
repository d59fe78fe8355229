"""The parsers that `python -m hpcc_testkit.fuzz` can fuzz, and where their inputs are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc_testkit.fuzz import (
    audit_bytes,
    cache_bytes,
    evidence_bytes,
    farm_bytes,
    local_bytes,
    pack_bytes,
    signer_bytes,
    worker_bytes,
)


@dataclass(frozen=True, slots=True)
class Target:
    """`run` returns for every input, or raises for a defect. `seeds` makes the first inputs."""

    name: str
    run: Callable[[bytes], object]
    seeds: Callable[[], Mapping[str, bytes]]

    def inputs(self, corpus: Path) -> dict[str, bytes]:
        """Return the inputs that are kept, by name."""
        return {path.name: path.read_bytes() for path in sorted((corpus / self.name).iterdir())}


_FARM: Final = (
    Target("exec_header", farm_bytes.exec_header, farm_bytes.exec_header_seeds),
    Target("input_tree", farm_bytes.input_tree, farm_bytes.input_tree_seeds),
    Target(
        "announced_certificates",
        farm_bytes.announced_certificates,
        farm_bytes.announced_certificates_seeds,
    ),
    Target("helper_request", farm_bytes.helper_request, farm_bytes.helper_request_seeds),
    Target("callers_headers", farm_bytes.callers_headers, farm_bytes.callers_headers_seeds),
)
_LOCAL: Final = (
    Target("guest_bundle", local_bytes.guest_bundle, local_bytes.guest_bundle_seeds),
    Target("release_files", local_bytes.release_files, local_bytes.release_files_seeds),
    Target("remote_entry", cache_bytes.remote_entry, cache_bytes.remote_entry_seeds),
    Target("exec_trace", local_bytes.exec_trace, local_bytes.exec_trace_seeds),
    Target("thinlto_index", local_bytes.thinlto_index, local_bytes.thinlto_index_seeds),
)
_PACKS: Final = (
    Target("pack_index", pack_bytes.pack_index, pack_bytes.pack_index_seeds),
    Target("pack_record", pack_bytes.pack_record, pack_bytes.pack_record_seeds),
    Target("packed_result", pack_bytes.packed_result, pack_bytes.packed_result_seeds),
    Target("clone", pack_bytes.clone, pack_bytes.clone_seeds),
)
_WORKERS: Final = (
    Target("meeting", worker_bytes.meeting, worker_bytes.meeting_seeds),
    Target("explanation", worker_bytes.explanation, worker_bytes.explanation_seeds),
    Target("engine_session", worker_bytes.engine_session, worker_bytes.engine_session_seeds),
    Target("object_sections", worker_bytes.object_sections, worker_bytes.object_sections_seeds),
)
_EVIDENCE: Final = (
    Target("signer_messages", signer_bytes.signer_messages, signer_bytes.signer_messages_seeds),
    Target("signer_state", signer_bytes.signer_state, signer_bytes.signer_state_seeds),
    Target("packed_block", audit_bytes.packed_block, audit_bytes.packed_block_seeds),
    Target("evidence_file", evidence_bytes.evidence_file, evidence_bytes.evidence_file_seeds),
    Target("library_members", evidence_bytes.library_members, evidence_bytes.library_members_seeds),
)
TARGETS: Final[Mapping[str, Target]] = {
    target.name: target for target in (*_FARM, *_LOCAL, *_PACKS, *_WORKERS, *_EVIDENCE)
}
