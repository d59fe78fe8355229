"""Random edits separate and rejoin clones; each compile equals that of the clone's own compiler."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable

import pytest

from hpcc.cache.cache import Cache

from .conftest import FILES, Clone

_STEPS = 80
_CLONES = ("a/one", "b/some way/two", "c/three.3/x/y")
_HEADERS = ("src/util.h", "src/deep/inner.h", "inc/conf.h")
_EARLIER = ("src/conf.h", "early/conf.h", "early/deep/inner.h", "src/deep/conf.h")
_COMPILERS = tuple(filter(shutil.which, ("gcc-12", "gcc-14", "clang-14", "clang-19")))
_FLAGS = (
    ("-g", "-MD"),
    ("-O2", "-MMD", "-MP"),
    ("-g3", "-Wall"),
    ("-O1", "-gdwarf-4", "-MD", "-MT", "x.o"),
)


class _Story:
    """A random walk that its seed determines completely."""

    def __init__(self, clones: list[Clone], seed: int) -> None:
        self.clones, self.random = clones, random.Random(seed)
        self.compiler, self.flags = _COMPILERS[seed % len(_COMPILERS)], _FLAGS[seed % 4]
        self.answers: list[str] = []

    def edit(self) -> None:
        clone, pick = self.random.choice(self.clones), self.random
        match pick.randrange(6):
            case 0:
                name = pick.choice(_HEADERS)
                clone.write(name, FILES[name] + f"#define EXTRA_{pick.randrange(3)} 1\n")
            case 1:
                name = pick.choice(_HEADERS)
                clone.write(name, FILES[name])
            case 2:
                clone.write(
                    pick.choice(_EARLIER), f"#define CONF {pick.randrange(3)}\n#define INNER 2\n"
                )
            case 3:
                (clone.root / pick.choice(_EARLIER)).unlink(missing_ok=True)
            case 4:
                text = FILES["src/main.c"] + f'const char *here = "{clone.root}";\n'
                clone.write("src/main.c", pick.choice([text, FILES["src/main.c"]]))
            case _:
                clone.write(".hpcc", pick.choice(["", 'name = "x"\n', "odd = 1\n"]))
        clone.age()

    def compile(self) -> None:
        clone, pick = self.random.choice(self.clones), self.random
        cwd = pick.choice([".", "build"])
        at = str(clone.root) if cwd == "." else ".."
        argv = [self.compiler, *self.flags, f"-I{at}/early", f"-I{at}/inc"]
        argv += ["-c", f"{at}/src/main.c", "-o", "x.o"]
        is_marked = (clone.root / ".hpcc").read_text() != "odd = 1\n"
        clone.wipe()
        code, out, err = clone.bare([*argv, *(clone.maps(cwd) if is_marked else ())], cwd)
        expected = clone.outputs()
        clone.wipe()
        done = clone.compile(argv, cwd)
        self.answers.append(done.answer)
        assert (done.exit_code, done.stdout, done.stderr) == (code, out, err), argv
        assert clone.outputs() == expected, argv


@pytest.mark.parametrize("seed", [0, 3])
def test_a_random_walk_gives_no_wrong_object(
    seed: int, make_clone: Callable[..., Clone], cache: Cache
) -> None:
    story = _Story([make_clone(name) for name in _CLONES], seed)
    for _ in range(_STEPS):
        if story.random.random() < 0.3:
            story.edit()
        else:
            story.compile()
    counted = cache.counters()
    assert counted["hit.shared"] >= 3
    assert counted["hit.local"] > counted["hit.shared"]
    assert counted["missed.inputs-changed"] > 0
    assert counted["missed.new-command"] > 0
    assert any(n.startswith("private.") for n in counted)
