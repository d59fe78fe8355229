"""What the schedulers of a farm know together: embedded for one, PostgreSQL for several."""

from hpcc.control._connect import connect_arguments
from hpcc.control._database import DatabaseConfig, read_database_config
from hpcc.control._embedded import EmbeddedControlStore
from hpcc.control._mirror import Mirror
from hpcc.control._postgres import PostgresControlStore, open_postgres
from hpcc.control._schema import SCHEMA_VERSION, migrate

__all__ = [
    "SCHEMA_VERSION",
    "DatabaseConfig",
    "EmbeddedControlStore",
    "Mirror",
    "PostgresControlStore",
    "connect_arguments",
    "migrate",
    "open_postgres",
    "read_database_config",
]
