/// The engine's own migrations: numbers 1 to 99.
public enum SagaMigrations {
    public static let all: [Migration] = [
        Migration(version: 1, name: "saga_tables", sql: Self.sagaTables),
        Migration(version: 2, name: "saga_tenant", sql: Self.sagaTenant),
        Migration(version: 3, name: "saga_quarantine", sql: Self.sagaQuarantine),
        Migration(version: 4, name: "keys_and_rights", sql: Self.keysAndRights),
        Migration(version: 5, name: "saga_now", sql: Self.sagaNow),
        Migration(version: 7, name: "saga_unsent", sql: Self.sagaUnsent),
        Migration(version: 8, name: "saga_features", sql: Self.sagaFeatures),
        Migration(version: 9, name: "saga_plan", sql: Self.sagaPlan),
        // What is rare, newest first. (A change of status is no HOT update as it is, for saga_state_active and _parked.)
        Migration(
            version: 10, name: "saga_rare_statuses",
            indexes: [
                Migration.Index("open", on: "saga_state", "(saga_id) WHERE status IN ('RUNNING', 'COMPENSATING')"),
                Migration.Index("compensated", on: "saga_state", "(saga_id) WHERE status = 'COMPENSATED'"),
            ]),
        Migration(version: 13, name: "saga_site", sql: Self.sagaSite),
        Migration(version: 20, name: "saga_waiting_and_commands", sql: Self.waitingAndCommands),
        Migration(version: 21, name: "saga_waiting_site", sql: Self.waitingSite),
        Migration(version: 22, name: "saga_command_sequence", sql: Self.commandSequence),
        Migration(version: 24, name: "saga_retention", sql: Self.retention),
        Migration(
            version: 28, name: "saga_request_id",
            indexes: [Migration.Index("request", on: "saga_request", "(request_id, saga_id)")]),
    ]

    /// The engine's only clock in SQL: when the statement began. Each statement of a pipeline has its own time.
    ///
    /// STABLE, so that an index can be searched by it; one plain SELECT, so that plans hold its text and not a call. The
    /// simulator puts its own time in its place.
    private static let sagaNow = """
        CREATE FUNCTION saga_now() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS 'SELECT statement_timestamp()';
        ALTER TABLE saga_instance ALTER COLUMN registered_at SET DEFAULT saga_now();
        """

    /// Keys by their bytes (docs/database.md, "Text that is a key"), and partitions for a role that may not make tables.
    ///
    /// A collation changes no row: indexes are built anew, under the table's lock. Where saga_event has so many partitions that
    /// their locks might not fit into PostgreSQL's table of them, its columns stay as they are.
    private static let keysAndRights = """
        ALTER TABLE saga_request ALTER COLUMN user_id TYPE text COLLATE "C";
        ALTER TABLE saga_instance ALTER COLUMN name TYPE text COLLATE "C";
        ALTER TABLE saga_setting ALTER COLUMN name TYPE text COLLATE "C";
        DO $event$ BEGIN
            IF (SELECT count(*) FROM pg_inherits WHERE inhparent = 'saga_event'::regclass) <= 60 THEN
                ALTER TABLE saga_event ALTER COLUMN user_id TYPE text COLLATE "C", ALTER COLUMN batch_id TYPE text COLLATE "C",
                    ALTER COLUMN tenant_id TYPE text COLLATE "C";
            END IF;
        END $event$;

        -- Makes a day's partition of saga_state or saga_event, with the rights of the owner: whoever serves needs none on the
        -- schema. Built standing alone, with a CHECK that spares the scan, then attached under a lock time-out. A table of that
        -- name that stands alone was detached by somebody, and its sagas are not ours to drop: then this fails.
        CREATE FUNCTION saga_partition_make(parent text, day bigint) RETURNS boolean
        LANGUAGE plpgsql SECURITY DEFINER SET lock_timeout = '2s' AS $make$
        DECLARE
            leaf text := parent || '_' || to_char(timestamp '1970-01-01' + day * interval '1 day', 'YYYYMMDD');
            lower_bound text := 'saga_' || lpad((day * 86400000)::text, 13, '0');
            upper_bound text := 'saga_' || lpad(((day + 1) * 86400000)::text, 13, '0');
            options text := CASE parent
                -- A row is updated three or four times, within a minute or so: room for HOT.
                WHEN 'saga_state' THEN 'fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02'
                WHEN 'saga_event' THEN 'autovacuum_vacuum_insert_scale_factor = 0.05' END;
            entry record;
        BEGIN
            IF options IS NULL OR abs(day - extract(epoch FROM saga_now())::bigint / 86400) > 10000 THEN
                RAISE EXCEPTION 'no partitions of % for day %', parent, day;
            END IF;
            PERFORM pg_advisory_xact_lock(hashtextextended('devicerpc.partitions', 0));
            -- Another replica was quicker.
            IF EXISTS (SELECT 1 FROM pg_inherits WHERE inhrelid = to_regclass(leaf)) THEN RETURN false; END IF;
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS) WITH (%s)', leaf, parent, options);
            EXECUTE format('ALTER TABLE %I ADD CONSTRAINT %I CHECK (saga_id >= %L AND saga_id < %L)',
                leaf, leaf || '_range', lower_bound, upper_bound);
            EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                parent, leaf, lower_bound, upper_bound);
            EXECUTE format('ALTER TABLE %I DROP CONSTRAINT %I', leaf, leaf || '_range');
            -- A partition that is used by its own name needs its own grants.
            FOR entry IN
                SELECT a.privilege_type, a.grantee FROM pg_class c, aclexplode(c.relacl) a
                WHERE c.oid = to_regclass(parent) AND a.grantee <> c.relowner
            LOOP
                EXECUTE format('GRANT %s ON TABLE %I TO %s', entry.privilege_type, leaf,
                    CASE entry.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(entry.grantee)) END);
            END LOOP;
            RETURN true;
        END $make$;
        REVOKE ALL ON FUNCTION saga_partition_make(text, bigint) FROM PUBLIC;
        -- pg_temp last: who calls it could otherwise have it work on temporary tables of theirs, with the owner's rights.
        DO $path$ BEGIN
            EXECUTE format('ALTER FUNCTION saga_partition_make(text, bigint) SET search_path = %I, pg_temp', current_schema());
        END $path$;
        """

