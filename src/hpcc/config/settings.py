"""The user's config file, hpcc.toml, as frozen values. Unknown keys are errors."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Final, Literal

from hpcc.config.backends import BACKENDS, Backend
from hpcc.config.remote_cache import MODES, RemoteCacheSettings, place_of
from hpcc.config.toml import read_toml
from hpcc.core import (
    FALLBACKS,
    LOCAL_SLOTS,
    PARITIES,
    SHARINGS,
    CallerError,
    Fallback,
    LocalSlots,
    Parity,
    Sharing,
)
from hpcc.core.endpoints import otlp_address

MAX_CONFIG_BYTES: Final = 1 << 20
_CORES_PER_PROCESS: Final = 4
_MAX_DEFAULT_PROCESSES: Final = 8
MAX_PROCESSES: Final = 64
# What a guest takes besides its own memory. Under emulation: 256 for translated code, up to 200 for
# QEMU itself, 30 for the warden. Under KVM it is a fifth of that, but do not rely on it.
GUEST_OVERHEAD_MIB: Final = 512
_DEFAULT_GUEST_MIB: Final = 1024
MAX_AHEAD_GUESTS: Final = 1024
Reuse = Literal["exec", "principal", "tenant"]
Mitigations = Literal["auto", "on", "off"]
Accelerator = Literal["auto", "tcg"]
LogFormat = Literal["text", "json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings:
    """`[cache]`: the private store of one user."""

    # ccache's default is 5 GiB, and has been enough for C and C++ teams for years.
    max_size_bytes: int = 5 << 30
    # A private result larger than this costs more to store than to compile again.
    max_entry_bytes: int = 256 << 20
    # Whether links leave a record of their inputs. Off: it adds a word to the user's command.
    links: bool = False
    # Whether cl's /Zi is run as /Z7. Off: a build may need the program database of its compiles.
    embed_debug_info: bool = False
    # Whether a precompiled header of cl is stored and put back. Off: no document says that cl
    # takes one, and a header that cl refused would fail the build.
    restore_cl_pch: bool = False
    remote: RemoteCacheSettings = field(default_factory=RemoteCacheSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteSettings:
    """`[remote]`: what the daemon does with a farm."""

    is_enabled: bool = True
    fallback: Fallback = "warn"
    # For a compiler here that differs from the image's of the same name. The image's compiler and
    # its headers are used, so a difference deserves a warning and not the loss of the farm.
    parity: Parity = "warn"
    # While all places of the farm are taken and processors here are idle. "exact" only where the
    # object is the farm's byte for byte: what a build gives must not depend on the farm's load.
    local_slots: LocalSlots = "exact"
    # Which results of colleagues' guests are used, of those that the tenant shares.
    sharing: Sharing = "agreed"
    # Whether the farm gets what a build counted: numbers and reasons, no name of a file.
    report_builds: bool = True
    # A remote compile that takes longer than this is abandoned and made locally.
    timeout_seconds: float = 600.0
    # Another REAPI service instead of an hpcc farm: grpcs://HOST[:PORT] (grpc:// on loopback).
    engine: str = ""
    engine_instance: str = ""
    # The engine's `container-image` property: repo@sha256:…
    engine_image: str = ""
    engine_token_file: str = ""
    engine_ca_file: str = ""


def _default_processes() -> int:
    """Return one process for four cores: one answers as fast as four cores can ask."""
    return max(1, min(_MAX_DEFAULT_PROCESSES, (os.cpu_count() or 1) // _CORES_PER_PROCESS))


def default_guests_mib() -> int:
    """Return three quarters of the machine's memory, but at least one usual guest."""
    if sys.platform == "win32":  # a worker there reports it: Python has no call for it
        return _DEFAULT_GUEST_MIB + GUEST_OVERHEAD_MIB
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    return max(machine * 3 // 4, _DEFAULT_GUEST_MIB + GUEST_OVERHEAD_MIB)


def default_containerd() -> str:
    """Return where containerd listens by default (its defaults_*.go)."""
    if os.name == "nt":
        return r"\\.\pipe\containerd-containerd"
    return "/run/containerd/containerd.sock"


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonSettings:
    """`[daemon]`: the process that answers compiles."""

    # How many processes answer hits on the one socket, including the daemon.
    processes: int = field(default_factory=_default_processes)
    # Of `daemon.log`.
    log_format: LogFormat = "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSettings:
    """`[trace]`: who else gets the builds that the daemon records."""

    # The OTLP collector, https://HOST[:PORT][/PATH] (http:// on loopback); "": none.
    otlp: str = ""
    # A 0600 file with headers, a line each, such as one with a token; and the collector's roots.
    otlp_headers_file: str = ""
    otlp_ca_file: str = ""
    # Whether names of files are sent, too.
    names: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """`[worker]`: guests of `hpcc up` and `hpcc worker`."""

    # "auto": the best one under which a probe guest answered. Others: that one, or an error.
    # Containers use the host's kernel and are chosen only if "process" is written here.
    # "hyperv" is only for Windows Server, and is what "auto" means there.
    runtime: Backend = "auto"
    accelerator: Accelerator = "auto"
    # Where containerd listens: for runtime = "process", and for every guest on Windows.
    containerd: str = default_containerd()
    guest_memory_mib: int = _DEFAULT_GUEST_MIB
    max_guests: int = 2
    # The limit for all guests together, each including its VMM.
    memory_mib: int = field(default_factory=default_guests_mib)
    vcpus: int = 2
    boot_timeout_seconds: float = 120.0
    # Restore guests from a snapshot that no tenant has used, if the VMM supports it.
    warm_start: bool = True
    # Whose code a guest may have run before: no one's, the same principal's, or the same tenant's.
    guest_reuse: Reuse = "principal"
    # Whether guests' kernels defend against side channels; "auto": those that serve several people.
    guest_mitigations: Mitigations = "auto"
    # The bundle of kernel and agent that guests boot from, sha256:…; "": what this machine offers.
    guest_bundle: str = ""
    # A developer's coffee break before the next build.
    idle_seconds: float = 600.0
    # What a compile left in a guest lives no longer than half a working day.
    session_seconds: float = 14_400.0
    # How many guests may boot or be unused because a build announced its compiles.
    ahead_guests: int = 32
    # How many starts of a guest the memory of an idle one may cost; and how long it stays at least.
    park_after_starts: float = 100.0
    park_seconds: float = 60.0
    # A fifth of the time that service managers give a stop before they kill.
    drain_seconds: float = 5.0
    # Several builds of `make -j64` at once.
    max_queue: int = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All of hpcc.toml."""

    cache: CacheSettings = CacheSettings()
    remote: RemoteSettings = RemoteSettings()
    daemon: DaemonSettings = DaemonSettings()
    trace: TraceSettings = TraceSettings()
    worker: WorkerSettings = WorkerSettings()


_CHOICES: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("cache.remote", "mode"): MODES,
    ("remote", "fallback"): FALLBACKS,
    ("remote", "parity"): PARITIES,
    ("remote", "local_slots"): LOCAL_SLOTS,
    ("remote", "sharing"): SHARINGS,
    ("daemon", "log_format"): ("text", "json"),
    ("worker", "runtime"): BACKENDS,
    ("worker", "accelerator"): ("auto", "tcg"),
    ("worker", "guest_reuse"): ("exec", "principal", "tenant"),
    ("worker", "guest_mitigations"): ("auto", "on", "off"),
}
_MAY_BE_ZERO: Final = frozenset({("worker", "ahead_guests"), ("worker", "park_after_starts")})
_AT_MOST: Final[Mapping[tuple[str, str], int]] = {
    ("daemon", "processes"): MAX_PROCESSES,
    ("worker", "ahead_guests"): MAX_AHEAD_GUESTS,
}
_TEXTS: Final = frozenset(
    [
        *(("remote", key) for key in ("engine", "engine_instance", "engine_image")),
        *(("cache.remote", key) for key in ("url", "namespace", "endpoint", "region")),
        ("trace", "otlp"),
        ("worker", "guest_bundle"),
    ]
)
_MAX_NUMBER: Final = (1 << 63) - 1
_MAX_TEXT_CHARS: Final = 4096
_MAX_TEXTS: Final = 64
_SECTIONS: Final = {
    "cache": CacheSettings,
    "remote": RemoteSettings,
    "daemon": DaemonSettings,
    "trace": TraceSettings,
    "worker": WorkerSettings,
}
# Sections inside of others.
_INNER: Final = {"cache.remote": RemoteCacheSettings}


def load_settings(path: Path) -> Settings:
    """Return the settings in the file; the defaults if it does not exist.

    Raises:
        CallerError: unreadable, not TOML, or a key, type or value that is not known.
    """
    text = _read_or_none(path)
    return Settings() if text is None else parse_settings(text, source=str(path))


def setting_origins(path: Path) -> list[tuple[str, str, str]]:
    """Return name, value and origin of every setting: `default`, or the file and its line.

    Raises:
        CallerError: see `load_settings`.
    """
    text = _read_or_none(path)
    settings = Settings() if text is None else parse_settings(text, source=str(path))
    table = {} if text is None else read_toml(text, source=str(path), reason="config")
    rows = []
    for section in (*_SECTIONS, *_INNER):
        values: object = settings
        given: Mapping[str, object] = table
        for part in section.split("."):
            values, inner = getattr(values, part), given.get(part, {})
            given = inner if isinstance(inner, dict) else {}
        assert is_dataclass(values)
        for item in fields(values):
            value = getattr(values, item.name)
            if is_dataclass(value):
                continue
            origin = "default"
            if item.name in given:
                line = _line_of(text or "", section, item.name)
                origin = f"{path}:{line}" if line else str(path)
            rows.append((f"{section}.{item.name}", _shown(value), origin))
    return rows


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_shown, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


def _line_of(text: str, section: str, key: str) -> int:
    """Return the line that sets a key; 0 if it is written in a form that this does not parse."""
    current = ""
    for number, line in enumerate(text.splitlines(), 1):
        header = re.fullmatch(r"\s*\[\s*\"?([\w.-]+)\"?\s*\]\s*(?:#.*)?", line)
        if header:
            current = header[1]
            continue
        name = re.match(r"\s*([\w.\"'-]+)\s*=", line)
        plain = name[1].replace('"', "").replace("'", "") if name else ""
        if plain and (f"{current}.{plain}" if current else plain) == f"{section}.{key}":
            return number
    return 0


def _read_or_none(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_CONFIG_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CallerError(f"cannot read {path}: {error.strerror}", reason="config") from error
    if len(raw) > MAX_CONFIG_BYTES:
        raise CallerError(f"{path} is larger than {MAX_CONFIG_BYTES} bytes", reason="config")
    return raw.decode("utf-8", "replace")


def parse_settings(text: str, *, source: str = "hpcc.toml") -> Settings:
    """Return the settings in the text of a config file.

    Raises:
        CallerError: see `load_settings`.
    """
    table = read_toml(text, source=source, reason="config")
    sections: dict[str, object] = {}
    for name, content in table.items():
        if name not in _SECTIONS:
            raise _unknown(source, "section", name, list(_SECTIONS))
        if not isinstance(content, dict):
            raise CallerError(f"{source}: [{name}] must be a table", reason="config")
        sections[name] = _section(source, name, content)
    settings = Settings(**sections)  # type: ignore[arg-type]  # built by name from _SECTIONS just above
    try:
        place_of(settings.cache.remote)
        if settings.trace.otlp:
            otlp_address(settings.trace.otlp)
    except CallerError as error:
        raise CallerError(f"{source}: {error}", reason="config") from error
    return settings


def _section(source: str, name: str, content: Mapping[str, object]) -> object:
    cls = _SECTIONS.get(name) or _INNER[name]
    known = {f.name: f for f in fields(cls)}
    values: dict[str, object] = {}
    for key, value in content.items():
        if key not in known:
            raise _unknown(source, f"key in [{name}]", key, list(known))
        if (inner := f"{name}.{key}") in _INNER:
            if not isinstance(value, dict):
                raise CallerError(f"{source}: [{inner}] must be a table", reason="config")
            values[key] = _section(source, inner, value)
            continue
        values[key] = _value(f"{source}: [{name}] {key}", name, key, value, getattr(cls(), key))
    return cls(**values)


def _value(where: str, section: str, key: str, value: object, default: object) -> object:
    if (section, key) in _CHOICES:
        return _choice(where, value, _CHOICES[section, key])
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise CallerError(f"{where}: must be true or false", reason="config")
        return value
    if isinstance(default, tuple):
        return _texts(where, value)
    if isinstance(default, str):  # other settings with text have choices
        return _text(where, value, is_path=(section, key) not in _TEXTS)
    value = _number(where, value, default)
    is_number = type(value) is type(default) and isinstance(value, int | float)
    if not is_number or value < 0 or (value == 0 and (section, key) not in _MAY_BE_ZERO):  # type: ignore[operator]  # a number
        raise CallerError(
            f"{where}: must be a positive {type(default).__name__}, not {value!r}", reason="config"
        )
    most = _AT_MOST.get((section, key))
    if most is not None and value > most:  # type: ignore[operator]  # a number
        raise CallerError(f"{where}: must be at most {most}", reason="config")
    return value


def _number(where: str, value: object, default: object) -> object:
    """Return a whole number as a float if the default is one; refuse what no float can hold."""
    if isinstance(value, int | float) and not abs(value) <= _MAX_NUMBER:  # also nan
        raise CallerError(f"{where}: must be a number below 2**63", reason="config")
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if isinstance(default, float) and is_whole else value  # type: ignore[arg-type]  # an int


def _choice(where: str, value: object, choices: tuple[str, ...]) -> object:
    if value not in choices:
        raise CallerError(f"{where}: must be one of {', '.join(choices)}", reason="config")
    return value


def _texts(where: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > _MAX_TEXTS:
        raise CallerError(f"{where}: must be a list of at most {_MAX_TEXTS} texts", reason="config")
    return tuple(_text(where, item, is_path=False) for item in value)


def _text(where: str, value: object, *, is_path: bool) -> str:
    if not isinstance(value, str) or len(value) > _MAX_TEXT_CHARS:
        raise CallerError(f"{where}: must be a text", reason="config")
    if "\0" in value:
        raise CallerError(f"{where}: must not contain a NUL", reason="config")
    if is_path and not value.startswith("/"):
        raise CallerError(f"{where}: must be an absolute path, not {value!r}", reason="config")
    return value


def _unknown(source: str, what: str, name: str, known: list[str]) -> CallerError:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
    return CallerError(f"{source}: unknown {what}: {name!r}{hint}", reason="config")
