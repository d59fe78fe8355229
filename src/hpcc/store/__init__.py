"""Where blobs and results are kept."""

from hpcc.store._disk_actions import (
    DiskActionCache,
    DiskActionCacheConfig,
    action_cache_directory,
)
from hpcc.store._disk_blobs import DiskBlobStore, DiskBlobStoreConfig
from hpcc.store._files import FaultPoint, no_fault
from hpcc.store._memory import MemoryActionCache, MemoryBlobStore

__all__ = [
    "DiskActionCache",
    "DiskActionCacheConfig",
    "DiskBlobStore",
    "DiskBlobStoreConfig",
    "FaultPoint",
    "MemoryActionCache",
    "MemoryBlobStore",
    "action_cache_directory",
    "no_fault",
]
