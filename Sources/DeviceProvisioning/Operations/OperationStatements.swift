import SagaRuntime

/// The SQL that rides in the flushes of sagas that do something with a device that is there, on tables `devices` and `port`.
///
/// A device is held by the saga in `operation_saga_id`; a creation of an older program holds its device by its status. Only a claim
/// touches a device that its saga doesn't hold.
enum OperationStatements {
    /// CLAIM_DEVICE: gives the device to the saga, if nobody holds it. A row that is locked counts as held. Of two sagas of one flush
    /// the earlier gets it.
    ///
    /// Argument: `{"device", "status", "over"?, "gone"?}`: the status that it has from then on; the holder that was found to have
    /// ended; and whether nothing was found that could still have the device. Output: see `ClaimedDevice`.
    static func claim(status: DeviceStatus) -> DatabaseStep {
        DatabaseStep(
            name: "claim_device",
            ctes: """
                wanted AS (
                    SELECT a.saga_id, a.ordinal, (a.argument->>'device')::uuid AS device, a.argument->>'status' AS status,
                        a.argument->>'over' AS over, a.argument ? 'gone' AS gone
                    FROM accepted a
                ), found AS MATERIALIZED (
                    SELECT d.device_id, coalesce(
                            d.operation_saga_id, CASE WHEN d.status IN ('CREATING', 'DELETING') THEN d.saga_id END) AS holder
                    FROM devices d
                    WHERE d.device_id IN (SELECT w.device FROM wanted w)
                    ORDER BY d.device_id
                    FOR UPDATE SKIP LOCKED
                ), chosen AS (
                    SELECT DISTINCT ON (w.device) w.saga_id, w.device, w.status
                    FROM wanted w JOIN found f ON f.device_id = w.device
                    WHERE f.holder IS NULL OR f.holder IN (w.over, w.saga_id)
                    ORDER BY w.device, w.ordinal
                ), taken AS (
                    UPDATE devices d
                    SET operation_saga_id = c.saga_id, changed_by_saga_id = c.saga_id, status = c.status, status_reason = '',
                        updated_at = saga_now()
                    FROM chosen c
                    WHERE d.device_id = c.device
                    RETURNING c.saga_id, d.saga_id AS creation, d.site, d.made
                ), granted AS (
                    SELECT c.saga_id, json_strip_nulls(json_build_object(
                            'site', c.site, 'creation', c.creation, 'made', c.made, 'host', p.host, 'adb', p.adb_port,
                            'webrtc', p.webrtc_port))::text AS output
                    FROM taken c LEFT JOIN port p ON p.saga_id = c.creation
                    UNION ALL
                    SELECT w.saga_id, '{"gone":true}'
                    FROM wanted w
                    WHERE w.gone AND NOT EXISTS (SELECT 1 FROM devices d WHERE d.device_id = w.device)
                )
                """,
            argument: { view in
                let way = ClaimedWay(output: view.outputs[DeviceStep.claimDevice])
                return JSONWriter.object(reserving: 128) { writer in
                    writer.member("device", view.resourceID)
                    writer.member("status", status.name)
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
}
