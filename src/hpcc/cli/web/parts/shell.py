"""What is around each page: its frame, its files, and the headers that bind the browser."""

from __future__ import annotations

from importlib.resources import files
from typing import Final, NamedTuple

from hpcc import __version__
from hpcc.cli.builds.parts import text
from hpcc.cli.builds.style import STYLE
from hpcc.cli.web.parts.style import WEB_STYLE

HTML: Final = "text/html; charset=utf-8"
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types hpcc"
)
HEADERS: Final = (
    ("Content-Security-Policy", _POLICY),
    ("Cache-Control", "no-store"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("X-Frame-Options", "DENY"),
)
_ICON: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="18" height="18" viewBox="0 0 18 18">'
    '<rect x="1.2" y="1.2" width="15.6" height="15.6" rx="4" fill="none" stroke="#7d838c" '
    'stroke-width="1.5" stroke-dasharray="2.6 2"/><rect x="5.4" y="5.4" width="7.2" height="7.2" '
    'rx="1.8" fill="#3a6bd0"/></svg>'
)
_MARK: Final = (
    '<svg width="18" height="18" aria-hidden="true"><rect class="edge" x="1.2" y="1.2" '
    'width="15.6" height="15.6" rx="4"/><rect class="farm" x="5.4" y="5.4" width="7.2" '
    'height="7.2" rx="1.8"/></svg>'
)


class Page(NamedTuple):
    """Title and content of a page; both are made of escaped text. A live page changes.

    `section` is the name in the bar that the page belongs to.
    """

    title: str
    main: str
    is_live: bool = False
    section: str = "Builds"


class PageFrame(NamedTuple):
    """What all pages of a session have around them.

    `root` begins each address. `sections` are names with what follows the root and a slash. `who`
    is the person whose pages these are, where a login says that. `theme` is what the browser chose,
    "" for the system's.
    """

    root: str
    sections: tuple[tuple[str, str], ...] = (("Builds", ""),)
    who: str = ""
    theme: str = ""


THEMES: Final = ("light", "dark")
THEME_COOKIE: Final = "hpcc-theme"
SEARCH: Final = "search"
MAX_SEARCH: Final = 200


def theme_of(cookies: str) -> str:
    """Return the theme that a browser chose, from its `Cookie` header; "" for the system's.

    Every port of 127.0.0.1 can set this cookie, so only these words count.
    """
    for pair in cookies.split(";"):
        name, _, value = pair.strip().partition("=")
        if name == THEME_COOKIE and value in THEMES:
            return value
    return ""


def file_of(name: str) -> tuple[bytes, str] | None:
    """Return bytes and type of a file that pages use; None for another name."""
    match name:
        case "hpcc.css":
            return (STYLE + WEB_STYLE).encode(), "text/css; charset=utf-8"
        case "live.js" | "theme.js":
            script = files("hpcc.cli.web.parts").joinpath(name).read_bytes()
            return script, "text/javascript; charset=utf-8"
        case "favicon.svg":
            return _ICON.encode(), "image/svg+xml"
        case _:
            return None


def document(page: Page, frame: PageFrame, tag: str = "") -> bytes:
    """Return a whole page. `tag` names the content of a live page for its next question."""
    root = frame.root
    live = f' data-live="{text(tag)}"' if page.is_live else ""
    script = f'<script type="module" src="{root}/theme.js"></script>'
    script += f'<script type="module" src="{root}/live.js"></script>' if page.is_live else ""
    state = '<p id="live" class="live" role="status"></p>' if page.is_live else ""
    who = f'<span class="who">{text(frame.who)}</span>' if frame.who else ""
    links = "".join(
        f'<a href="{root}/{path}"{_current(name == page.section)}>{text(name)}</a>'
        for name, path in frame.sections
    )
    return _encoded(
        f"{_head(page.title, root, frame.theme)}{script}</head><body>"
        '<a class="skip" href="#main">Skip to content</a>'
        f'<header class="mast"><a class="brand" href="{root}/">{_MARK}hpcc</a>'
        f'<nav aria-label="Pages">{links}</nav>{state}{_search(root)}{_THEME}{who}</header>'
        f'<main id="main" tabindex="-1"{live}>{page.main}</main></body></html>\n'
    )


# Without a script it does nothing, so the script shows it.
_THEME: Final = '<button class="btn" id="theme" type="button" hidden>Theme: auto</button>'


def _search(root: str) -> str:
    return (
        f'<form class="find" method="get" action="{root}/{SEARCH}" role="search" '
        'aria-label="All pages">'
        '<input type="search" name="q" aria-label="Search" '
        f'placeholder="Build, file, digest, row or worker" maxlength="{MAX_SEARCH}"></form>'
    )


def _current(is_so: bool) -> str:  # noqa: FBT001 - the one fact that it is about
    return ' aria-current="page"' if is_so else ""


def opened(root: str) -> bytes:
    """Return the page that leads on from the link.

    A redirect does not do: a browser that comes from another site, such as a terminal in a web
    page, follows it without the new cookie, which is SameSite=Strict.
    """
    head = _head("hpcc", root)
    return _encoded(
        f'{head}<meta http-equiv="refresh" content="0; url={root}/"></head>'
        f'<body><main><h1>hpcc</h1><p><a href="{root}/">Go to the pages</a></p></main>'
        "</body></html>\n"
    )


def fragment(page: Page) -> bytes:
    """Return the content of a page, for the script of a live one."""
    return _encoded(page.main)


def footer(note: str) -> str:
    """Return the foot of a page."""
    return f"<footer><span>hpcc {text(__version__)}</span><span>{text(note)}</span></footer>"


def _head(title: str, root: str, theme: str = "") -> str:
    chosen = f' data-theme="{theme}"' if theme else ""
    return (
        f'<!doctype html>\n<html lang="en"{chosen}><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)} · hpcc</title>"
        f'<link rel="icon" href="{root}/favicon.svg" type="image/svg+xml">'
        f'<link rel="stylesheet" href="{root}/hpcc.css">'
    )


def _encoded(markup: str) -> bytes:
    return markup.encode("ascii", "xmlcharrefreplace")
