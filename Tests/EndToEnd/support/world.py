"""Everything that one test has to itself: a database, a user service, replicas; and the audit that closes the test."""

from __future__ import annotations

import pathlib
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import grpc

from . import audit as auditing
from .client import DeviceClient
from .ledger import Ledger
from .pgproxy import PostgresProxy
from .postgres import Cluster, Database
from .server import Server
from .waiting import wait_until

# A lease is 6 s, renewed every 2 s and looked after every second (docs/architecture.md).
LEASE_SECONDS = 6.0


class World:
    """Made by the fixture `world`; `close` ends everything in it."""

    def __init__(self, cluster: Cluster, template: str | None, user_service: bool = True) -> None:
        self.cluster = cluster
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="devicerpc-e2e-"))
        self.database: Database = cluster.create_database(template)
        self.ledger = Ledger() if user_service else None
        self.servers: list[Server] = []
        self._proxies: list[PostgresProxy] = []
        self.was_audited = False

    # Making parts

    def server(
        self, name: str | None = None, *, environment: Mapping[str, str] | None = None, proxy: PostgresProxy | None = None,
        credentials: grpc.ChannelCredentials | None = None, metadata: Sequence[tuple[str, str]] = (), start: bool = True,
    ) -> Server:
        """A replica; started and SERVING unless `start` is false."""
        name = name or f"replica-{len(self.servers) + 1}"
        url = self.database.url_through(proxy.port) if proxy else self.database.url
        settings = {"DATABASE_URL": url}
        if self.ledger:
            settings["USER_SERVICE_URL"] = self.ledger.url
        server = Server(name, self.home / name, {**settings, **(environment or {})}, credentials, metadata)
        self.servers.append(server)
        if start:
            server.start()
        return server

    def replicas(self, count: int, **options: Any) -> list[Server]:
        """So many that start at the same time, all of them SERVING."""
        servers = [self.server(start=False, **options) for _ in range(count)]
        for server in servers:
            server.launch()
        for server in servers:
            server.wait_ready()
        return servers

    def proxy(self, target_port: int | None = None) -> PostgresProxy:
        """In front of PostgreSQL, or of what else takes its connections."""
        proxy = PostgresProxy(target_port or self.cluster.port)
        self._proxies.append(proxy)
        return proxy

    # Looking from outside

    def saga_row(self, saga_id: str) -> dict[str, Any]:
        rows = self.database.records("SELECT * FROM saga_state WHERE saga_id = %s", saga_id)
        assert len(rows) == 1, f"{len(rows)} rows of {saga_id} in saga_state"
        return rows[0]

    def saga_versions(self) -> list[tuple[Any, ...]]:
        """What no write of a saga leaves as it was: for comparing before and after."""
        return self.database.rows("SELECT saga_id, status::text, version, last_sequence FROM saga_state ORDER BY 1")

    def count(self, status: str) -> int:
        return int(self.database.value("SELECT count(*) FROM saga_state WHERE status::text = %s", status))

    def moving(self) -> int:
        return int(
            self.database.value("SELECT count(*) FROM saga_state WHERE status IN ('RUNNING', 'COMPENSATING')")
        )

    def wait_all_over(self, timeout: float = 60) -> float:
        """Waits until no saga moves any more. Returns the seconds that took."""
        start = time.monotonic()

        def over() -> bool:
            assert self.moving() == 0, "sagas still move:\n" + "\n".join(
                str(row) for row in self.database.rows(
                    "SELECT saga_id, status, current_step, owner, version, retry_count, error_message FROM saga_state"
                    " WHERE status IN ('RUNNING', 'COMPENSATING') LIMIT 10"
                )
            )
            return True

        wait_until(over, timeout, "all sagas to be over", interval=0.05)
        return time.monotonic() - start

    def audit(self, client: DeviceClient, **options: Any) -> auditing.Findings:
        """The audit from outside; see support/audit.py. Fails with all that it found."""
        self.was_audited = True
        return auditing.audit(self.database, client, self.ledger, **options)

    def log_tails(self) -> str:
        return "\n".join(server.log_tail() for server in self.servers)

    def close(self) -> None:
        for server in self.servers:
            server.close()
        for proxy in self._proxies:
            proxy.close()
        if self.ledger:
            self.ledger.close()
        self.database.drop()
        shutil.rmtree(self.home, ignore_errors=True)
