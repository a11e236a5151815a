import SagaRuntime

/// The SQL that rides in the journal's flushes, on table `devices`.
enum DeviceStatements {
    /// CREATE_DATABASE_RECORD: the row, CREATING. Run again (after a pair of ports proved unusable) it brings the row up to
    /// date; it never touches another saga's device.
    static let record = DatabaseStep(
        name: "record_device",
        ctes: """
            recorded AS (
                INSERT INTO devices (
                    device_id, name, description, type, status, provider, user_id, tenant_id, cpu_cores, memory_mb,
                    storage_mb, width_px, height_px, dpi, android_version, tags, metadata, external_id, saga_id,
                    operation_saga_id, site, batch_id, made, created_at, updated_at)
                SELECT r.device, r.name, coalesce(r.description, ''), r.type, 'CREATING', r.provider, r."user",
                    coalesce(r.tenant, ''), r.cpu, r.memory, r.storage, r.width, r.height, r.dpi, r.android,
                    coalesce(r.tags, '{}'), coalesce(r.metadata, '{}'), coalesce(r.made->>'id', ''), a.saga_id,
                    a.saga_id, r.site, r.batch, CASE WHEN r.made IS NOT NULL THEN jsonb_build_object('device', r.made) END,
                    timestamptz 'epoch' + r.at * interval '1 microsecond',
                    timestamptz 'epoch' + r.now * interval '1 microsecond'
                FROM accepted a CROSS JOIN LATERAL jsonb_to_record(a.argument) AS r(
                    device uuid, name text, description text, type text, provider text, "user" text, tenant text, cpu int,
                    memory int, storage int, width int, height int, dpi int, android text, tags text[],
                    metadata jsonb, made jsonb, site text, batch text, at bigint, now bigint)
                ORDER BY r.device
                ON CONFLICT (device_id) DO UPDATE
                SET external_id = excluded.external_id, made = excluded.made, updated_at = excluded.updated_at
                WHERE devices.saga_id = excluded.saga_id
                RETURNING saga_id
            ), granted AS (SELECT saga_id, NULL::text AS output FROM recorded)
            """,
        argument: { view in
            guard let request = try? DeviceRequest(decoding: view.request) else { return unreadableRequest }
            return JSONWriter.object(reserving: 384) { writer in
                writer.member("device", request.deviceID)
                writer.member("name", request.name)
                if !request.description.isEmpty { writer.member("description", request.description) }
                writer.member("type", request.type.name)
                writer.member("provider", request.provider.name)
                writer.member("user", request.userID)
                if !request.tenantID.isEmpty { writer.member("tenant", request.tenantID) }
                writer.member("cpu", request.spec.cpuCores)
                writer.member("memory", request.spec.memoryMB)
                writer.member("storage", request.spec.storageMB)
                writer.member("width", request.spec.widthPixels)
                writer.member("height", request.spec.heightPixels)
                writer.member("dpi", request.spec.dpi)
                writer.member("android", request.spec.androidVersion)
                if !request.tags.isEmpty { writer.member("tags", request.tags) }
                if !request.metadata.isEmpty { writer.member("metadata", request.metadata) }
                if let made = view.outputs[DeviceStep.createProviderDevice], !made.isEmpty {
                    writer.member("made", json: made)
                }
                if !view.batchID.isEmpty { writer.member("batch", view.batchID) }
                if let site = SiteOutput.site(view.outputs) { writer.member("site", site) }
                writer.member("at", view.createdAt.microseconds)
                writer.member("now", view.updatedAt.microseconds)
            }
        },
        refusal: nil)

    /// START_DEVICE is done: the device runs, can be reached, and is nobody's to hold. What its deletion needs to know of the
    /// creation stays with it, since the creation's own rows go some day.
    static let markRunning = SideEffect(
        name: "device_running",
        statement: """
            UPDATE devices d
            SET status = 'RUNNING', updated_at = timestamptz 'epoch' + r.now * interval '1 microsecond',
                operation_saga_id = NULL, made = r.made, host = coalesce(r.connection->>'host', ''),
                adb_port = coalesce((r.connection->>'adb')::int, 0),
                webrtc_port = coalesce((r.connection->>'webrtc')::int, 0),
                attributes = coalesce(r.connection->'attributes', '{}')
            FROM accepted a CROSS JOIN LATERAL jsonb_to_record(a.argument) AS r(device uuid, connection jsonb, made jsonb, now bigint)
            WHERE d.device_id = r.device AND d.saga_id = a.saga_id
            """,
        argument: { view in
            JSONWriter.object(reserving: 192) { writer in
                writer.member("device", view.resourceID)
                writer.member("now", view.updatedAt.microseconds)
                if let connection = view.outputs[DeviceStep.startDevice], !connection.isEmpty {
                    writer.member("connection", json: connection)
                }
                writer.member("made", json: MadeDevice(creation: view).encoded)
            }
        })

    /// The undo begins: nobody shall use the device any more.
    static let markDeleting = SideEffect(
        name: "device_deleting",
        statement: """
            UPDATE devices d SET status = 'DELETING', updated_at = saga_now()
            FROM accepted a
            WHERE d.device_id = (a.argument->>'device')::uuid AND d.saga_id = a.saga_id
            """,
        argument: device)

    /// The device is destroyed: the last pointer to it may go.
    static let remove = SideEffect(
        name: "device_remove",
        statement: """
            DELETE FROM devices d
            USING accepted a
            WHERE d.device_id = (a.argument->>'device')::uuid AND d.saga_id = a.saga_id
            """,
        argument: device)

    private static let device: @Sendable (SagaView) -> String = { view in
        JSONWriter.object(reserving: 64) { $0.member("device", view.resourceID) }
    }
}
