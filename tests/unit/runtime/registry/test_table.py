"""The table of backends is complete, cheap to list, and agrees with what its rows load."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import pytest

from hpcc.cli.doctor.guests import BACKEND_CHECKS
from hpcc.cli.farm.supervise import _minimum
from hpcc.config.backends import BACKENDS
from hpcc.config.settings import parse_settings
from hpcc.core import CallerError, Isolation
from hpcc.ports import Runtime, SystemClock
from hpcc.runtime.qemu.backend import QemuConfig, QemuRuntime
from hpcc.runtime.registry.table import (
    LINUX,
    WINDOWS,
    backend_of,
    check_names,
    container_labels,
    last_resort,
)
from hpcc.worker.base.config import WorkerConfig

ROWS = (*LINUX, *WINDOWS)


def worker_config(tmp_path: Path, runtime: str) -> WorkerConfig:
    return WorkerConfig(
        worker_id="w", keys=tmp_path, store=tmp_path, audit=tmp_path, images=tmp_path,
        guest_assets=tmp_path, state=tmp_path, scheduler="s:1", scheduler_certificate_pem="",
        image_digests=(), memory_mib=16384, runtime=runtime,
    )  # fmt: skip


def printed_labels(loaded: type[Runtime]) -> set[Isolation]:
    """Return every label that a runtime of this class can put into a row."""
    if loaded is QemuRuntime:
        unused: Any = None
        return {
            QemuRuntime(
                QemuConfig(accelerator=a, directory=Path()), unused, SystemClock()
            ).isolation
            for a in ("kvm", "tcg")
        }
    label: Any = loaded.isolation  # a property of the port, an attribute of these classes
    assert isinstance(label, Isolation)
    return {label}


def test_every_name_that_is_accepted_has_a_row_and_every_row_a_name() -> None:
    assert set(BACKENDS) == {"auto"} | {row.name for row in ROWS}
    for rows in (LINUX, WINDOWS):
        names = [row.name for row in rows]
        assert len(names) == len(set(names))


def test_settings_and_a_workers_configuration_accept_exactly_these_names(tmp_path: Path) -> None:
    for name in BACKENDS:
        assert parse_settings(f'[worker]\nruntime = "{name}"\n').worker.runtime == name
        assert worker_config(tmp_path, name).runtime == name
    with pytest.raises(CallerError):
        parse_settings('[worker]\nruntime = "docker"\n')
    expected = "^runtime must be auto, qemu, firecracker, process or hyperv$"
    with pytest.raises(CallerError, match=expected):
        worker_config(tmp_path, "docker")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "+".join(row.labels).replace("/", "-"))
def test_a_row_loads_a_runtime_that_gives_the_rows_labels(row: Any) -> None:
    loaded = row.load()
    assert {name for name in vars(Runtime) if not name.startswith("_")} <= set(dir(loaded.runtime))
    assert is_dataclass(loaded.config)
    assert printed_labels(loaded.runtime) == set(row.labels)


def test_every_label_of_a_guest_is_in_one_row() -> None:
    labels = [label for row in ROWS for label in row.labels]
    assert len(labels) == len(set(labels))
    assert set(labels) == set(Isolation) - {Isolation.LOCAL_NONE, Isolation.FOREIGN_UNKNOWN}


def test_auto_never_chooses_a_backend_that_is_weaker_than_a_virtual_machine() -> None:
    for row in ROWS:
        assert not row.is_container or row.auto == "never"
    for name, rows in (("qemu", LINUX), ("hyperv", WINDOWS)):
        assert last_resort(rows).name == name


def test_only_a_backend_that_auto_tries_first_has_an_offer() -> None:
    for row in LINUX:
        assert (row.load().offer is not None) == (row.auto == "if-it-works")


def test_doctor_has_a_check_for_each_name_of_the_table() -> None:
    assert check_names() == ("qemu", "kvm", "firecracker", "containers", "windows")
    assert set(check_names()) == set(BACKEND_CHECKS)


def test_an_audit_rows_label_leads_back_to_its_backend() -> None:
    for row in LINUX:
        assert {backend_of(label) for label in row.labels} == {row.name}
    assert backend_of(Isolation.HYPERV) is None
    assert container_labels() == {Isolation.PROCESS_RUNC}


def test_a_farm_of_this_machine_demands_a_virtual_machine_unless_containers_were_asked_for() -> (
    None
):
    least = {name: _minimum(name) for name in BACKENDS}
    assert least.pop("process") is Isolation.PROCESS_RUNC
    assert set(least.values()) == {Isolation.QEMU_TCG}


def test_listing_the_table_imports_no_backend() -> None:
    script = (
        "import sys\n"
        "from hpcc.runtime.registry import table\n"
        "assert [row.name for row in table.LINUX] and table.check_names()\n"
        "print(*(name for name in sys.modules if name.startswith('hpcc.runtime.')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["hpcc.runtime.registry", "hpcc.runtime.registry.table"]
