"""What a finished saga takes on disk, after 100,000 of them and a VACUUM."""

from __future__ import annotations

from .figures import Figure, at_most, table
from .service import fill, finished_sagas, service

# Heap, indexes, TOAST and maps of every table, partitions by their parent's name.
_SIZES = """
    SELECT coalesce(parent.relname, c.relname) AS name,
        sum(pg_table_size(c.oid))::bigint, sum(pg_indexes_size(c.oid))::bigint
    FROM pg_class c
    LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
    LEFT JOIN pg_class parent ON parent.oid = i.inhparent
    WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
    GROUP BY 1 ORDER BY 1
"""


def run() -> list[Figure]:
    with service() as running:
        fill(running)
        with running.database() as database:
            database.execute("VACUUM")
            sagas = finished_sagas(running)
            sizes = [(name, int(heap), int(indexes)) for name, heap, indexes in database.execute(_SIZES)]

    def per_saga(rows: list[tuple[str, int, int]]) -> tuple[float, float]:
        return sum(heap for _, heap, _ in rows) / sagas, sum(indexes for *_, indexes in rows) / sagas

    ours = [row for row in sizes if row[0].startswith("saga_")]
    rows = [
        [name, f"{heap / sagas:,.0f}", f"{indexes / sagas:,.0f}", f"{(heap + indexes) / sagas:,.0f}"]
        for name, heap, indexes in [*ours, *(row for row in sizes if row[0] in ("devices", "port", "simulated_device"))]
        if (heap + indexes) / sagas >= 1
    ]
    print(table([f"bytes a saga, of {sagas:,}", "table", "indexes", "together"], rows))
    total = sum(per_saga(ours))
    devices, ports = (sum(per_saga([row for row in sizes if row[0] == name])) for name in ("devices", "port"))
    print(f"  beside the sagas: {devices:,.0f} bytes a device record, {ports:,.0f} a pair of ports")
    return [at_most("bytes a finished saga in the saga_* tables", total, 2048, "bytes")]
