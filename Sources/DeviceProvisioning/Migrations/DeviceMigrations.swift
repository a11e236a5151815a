public import SagaRuntime

/// The tables of this module: numbers from 100 on, the engine's own are below.
public enum DeviceMigrations {
    public static let all: [Migration] = [
        Migration(version: 100, name: "devices", sql: Self.devices),
        Migration(version: 101, name: "port", sql: Self.port),
        Migration(version: 102, name: "simulated_device", sql: Self.simulatedDevice),
        Migration(version: 103, name: "devices_tenant", sql: Self.devicesTenant),
        Migration(version: 110, name: "device_keys", sql: Self.deviceKeys),
        Migration(version: 111, name: "simulated_device_order", sql: Self.simulatedDeviceOrder),
        Migration(version: 120, name: "device_not_running", sql: Self.deviceNotRunning),
        Migration(version: 125, name: "site", sql: Self.site),
        Migration(version: 126, name: "site_room", sql: Self.siteRoom),
        Migration(version: 127, name: "simulated_outage", sql: Self.simulatedOutage),
        Migration(version: 130, name: "device_operations", sql: Self.deviceOperations),
        Migration(version: 140, name: "device_labels", sql: Self.deviceLabels),
        // By itself, without a lock on devices: they may be many.
        Migration(version: 141, name: "device_labels_of_before", sql: Self.deviceLabelsOfBefore),
        Migration(version: 142, name: "device_labels_of_the_gone", sql: Self.deviceLabelsOfTheGone),
        Migration(
            version: 143, name: "device_names",
            indexes: [
                Migration.Index("name", on: "devices", #"(name COLLATE "C", device_id)"#),
                Migration.Index("user_name", on: "devices", #"(user_id, name COLLATE "C", device_id)"#),
                Migration.Index(
                    "tenant_name", on: "devices", #"(tenant_id, name COLLATE "C", device_id) WHERE tenant_id <> ''"#),
            ]),
    ]

    /// What devices are found by that many may share: their batch and their tags. Of each, all that are anybody's, a user's or a
    /// tenant's are found newest first. An index on the array of tags gives no order. Kept by triggers, for programs that don't know
    /// of it; rows without labels cost nothing, and neither do updates of other columns.
    private static let deviceLabels = """
        ALTER TABLE devices ADD COLUMN batch_id text COLLATE "C"; -- the caller's own; null: none, or an older program's
        CREATE TABLE device_label (
            label text COLLATE "C" NOT NULL,       -- batch= or tag=, and which
            created_at timestamptz NOT NULL,
            device_id uuid NOT NULL,
            user_id text COLLATE "C" NOT NULL,
            tenant_id text COLLATE "C" NOT NULL,
            PRIMARY KEY (label, created_at, device_id)
        ) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
        CREATE INDEX device_label_user ON device_label (user_id, label, created_at, device_id);
        CREATE INDEX device_label_tenant ON device_label (tenant_id, label, created_at, device_id) WHERE tenant_id <> '';
        CREATE FUNCTION device_labels(batch text, tags text[]) RETURNS SETOF text LANGUAGE sql IMMUTABLE AS $labels$
            SELECT 'batch=' || batch WHERE batch <> '' UNION SELECT 'tag=' || tag FROM unnest(tags) AS t(tag) WHERE tag IS NOT NULL
        $labels$;
        CREATE FUNCTION device_label_track() RETURNS trigger LANGUAGE plpgsql AS $track$
        BEGIN
            IF TG_OP <> 'INSERT' THEN
                DELETE FROM device_label l USING device_labels(OLD.batch_id, OLD.tags) o(label)
                WHERE l.label = o.label AND l.created_at = OLD.created_at AND l.device_id = OLD.device_id;
            END IF;
            IF TG_OP <> 'DELETE' THEN
                INSERT INTO device_label (label, created_at, device_id, user_id, tenant_id)
                SELECT n.label, NEW.created_at, NEW.device_id, NEW.user_id, NEW.tenant_id
                FROM device_labels(NEW.batch_id, NEW.tags) n(label)
                ON CONFLICT DO NOTHING;
            END IF;
            RETURN NULL;
        END $track$;
        CREATE TRIGGER device_label_insert AFTER INSERT ON devices FOR EACH ROW
            WHEN (NEW.batch_id <> '' OR NEW.tags <> '{}') EXECUTE FUNCTION device_label_track();
        CREATE TRIGGER device_label_update AFTER UPDATE OF batch_id, tags, user_id, tenant_id, created_at ON devices FOR EACH ROW
            EXECUTE FUNCTION device_label_track();
        CREATE TRIGGER device_label_delete AFTER DELETE ON devices FOR EACH ROW
            WHEN (OLD.batch_id <> '' OR OLD.tags <> '{}') EXECUTE FUNCTION device_label_track();
        """

    private static let deviceLabelsOfBefore = """
        INSERT INTO device_label (label, created_at, device_id, user_id, tenant_id)
        SELECT n.label, d.created_at, d.device_id, d.user_id, d.tenant_id
        FROM devices d CROSS JOIN LATERAL device_labels(d.batch_id, d.tags) n(label)
        WHERE d.tags <> '{}'
        ON CONFLICT DO NOTHING;
        """

    /// Of devices that were deleted while the statement above ran.
    private static let deviceLabelsOfTheGone = """
        DELETE FROM device_label l WHERE NOT EXISTS (SELECT 1 FROM devices d WHERE d.device_id = l.device_id);
        """

    /// What is done with a device that is there. Null in what older programs write, whose creations hold what they create.
    ///
    /// `saga_id` stays the creation's: the provider's labels and the ports name it.
    private static let deviceOperations = """
        ALTER TABLE devices
            ADD COLUMN operation_saga_id text COLLATE "C",  -- the saga that holds it; null: none
            ADD COLUMN changed_by_saga_id text COLLATE "C", -- the saga that last changed it; null: its creation
            ADD COLUMN site text COLLATE "C",               -- where it was made; null: nobody wrote it down
            ADD COLUMN status_reason text NOT NULL DEFAULT '',
            ADD COLUMN made jsonb,                          -- what its creation made; null: nobody wrote it down
            DROP CONSTRAINT devices_status_check,
            -- Not validated: nothing that was allowed is forbidden now, and the table is not to be read for it.
            ADD CONSTRAINT devices_status_check CHECK (
                status IN ('CREATING', 'RUNNING', 'STOPPED', 'ERROR', 'DELETING', 'STARTING', 'STOPPING')) NOT VALID;
        COMMENT ON COLUMN devices.saga_id IS 'the saga that created it';
        """

    /// For drills: simulated sites that are away. Written by people.
    private static let simulatedOutage = """
        CREATE TABLE simulated_outage (
            site text COLLATE "C" NOT NULL,
            call text COLLATE "C" NOT NULL DEFAULT 'all' CHECK (call IN ('all', 'create', 'start', 'stop', 'destroy', 'find')),
            PRIMARY KEY (site, call)
        );
        """

    /// Null in what older programs write: then the clock alone decides what has come about.
    private static let simulatedDeviceOrder = """
        -- When what is still to come was asked for. What lies later than this was told to be late; all else is there at once.
        ALTER TABLE simulated_device ADD COLUMN ordered_at timestamptz;
        """

    /// Devices that don't run, so that they are found among many that do. An index on `devices` with the status in its condition
    /// would cost every device its HOT update (docs/performance.md). Kept by triggers, for programs that don't know of it.
    private static let deviceNotRunning = """
        CREATE TABLE device_not_running (
            user_id text COLLATE "C" NOT NULL,
            created_at timestamptz NOT NULL,
            device_id uuid NOT NULL,
            tenant_id text COLLATE "C" NOT NULL,
            PRIMARY KEY (user_id, created_at, device_id)
        ) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
        CREATE INDEX device_not_running_created ON device_not_running (created_at, device_id);
        CREATE FUNCTION device_not_running_track() RETURNS trigger LANGUAGE plpgsql AS $track$
        BEGIN
            -- before and after: the rows that the statement has touched.
            IF TG_OP <> 'INSERT' THEN
                DELETE FROM device_not_running n USING before b
                WHERE n.user_id = b.user_id AND n.created_at = b.created_at AND n.device_id = b.device_id
                    AND b.status <> 'RUNNING';
            END IF;
            IF TG_OP <> 'DELETE' THEN
                INSERT INTO device_not_running (user_id, created_at, device_id, tenant_id)
                SELECT a.user_id, a.created_at, a.device_id, a.tenant_id FROM after a WHERE a.status <> 'RUNNING'
                ORDER BY a.user_id, a.created_at, a.device_id
                ON CONFLICT DO NOTHING;
            END IF;
            RETURN NULL;
        END $track$;
        CREATE TRIGGER device_not_running_insert AFTER INSERT ON devices REFERENCING NEW TABLE AS after
            FOR EACH STATEMENT EXECUTE FUNCTION device_not_running_track();
        CREATE TRIGGER device_not_running_update AFTER UPDATE ON devices
            REFERENCING OLD TABLE AS before NEW TABLE AS after
            FOR EACH STATEMENT EXECUTE FUNCTION device_not_running_track();
        CREATE TRIGGER device_not_running_delete AFTER DELETE ON devices REFERENCING OLD TABLE AS before
            FOR EACH STATEMENT EXECUTE FUNCTION device_not_running_track();
        INSERT INTO device_not_running (user_id, created_at, device_id, tenant_id)
        SELECT user_id, created_at, device_id, tenant_id FROM devices WHERE status <> 'RUNNING';
        """

    /// What is used of a site that is limited. Each pair of ports says what its holder has of it, and goes on saying so after its
    /// release until that is taken off.
    private static let siteRoom = """
        ALTER TABLE site ADD COLUMN devices_used int NOT NULL DEFAULT 0, ADD COLUMN memory_used_mb bigint NOT NULL DEFAULT 0;
        ALTER TABLE port ADD COLUMN reserved_site text COLLATE "C", ADD COLUMN reserved_mb int;
        CREATE INDEX port_returned ON port (reserved_site) WHERE saga_id IS NULL AND reserved_site IS NOT NULL;
        """

    /// Where devices are made, as any replica has ever been configured.
    private static let site = """
        CREATE TABLE site (
            name text COLLATE "C" PRIMARY KEY,
            provider text NOT NULL,
            engine text,                           -- what it called itself when it was first met; null: not met yet
            devices int,                           -- how many it may have, null: any number
            memory_mb bigint                       -- what these may have together
        );
        """

    /// By their bytes: an upgrade of the C library must not reorder what a unique key or an index holds.
    private static let deviceKeys = """
        ALTER TABLE devices ALTER COLUMN user_id TYPE text COLLATE "C", ALTER COLUMN tenant_id TYPE text COLLATE "C";
        ALTER TABLE port ALTER COLUMN host TYPE text COLLATE "C", ALTER COLUMN pool TYPE text COLLATE "C";
        """

    private static let devicesTenant = """
        CREATE INDEX devices_tenant ON devices (tenant_id, created_at, device_id) WHERE tenant_id <> '';
        """

    private static let devices = """
        CREATE TABLE devices (
            device_id uuid PRIMARY KEY,            -- fixed before the first step runs
            name text NOT NULL,
            description text NOT NULL DEFAULT '',
            type text NOT NULL CHECK (type IN ('PHONE', 'TABLET')),
            status text NOT NULL CHECK (status IN ('CREATING', 'RUNNING', 'STOPPED', 'ERROR', 'DELETING')),
            provider text NOT NULL,
            user_id text NOT NULL,
            tenant_id text NOT NULL DEFAULT '',
            cpu_cores int NOT NULL CHECK (cpu_cores > 0),
            memory_mb int NOT NULL CHECK (memory_mb > 0),
            storage_mb int NOT NULL CHECK (storage_mb > 0),
            width_px int NOT NULL CHECK (width_px > 0),
            height_px int NOT NULL CHECK (height_px > 0),
            dpi int NOT NULL CHECK (dpi > 0),
            android_version text NOT NULL,
            tags text[] NOT NULL DEFAULT '{}',
            metadata jsonb NOT NULL DEFAULT '{}',
            external_id text NOT NULL DEFAULT '',  -- the provider's own id
            host text NOT NULL DEFAULT '',         -- how to reach it, once it runs; 0: no such port
            adb_port int NOT NULL DEFAULT 0,
            webrtc_port int NOT NULL DEFAULT 0,
            attributes jsonb NOT NULL DEFAULT '{}',
            saga_id text COLLATE "C" NOT NULL,     -- the saga that created it
            created_at timestamptz NOT NULL,
            updated_at timestamptz NOT NULL
        ) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05);
        -- Read backwards: newest first. No column that changes is indexed, so that updates stay HOT.
        CREATE INDEX devices_user ON devices (user_id, created_at, device_id);
        CREATE INDEX devices_created ON devices (created_at, device_id);
        """

    private static let port = """
        -- One row per host and pair of ports. Free while saga_id is null, and grantable from free_at on.
        CREATE TABLE port (
            host text NOT NULL,
            adb_port int NOT NULL CHECK (adb_port BETWEEN 1 AND 65535),
            webrtc_port int NOT NULL CHECK (webrtc_port BETWEEN 1 AND 65535),
            pool text NOT NULL,                    -- whose devices may have it: a provider's name
            saga_id text COLLATE "C",              -- the holder
            device_id uuid,
            free_at timestamptz NOT NULL,
            blocked_until timestamptz,             -- a stranger was found on it
            PRIMARY KEY (host, adb_port),
            UNIQUE (host, webrtc_port),
            CHECK ((saga_id IS NULL) = (device_id IS NULL))
        ) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);
        CREATE INDEX port_free ON port (pool, free_at) WHERE saga_id IS NULL;
        -- A saga holds one pair at most, and gives back what it holds.
        CREATE UNIQUE INDEX port_holder ON port (saga_id) WHERE saga_id IS NOT NULL;
        -- Numbers the pairs of endless pools.
        CREATE SEQUENCE port_virtual_pair MINVALUE 0 START 0 CACHE 1;
        """

    private static let simulatedDevice = """
        -- What the simulated provider has made: one row per effect. A device exists from appears_at until destroyed_at.
        CREATE TABLE simulated_device (
            saga_id text COLLATE "C" NOT NULL,     -- the label
            generation int NOT NULL,
            repeat int NOT NULL,                   -- 0 where create is unique by key
            device_id uuid NOT NULL,
            user_id text NOT NULL,
            host text NOT NULL,
            create_calls int NOT NULL DEFAULT 1,   -- how often create reached this row
            created_at timestamptz NOT NULL DEFAULT now(),
            appears_at timestamptz NOT NULL,       -- late_ms: from when on it is there
            visible_at timestamptz NOT NULL,       -- lookup_lag_ms: from when on a look-up sees it
            started_at timestamptz,
            destroyed_at timestamptz,
            PRIMARY KEY (saga_id, generation, repeat)
        ) WITH (fillfactor = 60);
        """
}
