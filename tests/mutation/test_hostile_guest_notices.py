"""Each check of the guest boundary is needed: without it, one attack succeeds.

All cases run in one interpreter. A case removes its check from a copy of the source, starts a
zygote of that copy, and loads the worker's half again if the check is there. An honest guest must
still be served, so that the failure comes from the missing check and not from a broken copy.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

from hpcc.core import OutputEvent, ResultEvent
from hpcc.runtime.channel.warden import Zygote
from hpcc_testkit.hostile.harness import Host
from hpcc_testkit.hostile.server import HostileServer

ROOT = Path(__file__).resolve().parents[2]
GATE, GUEST, LINK = "wire/frame_gate.py", "warden/guest.py", "wire/link.py"
SESSION = "warden/session.py"
REPLIES, CALL, CHANNEL = (
    "runtime/channel/replies.py",
    "runtime/channel/pending_exec.py",
    "runtime/channel/channel.py",
)
NO_BUDGET = (GATE, "self._allowance < 0 or ", "")


@dataclass(frozen=True, slots=True)
class Case:
    """A check in `file`, its replacement, and the attack that must then succeed.

    `also` removes other checks that would stop the attack too, later or at a higher cost.
    """

    file: str
    check: str
    without: str
    stage: str
    attack: str
    also: tuple[tuple[str, str, str], ...] = ()

    @property
    def test(self) -> str:
        """The test that must fail, as in the other files' cases: the test in this file."""
        return "tests/mutation/test_hostile_guest_notices.py"


def reply(check: str, attack: str, without: str = "if False:") -> Case:
    return Case(REPLIES, check, without, "exec", attack)


CASES = {
    "frame-kind": Case(
        GATE,
        'raise _breach(f"a frame of kind {head[3]}") from None',
        "self._skip = size\n            return",
        "idle",
        "priority",
    ),
    "frame-length": Case(GATE, "> MAX_FRAME_PAYLOAD_BYTES:", "> 1 << 30:", "exec", "data-frame-of-16-mib-announced"),
    "frame-flags": Case(GATE, "if flags & ~_FLAGS[kind]:", "if False:", "exec", "padded-data"),
    "header-block": Case(GATE, "if kind is _Kind.HEADERS and (size > MAX_HEADER_BLOCK_BYTES or not flags & _END_HEADERS):", "if False:", "exec", "status-message-of-8000-bytes"),
    "settings-length": Case(GATE, "size % _SETTING_BYTES or size > (0 if flags & _ACK else _MAX_SETTINGS_BYTES)", "False", "idle", "settings-of-many-names"),
    "settings-frame-size": Case(GATE, "(name == _MAX_FRAME_SIZE and value != MAX_FRAME_PAYLOAD_BYTES) or", "False or", "idle", "settings-frame-of-16-mib"),
    "settings-table-size": Case(GATE, "name == _HEADER_TABLE_SIZE and value > _MAX_TABLE_BYTES", "False", "idle", "settings-of-a-table-of-4-gib"),
    "settings-count": Case(GATE, " or self._settings_left < 0", "", "idle", "settings-100-times"),
    "settings-first": Case(GATE, "if self._is_first and (kind is not _Kind.SETTINGS or flags & _ACK):", "if False:", "idle", "ping-before-settings"),
    "frame-budget": Case(*NO_BUDGET, "idle", "ping-flood"),
    "stray-content": Case(GATE, "self._allowance -= size / STRAY_BYTES_PER_FRAME", "pass", "after", "frames-after-the-end"),
    "unread-answers": Case(
        GUEST,
        "if self._transport.get_write_buffer_size() > _MAX_UNREAD_BYTES:",
        "if False:",
        "idle",
        "ping-flood-whose-answers-are-not-read",
        also=(NO_BUDGET,),
    ),
    "abort-of-a-deaf-guest": Case(GUEST, "transport.abort()", "pass", "deaf", "asks-and-reads-nothing"),
    "message-length": Case(GUEST, "size > MAX_FRAME_BYTES:", "False:", "exec", "message-of-4-gib"),
    "message-compressed": Case(GUEST, "if prefix[0] or", "if", "exec", "compressed-message"),
    "link-junk": Case(LINK, "if junk_bytes > MAX_JUNK_BYTES:", "if False:", "link", "junk-for-ever"),
    "link-nonce": Case(LINK, "_Scanner(_WELCOME + token + nonce, 0)", "_Scanner(_WELCOME + token, NONCE_BYTES)", "link", "replayed-nonce"),
    "link-token": Case(LINK, "_Scanner(_WELCOME + token + nonce, 0)", "_Scanner(_WELCOME, TOKEN_BYTES + NONCE_BYTES)", "link", "wrong-token"),
    "need-size": reply("need.more and len(need.digests) != NEED_PER_FRAME", "need-of-nothing-flood", "False"),
    "need-known": reply("self._inputs.pop(raw.hex(), None)", "need-twice", "self._inputs.get(raw.hex())"),
    "stdio-stream": reply("if stream is None or not", "stdio-of-no-stream", "if not"),
    "stdio-empty": reply("not 0 < len(stdio.data) <= CHUNK_BYTES", "empty-stdio", "False"),
    "stdio-limit": reply("self._stdio_bytes > self._request.limits.stdio_bytes", "stdio-flood", "False"),
    "stdio-pieces": reply("or self._stdio_pieces > MAX_STDIO_PIECES", "stdio-flood-of-single-bytes", ""),
    "result-reason": reply("if reason is None or", "reason-99", "if"),
    "result-time": reply("if not all(math.isfinite(t) and 0 <= t <= _MAX_SECONDS for t in times):", "time-of-no-number"),
    "result-memory": reply("if result.max_rss_bytes > _MAX_RSS_BYTES:", "rss-of-16-eib"),
    "result-exit-code": reply("if result.exit_code > MAX_EXIT_CODE or", "exit-code-256", "if"),
    "result-signal": reply("or result.signal > MAX_SIGNAL:", "signal-65", ":"),
    "result-agreement": reply("if result.signal and result.exit_code != _SIGNAL_BASE + result.signal:", "signal-that-disagrees"),
    "result-failure": reply("if reason and not result.exit_code:", "failure-with-status-0"),
    "output-after-failure": reply("if not self._may_have_outputs or", "output-after-a-failed-exec", "if"),
    "output-limit": reply("if self._output_bytes > self._request.limits.output_bytes:", "output-flood"),
    "output-mode": reply("or chunk.is_executable is not self._is_executable", "mode-that-changes", ""),
    "output-path": reply("chunk.path != self._path or", "outputs-mixed", ""),
    "output-crumbs": reply("if not chunk.last and len(chunk.data) < MIN_CHUNK_BYTES:", "output-flood-of-single-bytes"),
    "output-order": reply("self._outputs.take(chunk.path)", "outputs-out-of-order", "(self._outputs.take(chunk.path) or chunk.path in self._request.outputs)"),
    "answer-end": reply("if self.phase is not ReplyPhase.OUTPUT or", "no-result", "if"),
    "answer-open-output": reply(" or self._is_output_open:", "output-that-never-ends", ":"),
    "detail-text": Case(REPLIES, "self.detail = printable(result.detail)", "self.detail = result.detail", "after", "detail-of-escapes"),
    "status": Case(SESSION, 'self._session.give_up(wire.LostCode.FAILED, f"{type(error).__name__}: {error}")', "pass", "exec", "status-that-lies"),
    "exec-deadline": Case(CALL, "asyncio.timeout(self._limits.stage_seconds)", "asyncio.timeout(3600)", "exec", "no-answer"),
    "run-deadline": Case(CALL, "loop.time() + wall_seconds + self._limits.grace_seconds", "loop.time() + 3600", "exec", "drips"),
    "end-deadline": Case(CALL, "deadline.reschedule(loop.time() + self._limits.stage_seconds)", "deadline.reschedule(loop.time() + 3600)", "exec", "never-ends"),
    "keepalive": Case(GUEST, "_keepalive_time=start.keepalive_ms / 1000", "_keepalive_time=3600.0", "idle", "silence"),
}  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    server = HostileServer()
    yield server
    server.stop()


