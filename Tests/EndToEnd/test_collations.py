"""Text that is a key has the collation "C", whatever the database's own is."""

from __future__ import annotations

from collections.abc import Callable

from support.world import World


def test_keys_are_ordered_by_their_bytes(make_world: Callable[..., World]) -> None:
    world = make_world()
    followers = world.database.rows(
        """
        SELECT i.indrelid::regclass::text, i.indexrelid::regclass::text, a.attname, c.collname
        FROM pg_index i
        CROSS JOIN LATERAL unnest(i.indkey::int2[], i.indcollation::oid[]) AS k(attnum, collid)
        JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace n ON n.oid = t.relnamespace
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
        JOIN pg_collation c ON c.oid = k.collid
        WHERE n.nspname = 'public' AND c.collname <> 'C'
        """
    )
    assert followers == [], "these follow the database's collation"
