public import SagaRuntime

/// A port that is held.
public struct AllocatedPort: Sendable, Equatable {
    public enum Kind: String, Sendable, CaseIterable {
        case adb, webrtc
    }

    public var host: String
    public var kind: Kind
    public var port: Int
    /// UUID text.
    public var deviceID: String
    public var sagaID: String
    /// The pair that it belongs to.
    var adbPort: Int
}

/// Where a page of ports ended: the next one begins after it.
public struct PortCursor: Sendable, Equatable {
    var host = ""
    var adbPort = 0
    /// The place within a pair.
    var place = 0

    /// After this port.
    public init(_ port: AllocatedPort) {
        self.host = port.host
        self.adbPort = port.adbPort
        self.place = port.kind == .adb ? 0 : 1
    }

    /// Reads `text`; empty means the beginning, `nil` what is not a cursor.
    public init?(_ text: String) {
        if text.isEmpty { return }
        let parts = text.split(separator: ".", maxSplits: 2, omittingEmptySubsequences: false)
        guard parts.count == 3, let adbPort = Int(parts[0]), (1...65535).contains(adbPort), let place = Int(parts[1]),
            (0...1).contains(place)
        else { return nil }
        self.host = String(parts[2])
        self.adbPort = adbPort
        self.place = place
    }

    public var text: String { "\(self.adbPort).\(self.place).\(self.host)" }
}

/// Reads which ports are held, and by whom.
public struct PortStore: Sendable {
    private let database: PostgresPool

    public init(database: PostgresPool) { self.database = database }

    /// By host, pair and kind.
    private static let page = SQLStatement(
        "port_page",
        """
        SELECT p.host, k.kind, k.port, p.device_id, p.saga_id, p.adb_port
        FROM port p, LATERAL (VALUES ('adb', p.adb_port, 0), ('webrtc', p.webrtc_port, 1)) AS k(kind, port, place)
        WHERE p.saga_id IS NOT NULL AND ($1 = '' OR p.host = $1)
            AND (p.host, p.adb_port) >= ($2, $3) AND (p.host, p.adb_port, k.place) > ($2, $3, $4)
        ORDER BY p.host, p.adb_port, k.place LIMIT $5
        """)

    /// A page of the ports that are held, by host and number.
    ///
    /// - Parameters:
    ///   - host: empty: every host.
    ///   - cursor: where the page before it ended.
    ///   - deadline: of the call that they are read for; PostgreSQL gives up then.
    public func list(
        host: String, after cursor: PortCursor, limit: Int, until deadline: ContinuousClock.Instant? = nil
    ) async throws(PostgresError) -> [AllocatedPort] {
        var parameters = SQLParameters()
        parameters.append(host)
        parameters.append(cursor.host)
        parameters.append(Int32(clamping: cursor.adbPort))
        parameters.append(Int32(clamping: cursor.place))
        parameters.append(Int64(max(limit, 0)))
        return try await self.database.run(SQLQuery(Self.page, parameters), until: deadline)
            .map { (row) throws(PostgresError) in
                AllocatedPort(
                    host: try row.text(0), kind: AllocatedPort.Kind(rawValue: try row.text(1)) ?? .adb,
                    port: Int(try row.int32(2)), deviceID: try row.uuid(3), sagaID: try row.text(4),
                    adbPort: Int(try row.int32(5)))
            }
    }
}