def copy_without(case: Case, to: Path) -> Path:
    """Copy the source, by links, with the check removed."""
    package = to / "hpcc"
    shutil.copytree(
        ROOT / "src/hpcc", package, copy_function=os.link, ignore=shutil.ignore_patterns("__pycache__", "*.so")
    )  # fmt: skip
    for file, check, without in [(case.file, case.check, case.without), *case.also]:
        path = package / file
        text = squeezed(path.read_text(), check)
        path.unlink()  # a link to the original
        path.write_text(text.replace(check, without))
    return package


def squeezed(text: str, check: str) -> str:
    """Return the text with the check on one line, wherever the formatter broke it."""
    if text.count(check) == 1:
        return text
    words = check.replace("(", "( ").replace(")", " )").split()
    pattern = r"\s*".join(re.escape(w) for w in words)
    found = re.findall(pattern, text)
    assert len(found) == 1, f"the check is there no more, or twice: {check}"
    return text.replace(found[0], check)


def loaded(package: Path, file: str) -> ModuleType:
    """Load a module of the copy, beside the original module."""
    name = f"without_{Path(file).stem}"
    spec = importlib.util.spec_from_file_location(name, package / file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[name]
    return module


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
async def test_without_the_check_its_attack_succeeds(
    name: str, server: HostileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    package = copy_without(case, tmp_path)
    replies, call, channel = (loaded(package, file) for file in (REPLIES, CALL, CHANNEL))
    monkeypatch.setattr(call, "ReplyChecker", replies.ReplyChecker)
    monkeypatch.setattr(call, "ReplyPhase", replies.ReplyPhase)
    monkeypatch.setattr(channel, "PendingExec", call.PendingExec)

    def set_patience(stage_seconds: float, grace_seconds: float) -> None:
        monkeypatch.setattr(channel, "STAGE_SECONDS", stage_seconds)
        monkeypatch.setattr(channel, "GRACE_SECONDS", grace_seconds)

    zygote = Zygote(package / "warden/__main__.py")
    try:
        new_channel = partial(channel.GuestChannel, launch=zygote.launch)
        host = Host(server, set_patience, new_channel, is_hasty=True)
        assert [type(e) for e in await host.serve()] == [ResultEvent, OutputEvent]
        with pytest.raises((AssertionError, TimeoutError)):
            await host.stand(case.stage, case.attack)
    finally:
        zygote.close()