    /// Whom a saga's user belongs to, in the saga's first row; null without a tenant.
    private static let sagaTenant = """
        ALTER TABLE saga_event ADD COLUMN tenant_id text;
        CREATE INDEX saga_event_tenant ON saga_event (tenant_id, saga_id) WHERE tenant_id IS NOT NULL;
        """

    /// Sagas that nobody drives. They are few: a table of their own costs no flush a column, and no count a search of all days.
    private static let sagaQuarantine = """
        CREATE TABLE saga_quarantine (
            saga_id text COLLATE "C" PRIMARY KEY,
            quarantined_at timestamptz NOT NULL DEFAULT now(),
            instance_id bigint NOT NULL,           -- the last one that could not go on with it
            reason text NOT NULL                   -- UNREADABLE, REFUSED, UNREAD
        );
        """

    /// A server that gives a saga back knows that its intents are unsent. Whoever claims the row at exactly this version goes on
    /// as if nothing had happened; every claim and every transition raises the version.
    ///
    /// `survived`: the instance was fenced and came back, so that nothing of what it held has killed it.
    private static let sagaUnsent = """
        ALTER TABLE saga_state ADD COLUMN unsent_version int;
        ALTER TABLE saga_instance ADD COLUMN survived boolean NOT NULL DEFAULT false;
        """

    /// The plans of all definitions that have served this database, so that any program can show any saga.
    private static let sagaPlan = """
        CREATE TABLE saga_plan (
            saga_type text COLLATE "C" NOT NULL,
            definition_version smallint NOT NULL,
            step_names text[] NOT NULL,            -- in forward order; records name steps by number, from 0
            step_kinds text[] NOT NULL,            -- REMOTE, DATABASE
            provisioned_step smallint NOT NULL,    -- the last one that a caller waits for who wants the thing itself
            PRIMARY KEY (saga_type, definition_version)
        );
        """

    /// What an instance knows: see `ClusterFeatures`. One that doesn't know of this knows nothing.
    private static let sagaFeatures = "ALTER TABLE saga_instance ADD COLUMN features text[] NOT NULL DEFAULT '{}'"

    /// Where a saga's calls go, and what each instance can call; null: it is of a program that knows no sites.
    private static let sagaSite = """
        ALTER TABLE saga_state ADD COLUMN site text COLLATE "C";
        ALTER TABLE saga_instance ADD COLUMN sites text[];
        """

