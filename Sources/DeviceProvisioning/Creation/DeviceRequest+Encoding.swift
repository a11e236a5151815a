public import SagaRuntime

// Stored with every saga, so it is small: a version, then fields as (number, value), those with their usual value left
// out. A plain request takes about 50 bytes.

extension DeviceRequest {
    private static let version: UInt8 = 1

    private enum Field: UInt8 {
        case deviceID = 1
        case name = 2
        case description = 3
        case type = 4
        case provider = 5
        case userID = 6
        case tenantID = 7
        case cpuCores = 8
        case memoryMB = 9
        case storageMB = 10
        case widthPixels = 11
        case heightPixels = 12
        case dpi = 13
        case androidVersion = 14
        case tag = 15
        case metadata = 16
    }

    /// What version 1 leaves out. Frozen: rows were written by it, whatever the contract's defaults are today.
    private static let omitted = DeviceSpec(
        cpuCores: 2, memoryMB: 4096, storageMB: 10240, widthPixels: 1920, heightPixels: 1080, dpi: 240,
        androidVersion: "11")

    /// The payload for `NewSaga.request`.
    public func encoded() -> [UInt8] {
        var writer = ByteWriter()
        writer.byte(Self.version)
        if let bytes = DeviceID.bytes(self.deviceID) {
            writer.byte(Field.deviceID.rawValue)
            writer.raw(bytes)
        }
        self.write(to: &writer)
        return writer.bytes
    }

    /// What two requests have in common if they ask for the same: everything but the device's id. Input of the digest
    /// that `request_id` is compared by; equal values give equal bytes.
    public func fingerprint(options: [String: String]) -> [UInt8] {
        var writer = ByteWriter()
        writer.byte(Self.version)
        self.write(to: &writer)
        writer.raw(ProviderOptions.encoded(options))
        return writer.bytes
    }

    private func write(to writer: inout ByteWriter) {
        func text(_ field: Field, _ value: String, omitting usual: String = "") {
            guard value != usual else { return }
            writer.byte(field.rawValue)
            writer.text(value)
        }
        func number(_ field: Field, _ value: Int, omitting usual: Int) {
            guard value != usual else { return }
            writer.byte(field.rawValue)
            writer.unsigned(UInt64(UInt32(clamping: value)))
        }
        text(.name, self.name)
        text(.description, self.description)
        number(.type, self.type.rawValue, omitting: DeviceType.phone.rawValue)
        number(.provider, self.provider.rawValue, omitting: 0)
        text(.userID, self.userID)
        text(.tenantID, self.tenantID)
        number(.cpuCores, self.spec.cpuCores, omitting: Self.omitted.cpuCores)
        number(.memoryMB, self.spec.memoryMB, omitting: Self.omitted.memoryMB)
        number(.storageMB, self.spec.storageMB, omitting: Self.omitted.storageMB)
        number(.widthPixels, self.spec.widthPixels, omitting: Self.omitted.widthPixels)
        number(.heightPixels, self.spec.heightPixels, omitting: Self.omitted.heightPixels)
        number(.dpi, self.spec.dpi, omitting: Self.omitted.dpi)
        text(.androidVersion, self.spec.androidVersion, omitting: Self.omitted.androidVersion)
        for tag in self.tags {
            writer.byte(Field.tag.rawValue)
            writer.text(tag)
        }
        for (key, value) in self.metadata.sorted(by: { $0.key < $1.key }) {
            writer.byte(Field.metadata.rawValue)
            writer.text(key)
            writer.text(value)
        }
    }

    /// Reads what `encoded` wrote.
    public init(decoding bytes: [UInt8]) throws(StoredDataError) {
        var reader = ByteReader(bytes)
        let version = try reader.byte()
        guard version == Self.version else {
            throw StoredDataError(message: "a device request of version \(version), unknown here")
        }
        var deviceID: String?
        var provider: ProviderKind?
        var request = DeviceRequest(deviceID: "", name: "", provider: .simulated, userID: "", spec: Self.omitted)
        while !reader.isAtEnd {
            let number = try reader.byte()
            guard let field = Field(rawValue: number) else {
                throw StoredDataError(message: "a device request with field \(number), unknown here")
            }
            switch field {
            case .deviceID: deviceID = DeviceID.text(try reader.raw(16))
            case .name: request.name = try reader.text()
            case .description: request.description = try reader.text()
            case .type:
                guard let type = DeviceType(rawValue: try reader.count(limit: UInt64(UInt32.max))) else {
                    throw StoredDataError(message: "a device request with an unknown type")
                }
                request.type = type
            case .provider:
                provider = ProviderKind(rawValue: try reader.count(limit: UInt64(UInt32.max)))
            case .userID: request.userID = try reader.text()
            case .tenantID: request.tenantID = try reader.text()
            case .cpuCores: request.spec.cpuCores = try reader.count(limit: UInt64(UInt32.max))
            case .memoryMB: request.spec.memoryMB = try reader.count(limit: UInt64(UInt32.max))
            case .storageMB: request.spec.storageMB = try reader.count(limit: UInt64(UInt32.max))
            case .widthPixels: request.spec.widthPixels = try reader.count(limit: UInt64(UInt32.max))
            case .heightPixels: request.spec.heightPixels = try reader.count(limit: UInt64(UInt32.max))
            case .dpi: request.spec.dpi = try reader.count(limit: UInt64(UInt32.max))
            case .androidVersion: request.spec.androidVersion = try reader.text()
            case .tag: request.tags.append(try reader.text())
            case .metadata:
                let key = try reader.text()
                request.metadata[key] = try reader.text()
            }
        }
        guard let deviceID, let provider else {
            throw StoredDataError(message: "a device request without device or provider")
        }
        request.deviceID = deviceID
        request.provider = provider
        self = request
    }
}
