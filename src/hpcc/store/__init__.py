"""Where blobs and results are kept."""

from hpcc.store._breaker import (
    Breaker,
    BreakerConfig,
    GuardedActionCache,
    GuardedBlobStore,
    GuardedObjects,
)
from hpcc.store._degrading import DegradingActionCache, DegradingBlobStore
from hpcc.store._disk_actions import (
    DiskActionCache,
    DiskActionCacheConfig,
    action_cache_directory,
)
from hpcc.store._disk_blobs import DiskBlobStore, DiskBlobStoreConfig, blob_path
from hpcc.store._files import FaultPoint, no_fault
from hpcc.store._held import Held, HeldObjects
from hpcc.store._known import KnownBlobStore
from hpcc.store._memory import MemoryActionCache, MemoryBlobStore
from hpcc.store._metered import MeteredObjects
from hpcc.store._object_blobs import ObjectActionCache, ObjectBlobsConfig, ObjectBlobStore
from hpcc.store._objects import MemoryObjects, Objects, PrefixObjects
from hpcc.store._private import FileOps, PrivateStore, SystemFileOps
from hpcc.store._s3 import S3Config, S3Objects
from hpcc.store._tiered import ReadCachingActionCache, ReadCachingBlobStore
from hpcc.store._write_behind import (
    Publisher,
    PublishingActionCache,
    WriteBehindBlobStore,
    WriteBehindConfig,
)
from hpcc.store._zstd import ZstdObjects

__all__ = [
    "Breaker",
    "BreakerConfig",
    "DegradingActionCache",
    "DegradingBlobStore",
    "DiskActionCache",
    "DiskActionCacheConfig",
    "DiskBlobStore",
    "DiskBlobStoreConfig",
    "FaultPoint",
    "FileOps",
    "GuardedActionCache",
    "GuardedBlobStore",
    "GuardedObjects",
    "Held",
    "HeldObjects",
    "KnownBlobStore",
    "MemoryActionCache",
    "MemoryBlobStore",
    "MemoryObjects",
    "MeteredObjects",
    "ObjectActionCache",
    "ObjectBlobStore",
    "ObjectBlobsConfig",
    "Objects",
    "PrefixObjects",
    "PrivateStore",
    "Publisher",
    "PublishingActionCache",
    "ReadCachingActionCache",
    "ReadCachingBlobStore",
    "S3Config",
    "S3Objects",
    "SystemFileOps",
    "WriteBehindBlobStore",
    "WriteBehindConfig",
    "ZstdObjects",
    "action_cache_directory",
    "blob_path",
    "no_fault",
]
