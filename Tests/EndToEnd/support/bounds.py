"""What a server takes of what is bounded, and whom it turned away."""

from __future__ import annotations

import os
import pathlib
import re

from .server import Server


def resident_bytes(server: Server) -> int:
    with open(f"/proc/{server.pid}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS:"))


def cpu_seconds(server: Server) -> float:
    fields = pathlib.Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def refusals(server: Server) -> dict[str, int]:
    found = re.findall(r'rpc_server_refusals_total\{reason="(\w+)",scope="\w+"\} (\d+)', server.http("/metrics")[1])
    return {reason: int(count) for reason, count in found}


def connections(server: Server) -> int:
    """Established connections of the server's port, as the kernel counts them."""
    wanted = f":{server.port:04X}"
    with open("/proc/net/tcp") as table:
        return sum(1 for line in table if line.split()[1].endswith(wanted) and line.split()[3] == "01")
