"""flatten() agrees with a slow model that unpacks layers into a dict, and never crashes."""

import io
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from hpcc.core import IntegrityError
from hpcc.images.assembly.flatten import flatten
from hpcc.images.assembly.tree import MOUNT_POINTS
from hpcc.images.base.tar import TarReader
from hpcc_testkit.guests.images import DIR, HARD, SYM, Item, layer_files, read_clean_tar, tar_bytes
from hpcc_testkit.suite.examples import examples

MOUNTS = {path for path, _ in MOUNT_POINTS}
_names = st.sampled_from("abcd")
_paths = st.lists(_names, min_size=1, max_size=3).map("/".join)
_targets = st.one_of(_paths, _paths.map("/{}".format), _paths.map("../{}".format), st.just("."))


def _whiteout(path: str) -> str:
    head, slash, base = path.rpartition("/")
    return f"{head}{slash}.wh.{base}"


_items = st.one_of(
    st.builds(lambda p, t: Item(p, text=t), _paths, st.text("xyz", max_size=3)),
    st.builds(lambda p: Item(p, DIR, mode=0o755), _paths),
    st.builds(lambda p, t: Item(p, SYM, t), _paths, _targets),
    st.builds(lambda p, t: Item(p, HARD, t), _paths, _paths),
    st.builds(lambda p: Item(_whiteout(p)), _paths),
    st.builds(lambda p: Item(f"{p}/.wh..wh..opq"), _paths),
)
_layers = st.lists(st.lists(_items, max_size=8), min_size=1, max_size=4)


class RefusedError(Exception):
    pass


class Model:
    """Maps a path to (kind, value), by unpacking each layer one name at a time."""

    def __init__(self) -> None:
        self.tree: dict[str, tuple[str, object]] = {}
        self.serial = 0

    def resolve(self, parts: list[str], *, make: bool) -> str | None:
        """Return the real directory of `parts` ("" for the root), or None."""
        at: list[str] = []
        todo = list(parts)
        hops = 0
        while todo:
            part = todo.pop(0)
            if part == "..":
                at = at[:-1]
                continue
            path = "/".join([*at, part])
            kind, value = self.tree.get(path, ("none", None))
            if kind == "symlink":
                hops += 1
                if hops > 40:
                    raise RefusedError
                target = str(value)
                if target.startswith("/"):
                    at = []
                todo = [p for p in target.split("/") if p not in ("", ".")] + todo
                continue
            if kind != "dir":
                if not make:
                    return None
                self.tree[path] = ("dir", 0o755)
            at.append(part)
        return "/".join(at)

    def delete(self, path: str, *, itself: bool = True) -> None:
        for name in list(self.tree):
            if name.startswith(path + "/" if path else "") or (itself and name == path):
                del self.tree[name]

    def apply(self, items: list[Item]) -> None:
        for item in items:
            *up, base = item.name.split("/")
            if not base.startswith(".wh."):
                continue
            directory = self.resolve(up, make=False)
            if directory is None:
                continue
            if base == ".wh..wh..opq":
                self.delete(directory, itself=False)
            else:
                self.delete("/".join(filter(None, [directory, base[4:]])))
        for item in items:
            if not item.name.rpartition("/")[2].startswith(".wh."):
                self.add(item)

    def add(self, item: Item) -> None:
        *up, base = item.name.split("/")
        directory = self.resolve(up, make=True)
        path = "/".join(filter(None, [directory, base]))
        if item.kind == HARD:
            *target_up, target_base = item.text.split("/")
            target_directory = self.resolve(target_up, make=False)
            if target_directory is None:
                raise RefusedError
            target = self.tree.get("/".join(filter(None, [target_directory, target_base])))
            if target is None or target[0] == "dir":
                raise RefusedError
            self.delete(path)
            self.tree[path] = target
            return
        if item.kind == DIR and self.tree.get(path, ("none",))[0] == "dir":
            self.tree[path] = ("dir", item.mode)
            return
        self.delete(path)
        if item.kind == DIR:
            self.tree[path] = ("dir", item.mode)
        elif item.kind == SYM:
            self.tree[path] = ("symlink", item.text)
        else:
            self.serial += 1
            self.tree[path] = ("file", (self.serial, item.text))


def modelled(layers: list[list[Item]]) -> dict[str, str] | None:
    model = Model()
    try:
        for items in layers:
            model.apply(items)
    except RefusedError:
        return None
    shown: dict[str, str] = {}
    for path, (kind, value) in model.tree.items():
        if kind == "file":
            shown[path] = f"file {value[1]}"
        else:
            shown[path] = f"{kind} {value:o}" if kind == "dir" else f"{kind} {value}"
    return shown


def flattened(layers: list[list[Item]]) -> dict[str, str] | None:
    out = io.BytesIO()
    with tempfile.TemporaryDirectory() as directory:
        files = layer_files(Path(directory), [tar_bytes(items) for items in layers])
        try:
            flatten(files, out)
        except IntegrityError:
            return None
    tree = read_clean_tar(out.getvalue())
    shown = {}
    for path, what in tree.items():
        kind, _, rest = what.partition(" ")
        if path in MOUNTS:
            continue
        if kind == "hardlink":
            shown[path] = shown[rest]
        elif kind == "file":
            shown[path] = f"file {rest.partition(' ')[2]}"
        else:
            shown[path] = what
    return shown


@given(_layers)
@settings(max_examples=examples(400))
def test_flatten_agrees_with_a_slow_model(layers: list[list[Item]]) -> None:
    assert flattened(layers) == modelled(layers)


@given(st.binary(max_size=3000), st.booleans(), st.integers(0, 2))
@settings(max_examples=examples(300))
def test_any_bytes_are_a_tree_or_one_documented_error(
    noise: bytes, is_tar: bool, where: int
) -> None:
    data = noise
    if is_tar:
        whole = bytearray(tar_bytes([Item("a/b", text="x" * 700), Item("l", SYM, "a")]))
        start = (0, 512, 1536)[where]
        whole[start : start + len(noise)] = noise[: len(whole) - start]
        data = bytes(whole)
    with tempfile.TemporaryDirectory() as directory:
        try:
            flatten(layer_files(Path(directory), [data]), io.BytesIO())
        except IntegrityError as error:
            assert error.reason


@given(st.binary(max_size=1500))
@settings(max_examples=examples(200))
def test_a_reader_of_noise_ends(noise: bytes) -> None:
    reader = TarReader(io.BytesIO(noise), label="noise")
    try:
        members = list(reader.members())
    except IntegrityError:
        return
    assert len(members) <= len(noise) // 512
