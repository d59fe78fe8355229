"""The page of one object: what a worker wrote is escaped, what is not seen is not counted."""

from __future__ import annotations

import dataclasses
import html
import re
import shlex

import pytest

from hpcc.cli.base.farm_object import CheckState, FarmObject, ObjectCheck, commands_of
from hpcc.cli.farm.objects import document_of, lines_of
from hpcc.cli.web.object_page import object_form, object_page
from hpcc.cli.web.object_site import ObjectSite
from hpcc.cli.web.parts.addresses import address_of
from hpcc.core import Digest, HpccError, NotFoundError, SharingClass
from hpcc.reapi.result import SharingEvidence
from hpcc_testkit.farm.in_process import LaterClock
from hpcc_testkit.guests.objects import ACTION, ROW, farm_object
from hpcc_testkit.suite.markup import read_markup

TAGS = ["a", "form", "label", "input", "button", "circle"]
ATTRIBUTES = ["title", "href", "method", "action", "value", "maxlength", "size"]
EVIL = "'\"><img src=x onerror=alert(1)>\x1b[2J"


def text_of(found: FarmObject) -> str:
    return read_markup(object_page(found, "/r", 1e9).main, TAGS, ATTRIBUTES)


def test_an_object_says_what_made_it_and_how_to_check_that() -> None:
    found = text_of(farm_object())
    for part in (
        "out/route_table.o", "w1-g6", "class fresh", "2 of 2 that are seen hold", "not seen",
        "g++ -c route_table.cc", "/src/net", "PATH", str(ACTION), "40 ms", "58.0 s", ROW,
        f"hpcc audit show -- {ROW}", f"hpcc audit query --action={ACTION}", "hpcc audit reproduce",
        "on the machine of worker w1",
    ):  # fmt: skip
        assert part in found, part


def test_a_check_that_fails_and_one_that_is_not_seen_are_no_proof() -> None:
    unseen = farm_object()
    assert "2 of 2" in text_of(unseen)
    broken = FarmObject(
        tenant="acme", action=ACTION, record=unseen.record, asked="w1",
        checks=(ObjectCheck("Signature", CheckState.FAILS, "the result was changed"),),
    )  # fmt: skip
    found = text_of(broken)
    assert "0 of 1 that are seen hold" in found
    assert "fails" in found
    assert "not stored any more" in found


def test_without_a_signature_that_was_seen_nothing_is_proved() -> None:
    good = farm_object()
    unseen = ObjectCheck("Signature", CheckState.UNKNOWN, "the scheduler is away")
    found = dataclasses.replace(good, checks=(unseen, *good.checks[1:]))
    assert good.is_good
    assert not found.is_good
    page = object_page(found, "/r", 1e9).main
    assert "1 of 1 that are seen hold; the signature, which covers them, is not seen" in page
    assert not dataclasses.replace(good, checks=()).is_good


def test_no_text_of_a_worker_or_command_becomes_markup_or_another_command() -> None:
    found = farm_object(EVIL, evidence=SharingEvidence(sharing=SharingClass.FRESH, row="--help"))
    page = object_page(found, "/r", 1e9).main
    read_markup(page, TAGS, ATTRIBUTES)
    assert "<img" not in page
    assert "\x1b" not in page
    assert re.findall(r'href="([^"]*)"', page) == ["/r/objects"]
    odd = farm_object(EVIL)
    assert all(line.isprintable() for line in lines_of(odd))
    shown = [html.unescape(c) for c in re.findall(r"<code>(hpcc [^<]*)</code>", page)]
    assert ["hpcc", "audit", "show", "--", "--help"] in [shlex.split(c) for c in shown]


def test_odd_times_have_a_page() -> None:
    late = farm_object(queued_at=9e12, started_at=0.0, completed_at=9e12)
    assert "waited" in text_of(late).lower()


def test_a_document_has_the_checks_and_a_private_result_no_row() -> None:
    document = document_of(farm_object(evidence=None))
    assert (document["class"], document["audit_row"]) == ("private", None)
    assert [c["state"] for c in document["checks"]] == ["holds", "holds", "unknown"]
    assert document_of(farm_object())["command"] == ["g++", "-c", "route_table.cc"]
    private = [command for command, _ in commands_of(farm_object(evidence=None))]
    assert not [command for command in private if "show" in command]


def test_an_address_is_of_a_digest_only() -> None:
    assert address_of(str(ACTION)) == f"object/{ACTION.hash}-{ACTION.size_bytes}"
    assert address_of("../../etc/1") == address_of("") == ""


def test_the_form_escapes_what_was_asked() -> None:
    page = object_form("/r", EVIL, f"no: {EVIL}").main
    read_markup(page, TAGS, ATTRIBUTES)
    assert "<img" not in page


class Objects:
    """Workers that have one object, and count the questions."""

    def __init__(self) -> None:
        self.asked = 0
        self.is_late = False

    async def object(self, action: Digest) -> FarmObject:
        self.asked += 1
        if self.is_late:
            raise TimeoutError
        if action != ACTION:
            raise NotFoundError("no worker has a result")
        return farm_object()


async def test_a_page_that_is_loaded_again_and_again_asks_seldom() -> None:
    objects, clock = Objects(), LaterClock()
    site = ObjectSite(objects, "/r", clock)
    name = f"{ACTION.hash}-{ACTION.size_bytes}"
    assert "Evidence" in (await site.page("", {}, "ann")).main
    assert objects.asked == 0
    for _ in range(20):
        assert "route_table" in (await site.page(name, {}, "ann")).main
        assert "route_table" in (await site.page("", {"action": str(ACTION)}, "ann")).main
    assert objects.asked == 1
    other = {"action": f"{'0' * 64}/1"}
    for _ in range(20):
        assert "one question a second" in (await site.page("", other, "ann")).main
    assert objects.asked == 1
    clock.ahead += 2
    assert "no worker has a result" in (await site.page("", other, "ann")).main
    clock.ahead += 2
    # Another login gets nothing of what the last one saw.
    await site.page(name, {}, "ann")
    clock.ahead += 2
    objects.is_late = True
    assert "no answer in time" in (await site.page(name, {}, "bob")).main
    assert objects.asked == 4


@pytest.mark.parametrize("said", ["x", "0" * 64, f"{'0' * 64}/-1", f"{'g' * 64}/1", EVIL])
async def test_what_is_not_a_digest_asks_nobody(said: str) -> None:
    objects = Objects()
    site = ObjectSite(objects, "/r", LaterClock())
    page = await site.page("", {"action": said}, "ann")
    assert "<img" not in page.main
    assert objects.asked == 0
    with pytest.raises(NotFoundError):
        await site.page("../x", {}, "ann")


def test_an_error_of_the_farm_is_a_sentence() -> None:
    assert "away &lt;b&gt;" in object_form("/r", "x", str(HpccError("away <b>"))).main
