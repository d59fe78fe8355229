"""Images: OCI images by digest in, read-only file system images for guests out."""

from hpcc.images._auth import Login, Logins, load_logins, login_files
from hpcc.images._blobfile import LayerFile
from hpcc.images._debian import (
    DEFAULT_PACKAGES,
    DebianRequest,
    build_debian,
)
from hpcc.images._host import HostSystem
from hpcc.images._http import Timeouts
from hpcc.images._layout import OciLayout
from hpcc.images._limits import FlattenLimits
from hpcc.images._prepared import PreparedImage, to_table
from hpcc.images._registry import Registry, split_repository
from hpcc.images._source import FetchedImage, ImageSource, Progress
from hpcc.images._store import DEFAULT_MAX_BYTES, LOCAL_PREFIX, ImageStore
from hpcc.images._toolchains import label_trouble, probe_guest
from hpcc.images._unpack import unpack_layout

__all__ = [
    "DEFAULT_MAX_BYTES",
    "DEFAULT_PACKAGES",
    "LOCAL_PREFIX",
    "DebianRequest",
    "FetchedImage",
    "FlattenLimits",
    "HostSystem",
    "ImageSource",
    "ImageStore",
    "LayerFile",
    "Login",
    "Logins",
    "OciLayout",
    "PreparedImage",
    "Progress",
    "Registry",
    "Timeouts",
    "build_debian",
    "label_trouble",
    "load_logins",
    "login_files",
    "probe_guest",
    "split_repository",
    "to_table",
    "unpack_layout",
]
