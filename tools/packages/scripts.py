"""The scripts that dpkg and rpm run, from the functions in deploy/packages/scripts.

Both families have the same functions; what differs is when they are called, and how the package
manager tells an upgrade from a removal: dpkg by words, rpm by the number of versions that remain.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from packages.layout import Source, part_of
from packages.table import Package

_PLACE: Final = "deploy/packages/scripts"
_UNITS: Final = {
    "scheduler": "hpcc-scheduler.service",
    "gateway": "hpcc-gateway.service",
    "worker": "hpcc-worker.service hpcc-helper.socket hpcc-helper.service",
}
_STATE: Final = {
    "scheduler": "keys, an embedded control store",
    "gateway": "nothing of this version",
    "worker": "keys, stores, the audit trail, images",
}
# The package that acts for all: bytecode of libraries that others bring, and their services.
_FIRST: Final = "hpcc"
_START: Final = "compile_bytecode\nstart_services\n"

_CODE_OF_DEB: Final = {
    "preinst": '[ "$1" != upgrade ] || { stop_services remember; remove_bytecode; }\n',
    "prerm": '[ "$1" != remove ] || { stop_services; remove_bytecode; }\n',
}
_CODE_OF_RPM: Final = {
    "%pre": '[ "$1" -lt 2 ] || { stop_services remember; remove_bytecode; }\n',
    "%preun": '[ "$1" -gt 0 ] || { stop_services; remove_bytecode; }\n',
}
_SERVICE_OF_DEB: Final = {
    # The owner of the settings is the operator's choice later: a worker of root has files of root.
    # systemd-tmpfiles does this at each boot; it needs /proc, which a chroot may lack.
    # -h: the directory may be of an earlier installation, and hold a link of the service's user.
    "postinst": """\
if [ "$1" = configure ]; then
    systemd-sysusers @PACKAGE@.conf
    [ -n "$2" ] || chown -h @PACKAGE@: /etc/hpcc/@SERVICE@ /etc/hpcc/@SERVICE@/@SERVICE@.json
fi
reload_systemd
""",
    "prerm": '[ "$1" != remove ] || end_units\n',
    "postrm": """\
case "$1" in
    remove) reload_systemd ;;
    purge) say_what_stays ;;
esac
""",
}
_SERVICE_OF_RPM: Final = {
    # Before the files, which belong to the user.
    "%pre": """\
systemd-sysusers --replace=/usr/lib/sysusers.d/@PACKAGE@.conf - <<'END'
@USERS@END
""",
    "%post": "reload_systemd\n",
    "%preun": '[ "$1" -gt 0 ] || end_units\n',
    "%postun": 'reload_systemd\n[ "$1" -gt 0 ] || say_what_stays\n',
}


def of_deb(package: Package, source: Source) -> Mapping[str, str]:
    """Return Debian's maintainer scripts by name."""
    if package.service:
        found = _of_service(package, source, _SERVICE_OF_DEB)
    else:
        found = _of_code(source, _CODE_OF_DEB)
    if package.name == _FIRST:
        # Also when triggered: another package changed /usr/lib/hpcc, or there is another Python.
        found["postinst"] = _functions(source, "start") + "\n" + _START
    return {name: f"#!/bin/sh\nset -e\n{text}" for name, text in found.items()}


def triggers_of_deb(package: Package) -> str:
    """Return Debian's triggers of a package; empty for none."""
    places = ("/usr/lib/hpcc", "/usr/bin/python3") if package.name == _FIRST else ()
    return "".join(f"interest-noawait {place}\n" for place in places)


def of_rpm(package: Package, source: Source) -> Mapping[str, str]:
    """Return rpm's scriptlets by the line that begins each."""
    if package.service:
        return _of_service(package, source, _SERVICE_OF_RPM)
    found = _of_code(source, _CODE_OF_RPM)
    if package.name == _FIRST:
        at_the_end = _functions(source, "start") + "\n" + _START
        found["%transfiletriggerin -- /usr/lib/hpcc /usr/bin/python3"] = at_the_end
        found["%transfiletriggerpostun -- /usr/lib/hpcc"] = at_the_end
    return found


def _of_code(source: Source, texts: Mapping[str, str]) -> dict[str, str]:
    functions = _functions(source, "stop")
    return {name: f"{functions}\n{text}" for name, text in texts.items()}


def _of_service(package: Package, source: Source, texts: Mapping[str, str]) -> dict[str, str]:
    words = {
        "@UNITS@": _UNITS[package.service],
        "@PACKAGE@": package.name,
        "@SERVICE@": package.service,
        "@STATE@": _STATE[package.service],
        "@USERS@": part_of(source.text("deploy/systemd/hpcc.sysusers"), package.service),
    }
    functions = _functions(source, "service")
    found = {}
    for name, text in texts.items():
        script = f"{functions}\n{text}"
        for word, value in words.items():
            script = script.replace(word, value)
        found[name] = script
    return found


def _functions(source: Source, name: str) -> str:
    return source.text(f"{_PLACE}/{name}.sh")
