"""What each extra brings, and which command adds it to which kind of installation."""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import hpcc
from hpcc.config import extras
from hpcc.config.extras import (
    MODULES,
    Extra,
    Installation,
    WhyNoClient,
    adding,
    extra_of,
    missing_modules,
    reinstalling,
    require_extra,
    this_installation,
)
from hpcc.core import CallerError

_ROOT = Path(__file__).resolve().parents[3]
_PROJECT = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
_EXTRAS: list[Extra] = ["client", "farm", "otlp", "parquet"]


def _required(extra: str) -> set[str]:
    """Return the distributions that pyproject.toml names for an extra, without other extras."""
    named = map(Requirement, _PROJECT["optional-dependencies"][extra])
    return {str(canonicalize_name(r.name)) for r in named} - {"hpcc"}


def _closure(names: set[str]) -> set[str]:
    """Return these distributions and everything that they require here."""
    found: set[str] = set()
    waiting = [*names]
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found:
            continue
        found.add(name)
        for line in importlib.metadata.requires(name) or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return found


def _place(**facts: Any) -> Installation:
    default: dict[str, Any] = {"python": "/v/bin/python", "is_environment": True, "has_pip": True}
    return Installation(**{**default, "is_managed": False, **facts})


def test_the_local_cache_has_no_dependency_and_the_other_extras_are_these() -> None:
    assert _PROJECT["dependencies"] == []
    assert [*_PROJECT["optional-dependencies"]] == _EXTRAS == [*MODULES]
    assert "hpcc[client]" in _PROJECT["optional-dependencies"]["farm"]


@pytest.mark.parametrize("extra", _EXTRAS)
def test_the_modules_of_an_extra_are_those_of_its_distributions(extra: Extra) -> None:
    owners = importlib.metadata.packages_distributions()
    # A namespace has many owners; what they install below it tells them apart.
    found = set()
    for module in MODULES[extra]:
        path = module.replace(".", "/") + "/"
        for name in owners[module.partition(".")[0]]:
            files = importlib.metadata.files(name) or ()
            if any(str(file).startswith(path) for file in files):
                found.add(canonicalize_name(name))
    assert found == _required(extra)


def test_the_lock_file_of_the_product_is_the_extra_farm() -> None:
    text = (_ROOT / "requirements.lock").read_text()
    pins = [Requirement(m) for m in re.findall(r"^([a-z][^\\\n]*==[^\\\n]*)", text, re.MULTILINE)]
    locked = {canonicalize_name(p.name) for p in pins if p.marker is None or p.marker.evaluate()}
    assert _closure(_required("farm") | _required("client")) == locked


@pytest.mark.parametrize(
    ("place", "command"),
    [
        (_place(), "`/v/bin/python -m pip install 'hpcc[client]'`"),
        (_place(python="/my v/bin/python"), "`'/my v/bin/python' -m pip install 'hpcc[client]'`"),
        # An environment is never managed by the distribution, also on a machine that is.
        (_place(is_managed=True), "`/v/bin/python -m pip install 'hpcc[client]'`"),
        (_place(has_pip=False), "`uv pip install --python /v/bin/python 'hpcc[client]'`"),
        (_place(pipx_name="hpcc", has_pip=False), "`pipx runpip hpcc install 'hpcc[client]'`"),
        (_place(is_environment=False), "`/v/bin/python -m pip install 'hpcc[client]'`"),
        (
            _place(is_environment=False, is_managed=True, python="/usr/bin/python3"),
            "`/usr/bin/python3 -m venv ~/hpcc-venv && ~/hpcc-venv/bin/pip install 'hpcc[client]'`"
            ", or with `pipx install 'hpcc[client]'`",
        ),
        (
            _place(is_environment=False, is_managed=True, python="/usr/bin/python3", checkout="/c"),
            "`/usr/bin/python3 -m venv ~/hpcc-venv && ~/hpcc-venv/bin/pip install '/c[client]'`"
            ", or with `pipx install '/c[client]'`",
        ),
    ],
)
def test_each_kind_of_installation_has_its_command(place: Installation, command: str) -> None:
    assert adding("client", place) == command


@pytest.mark.parametrize(
    ("packager", "added", "anew"),
    [
        ("deb", "`apt-get install hpcc-client`", "apt-get install --reinstall hpcc"),
        ("rpm", "`dnf install hpcc-client`", "dnf reinstall hpcc"),
    ],
)
def test_a_package_of_the_distribution_is_completed_by_its_package_manager(
    packager: str, added: str, anew: str
) -> None:
    place = _place(has_pip=False, packager=packager, python="/usr/lib/hpcc/bin/python")
    assert adding("client", place) == added
    assert reinstalling(place) == anew
    # No package has this one.
    assert adding("parquet", place) == (
        "`/usr/lib/hpcc/bin/python -m venv ~/hpcc-venv && ~/hpcc-venv/bin/pip install "
        "'hpcc[parquet]'`, or with `pipx install 'hpcc[parquet]'`"
    )


