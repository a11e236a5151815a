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
    ///   - position: where the page before it ended; `nil`: from the newest on.
    public func list(
        userID: String, statuses: [String] = [], provider: ProviderKind? = nil,
        after position: DeviceCursor.Position? = nil,
        limit: Int
    ) async throws(PostgresError) -> [DeviceRecord] {
        var parameters = SQLParameters()
        parameters.append(position?.createdAt ?? Timestamp.infinity)
        parameters.append(uuid: position?.deviceID ?? "ffffffff-ffff-ffff-ffff-ffffffffffff")
        parameters.append(array: statuses.isEmpty ? DeviceStatus.allCases.map(\.name) : statuses)
        parameters.append(provider?.name)
        parameters.append(Int64(max(limit, 0)))
        if !userID.isEmpty { parameters.append(userID) }
        let statement = userID.isEmpty ? Self.listAll : Self.listOfUser
        return try await self.database.run(SQLQuery(statement, parameters))
            .map { (row) throws(PostgresError) in try DeviceRecord(row) }
    }

    private static func devices(
        _ ids: [String], _ database: PostgresPool
    ) async -> [Result<DeviceRecord?, PostgresError>] {
        var parameters = SQLParameters()
        parameters.appendUUIDs(Set(ids))
        do throws(PostgresError) {
            var records: [String: DeviceRecord] = [:]
            for row in try await database.run(SQLQuery(Self.find, parameters)) {
                let record = try DeviceRecord(row)
                records[record.deviceID] = record
            }
            return ids.map { .success(records[$0]) }
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

    private static func list(_ name: String, where condition: String) -> SQLStatement {
        SQLStatement(
            name,
            """
            SELECT \(DeviceRecord.columns)
            FROM devices d
            WHERE \(condition)(d.created_at, d.device_id) < ($1, $2) AND d.status = ANY ($3::text[])
                AND ($4::text IS NULL OR d.provider = $4)
            ORDER BY d.created_at DESC, d.device_id DESC
            LIMIT $5
            """)
    }

    private static let listAll = DeviceStore.list("device_list", where: "")
    private static let listOfUser = DeviceStore.list("device_list_user", where: "d.user_id = $6 AND ")
}