    /// Sagas that sleep, and what they are told meanwhile.
    private static let waitingAndCommands = """
        -- Not partitioned: what is due is found without a look at any day. Written by the flush that puts a saga to sleep (its owner
        -- is -1 then), deleted by whoever wakes it.
        CREATE TABLE saga_waiting (
            saga_id text COLLATE "C" PRIMARY KEY,
            saga_type text NOT NULL,
            definition_version smallint NOT NULL,
            due_at timestamptz,                    -- null: when its dependency is back
            dependency text COLLATE "C",
            reason text NOT NULL,
            doubt_until timestamptz,               -- a call without an answer may have gone out until then
            clock_epoch bigint NOT NULL
        );
        CREATE INDEX saga_waiting_due ON saga_waiting (due_at) WHERE due_at IS NOT NULL;
        CREATE INDEX saga_waiting_dependency ON saga_waiting (dependency, saga_id) WHERE due_at IS NULL;

        -- Time that passed while a saga slept counts only within one epoch: it is raised when the clock steps, and when nobody was
        -- there to see whether it did.
        CREATE TABLE saga_clock (epoch bigint NOT NULL);
        INSERT INTO saga_clock VALUES (1);

        CREATE TABLE saga_command (
            command_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            saga_id text COLLATE "C" NOT NULL,
            kind text NOT NULL,                    -- CANCEL, COMPENSATE, RESUME, SKIP
            issuer text NOT NULL,
            reason text NOT NULL,
            issued_at timestamptz NOT NULL DEFAULT saga_now(),
            consumed_at timestamptz,
            result text                            -- DONE, NO_EFFECT, PAST_PIVOT, TOO_LATE
        );
        CREATE INDEX saga_command_open ON saga_command (saga_id, command_id) WHERE consumed_at IS NULL;
        -- How many a saga was given. A flush that ends it, parks it or puts it to sleep compares.
        ALTER TABLE saga_state ADD COLUMN commands int NOT NULL DEFAULT 0;
        """

    /// Whoever wakes sagas looks at what it serves alone, however many wait elsewhere.
    private static let waitingSite = """
        -- As saga_state's; '': none.
        ALTER TABLE saga_waiting ADD COLUMN site text COLLATE "C" NOT NULL DEFAULT '';
        DROP INDEX saga_waiting_due, saga_waiting_dependency;
        CREATE INDEX saga_waiting_due ON saga_waiting (site, due_at) WHERE due_at IS NOT NULL;
        CREATE INDEX saga_command_waiting ON saga_command (command_id) WHERE consumed_at IS NULL;
        CREATE INDEX saga_waiting_epoch ON saga_waiting (site, clock_epoch) WHERE due_at IS NOT NULL;
        CREATE INDEX saga_waiting_dependency ON saga_waiting (dependency, site, saga_id) WHERE dependency IS NOT NULL;
        """

    /// Which state of its saga a command is meant for.
    private static let commandSequence = """
        -- Of the newest event that its issuer knew of; null: it was given by an older program.
        ALTER TABLE saga_command ADD COLUMN sequence int;
        """