@pytest.mark.parametrize(
    ("said", "packager"),
    [(b"deb\n", "deb"), (b"rpm\n", "rpm"), (b"pip\n", ""), (b"\xff", ""), (None, "")],
)
def test_a_package_is_known_by_its_installer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes | None, packager: str
) -> None:
    record = tmp_path / f"hpcc-{hpcc.__version__}.dist-info"
    record.mkdir()
    if said is not None:
        (record / "INSTALLER").write_bytes(said)
    monkeypatch.setattr(hpcc, "__file__", str(tmp_path / "hpcc/__init__.py"))
    assert this_installation().packager == packager


@pytest.mark.parametrize(
    ("place", "command"),
    [
        (_place(checkout="/c"), "/v/bin/python -m pip install --force-reinstall --no-deps /c"),
        (
            _place(checkout="/my c", is_editable=True),
            "/v/bin/python -m pip install --force-reinstall --no-deps -e '/my c'",
        ),
        (
            _place(has_pip=False, checkout="/c"),
            "uv pip install --python /v/bin/python --reinstall --no-deps /c",
        ),
        # Of pipx's own commands one forgets extras that were added later.
        (
            _place(pipx_name="hpcc", has_pip=False, checkout="/c"),
            "pipx runpip hpcc install --force-reinstall --no-deps /c",
        ),
        # A wheel or an index: another checkout has to be there.
        (
            _place(),
            "/v/bin/python -m pip install --force-reinstall --no-deps . (in a checkout of hpcc)",
        ),
        (
            _place(is_environment=False, is_managed=True, checkout="/c"),
            "/v/bin/python -m venv ~/hpcc-venv && ~/hpcc-venv/bin/pip install /c",
        ),
    ],
)
def test_each_kind_of_installation_is_made_anew_with_its_extras(
    place: Installation, command: str
) -> None:
    assert reinstalling(place) == command


@pytest.mark.parametrize(
    ("record", "found"),
    [
        ('{"url": "file://%s", "dir_info": {}}', True),
        ('{"url": "file://%s/absent", "dir_info": {}}', False),
        ('{"url": "https://example.com%s", "dir_info": {}}', False),
        ('{"url": "file://%s", "archive_info": {}}', False),
        ('{"url": 7, "dir_info": []}', False),
        ("[]", False),
        ("{", False),
        (None, False),
    ],
)
def test_the_checkout_is_the_one_that_the_installation_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: str | None, *, found: bool
) -> None:
    checkout = tmp_path / "a checkout"
    checkout.mkdir()
    (checkout / "pyproject.toml").touch()
    place = str(checkout).replace(" ", "%20")
    installed = tmp_path / "hpcc-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: hpcc\nVersion: 1\n")
    if record is not None:
        (installed / "direct_url.json").write_text(record.replace("%s", place))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert (f"'{checkout}'" in reinstalling()) is found
    assert ("in a checkout of hpcc" in reinstalling()) is not found


def test_pipx_is_known_by_its_description(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "hpcc-nightly"))
    metadata = tmp_path / "hpcc-nightly" / "pipx_metadata.json"
    assert this_installation().pipx_name == ""
    metadata.parent.mkdir()
    for damaged in (b"", b"[]", b"{}", b"\xff"):
        metadata.write_bytes(damaged)
        assert this_installation().pipx_name == ""
    metadata.write_text(json.dumps({"main_package": {"package": "hpcc"}}))
    assert this_installation().pipx_name == "hpcc-nightly"


def test_a_module_has_the_extra_that_brings_it() -> None:
    assert extra_of("google") == extra_of("google.protobuf.message") == "client"
    assert extra_of("buildgrid") == extra_of("grpc") == "client"
    assert extra_of("grpclib.client") == "farm"
    assert extra_of("arro3") == "parquet"
    assert extra_of("hpcc.core") is None
    assert extra_of("grpc_tools") is None
    assert extra_of("") is None


def test_what_is_missing_is_named_and_noticed_when_it_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert missing_modules("client") == missing_modules("farm") == ()
    require_extra("farm", "a worker")
    why = WhyNoClient("a farm")
    with monkeypatch.context() as patched:
        patched.setitem(MODULES, "client", ("hpcc_no_such_module", "grpc"))
        assert missing_modules("client") == missing_modules("farm") == ("hpcc_no_such_module",)
        assert why().startswith("a farm needs hpcc[client], which is not installed; add it with `")
        with pytest.raises(CallerError, match=r"^a worker needs hpcc\[farm\]") as caught:
            require_extra("farm", "a worker")
        assert caught.value.reason == extras.NO_EXTRA
    assert why() == ""
