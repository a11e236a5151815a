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

    /// A page of devices, newest first. It looks at `maximumCandidates` devices at most, and says where to go on.
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
    ) async throws(PostgresError) -> DevicePage {
        guard let owners = Owners(userID: userID, visibility: visibility) else {
            return DevicePage(entries: [], next: nil)
        }
        let isRare = !statuses.isEmpty && !statuses.contains(DeviceStatus.running.name)
        var parameters = SQLParameters()
        parameters.append(position?.createdAt ?? Timestamp.infinity)
        parameters.append(uuid: position?.deviceID ?? "ffffffff-ffff-ffff-ffff-ffffffffffff")
        owners.append(to: &parameters)
        var page = parameters
        page.append(Int64(Self.maximumCandidates))
        page.append(array: statuses)
        page.append(provider?.name)
        page.append(Int64(max(limit, 0)))
        let entries = try await self.database.run(SQLQuery(owners.page(isRare: isRare), page), until: deadline)
            .map { (row) throws(PostgresError) -> DevicePage.Entry in
                do throws(PostgresError) {
                    return .device(try DeviceRecord(row))
                } catch {
                    // One that can't be read keeps nobody from the others.
                    return .unreadable(try DeviceRecord.outline(row, error))
                }
            }
        guard entries.count < limit else { return DevicePage(entries: entries, next: nil) }
        // Short: that was all, or all among so many candidates.
        parameters.append(Int64(Self.maximumCandidates - 1))
        let last = try await self.database.run(
            SQLQuery(owners.lastCandidate(isRare: isRare), parameters), until: deadline)
        return DevicePage(
            entries: entries,
            next: try last.first.map { (row) throws(PostgresError) in
                DeviceCursor.Position(createdAt: try row.timestamp(0), deviceID: try row.uuid(1))
            })
    }

    /// Devices that a page looks at.
    static let maximumCandidates = 4096

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
