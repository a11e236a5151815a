import SagaRuntime

/// The SQL that rides in the flushes of sagas that do something with a device that is there, on tables `devices` and `port`.
///
/// A device is held by the saga in `operation_saga_id`; a creation of an older program holds its device by its status. Only a claim
/// touches a device that its saga doesn't hold.
enum OperationStatements {
    /// CLAIM_DEVICE: gives the device to the saga, if nobody holds it. A row that is locked counts as held. Of two sagas of one flush
    /// the earlier gets it.
    ///
    /// Argument: `{"device", "status", "from"?, "goal"?, "over"?, "gone"?}`: the status that it has from then on; those that it may have
    /// before, and the one that makes the saga needless; the holder that was found to have ended; and whether nothing was
    /// found that could still have the device. Output: see `ClaimedDevice`.
    static func claim(_ operation: DeviceOperation) -> DatabaseStep {
        DatabaseStep(
            name: "claim_device",
            ctes: """
                wanted AS (
                    SELECT a.saga_id, a.ordinal, (a.argument->>'device')::uuid AS device, a.argument->>'status' AS status,
                        a.argument->>'over' AS over, a.argument ? 'gone' AS gone,
                        a.argument->'from' AS statuses, a.argument->>'goal' AS goal
                    FROM accepted a
                ), found AS MATERIALIZED (
                    SELECT d.device_id, d.status, coalesce(
                            d.operation_saga_id, CASE WHEN d.status IN ('CREATING', 'DELETING') THEN d.saga_id END) AS holder
                    FROM devices d
                    WHERE d.device_id IN (SELECT w.device FROM wanted w)
                    ORDER BY d.device_id
                    FOR UPDATE SKIP LOCKED
                ), free AS (
                    SELECT w.*, f.status AS before, w.statuses IS NULL OR w.statuses ? f.status
                            OR coalesce(f.holder = w.saga_id, false) AS is_ready,
                        coalesce(f.holder = w.saga_id, false) AS is_own
                    FROM wanted w JOIN found f ON f.device_id = w.device
                    WHERE f.holder IS NULL OR f.holder IN (w.over, w.saga_id)
                ), chosen AS (
                    SELECT DISTINCT ON (w.device) w.saga_id, w.device, w.status,
                        CASE WHEN NOT w.is_own THEN w.before END AS before
                    FROM free w WHERE w.is_ready
                    ORDER BY w.device, w.ordinal
                ), taken AS (
                    UPDATE devices d
                    SET operation_saga_id = c.saga_id, changed_by_saga_id = c.saga_id, status = c.status, status_reason = '',
                        updated_at = saga_now()
                    FROM chosen c
                    WHERE d.device_id = c.device
                    RETURNING c.saga_id, c.before, d.saga_id AS creation, d.site, d.made
                ), granted AS (
                    SELECT c.saga_id, json_strip_nulls(json_build_object(
                            'site', c.site, 'creation', c.creation, 'before', c.before, 'made', c.made, 'host', p.host, 'adb', p.adb_port,
                            'webrtc', p.webrtc_port))::text AS output
                    FROM taken c LEFT JOIN port p ON p.saga_id = c.creation
                    UNION ALL
                    SELECT w.saga_id, '{"nothing":true}' FROM free w WHERE NOT w.is_ready AND w.before = w.goal
                    UNION ALL
                    SELECT w.saga_id, '{"nothing":true}'
                    FROM wanted w
                    WHERE w.gone AND NOT EXISTS (SELECT 1 FROM devices d WHERE d.device_id = w.device)
                )
                """,
            argument: { view in
                let way = ClaimedWay(output: view.outputs[DeviceStep.claimDevice])
                return JSONWriter.object(reserving: 128) { writer in
                    writer.member("device", view.resourceID)
                    writer.member("status", operation.during.name)
                    if let from = operation.from { writer.member("from", from.map(\.name)) }
                    if let goal = operation.goal { writer.member("goal", goal.name) }
                    switch way {
                    case .free, .held: break
                    case .over(let holder): writer.member("over", holder)
                    case .gone: writer.member("gone", true)
                    }
                }
            },
            refusal: StepError(.refused, reason: "DEVICE_BUSY", message: "another saga holds the device"),
            choosesSite: true)
    }

