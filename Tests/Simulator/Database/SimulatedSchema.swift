/// What stands in a schema of its own, before `pg_catalog` on the search path, so that the engine's SQL, unchanged, gets
/// time, random numbers and the other backends from the simulation.
enum SimulatedSchema {
    static let sql = """
        CREATE SCHEMA sim;

        CREATE FUNCTION sim.clock_timestamp() RETURNS timestamptz LANGUAGE sql STABLE AS
            $$ SELECT 'epoch'::timestamptz + current_setting('sim.now')::bigint * interval '1 microsecond' $$;
        CREATE FUNCTION sim.statement_timestamp() RETURNS timestamptz LANGUAGE sql STABLE AS
            $$ SELECT sim.clock_timestamp() $$;
        CREATE FUNCTION sim.now() RETURNS timestamptz LANGUAGE sql STABLE AS $$ SELECT sim.clock_timestamp() $$;
        CREATE FUNCTION sim.saga_now() RETURNS timestamptz LANGUAGE sql STABLE AS $$ SELECT sim.clock_timestamp() $$;

        CREATE SEQUENCE sim.uuids;
        CREATE FUNCTION sim.gen_random_uuid() RETURNS uuid LANGUAGE sql VOLATILE AS
            $$ SELECT md5(nextval('sim.uuids')::text)::uuid $$;

        -- The simulated connections, with process ids of the simulation.
        CREATE TABLE sim.pg_stat_activity (
            pid int PRIMARY KEY, backend_start timestamptz NOT NULL, state_change timestamptz, backend_xid xid);
        CREATE FUNCTION sim.pg_backend_pid() RETURNS int LANGUAGE sql STABLE AS
            $$ SELECT current_setting('sim.pid')::int $$;
        -- Whom the simulation is to end, once the transaction that says so is committed.
        CREATE TABLE sim.terminated (pid int NOT NULL);
        CREATE FUNCTION sim.pg_terminate_backend(pid int) RETURNS boolean LANGUAGE sql VOLATILE AS $$
            INSERT INTO sim.terminated VALUES (pid);
            DELETE FROM sim.pg_stat_activity a WHERE a.pid = pg_terminate_backend.pid;
            SELECT true
        $$;

        CREATE TABLE sim.notification (number bigserial, channel text NOT NULL, payload text NOT NULL);
        CREATE FUNCTION sim.pg_notify(channel text, payload text) RETURNS void LANGUAGE sql VOLATILE AS
            $$ INSERT INTO sim.notification (channel, payload) VALUES (channel, payload) $$;

        -- What the simulated saga's database steps write.
        CREATE TABLE sim.seat (number int PRIMARY KEY, saga_id text UNIQUE);
        CREATE TABLE sim.entry (saga_id text PRIMARY KEY, status text NOT NULL);
        """

    /// Defaults were bound to the real clock when the tables were made.
    static let rebindDefaults = """
        DO $$
        DECLARE d record;
        BEGIN
            FOR d IN
                SELECT c.oid::regclass AS tab, a.attname AS col, pg_get_expr(x.adbin, x.adrelid) AS expr
                FROM pg_attrdef x JOIN pg_class c ON c.oid = x.adrelid
                    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = x.adnum
                WHERE c.relnamespace = 'public'::regnamespace
                    AND pg_get_expr(x.adbin, x.adrelid) ~ '^(clock_timestamp|statement_timestamp|now|gen_random_uuid|saga_now)\\(\\)$'
            LOOP
                EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT sim.%s', d.tab, d.col, d.expr);
            END LOOP;
        END $$
        """

    static let searchPath = "SET search_path = sim, pg_catalog, public"

    static let seats = 6
}
