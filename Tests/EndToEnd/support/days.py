"""Partitions of days long ago."""

from __future__ import annotations

from .world import World


def make_day(world: World, days_ago: int) -> str:
    """Makes both partitions of a day; returns its name, as YYYYMMDD."""
    world.database.execute(
        """
        SELECT saga_partition_make(t, extract(epoch FROM now())::bigint / 86400 - %s)
        FROM unnest(ARRAY['saga_state', 'saga_event']) AS t
        """,
        days_ago,
    )
    return str(world.database.value("SELECT to_char(now() AT TIME ZONE 'UTC' - %s * interval '1 day', 'YYYYMMDD')", days_ago))
