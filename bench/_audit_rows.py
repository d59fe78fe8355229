"""Rows as a worker writes them: the units of a C project, executed and then hit by others."""

from __future__ import annotations

import hashlib
import json
import random
from collections import deque
from collections.abc import Iterator

from hpcc.ports import AuditRow

WORKER = "builder-7.example"
_DIRECTORIES = ("lib", "core", "util", "net", "io")
_STEMS = ("list", "map", "parse", "proto", "state", "queue", "hash")
_FLAGS = (
    "-O2", "-g", "-Wall", "-std=gnu11", "-Iinclude", "-Isrc", "-DHAVE_CONFIG_H", "-DNDEBUG",
    "-fPIC", "-fno-common", "-MD",
)  # fmt: skip


class Rows:
    """Makes rows, one of 10,000 of a compile that failed.

    `hits` of them, a share, repeat the result of one of the last 3,000 units.
    A row has one output, or with `depfiles` two. All digests are random, as real ones look.
    """

    def __init__(self, seed: int = 1, *, hits: float = 0.5, depfiles: bool = False) -> None:
        self._random, self._hits, self._depfiles = random.Random(seed), hits, depfiles
        self._fixed = {
            name: f"sha256:{self._hex()}"
            for name in (
                "image_digest", "kernel_digest", "vmm_digest", "jailer_digest", "agent_digest",
                "snapshot_digest", "env_digest",
            )
        }  # fmt: skip
        self._units: deque[dict[str, object]] = deque(maxlen=3000)
        self._at, self._guest, self._execs, self._number = 1_764_556_003.0, self._hex(8), 0, 0

    def _hex(self, size: int = 32) -> str:
        return self._random.randbytes(size).hex()

    def _unit(self) -> dict[str, object]:
        choose, number = self._random.choice, self._random.randint
        stem = f"src/{choose(_DIRECTORIES)}/{choose('abcdefghij')}{choose(_STEMS)}_{self._number}"
        named = ("-MF", f"{stem}.d", "-o", f"{stem}.o", f"{stem}.c")
        argv = ("gcc", "-c", *_FLAGS, *named)
        text = json.dumps(argv, separators=(",", ":"))
        outputs = [(f"{stem}.o", f"{self._hex()}/{number(2000, 90000)}")]
        if self._depfiles:
            outputs.append((f"{stem}.d", f"{self._hex()}/{number(200, 9000)}"))
        return {
            "argv": argv,
            "argv_digest": f"sha256:{hashlib.sha256(text.encode()).hexdigest()}",
            "action_digest": f"{self._hex()}/{number(140, 160)}",
            "input_root_digest": f"{self._hex()}/{number(80, 900)}",
            "outputs": tuple(outputs),
        }

    def some(self, count: int) -> Iterator[AuditRow]:
        """Yield the next rows."""
        for _ in range(count):
            yield self._next()

    def _next(self) -> AuditRow:
        self._number += 1
        self._at += self._random.random() * 0.5
        is_hit = bool(self._units) and self._random.random() < self._hits
        unit = self._random.choice(self._units) if is_hit else self._unit()
        if not is_hit:
            self._units.append(unit)
        if self._random.random() < 0.01:
            self._guest, self._execs = self._hex(8), 0
        self._execs += 1
        return AuditRow(
            row_id=self._hex(16),
            started_at=round(self._at, 6),
            duration_seconds=round(self._random.random() * 0.5, 6),
            tenant="acme",
            principal=self._random.choice(("ann", "bob", "carol")) if is_hit else "ann",
            build_id=f"ci/{1000 + self._number // 400}",
            working_directory="",
            exit_code=int(self._number % 10_000 == 0),
            cache_status="hit" if is_hit else "executed",
            worker=WORKER,
            guest_id=self._guest,
            guest_execs_before=self._execs,
            reuse="principal",
            isolation="firecracker/kvm",
            warden="warden-1",
            injected_flags=("-ffile-prefix-map=/work=.",),
            scheduler="sched-1.example:8443",
            client_version="0.9.0",
            vmm_version="1.7.0",
            kernel_command_line="console=ttyS0 reboot=k panic=1 pci=off",
            vmm_jail="chroot uid=1001",
            **self._fixed,  # type: ignore[arg-type]  # the digests of the guest
            **unit,  # type: ignore[arg-type]  # what `_unit` made
        )
