"""Damages a daemon and its store during the soak, and predicts which answers must be hits.

`Mischief` picks and does the damage. `Expectation` follows what is stored.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Final

from hpcc.cache.base.counters import COUNTERS_NAME, read_counters
from hpcc.config.paths import Paths
from hpcc.core import HpccError
from hpcc.daemon.client import query, stop
from hpcc.store.private import STORE_NAME

# A manifest keeps eight sets of inputs. Only five count, because sets may coincide.
_SURE: Final = 5
_KEPT: Final = 8
_MAX_DELAY_SECONDS: Final = 0.2


class Expectation:
    """Which states of which commands were stored and must be hits when they come back.

    Follows the daemon's order of use: a hit moves its state to the front only in memory, and a new
    result writes the order to disk.
    """

    def __init__(self) -> None:
        self._order: dict[Hashable, list[Hashable]] = {}
        self._on_disk: dict[Hashable, list[Hashable]] = {}

    def must_hit(self, command: Hashable, state: Hashable) -> bool:
        return state in self._order.get(command, [])[:_SURE]

    def note(self, command: Hashable, state: Hashable, counted: Mapping[str, int]) -> None:
        """Record how a compile was answered."""
        is_hit, is_kept = is_any(counted, "hit."), is_stored(counted)
        if is_hit or is_kept:
            others = [s for s in self._order.get(command, []) if s != state]
            self._order[command] = [state, *others][:_KEPT]
        if is_kept:
            self._on_disk[command] = list(self._order[command])

    def restarted(self) -> None:
        self._order = {command: list(states) for command, states in self._on_disk.items()}

    def forget(self) -> None:
        self._order, self._on_disk = {}, {}


def is_any(counted: Mapping[str, int], prefix: str) -> bool:
    """Return whether a counter with this prefix was counted."""
    return any(name.startswith(prefix) for name in counted)


def is_stored(counted: Mapping[str, int]) -> bool:
    """Return whether a miss stored a result."""
    is_lost = is_any(counted, "uncacheable.") or is_any(counted, "store.")
    return "miss.local" in counted and not is_lost and "miss.failed" not in counted


class Mischief:
    """Restarts and kills the daemon of one HPCC_DIR, and cleans and damages its store."""

    def __init__(self, launcher: Path, env: Mapping[str, str], chance: random.Random) -> None:
        self._launcher, self._env, self._chance = launcher, env, chance
        self._paths = Paths.from_env(env)
        self.expected = Expectation()

    def pick(self) -> tuple[str, Callable[[], None]]:
        """Return the name of a random deed and the deed."""
        deeds: tuple[tuple[str, Callable[[], None]], ...] = (
            ("restart", self._restart),
            ("kill", self._kill),
            ("clean", self._clean),
            ("corrupt", self._corrupt),
            ("swap", self._swap),
            ("lose", self._lose),
            ("counters", self._damage_counters),
        )
        return self._chance.choice(deeds)

    def kill_soon(self) -> threading.Timer:
        """Kill the daemon during the next compile."""
        timer = threading.Timer(self._chance.random() * _MAX_DELAY_SECONDS, self._kill)
        timer.start()
        return timer

    def counted(self) -> dict[str, int]:
        """Return the daemon's counters, or those that the next daemon will load."""
        try:
            answer = query(self._paths, "stats")["counters"]
        except HpccError:
            return read_counters(str(self._paths.cache / COUNTERS_NAME))
        assert isinstance(answer, dict)
        return answer

    def revive(self) -> None:
        """Start a daemon, also while launchers leave one alone that was too slow."""
        (self._paths.run / "backoff").unlink(missing_ok=True)
        subprocess.run(
            [self._launcher, "start"], env=dict(self._env), capture_output=True, check=False
        )

    def stop(self) -> None:
        """End the daemon, if there is one."""
        with contextlib.suppress(HpccError):
            stop(self._paths, now=True)

    def _restart(self) -> None:
        self.stop()
        self.expected.restarted()

    def _kill(self) -> None:
        with contextlib.suppress(HpccError, ProcessLookupError):
            pid = query(self._paths, "status")["pid"]
            assert isinstance(pid, int)
            descriptor = os.pidfd_open(pid)
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            os.close(descriptor)
        self.expected.restarted()

    def _clean(self) -> None:
        ended = subprocess.run(
            [self._launcher, "clean"], env=dict(self._env), capture_output=True, check=False
        )
        assert ended.returncode == 0, ended.stderr
        self.expected.forget()

    def _entries(self) -> list[Path]:
        store = self._paths.cache / STORE_NAME
        return sorted(p for p in store.glob("??/*") if p.is_file())

    def _corrupt(self) -> None:
        """Damage entries, and restart the daemon because its memory may still hold them."""
        self._restart()
        entries, chance = self._entries(), self._chance
        number, kind = chance.randrange(1, 6), chance.randrange(5)
        for path in chance.sample(entries, min(number, len(entries))):
            data = path.read_bytes()
            at = chance.randrange(len(data)) if data else 0
            match kind:
                case 0:
                    path.write_bytes(data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :])
                case 1:
                    path.write_bytes(data[:at])
                case 2:
                    path.write_bytes(data + b"\0")
                case 3:
                    path.write_bytes(bytes(len(data)))
                case _:
                    path.unlink()
                    path.mkdir()
        self.expected.forget()

    def _swap(self) -> None:
        """Swap the names of entries: each one is intact but in the wrong place."""
        self._restart()
        entries = self._entries()
        self._chance.shuffle(entries)
        half = len(entries) // 2
        for one, other in zip(entries[:half], entries[half:], strict=False):
            aside = one.with_suffix(".aside")
            one.rename(aside)
            other.rename(one)
            aside.rename(other)
        self.expected.forget()

    def _lose(self) -> None:
        """Delete some entries: results whose manifest stays, and the other way round."""
        entries = self._entries()
        for path in self._chance.sample(entries, len(entries) // 3):
            path.unlink()
        self._restart()
        self.expected.forget()

    def _damage_counters(self) -> None:
        self.stop()
        path = self._paths.cache / COUNTERS_NAME
        if path.exists():
            path.write_bytes(path.read_bytes()[: self._chance.randrange(40)])
        shutil.rmtree(self._paths.run, ignore_errors=True)
        self.expected.restarted()
