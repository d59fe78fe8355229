"""Only the browser that used the link gets in: by a path, a cookie for it, and its own pages."""

from __future__ import annotations

from hpcc.cli.web.session import BrowserSession, VisitDecision
from hpcc.obs.http.request import Request

ALLOWED, OPENED, REFUSED = VisitDecision.ALLOWED, VisitDecision.OPENED, VisitDecision.REFUSED


def request(target: str, *, is_head: bool = False, **headers: str) -> Request:
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Request(target=target, is_head=is_head, headers=named)


def cookie_of(session: BrowserSession) -> str:
    return session.cookie.partition(";")[0]


def test_the_link_opens_once_and_its_cookie_is_for_its_path() -> None:
    session = BrowserSession()
    link, cookie = session.link, cookie_of(session)
    assert session.admit(request(f"{session.root}/")) is REFUSED
    assert session.admit(request(link, is_head=True)) is REFUSED, "a preview does not use it up"
    assert session.admit(request(link)) is OPENED
    assert session.admit(request(link)) is REFUSED
    assert session.admit(request(link, cookie=cookie)) is OPENED, "a reload is no other browser"
    assert session.admit(request(f"{session.root}/", cookie=cookie)) is ALLOWED
    attributes = session.cookie.split("; ")[1:]
    assert attributes == [f"Path={session.root}/", "HttpOnly", "SameSite=Strict"]


def test_a_link_of_another_session_or_with_a_part_missing_opens_nothing() -> None:
    session, other = BrowserSession(), BrowserSession()
    token = session.link.partition("=")[2]
    for target in (
        other.link, f"{other.root}/open?token={token}", f"{session.root}/open",
        f"{session.root}/open?token=", f"{session.root}/open?token={token[:-1]}",
        f"{session.root}/open?token={token}&token={token}", f"/open?token={token}",
        f"{session.root}/open?{'&' * 99}token={token}", f"{session.root}/open?token={token}\xff",
    ):  # fmt: skip
        assert session.admit(request(target)) is REFUSED, target
    assert session.admit(request(session.link)) is OPENED


def test_the_cookie_counts_under_its_path_only_and_the_path_with_its_cookie_only() -> None:
    session, other = BrowserSession(), BrowserSession()
    cookie = cookie_of(session)
    for target, sent in (
        ("/", cookie), ("/favicon.ico", cookie), (session.root, cookie), (f"{other.root}/", cookie),
        (f"{session.root}/", ""), (f"{session.root}/", cookie[:-1]), (f"{session.root}/", "hpcc-web="),
        (f"{session.root}/", cookie_of(other)), (f"{session.root}/hpcc.css", ""), ("", cookie),
        (f"{session.root}/", cookie.replace("=", "=\xff")),
    ):  # fmt: skip
        assert session.admit(request(target, cookie=sent)) is REFUSED, (target, sent)


def test_cookies_of_other_services_of_this_machine_change_nothing() -> None:
    session = BrowserSession()
    several = f'hpcc-web=planted; other={{"a": 1}}; {cookie_of(session)}; hpcc-web=late'
    assert session.admit(request(f"{session.root}/", cookie=several)) is ALLOWED
    two = (("cookie", cookie_of(session)), ("cookie", "a=b"))
    twice = Request(target=f"{session.root}/", is_head=False, headers=two)
    assert session.admit(twice) is REFUSED


def test_what_another_page_asks_for_is_refused_even_with_the_cookie() -> None:
    session = BrowserSession()
    for site, expected in (
        ("cross-site", REFUSED), ("same-site", REFUSED), ("same-origin", ALLOWED), ("none", ALLOWED)
    ):  # fmt: skip
        asked = request(f"{session.root}/", cookie=cookie_of(session), sec_fetch_site=site)
        assert session.admit(asked) is expected
    assert session.admit(request(session.link, sec_fetch_site="cross-site")) is OPENED, (
        "a terminal may be a web page; the token is the proof"
    )
