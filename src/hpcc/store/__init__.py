"""Where blobs and results are kept."""

from hpcc.store._disk_actions import (
    DiskActionCache,
    DiskActionCacheConfig,
    action_cache_directory,
)
from hpcc.store._disk_blobs import DiskBlobStore, DiskBlobStoreConfig, blob_path
from hpcc.store._files import FaultPoint, no_fault
from hpcc.store._memory import MemoryActionCache, MemoryBlobStore
from hpcc.store._private import FileOps, PrivateStore, SystemFileOps

__all__ = [
    "DiskActionCache",
    "DiskActionCacheConfig",
    "DiskBlobStore",
    "DiskBlobStoreConfig",
    "FaultPoint",
    "FileOps",
    "MemoryActionCache",
    "MemoryBlobStore",
    "PrivateStore",
    "SystemFileOps",
    "action_cache_directory",
    "blob_path",
    "no_fault",
]
