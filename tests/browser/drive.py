"""Drives the real Chromium for a test: commands come as lines of JSON, and so do the answers.

It runs in a separate process, with the packages that `tools/bootstrap.sh browser` fetched.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

WAIT_SECONDS = 60
WALKS = 5
ARGUMENTS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu")
NAME = "(e => e.getAttribute('href') ?? e.getAttribute('aria-label') ?? e.name ?? e.type)"
# Notes what gets the focus from now on, and returns what can have it.
KEYS = f"""
if (!window.reached) addEventListener("focusin", event => reached.push({NAME}(event.target)));
document.activeElement.blur();
getSelection().empty();
window.reached = [];
const all = document.querySelectorAll("a[href], button, input, select, [tabindex='0']");
return [...all].map({NAME});
"""
RULES = """
const done = arguments[arguments.length - 1];
const only = arguments[0];
axe.run(document, {resultTypes: ["violations"], ...(only.length ? {runOnly: only} : {})}).then(
  found => done(found.violations.map(v => `${v.id}: ${v.nodes.map(n => n.html).join(" ")}`)),
  error => done([String(error)]));
"""


class Browser:
    """One browser; `do` runs one command."""

    def __init__(self, driver: webdriver.Chrome, rules: str) -> None:
        self._driver, self._source = driver, rules

    def do(self, command: dict[str, Any]) -> object:
        """Run a command and return its answer: by default where the browser is, and the text."""
        name = command.pop("do")
        answer = getattr(self, f"_{name}")(**command)
        return self._state() if answer is None else answer

    def _state(self) -> object:
        return {"url": self._driver.current_url, "text": self._text()}

    def _open(self, url: str) -> None:
        self._driver.get(url)

    def _click(self, css: str) -> None:
        self._element(css).click()

    def _type(self, css: str, text: str) -> None:
        self._element(css).send_keys(text)

    def _write(self, css: str, text: str) -> None:
        """Write into a field, and press Enter."""
        self._element(css).send_keys(text + Keys.ENTER)

    def _style(self, css: str, name: str) -> object:
        return self._element(css).value_of_css_property(name)

    def _focus(self, css: str, number: int = 0) -> None:
        """Give the focus to an element, of several that fit to the one of this number."""
        element = self._driver.find_elements(By.CSS_SELECTOR, css)[number]
        self._driver.execute_script("arguments[0].focus()", element)

    def _place(self, css: str) -> object:
        """Return which of several elements has the focus; -1 for none of them."""
        found = "[...document.querySelectorAll(arguments[0])].indexOf(document.activeElement)"
        return self._driver.execute_script(f"return {found}", css)

    def _choose(self, css: str, value: str) -> None:
        Select(self._element(css)).select_by_value(value)

    def _value(self, css: str) -> object:
        return self._driver.execute_script("return arguments[0].value", self._element(css))

    def _focused(self) -> object:
        return self._driver.execute_script(f"return {NAME}(document.activeElement)")

    def _script(self, on: bool) -> None:
        self._driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not on})

    def _log(self) -> object:
        return [entry["message"] for entry in self._driver.get_log("browser")]

    def _until[T](self, answer: Callable[[], T]) -> T:
        """Return the answer, once it is true; a page that is replaced meanwhile answers nothing."""
        wait = WebDriverWait(self._driver, WAIT_SECONDS, ignored_exceptions=(WebDriverException,))
        return wait.until(lambda _: answer())

    def _element(self, css: str) -> WebElement:
        return self._until(lambda: self._driver.find_element(By.CSS_SELECTOR, css))

    def _text(self) -> str:
        body = self._driver.find_element
        return self._until(lambda: (str(body(By.TAG_NAME, "body").text),))[0]

    def _wait(self, text: str) -> None:
        self._until(lambda: text in self._text())

    def _look(self, width: int, dark: bool, png: str = "", height: int = 900) -> object:
        """Set the width and the colours; return by how much the page is wider than the window."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        wide = "return document.documentElement.scrollWidth - innerWidth"
        beyond = self._driver.execute_script(wide)
        if png:
            Path(png).write_bytes(self._driver.get_screenshot_as_png())
        return beyond

    def _picture(self, width: int, dark: bool, png: str) -> object:
        """Take a picture of the whole page; return by how much it is wider than the window."""
        self._driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
        beyond = self._look(width, dark, height=200)
        height = self._driver.execute_script("return document.documentElement.scrollHeight")
        self._look(width, dark, png, height)
        return beyond

    def _rules(self, only: list[str]) -> object:
        """Return which rules of accessibility the page breaks: of all, or of some."""
        if not self._driver.execute_script("return 'axe' in window"):
            self._driver.execute_script(self._source)
        return self._driver.execute_async_script(RULES, only)

    def _keys(self) -> object:
        """Press Tab through the page; return what can have the focus, and what got it.

        A page that follows a farm may show more or fewer links meanwhile: then it begins again. It
        also gives the focus back to a link that it replaced, so of equal neighbours one is left.
        """
        for _ in range(WALKS):
            wanted = self._driver.execute_script(KEYS)
            tabs = ActionChains(self._driver, duration=0)
            tabs.send_keys(Keys.TAB * len(wanted)).perform()
            reached = self._driver.execute_script("return reached")
            if self._driver.execute_script(KEYS) == wanted:
                break
        return {
            "wanted": [name for name, _ in itertools.groupby(wanted)],
            "reached": [name for name, _ in itertools.groupby(reached)],
        }


def main() -> None:
    """Answer commands until the input ends."""
    rules = Path(sys.argv[1]).read_text(encoding="utf-8")
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for argument in (*ARGUMENTS, f"--user-data-dir={profile}"):
            options.add_argument(argument)
        driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
        try:
            browser = Browser(driver, rules)
            for line in sys.stdin:
                sys.stdout.write(json.dumps(browser.do(json.loads(line))) + "\n")
                sys.stdout.flush()
        finally:
            driver.quit()


if __name__ == "__main__":
    main()
