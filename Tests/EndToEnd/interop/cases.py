"""Which client runs which interop case, and why not the rest: the truth behind the tables of docs/interop.md.

    python -m interop.cases     prints them, from Tests/EndToEnd
"""

from __future__ import annotations

# What a column of the table is.
CLIENTS: dict[str, str] = {
    "grpcio": "Python on gRPC's C core, PyPI's grpcio; `Tests/EndToEnd/interop/python/grpcio_client.py`",
    "grpclib": "pure Python on h2, PyPI's grpclib; `Tests/EndToEnd/interop/python/grpclib_client.py`",
    "node": "Node's own `node:http2`, called as @grpc/grpc-js calls it; `Tests/EndToEnd/interop/node`",
    "cpp": "gRPC C++ 1.51, Debian's libgrpc++-dev; `Tests/EndToEnd/interop/cpp`",
    "go": "grpc-go 1.33, Debian's golang-google-grpc-dev; `Tests/EndToEnd/interop/go`",
}

# In the order of gRPC's interop-test-descriptions.md.
CASES: tuple[str, ...] = (
    "empty_unary",
    "large_unary",
    "client_compressed_unary",
    "server_compressed_unary",
    "client_streaming",
    "client_compressed_streaming",
    "server_streaming",
    "server_compressed_streaming",
    "ping_pong",
    "empty_stream",
    "custom_metadata",
    "status_code_and_message",
    "special_status_message",
    "unimplemented_method",
    "unimplemented_service",
    "cancel_after_begin",
    "cancel_after_first_response",
    "timeout_on_sleeping_server",
    "rpc_soak",
    "channel_soak",
    "concurrent_large_unary",
)

# Calls, connections and calls at once of the cases that repeat large_unary.
ITERATIONS = {"rpc_soak": 100, "channel_soak": 20, "concurrent_large_unary": 100}

_WHOLE_CALL = "compresses a whole call or none of it, and can't leave one message uncompressed"
_NO_COMPRESSION = "has no compression"
_NO_STATUS = "gives calls that it cancels no status: that the connection lives on is checked"

NOT_RUN: dict[tuple[str, str], str] = {
    ("client_compressed_streaming", "grpcio"): _WHOLE_CALL,
    ("client_compressed_streaming", "go"): _WHOLE_CALL,
    ("client_compressed_unary", "grpclib"): _NO_COMPRESSION,
    ("client_compressed_streaming", "grpclib"): _NO_COMPRESSION,
}

# Cells that say less than the case's description asks for.
REMARKS: dict[tuple[str, str], str] = {
    ("server_compressed_unary", "grpcio"): "can't see whether a message came compressed: its content is checked",
    ("server_compressed_streaming", "grpcio"): "can't see whether a message came compressed: its content is checked",
    ("server_compressed_unary", "grpclib"): "takes no compressed message, and must not get one that it asks for",
    ("server_compressed_streaming", "grpclib"): "takes no compressed message, and must not get one that it asks for",
    ("client_compressed_unary", "go"): "with gzip; grpc-go has no deflate",
    ("cancel_after_begin", "grpclib"): _NO_STATUS,
    ("cancel_after_first_response", "grpclib"): _NO_STATUS,
}

# Cases of the same document that nobody runs.
LEFT_OUT: dict[str, str] = {
    "cacheable_unary": "make GET requests, which gRPC's clients no longer can; the method itself is tested",
    "long_lived_channel": "wait for an hour between two calls",
    "max_concurrent_streams_connection_scaling": "are about a client's connections",
    "the cases with credentials": "need Google's accounts; TLS is tested here",
    "orca_per_rpc, orca_oob": "are about load reports to proxies",
    "the cases of xds and grpclb": "are about load balancers",
}


def runs(client: str) -> set[str]:
    """The cases that a client runs."""
    return {case for case in CASES if (case, client) not in NOT_RUN}


def tables() -> str:
    """The generated part of docs/interop.md."""
    notes: list[str] = []

    def cell(case: str, client: str) -> str:
        reason = NOT_RUN.get((case, client)) or REMARKS.get((case, client))
        sign = "no" if (case, client) in NOT_RUN else "yes"
        if not reason:
            return sign
        note = f"{client} {reason}" if (case, client) in NOT_RUN else f"{client}: {reason}"
        if note not in notes:
            notes.append(note)
        return f"{sign} ({notes.index(note) + 1})"

    lines = [f"| case | {' | '.join(CLIENTS)} |", "|---|" + "---|" * len(CLIENTS)]
    lines += [f"| {case} | {' | '.join(cell(case, client) for client in CLIENTS)} |" for case in CASES]
    lines.append("")
    lines += [f"{number}. {note}." for number, note in enumerate(notes, 1)]
    lines += ["", "| not run by any | because they |", "|---|---|"]
    lines += [f"| {case} | {reason} |" for case, reason in LEFT_OUT.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(tables(), end="")
