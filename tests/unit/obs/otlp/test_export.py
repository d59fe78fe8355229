"""The queue of security events: bounded, in order, and nobody waits for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from hpcc.obs.metrics.service import ServiceMetrics
from hpcc.obs.otlp import export
from hpcc.obs.otlp.export import EventExport
from hpcc.obs.otlp.sender import LOGS, CollectorAnswer, PostEnding
from hpcc.ports import SecurityEvent, SystemClock
from hpcc_testkit.receivers.collector import attributes, parse

_HANG = 60.0
_PLACES = 40
_BATCH = 16
_TAKEN = CollectorAnswer(PostEnding.TAKEN)
_LATER = CollectorAnswer(PostEnding.LATER, "nobody listens there")


class _Poster:
    """Takes requests, and answers them in turn; after the last answer it takes each."""

    place = "otel.example:443"

    def __init__(self, *answers: CollectorAnswer) -> None:
        self._answers = list(answers)
        self.batches: list[list[str]] = []
        self.dropped_before: list[int] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.asked = threading.Semaphore(0)

    def post(self, signal: str, body: bytes) -> CollectorAnswer:
        assert signal == LOGS
        (group,) = parse(ExportLogsServiceRequest, body).resource_logs
        (scope,) = group.scope_logs
        found = [attributes(record) for record in scope.log_records]
        self.batches.append([str(each["hpcc.field.number"]) for each in found])
        self.dropped_before += [
            v for e in found if isinstance(v := e.get("hpcc.dropped_before"), int)
        ]
        self.asked.release()
        assert self.may_answer.wait(_HANG)
        return self._answers.pop(0) if self._answers else _TAKEN

    def wait_asked(self) -> None:
        assert self.asked.acquire(timeout=_HANG)


def _event(number: int) -> SecurityEvent:
    return SecurityEvent(name="token-refused", at=0.0, fields=(("number", str(number)),))


@pytest.fixture(autouse=True)
def few_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "MAX_WAITING", _PLACES)
    monkeypatch.setattr(export, "_MAX_BATCH", _BATCH)


def _until(reached: Callable[[], bool]) -> None:
    while not reached():  # pytest's timeout guards it
        threading.Event().wait(0.001)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Make pauses short, and return how long they were to be."""
    found: list[float] = []
    wait_for = threading.Condition.wait_for

    def wait(
        self: threading.Condition, until: Callable[[], bool], seconds: float | None = None
    ) -> bool:
        if threading.current_thread().name != "otlp" or seconds is None:
            return wait_for(self, until, seconds)
        found.append(seconds)
        return wait_for(self, until, 0.001)

    monkeypatch.setattr(threading.Condition, "wait_for", wait)
    return found


def _exporting(poster: _Poster) -> EventExport:
    found = EventExport(poster, (("service.name", "hpcc-worker"),), SystemClock())
    found.start()
    return found


def test_what_has_no_place_is_counted_and_the_next_one_tells(
    caplog: pytest.LogCaptureFixture, pauses: list[float]
) -> None:
    poster, metrics = _Poster(*[_LATER] * 8), ServiceMetrics("")
    poster.may_answer.clear()
    exporting = _exporting(poster)
    exporting.show(metrics)
    for number in range(_PLACES + 5):
        exporting.put(_event(number))  # returns, although the collector does not answer
    assert exporting.dropped == 5
    poster.may_answer.set()
    for _ in range(9):
        poster.wait_asked()
    exporting.end(_HANG)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    sent = [number for batch in poster.batches[8:] for number in batch]
    assert sent == [str(number) for number in range(_PLACES)]
    assert max(map(len, poster.batches)) == _BATCH
    shown = metrics.registry.ask()["hpcc_otlp_events_total"][1]
    assert shown == {("sent",): _PLACES, ("dropped",): 5.0}
    assert [record.getMessage() for record in caplog.records] == [
        "OTLP at otel.example:443 takes no security events: nobody listens there",
        "OTLP at otel.example:443 takes security events again",
    ]


def test_the_event_after_a_loss_has_the_number() -> None:
    poster = _Poster()
    poster.may_answer.clear()
    exporting = _exporting(poster)
    for number in range(_PLACES + 3):
        exporting.put(_event(number))
    poster.may_answer.set()
    _until(lambda: exporting.sent == _PLACES)
    exporting.put(_event(7))
    exporting.end(_HANG)
    assert poster.dropped_before == [3]
    assert (exporting.sent, exporting.dropped) == (_PLACES + 1, 3)


@pytest.mark.parametrize(
    ("answer", "dropped", "words"),
    [
        (CollectorAnswer(PostEnding.REFUSED, "it answers 400"), 1, "it answers 400"),
        (CollectorAnswer(PostEnding.TAKEN, rejected=1), 1, "it rejected 1 records"),
        (CollectorAnswer(PostEnding.TAKEN, rejected=1 << 62), 1, "it rejected"),
    ],
)
def test_what_is_refused_is_dropped_and_said_once(
    caplog: pytest.LogCaptureFixture, answer: CollectorAnswer, dropped: int, words: str
) -> None:
    poster = _Poster(answer, answer)
    exporting = _exporting(poster)
    for number in range(2):
        exporting.put(_event(number))
        poster.wait_asked()
        _until(lambda: exporting.dropped > number)  # noqa: B023 - waited for here
    exporting.end(_HANG)
    assert (exporting.sent, exporting.dropped) == (0, 2 * dropped)
    (line,) = [record.getMessage() for record in caplog.records]
    assert words in line


def test_a_collector_that_asks_for_a_longer_pause_gets_it_within_a_limit(
    pauses: list[float],
) -> None:
    answers = [
        CollectorAnswer(PostEnding.LATER, "it answers 429", wait_seconds=s)
        for s in (30.0, 9999.0, 0.0)
    ]
    exporting = _exporting(poster := _Poster(*answers))
    exporting.put(_event(1))
    for _ in range(4):
        poster.wait_asked()
    exporting.end(_HANG)
    assert pauses == [30, 60, 4]
    assert exporting.sent == 1


def test_the_end_waits_for_no_collector_and_says_what_is_left(
    caplog: pytest.LogCaptureFixture,
) -> None:
    poster = _Poster()
    poster.may_answer.clear()
    exporting = _exporting(poster)
    for number in range(3):
        exporting.put(_event(number))
    poster.wait_asked()
    exporting.end(0.01)
    assert "OTLP at otel.example:443 did not get the last 3 events" in caplog.text
    poster.may_answer.set()


def test_what_waits_at_the_end_is_tried_once_more(pauses: list[float]) -> None:
    poster = _Poster(_LATER, _LATER, _LATER)
    exporting = EventExport(poster, (), SystemClock())
    exporting.put(_event(1))
    ending = threading.Thread(target=exporting.end, args=(_HANG,))
    ending.start()
    _until(lambda: exporting._is_ending)
    exporting.start()
    ending.join(_HANG)
    assert len(poster.batches) == 1
    assert pauses == [1.0]


def test_a_fault_of_the_thread_is_logged_and_puts_still_return(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise ZeroDivisionError

    monkeypatch.setattr(export, "logs_request", fail)
    caplog.set_level(logging.ERROR)
    exporting = _exporting(_Poster())
    exporting.put(_event(1))
    exporting.end(_HANG)
    exporting.put(_event(2))
    assert "the export of events over OTLP has failed" in caplog.text
