"""Which `.hpcc` markers count and which do not: in the search for them, and in a compile."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcc.cache.base.files import RACY_WINDOW_NS
from hpcc.cache.cache import Cache
from hpcc.cache.key.marker import MAX_MARKER_BYTES, find_root, search_marker
from hpcc.cache.replay.engine import Outcome
from hpcc_testkit.cache.compiles import FakeLauncher

from .conftest import Clone

_ARGV = ("gcc", "-g", "-Iinc", "-MD", "-c", "src/main.c", "-o", "build/x.o")
_NOBODY = 65534

_CONTENTS = {
    "unknown-key": (b'name = "x"\ncommand = "rm -rf"\n', "marker-key"),
    "table": (b"[flags]\nextra = 1\n", "marker-key"),
    "garbage": (b"\x00\xff\xfe{{{", "marker-syntax"),
    "not-toml": (b"hello world", "marker-syntax"),
    "deep": (b"exclude = " + b"[" * 8000, "marker-syntax"),
    "huge": (b"#" * (MAX_MARKER_BYTES + 1), "marker-size"),
    "version": (b"version = 2\n", "marker-version"),
    "version-text": (b'version = "1"\n', "marker-version"),
    "version-true": (b"version = true\n", "marker-version"),
    "name-number": (b"name = 3\n", "marker-value"),
    "name-lines": (b'name = "a\\nb"\n', "marker-value"),
    "name-long": (b'name = "' + b"a" * 300 + b'"\n', "marker-value"),
    "exclude-text": (b'exclude = "src"\n', "marker-value"),
    "exclude-absolute": (b'exclude = ["/etc"]\n', "marker-value"),
    "exclude-above": (b'exclude = ["../other"]\n', "marker-value"),
    "exclude-hidden-above": (b'exclude = ["a/../../b"]\n', "marker-value"),
    "exclude-number": (b"exclude = [1]\n", "marker-value"),
    "exclude-nul": (b'exclude = ["a\\u0000b"]\n', "marker-value"),
    # Each part of a dotted key costs a parser as much as all parts before it.
    "dots": (b"a." * 4_000 + b"a = 1\n", "marker-size"),
    "exclude-many": (b"exclude = [" + b'"a",' * 300 + b"]\n", "marker-value"),
}


def _injected(clone: Clone, cwd: str = ".", argv: tuple[str, ...] = _ARGV) -> bool:
    seen: list[bytes] = []
    launcher = FakeLauncher(
        handler=clone.handler, cwd=clone.root / cwd, before_run=lambda run: seen.extend(run.argv)
    )
    assert launcher.compile(*argv).answer == "run"
    return any(b"prefix-map" in word for word in seen)


@pytest.mark.parametrize("kind", _CONTENTS)
def test_a_marker_with_other_content_is_refused_and_the_compile_goes_on(
    kind: str, make_clone: Callable[..., Clone], cache: Cache
) -> None:
    content, reason = _CONTENTS[kind]
    clone = make_clone("a/one", marker=content)
    bare = clone.bare(_ARGV)
    expected = clone.outputs()
    clone.wipe()
    done = clone.compile(_ARGV)
    assert (done.exit_code, done.stdout, done.stderr) == bare
    assert clone.outputs() == expected
    assert cache.counters()[f"private.{reason}"] == 1
    root = os.fsencode(clone.root)
    assert find_root(root + b"/src", b"/") == root + b"/src"


def _writable(clone: Clone) -> str:
    (clone.root / ".hpcc").chmod(0o666)
    return "marker-writable"


def _foreign(clone: Clone) -> str:
    os.chown(clone.root / ".hpcc", _NOBODY, _NOBODY)
    return "marker-owner"


def _link(clone: Clone) -> str:
    (clone.root / ".hpcc").rename(clone.root / "marker")
    (clone.root / ".hpcc").symlink_to("marker")
    return "marker-kind"


def _pipe(clone: Clone) -> str:
    (clone.root / ".hpcc").unlink()
    os.mkfifo(clone.root / ".hpcc")
    return "marker-kind"


def _unreadable(clone: Clone) -> str:
    (clone.root / ".hpcc").unlink()
    (clone.root / ".hpcc").symlink_to("nowhere")
    return "marker-kind"


def _directory_for_all(clone: Clone) -> str:
    clone.root.chmod(0o777)
    return ""


@pytest.mark.parametrize(
    "spoil", [_writable, _foreign, _link, _pipe, _unreadable, _directory_for_all]
)
def test_a_marker_that_anybody_may_have_put_there_does_not_count(
    spoil: Callable[[Clone], str], first: Clone, cache: Cache
) -> None:
    if spoil is _foreign and os.geteuid():
        pytest.skip("only root gives files away")
    reason = spoil(first)
    assert not _injected(first)
    reasons = {n for n in cache.counters() if n.startswith("private.")}
    assert reasons == ({f"private.{reason}"} if reason else set())


def test_a_directory_for_all_on_the_way_hides_the_marker_above(first: Clone) -> None:
    (first.root / "src").chmod(0o777)
    assert not _injected(first, "src", ("gcc", "-c", "main.c", "-I../inc"))
    assert search_marker(os.fsencode(first.root / "src"), b"/").directories == ()


def test_the_nearest_marker_decides(first: Clone, cache: Cache) -> None:
    first.write("src/.hpcc", "")
    first.age()
    inner = os.fsencode(first.root / "src")
    assert find_root(inner + b"/deep", b"/") == inner
    first.write("src/.hpcc", "colour = 1\n")
    first.age()
    # A refused marker does not hand its directory to the one above.
    assert search_marker(inner, b"/").marker is None
    argv = ("gcc", "-c", "main.c", "-I../inc")
    assert not _injected(first, "src", argv)
    assert cache.counters()["private.marker-key"] == 1


def test_home_is_no_project_and_ends_the_search(first: Clone, tmp_path: Path) -> None:
    root = os.fsencode(first.root)
    assert search_marker(root + b"/src", root + b"/src").marker is None
    found = search_marker(root, root).marker
    assert found is not None
    (tmp_path / "a/.hpcc").touch()
    (first.root / ".hpcc").unlink()
    assert search_marker(root, root).marker is None


def test_home_itself_is_not_shared(
    first: Clone, make_cache: Callable[[], Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(first.root))
    first.handler = make_cache()
    assert not _injected(first)
    assert first.handler.counters()["private.root"] == 1


@pytest.mark.parametrize("kind", ["empty", "directory"])
def test_an_empty_marker_and_a_directory_count(kind: str, first: Clone) -> None:
    if kind == "directory":
        (first.root / ".hpcc").unlink()
        (first.root / ".hpcc").mkdir()
    assert _injected(first)
    root = os.fsencode(first.root)
    assert find_root(root + b"/src/deep", b"/") == root


class _Framed:
    """Sends one request with its bytes, so that a hit on it can become a replay.

    It compiles in a directory below the root, where hpcc looks only for the marker.
    """

    _ARGV = ("gcc", "-g", "-I../inc", "-MD", "-c", "../src/main.c", "-o", "x.o")

    def __init__(self, clone: Clone, frame: bytes) -> None:
        self.clone, self.frame = clone, frame

    def hit(self) -> None:
        """Compile to a miss, and then to a hit that becomes a replay."""
        launcher = FakeLauncher(handler=self.clone.handler, cwd=self.clone.root / "build")
        request = launcher.request(self._ARGV)._replace(frame=self.frame)
        launcher.compile(*self._ARGV)
        self.clone.handler.begin(request, lambda: False)

    def replays(self) -> bool:
        replays = self.clone.handler.replays
        found = replays.find(self.frame)
        return found is not None and replays.engine.replay(found.prepared, -1) == Outcome.DONE


def _quiet(clone: Clone) -> None:
    """Wait until the files are so old that hpcc trusts their stat."""
    clone.age()
    time.sleep(RACY_WINDOW_NS / 1e9 + 0.2)


def test_a_replay_ends_when_a_marker_appears(make_clone: Callable[..., Clone]) -> None:
    clone = make_clone("a/one", marker=None)
    _quiet(clone)
    framed = _Framed(clone, b"one")
    framed.hit()
    assert framed.replays()
    clone.write(".hpcc", "")
    assert not framed.replays()


def test_a_replay_of_a_shared_result_ends_with_its_marker(
    first: Clone, second: Clone, cache: Cache
) -> None:
    first.age()
    _quiet(second)
    _Framed(first, b"").hit()
    framed = _Framed(second, b"two")
    framed.hit()
    assert framed.replays()
    assert cache.counters()["hit.shared"] == 2
    other = second.write("doc/.hpcc", "")  # not on the way to the root
    assert framed.replays()
    other.unlink()
    (second.root / ".hpcc").write_text('name = "other"\n')
    assert not framed.replays()


def test_a_replay_ends_when_anybody_may_write_the_root(first: Clone) -> None:
    _quiet(first)
    framed = _Framed(first, b"three")
    framed.hit()
    assert framed.replays()
    first.root.chmod(0o777)
    assert not framed.replays()
