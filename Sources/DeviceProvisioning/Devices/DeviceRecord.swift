public import SagaRuntime

/// What a list shows of a row of `devices` that this binary can't read: damaged, or of a newer version.
public struct DeviceOutline: Sendable, Equatable {
    /// UUID text.
    public var deviceID: String
    public var name: String
    public var userID: String
    public var tenantID: String
    public var createdAt: Timestamp
    /// What is wrong with it, for the log.
    public var problem: String
}

/// A row of `devices`.
public struct DeviceRecord: Sendable, Equatable {
    /// UUID text.
    public var deviceID: String
    public var name: String
    public var description: String
    public var type: DeviceType
    public var status: DeviceStatus
    public var provider: ProviderKind
    public var userID: String
    public var tenantID: String
    public var spec: DeviceSpec
    public var tags: [String]
    public var metadata: [String: String]
    /// The provider's own id; empty until known.
    public var externalID: String
    /// How to reach it; `nil` until it runs.
    public var connection: DeviceConnection?
    /// The saga that last changed it.
    public var sagaID: String
    /// The saga that created it: the provider's labels and its ports name it.
    public var creationSagaID: String
    /// The saga that holds it; empty: none, or the creation of an older program.
    public var operationSagaID: String
    /// Where it was made; empty: not known.
    public var site: String
    /// Its creation's; empty: none, or it was made by an older program.
    public var batchID: String
    /// Why its status is what it is; empty: there is nothing to say.
    public var statusReason: String
    public var createdAt: Timestamp
    public var updatedAt: Timestamp
}

extension DeviceRecord {
    /// The columns of a row, in the order in which `init(_:)` reads them.
    static let columns = """
        d.device_id, d.name, d.description, d.type, d.status, d.provider, d.user_id, d.tenant_id, d.cpu_cores, d.memory_mb, \
        d.storage_mb, d.width_px, d.height_px, d.dpi, d.android_version, d.tags, d.metadata, d.external_id, d.host, \
        d.adb_port, d.webrtc_port, d.attributes, d.saga_id, d.created_at, d.updated_at, coalesce(d.operation_saga_id, ''), \
        coalesce(d.site, ''), d.status_reason, coalesce(d.changed_by_saga_id, d.saga_id), coalesce(d.batch_id, '')
        """

    /// The saga that keeps others from it; empty: none. Creations of older programs don't say that they do.
    public var holder: String {
        if !self.operationSagaID.isEmpty { return self.operationSagaID }
        return self.status == .creating || self.status == .deleting ? self.creationSagaID : ""
    }

    static func outline(_ row: SQLRow, _ problem: PostgresError) throws(PostgresError) -> DeviceOutline {
        DeviceOutline(
            deviceID: try row.uuid(0), name: try row.text(1), userID: try row.text(6), tenantID: try row.text(7),
            createdAt: try row.timestamp(23), problem: "\(problem)")
    }

    init(_ row: SQLRow) throws(PostgresError) {
        guard let type = DeviceType(name: try row.text(3)), let status = DeviceStatus(name: try row.text(4)),
            let provider = ProviderKind(name: try row.text(5))
        else { throw PostgresError(.decoding, "a device of a type, status or provider that is unknown here") }
        self.deviceID = try row.uuid(0)
        self.name = try row.text(1)
        self.description = try row.text(2)
        self.type = type
        self.status = status
        self.provider = provider
        self.userID = try row.text(6)
        self.tenantID = try row.text(7)
        self.spec = DeviceSpec(
            cpuCores: Int(try row.int32(8)), memoryMB: Int(try row.int32(9)), storageMB: Int(try row.int32(10)),
            widthPixels: Int(try row.int32(11)), heightPixels: Int(try row.int32(12)), dpi: Int(try row.int32(13)),
            androidVersion: try row.text(14))
        self.tags = try row.textArray(15)
        self.metadata = try Self.strings(row, 16)
        self.externalID = try row.text(17)
        let connection = DeviceConnection(
            host: try row.text(18), adbPort: Int(try row.int32(19)), webRTCPort: Int(try row.int32(20)),
            attributes: try Self.strings(row, 21))
        self.connection =
            connection == DeviceConnection(host: "", adbPort: 0, webRTCPort: 0) ? nil : connection
        self.creationSagaID = try row.text(22)
        self.createdAt = try row.timestamp(23)
        self.updatedAt = try row.timestamp(24)
        self.operationSagaID = try row.text(25)
        self.site = try row.text(26)
        self.statusReason = try row.text(27)
        self.sagaID = try row.text(28)
        self.batchID = try row.text(29)
    }

    private static func strings(_ row: SQLRow, _ column: Int) throws(PostgresError) -> [String: String] {
        let text = try row.text(column)
        if text == "{}" { return [:] }
        guard let strings = (try? JSONValue(parsing: text))?.strings else {
            throw PostgresError(.decoding, "column \(column) is not an object of strings")
        }
        return strings
    }
}