    /// REMOVE_DATABASE_RECORD: the row goes, and the ports that its creation was given rest for a while.
    static func remove(coolDown: Duration) -> DatabaseStep {
        DatabaseStep(
            name: "remove_device",
            ctes: """
                removed AS (
                    DELETE FROM devices d USING accepted a
                    WHERE d.device_id = (a.argument->>'device')::uuid AND d.operation_saga_id = a.saga_id
                    RETURNING a.saga_id, d.saga_id AS creation, (a.argument->>'cool_down_us')::bigint AS cool_down_us
                ), freed AS (
                    UPDATE port p
                    SET saga_id = NULL, device_id = NULL,
                        free_at = saga_now() + r.cool_down_us * interval '1 microsecond'
                    FROM removed r
                    WHERE p.saga_id = r.creation
                    RETURNING 1
                ), granted AS (SELECT saga_id, NULL::text AS output FROM removed)
                """,
            argument: { view in
                JSONWriter.object(reserving: 96) { writer in
                    writer.member("device", view.resourceID)
                    writer.member("cool_down_us", max(coolDown.wholeMicroseconds, 0))
                }
            },
            refusal: nil)
    }

    /// UPDATE_DATABASE_RECORD: what has come of the device, which nobody holds any more.
    ///
    /// - Parameter connection: the step that has left how to reach it; `nil`: it can't be reached.
    static func update(_ status: DeviceStatus, connection: String? = nil) -> DatabaseStep {
        DatabaseStep(
            name: "update_device",
            ctes:
                "updated AS (\(Self.release) RETURNING a.saga_id), granted AS (SELECT saga_id, NULL::text AS output FROM updated)",
            argument: { view in
                if status == .stopped, Self.isMissing(view) {
                    return Self.argument(view, .error, reason: Self.missing, connection: nil)
                }
                return Self.argument(view, status, reason: "", connection: connection.flatMap { view.outputs[$0] })
            },
            refusal: nil)
    }

    /// The undo of a claim: the device is what it was, or stopped where something was done to it, and says why.
    static let giveBack = SideEffect(
        name: "device_give_back", statement: Self.release,
        argument: { view in
            if Self.isMissing(view) { return Self.argument(view, .error, reason: Self.missing, connection: nil) }
            let isUntouched = view.undoneSteps.isDisjoint(with: [DeviceStep.stopDevice, DeviceStep.startDevice])
            let before = isUntouched ? (try? ClaimedDevice(view.outputs))?.before : nil
            return Self.argument(
                view, before ?? .stopped, reason: view.failure.map { "\($0.reason): \($0.message)" } ?? "",
                connection: nil, keepsConnection: before == .running)
        })

    /// The device is stopped, on its way to be started again.
    static let markStarting = SideEffect(
        name: "device_starting",
        statement: """
            UPDATE devices d SET status = 'STARTING', updated_at = saga_now()
            FROM accepted a
            WHERE d.device_id = (a.argument->>'device')::uuid AND d.operation_saga_id = a.saga_id
            """,
        argument: { view in JSONWriter.object(reserving: 64) { $0.member("device", view.resourceID) } })

    private static let release = """
        UPDATE devices d
        SET status = a.argument->>'status', status_reason = a.argument->>'reason', operation_saga_id = NULL, updated_at = saga_now(),
            host = coalesce(a.argument->'connection'->>'host', CASE WHEN a.argument ? 'keep' THEN d.host ELSE '' END),
            adb_port = coalesce(
                (a.argument->'connection'->>'adb')::int, CASE WHEN a.argument ? 'keep' THEN d.adb_port ELSE 0 END),
            webrtc_port = coalesce(
                (a.argument->'connection'->>'webrtc')::int, CASE WHEN a.argument ? 'keep' THEN d.webrtc_port ELSE 0 END),
            attributes = coalesce(
                a.argument->'connection'->'attributes', CASE WHEN a.argument ? 'keep' THEN d.attributes ELSE '{}' END)
        FROM accepted a
        WHERE d.device_id = (a.argument->>'device')::uuid AND d.operation_saga_id = a.saga_id
        """

    private static let missing = "DEVICE_MISSING: the provider has lost the device"

    /// Whether there was nothing to stop.
    private static func isMissing(_ view: SagaView) -> Bool {
        let stopped = view.outputs[DeviceStep.stopDevice].flatMap { try? JSONValue(parsing: $0) }
        return stopped?["missing"]?.bool == true
    }

    private static func argument(
        _ view: SagaView, _ status: DeviceStatus, reason: String, connection: String?, keepsConnection: Bool = false
    ) -> String {
        JSONWriter.object(reserving: 256) { writer in
            writer.member("device", view.resourceID)
            writer.member("status", status.name)
            writer.member("reason", Text.sanitised(reason))
            if keepsConnection { writer.member("keep", true) }
            if let connection, !connection.isEmpty { writer.member("connection", json: connection) }
        }
    }
}
