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

    /// The records that there are, by id.
    ///
    /// - Parameters:
    ///   - ids: UUID texts in lower case.
    ///   - deadline: of the call that they are read for; PostgreSQL gives up then.
    public func devices(
        _ ids: [String], until deadline: ContinuousClock.Instant? = nil
    ) async throws(PostgresError) -> [String: DevicePage.Entry] {
        var parameters = SQLParameters()
        parameters.appendUUIDs(Set(ids))
        var entries: [String: DevicePage.Entry] = [:]
        for row in try await self.database.run(SQLQuery(Self.find, parameters), until: deadline) {
            entries[try row.uuid(0)] = try DevicePage.Entry(row)
        }
        return entries
    }

    /// A page of devices: newest first, or by name, if it is a prefix alone by which they are found. It looks at
    /// `DeviceListing.maximumCandidates` devices at most, and says where to go on.
    ///
    /// - Parameters:
    ///   - position: where the page before it ended; `nil`: from the beginning. One of another order: an empty page.
    ///   - deadline: of the call that they are read for; PostgreSQL gives up then.
    public func list(
        _ filter: DeviceFilter, after position: DeviceCursor.Position? = nil, limit: Int,
        until deadline: ContinuousClock.Instant? = nil
    ) async throws(PostgresError) -> DevicePage {
        guard let listing = DeviceListing(filter), let query = listing.page(after: position, limit: limit) else {
            return DevicePage()
        }
        var page = DevicePage(order: listing.order)
        page.entries = try await self.database.run(query, until: deadline)
            .map { (row) throws(PostgresError) in try DevicePage.Entry(row) }
        guard page.entries.count < limit, let query = listing.lastCandidate(after: position) else { return page }
        // Short: that was all, or all among so many candidates.
        page.next = try await self.database.run(query, until: deadline).first
            .map { (row) throws(PostgresError) in try listing.position(row) }
        return page
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
}