    /// Days go (`Retention`). The owner's functions do it, so that whoever serves may do nothing else to the schema.
    private static let retention = """
        -- Work that one replica does for all.
        CREATE TABLE saga_job (
            name text COLLATE "C" PRIMARY KEY,
            holder text NOT NULL DEFAULT '',       -- who is at it
            held_until timestamptz NOT NULL DEFAULT saga_now(),
            done_at timestamptz NOT NULL DEFAULT saga_now(),
            held int NOT NULL DEFAULT 0,           -- days that are old enough, and stay
            problem text NOT NULL DEFAULT ''       -- what kept it from doing what it should
        );
        INSERT INTO saga_job (name) VALUES ('retention');
        -- Days whose partitions stand alone, until they are dropped.
        CREATE TABLE saga_detached_day (
            day bigint PRIMARY KEY,                -- since the epoch
            detached_at timestamptz NOT NULL DEFAULT saga_now()
        );

        -- Whether something on a day isn't over. The partition of a day may be attached or stand alone.
        CREATE FUNCTION saga_day_is_held(d bigint) RETURNS boolean LANGUAGE plpgsql AS $held$
        DECLARE
            leaf text := 'saga_state_' || to_char(timestamp '1970-01-01' + d * interval '1 day', 'YYYYMMDD');
            first text := 'saga_' || lpad((d * 86400000)::text, 13, '0');
            next text := 'saga_' || lpad(((d + 1) * 86400000)::text, 13, '0');
            found boolean;
        BEGIN
            EXECUTE format('SELECT EXISTS (SELECT 1 FROM %1$I WHERE status IN (''RUNNING'', ''COMPENSATING''))
                OR EXISTS (SELECT 1 FROM %1$I WHERE status = ''PARKED'')', leaf) INTO found;
            RETURN found OR EXISTS (SELECT 1 FROM saga_waiting WHERE saga_id >= first AND saga_id < next)
                OR EXISTS (SELECT 1 FROM saga_quarantine WHERE saga_id >= first AND saga_id < next);
        END $held$;

        -- Detaches a day's partitions. Parents are locked before leaves, as by whoever inserts; who holds one of them for longer than
        -- this waits goes first.
        CREATE FUNCTION saga_day_detach(d bigint) RETURNS text
        LANGUAGE plpgsql SECURITY DEFINER SET lock_timeout = '100ms' AS $detach$
        DECLARE
            suffix text := to_char(timestamp '1970-01-01' + d * interval '1 day', 'YYYYMMDD');
            parent text;
        BEGIN
            IF d >= extract(epoch FROM saga_now())::bigint / 86400 - 2 THEN
                RAISE EXCEPTION 'sagas of day % may still begin', suffix;
            END IF;
            PERFORM pg_advisory_xact_lock(hashtextextended('devicerpc.partitions', 0));
            LOCK TABLE ONLY saga_state, ONLY saga_event IN ACCESS EXCLUSIVE MODE;
            EXECUTE format('LOCK TABLE %I, %I IN ACCESS EXCLUSIVE MODE', 'saga_state_' || suffix, 'saga_event_' || suffix);
            IF saga_day_is_held(d) THEN RETURN 'HELD'; END IF;
            FOREACH parent IN ARRAY ARRAY['saga_state', 'saga_event'] LOOP
                -- What somebody is detaching by hand (CONCURRENTLY) fails here, and stays theirs.
                EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', parent, parent || '_' || suffix);
            END LOOP;
            INSERT INTO saga_detached_day (day) VALUES (d) ON CONFLICT (day) DO UPDATE SET detached_at = excluded.detached_at;
            RETURN 'DETACHED';
        END $detach$;

        -- Drops what was detached an hour ago, if nothing on it has moved since. What somebody has attached again is no business of ours.
        CREATE FUNCTION saga_day_drop(d bigint) RETURNS text
        LANGUAGE plpgsql SECURITY DEFINER SET lock_timeout = '100ms' AS $drop$
        DECLARE
            suffix text := to_char(timestamp '1970-01-01' + d * interval '1 day', 'YYYYMMDD');
            leaves regclass[];
        BEGIN
            PERFORM 1 FROM saga_detached_day WHERE day = d AND detached_at <= saga_now() - interval '1 hour' FOR UPDATE;
            IF NOT FOUND THEN RETURN 'EARLY'; END IF;
            leaves := ARRAY[to_regclass('saga_state_' || suffix), to_regclass('saga_event_' || suffix)];
            IF EXISTS (SELECT 1 FROM pg_inherits WHERE inhrelid = ANY (leaves)) THEN
                DELETE FROM saga_detached_day WHERE day = d;
                RETURN 'ATTACHED';
            END IF;
            IF leaves[1] IS NOT NULL THEN EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', leaves[1]); END IF;
            IF leaves[1] IS NOT NULL AND saga_day_is_held(d) THEN
                RAISE EXCEPTION 'saga_state_% was detached, and a saga on it has moved since: attach it again', suffix;
            END IF;
            EXECUTE format('DROP TABLE IF EXISTS %I, %I', 'saga_event_' || suffix, 'saga_state_' || suffix);
            DELETE FROM saga_detached_day WHERE day = d;
            RETURN 'DROPPED';
        END $drop$;
        REVOKE ALL ON FUNCTION saga_day_detach(bigint), saga_day_drop(bigint) FROM PUBLIC;
        DO $path$ BEGIN
            EXECUTE format('ALTER FUNCTION saga_day_is_held(bigint) SET search_path = %I, pg_temp', current_schema());
            EXECUTE format('ALTER FUNCTION saga_day_detach(bigint) SET search_path = %I, pg_temp', current_schema());
            EXECUTE format('ALTER FUNCTION saga_day_drop(bigint) SET search_path = %I, pg_temp', current_schema());
        END $path$;
        """

