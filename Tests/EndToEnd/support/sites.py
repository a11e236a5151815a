"""Replicas with a file of sites."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from .server import Server
from .waiting import wait_until
from .world import World

# What the tests' servers have of the simulated provider has no place beside a file of sites; empty counts as unset.
ALONE = {"DEVICERPC_SIMULATED": "", "DEVICERPC_SIMULATED_LATENCY": "", "DEVICERPC_SIMULATED_BOOT": ""}


def site_server(world: World, name: str, sites: Sequence[dict[str, Any]], **environment: str) -> Server:
    """A replica that serves these."""
    path = pathlib.Path(world.home) / f"{name}.json"
    path.write_text(json.dumps({"sites": list(sites)}))
    return world.server(name, environment={**ALONE, "DEVICERPC_SITES": str(path), **environment})


def wait_for_version(server: Server, version: int) -> None:
    """New sagas are of version 2 once all live instances know what sites are."""
    line = f'saga_feature_on{{feature="sites"}} {version - 1}'
    wait_until(lambda: line in server.http("/metrics")[1].splitlines(), 60, line, interval=0.1)
