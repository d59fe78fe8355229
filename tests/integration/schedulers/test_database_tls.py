"""TLS to a real PostgreSQL: its certificate's identity is checked before data is sent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpcc.config.private_file import write_private_file
from hpcc.control.connect import connect
from hpcc.control.database import read_database_config
from hpcc.control.postgres import open_postgres
from hpcc.control.schema import migrate
from hpcc.ports import ControlStoreError, SystemClock
from hpcc_testkit.services.postgres import OWNER, missing_or_none, private_postgres
from hpcc_testkit.services.server_certificate import make_server_files

pytestmark = pytest.mark.timeout(120)
PASSWORD = "a password of the database"


@dataclass(frozen=True, slots=True)
class Database:
    """A server on loopback that accepts only TLS; `ca` signed its certificate."""

    port: int
    password_file: Path
    ca: Path
    other_ca: Path

    def url(self, host: str = "127.0.0.1", ca: Path | None = None) -> str:
        options = f"sslmode=verify-full&sslrootcert={ca or self.ca}"
        return f"postgresql://{OWNER}@{host}:{self.port}/control?{options}"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    if missing := missing_or_none():
        pytest.skip(missing)
    directory = tmp_path_factory.mktemp("tls")
    (directory / "other").mkdir()
    files, other = make_server_files(directory), make_server_files(directory / "other")
    password = directory / "password"
    write_private_file(password, PASSWORD.encode())
    with private_postgres() as cluster:
        cluster.make_database("control")
        port = cluster.use_tls(files, PASSWORD)
        cluster.stop()
        cluster.start()
        yield Database(port, password, files.ca, other.ca)


async def test_a_store_works_over_tls_with_a_password(database: Database) -> None:
    config = read_database_config(database.url(), str(database.password_file))
    await migrate(config)
    async with open_postgres(config, SystemClock()) as store:
        await store.put("keys", "a", b"1")
        assert [e.value for e in await store.entries("keys")] == [b"1"]
    connection = await connect(config)
    try:
        encrypted = "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl"
        assert await connection.fetchval(encrypted) == "TLSv1.3"
    finally:
        await connection.close()


@pytest.mark.parametrize("wrong", ["ca", "name", "password", "plain"])
async def test_whoever_is_not_that_database_gets_nothing(database: Database, wrong: str) -> None:
    url = {
        "ca": database.url(ca=database.other_ca),
        # Its certificate is of 127.0.0.1 and localhost.
        "name": database.url(host="127.0.0.2"),
        # hpcc allows plain connections to loopback, but this server requires TLS.
        "plain": f"postgresql://{OWNER}@127.0.0.1:{database.port}/control",
    }.get(wrong, database.url())
    config = read_database_config(url, "" if wrong == "password" else str(database.password_file))
    async with open_postgres(config, SystemClock()) as store:
        with pytest.raises(ControlStoreError, match="does not answer") as refused:
            await store.check()
    if wrong in {"ca", "name"}:
        assert "its certificate is not accepted (" in str(refused.value)