    /// saga_state and saga_event get their daily partitions from `PartitionKeeper`.
    private static let sagaTables = """
        CREATE TYPE saga_status AS ENUM ('RUNNING', 'COMPLETED', 'COMPENSATING', 'COMPENSATED', 'PARKED');

        -- One row per server process. `fenced` is permanent: a fenced instance never writes again.
        CREATE SEQUENCE saga_instance_id;
        CREATE TABLE saga_instance (
            instance_id bigint PRIMARY KEY,
            name text NOT NULL,
            nonce uuid NOT NULL,
            registered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            lease_until timestamptz NOT NULL,
            fenced boolean NOT NULL DEFAULT false,
            backend_pids int[] NOT NULL DEFAULT '{}',
            backend_starts timestamptz[] NOT NULL DEFAULT '{}'
        );
        CREATE UNIQUE INDEX saga_instance_live_name ON saga_instance (name) WHERE NOT fenced;

        -- The row that every flush updates: narrow, HOT. Written once and searched by: see saga_event.
        CREATE TABLE saga_state (
            saga_id text COLLATE "C" NOT NULL PRIMARY KEY,
            status saga_status NOT NULL,
            step_index int NOT NULL,
            version int NOT NULL,
            last_sequence int NOT NULL,
            owner bigint NOT NULL,                 -- saga_instance.instance_id; 0: nobody (released)
            timeout_at timestamptz NOT NULL,
            started_at timestamptz NOT NULL,
            created_at timestamptz NOT NULL,
            updated_at timestamptz NOT NULL,
            completed_at timestamptz,
            definition_version smallint NOT NULL,
            retry_count smallint NOT NULL DEFAULT 0,
            max_retries smallint NOT NULL DEFAULT 3,
            adoptions smallint NOT NULL DEFAULT 0, -- since the last progress
            saga_type text NOT NULL,
            current_step text NOT NULL,
            error_message text,
            CHECK ((completed_at IS NOT NULL) = (status IN ('COMPLETED', 'COMPENSATED')))
        ) PARTITION BY RANGE (saga_id);
        CREATE INDEX saga_state_active ON saga_state (owner) WHERE status IN ('RUNNING', 'COMPENSATING');
        CREATE INDEX saga_state_parked ON saga_state (saga_id) WHERE status = 'PARKED';

        -- Append only, one row per flush: packed events (format version first), keyed by the last sequence the row holds.
        -- The first row of a saga also says whose it is and what it is about (searched by).
        CREATE TABLE saga_event (
            saga_id text COLLATE "C" NOT NULL,
            sequence int NOT NULL,
            user_id text,
            resource_id uuid,
            batch_id text,
            events bytea NOT NULL,
            output text,                           -- of the database step that this flush ran
            PRIMARY KEY (saga_id, sequence)
        ) PARTITION BY RANGE (saga_id);
        CREATE INDEX saga_event_user ON saga_event (user_id, saga_id) WHERE user_id IS NOT NULL;
        CREATE INDEX saga_event_resource ON saga_event (resource_id) WHERE resource_id IS NOT NULL;
        CREATE INDEX saga_event_batch ON saga_event (batch_id, saga_id) WHERE batch_id IS NOT NULL;

        -- Idempotency of callers. Not partitioned: the key must be unique over all days.
        CREATE TABLE saga_request (
            user_id text NOT NULL,
            request_id text COLLATE "C" NOT NULL,
            method smallint NOT NULL,              -- 1 CreateDevice, 2 DeleteDevice
            saga_id text COLLATE "C" NOT NULL,
            digest bytea NOT NULL,                 -- HMAC of the normalised request
            PRIMARY KEY (user_id, request_id, method)
        );

        CREATE TABLE saga_secret (
            saga_id text COLLATE "C" PRIMARY KEY,
            secrets bytea NOT NULL
        );

        -- Facts that all replicas share, e.g. the key of the request digests.
        CREATE TABLE saga_setting (
            name text PRIMARY KEY,
            value bytea NOT NULL
        );
        INSERT INTO saga_setting VALUES ('request-digest-key', uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));
        """
}
