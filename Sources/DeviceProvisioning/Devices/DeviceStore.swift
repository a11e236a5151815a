public import SagaRuntime

/// Reads the records of devices. Look-ups that come together share a query.
public final class DeviceStore: Sendable {
    private let database: PostgresPool
    private let lookups: Batcher<String, DeviceRecord?, PostgresError>

    public init(database: PostgresPool) {
        self.database = database
        self.lookups = Batcher(
            maximumBatch: 256, maximumInFlight: 4, maximumQueued: 100_000,
            overflow: PostgresError(.overloaded, "too many look-ups of devices"),
            perform: { await Self.devices($0, database) })
    }

    /// - Parameter id: UUID text.
    public func device(_ id: String) async throws(PostgresError) -> DeviceRecord? {
        guard let id = DeviceID.canonical(id) else { return nil }
        return try await self.lookups.submit(id)
    }

    /// A page of devices, newest first.
    ///
    /// - Parameters:
    ///   - userID: empty: of every user.
    ///   - statuses: names without prefix, e.g. `RUNNING`; empty: all.
    ///   - provider: `nil`: all.
    ///   - visibility: what is outside of it is left out.
    ///   - position: where the page before it ended; `nil`: from the newest on.
    ///   - deadline: of the call that they are read for; PostgreSQL gives up then.
    public func list(
        userID: String, statuses: [String] = [], provider: ProviderKind? = nil, visibility: Visibility = .all,
        after position: DeviceCursor.Position? = nil,
        limit: Int, until deadline: ContinuousClock.Instant? = nil
    ) async throws(PostgresError) -> [DeviceRecord] {
        var parameters = SQLParameters()
        parameters.append(position?.createdAt ?? Timestamp.infinity)
        parameters.append(uuid: position?.deviceID ?? "ffffffff-ffff-ffff-ffff-ffffffffffff")
        parameters.append(array: statuses.isEmpty ? DeviceStatus.allCases.map(\.name) : statuses)
        parameters.append(provider?.name)
        parameters.append(Int64(max(limit, 0)))
        let statement: SQLStatement
        switch (visibility, userID.isEmpty) {
        case (.all, true): statement = Self.listAll
        case (.user(let user), true):
            parameters.append(user)
            statement = Self.listOfUser
        case (.tenant(let tenant, let user), true):
            parameters.append(user)
            parameters.append(tenant)
            statement = Self.listOfTenant
        case (.user(let user), false):
            guard Visibility.isSame(userID, user) else { return [] }
            parameters.append(userID)
            statement = Self.listOfUser
        case (.tenant(let tenant, let user), false):
            parameters.append(userID)
            // One's own are seen in whatever tenant they are.
            parameters.append(Visibility.isSame(userID, user) ? nil : tenant)
            statement = Self.listOfTenantsUser
        case (.all, false):
            parameters.append(userID)
            statement = Self.listOfUser
        }
        return try await self.database.run(SQLQuery(statement, parameters), until: deadline)
            .map { (row) throws(PostgresError) in try DeviceRecord(row) }
    }

    private static func devices(
        _ ids: [String], _ database: PostgresPool
    ) async -> [Result<DeviceRecord?, PostgresError>] {
        var parameters = SQLParameters()
        parameters.appendUUIDs(Set(ids))
        do throws(PostgresError) {
            var records: [String: Result<DeviceRecord?, PostgresError>] = [:]
            for row in try await database.run(SQLQuery(Self.find, parameters)) {
                // What is wrong with one is no reason to fail the others that were asked for at the same time.
                do throws(PostgresError) {
                    let record = try DeviceRecord(row)
                    records[record.deviceID] = .success(record)
                } catch {
                    records[try row.uuid(0)] = .failure(error)
                }
            }
            return ids.map { records[$0] ?? .success(nil) }
        } catch {
            return ids.map { _ in .failure(error) }
        }
    }

    // MARK: SQL

    private static let find = SQLStatement(
        "device_find",
        """
        SELECT \(DeviceRecord.columns)
        FROM unnest($1::uuid[]) AS i(device_id) JOIN devices d ON d.device_id = i.device_id
        """)

    private static func page(where condition: String) -> String {
        """
        SELECT \(DeviceRecord.columns)
        FROM devices d
        WHERE \(condition)(d.created_at, d.device_id) < ($1, $2) AND d.status = ANY ($3::text[])
            AND ($4::text IS NULL OR d.provider = $4)
        ORDER BY d.created_at DESC, d.device_id DESC
        LIMIT $5
        """
    }

    private static let listAll = SQLStatement("device_list", DeviceStore.page(where: ""))
    private static let listOfUser = SQLStatement("device_list_user", DeviceStore.page(where: "d.user_id = $6 AND "))
    private static let listOfTenantsUser = SQLStatement(
        "device_list_tenants_user",
        DeviceStore.page(where: "d.user_id = $6 AND ($7::text IS NULL OR d.tenant_id = $7) AND "))

    /// A page from each of two indexes, and of both together the newest.
    private static let listOfTenant = SQLStatement(
        "device_list_tenant",
        """
        SELECT v.* FROM (
            (\(DeviceStore.page(where: "d.tenant_id = $7 AND d.tenant_id <> '' AND d.user_id <> $6 AND ")))
            UNION ALL (\(DeviceStore.page(where: "d.user_id = $6 AND ")))
        ) AS v
        ORDER BY v.created_at DESC, v.device_id DESC
        LIMIT $5
        """)
}
