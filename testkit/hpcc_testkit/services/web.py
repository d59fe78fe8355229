"""Runs `hpcc web` as a user does, and asks it without a browser."""

from __future__ import annotations

import http.client
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final
from urllib.parse import urlsplit

_SECONDS: Final = 60


@contextmanager
def web_pages(env: Mapping[str, str], *, local: bool = True) -> Iterator[str]:
    """Run the command; yield its link. Afterwards it has ended at an interrupt, as by Ctrl-C."""
    words = ["web", *(["--local"] if local else [])]
    with subprocess.Popen(
        [sys.executable, "-m", "hpcc.cli", *words], env=env, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            link = process.stdout.readline().strip()
            assert re.fullmatch(r"http://127\.0\.0\.1:[0-9]+/[0-9a-f]{32}/open\?token=\S{43}", link)
            yield link
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(_SECONDS) == 0


class Fetched:
    """A client that opens the link and then follows paths."""

    def __init__(self, link: str) -> None:
        self._at, self._cookie = urlsplit(link), ""
        answer, _ = self.ask(f"{self._at.path}?{self._at.query}")
        self._cookie = (answer.headers["Set-Cookie"] or "").partition(";")[0]
        self.root = self._at.path.removesuffix("/open")

    def ask(self, target: str, host: str = "127.0.0.1") -> tuple[http.client.HTTPResponse, str]:
        """Return the answer to a GET, and its text."""
        connection = http.client.HTTPConnection("127.0.0.1", self._at.port, timeout=_SECONDS)
        try:
            connection.request("GET", target, headers={"Host": host, "Cookie": self._cookie})
            answer = connection.getresponse()
            return answer, answer.read().decode()
        finally:
            connection.close()

    def page(self, target: str) -> tuple[str, list[str]]:
        """Return a page, and the addresses that it links."""
        answer, text = self.ask(target)
        assert answer.status == http.client.OK, target
        return text, re.findall(r'href="(/[^"]*)"', text)


def statuses(link: str) -> list[int]:
    """Return what a stranger gets who has the link, and the address of the list."""
    at = urlsplit(link)
    found = []
    for target in (f"{at.path}?{at.query}", at.path.removesuffix("open")):
        connection = http.client.HTTPConnection("127.0.0.1", at.port, timeout=_SECONDS)
        try:
            connection.request("GET", target)
            found.append(connection.getresponse().status)
        finally:
            connection.close()
    return found
