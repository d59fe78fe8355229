"""Where hpcc keeps its files on Windows: only environment variables decide."""

from __future__ import annotations

import pytest

from hpcc.config.paths import Paths
from hpcc.core import CallerError

PROFILE = "C:\\Users\\me"


def paths_of(**env: str) -> tuple[str, str, str, str]:
    paths = Paths.from_env(env, is_windows=True)
    return str(paths.cache), str(paths.state), str(paths.config), str(paths.run)


def test_the_profile_holds_all_of_it() -> None:
    expected = (
        f"{PROFILE}\\AppData\\Local\\hpcc\\cache",
        f"{PROFILE}\\AppData\\Local\\hpcc\\state",
        f"{PROFILE}\\AppData\\Roaming\\hpcc",
        f"{PROFILE}\\AppData\\Local\\hpcc\\run",
    )
    local, roaming = f"{PROFILE}\\AppData\\Local", f"{PROFILE}\\AppData\\Roaming\\"
    assert paths_of(LOCALAPPDATA=local, APPDATA=roaming) == expected
    assert paths_of(USERPROFILE=PROFILE) == expected
    assert paths_of(USERPROFILE=PROFILE, LOCALAPPDATA="relative", XDG_CACHE_HOME="/x") == expected


def test_a_roaming_profile_on_a_server_is_left_alone() -> None:
    found = paths_of(LOCALAPPDATA="D:/l", APPDATA="\\\\server\\profiles\\me")
    assert found[2] == "D:\\l\\hpcc"


def test_hpcc_dir_holds_all_where_it_is_set() -> None:
    found = paths_of(HPCC_DIR="d:\\h\\", USERPROFILE=PROFILE)
    assert found == ("D:\\h\\cache", "D:\\h\\state", "D:\\h\\config", "D:\\h\\run")


@pytest.mark.parametrize(
    "env",
    [{}, {"HOME": "/home/me"}, {"USERPROFILE": "\\\\server\\me"}, {"HPCC_DIR": "h"},
     {"HPCC_DIR": "\\\\server\\h", "USERPROFILE": PROFILE}, {"HPCC_DIR": "C:h"}],
)  # fmt: skip
def test_no_place_on_a_drive_is_said(env: dict[str, str]) -> None:
    with pytest.raises(CallerError):
        paths_of(**env)
