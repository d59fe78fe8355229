"""Configuration: files and variables in, frozen values out."""

from hpcc.config._farm import Farm, engine_farm_or_none, load_farm_or_none, parse_farm
from hpcc.config._farm_session import FarmSession, load_farm_session_or_none
from hpcc.config._paths import DIR_VARIABLE, FARM_SESSION_NAME, Paths
from hpcc.config._private_file import make_directory, make_private_directory, write_private_file
from hpcc.config._service_file import load_service_file, parse_service_file
from hpcc.config._settings import (
    GUEST_OVERHEAD_MIB,
    CacheSettings,
    RemoteSettings,
    Settings,
    WorkerSettings,
    default_containerd,
    default_guests_mib,
    load_settings,
    parse_settings,
    setting_origins,
)

__all__ = [
    "DIR_VARIABLE",
    "FARM_SESSION_NAME",
    "GUEST_OVERHEAD_MIB",
    "CacheSettings",
    "Farm",
    "FarmSession",
    "Paths",
    "RemoteSettings",
    "Settings",
    "WorkerSettings",
    "default_containerd",
    "default_guests_mib",
    "engine_farm_or_none",
    "load_farm_or_none",
    "load_farm_session_or_none",
    "load_service_file",
    "load_settings",
    "make_directory",
    "make_private_directory",
    "parse_farm",
    "parse_service_file",
    "parse_settings",
    "setting_origins",
    "write_private_file",
]
