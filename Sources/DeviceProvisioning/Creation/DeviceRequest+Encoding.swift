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
        var writer = BinaryWriter()
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
        var writer = BinaryWriter()
        writer.byte(Self.version)
        self.write(to: &writer)
        writer.raw(ProviderOptions.encoded(options))
        return writer.bytes
    }

    private func write(to writer: inout BinaryWriter) {
        func text(_ field: Field, _ value: String, omitting usual: String = "") {
            guard value != usual else { return }
            writer.byte(field.rawValue)
            writer.string(value)
        }
        func number(_ field: Field, _ value: Int, omitting usual: Int) {
            guard value != usual else { return }
            writer.byte(field.rawValue)
            writer.unsigned(UInt32(clamping: value))
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
            writer.string(tag)
        }
        for (key, value) in self.metadata.sorted(by: { $0.key < $1.key }) {
            writer.byte(Field.metadata.rawValue)
            writer.string(key)
            writer.string(value)
        }
    }

    /// Reads what `encoded` wrote.
    public init(decoding bytes: [UInt8]) throws(DeviceDecodingError) {
        var reader = BinaryReader(bytes)
        let version = try reader.byte()
        guard version == Self.version else {
            throw DeviceDecodingError(message: "a device request of version \(version), unknown here")
        }
        var deviceID: String?
        var provider: ProviderKind?
        var request = DeviceRequest(deviceID: "", name: "", provider: .simulated, userID: "", spec: Self.omitted)
        while !reader.isAtEnd {
            let number = try reader.byte()
            guard let field = Field(rawValue: number) else {
                throw DeviceDecodingError(message: "a device request with field \(number), unknown here")
            }
            switch field {
            case .deviceID: deviceID = DeviceID.text(try reader.slice(16))
            case .name: request.name = try reader.string()
            case .description: request.description = try reader.string()
            case .type:
                guard let type = DeviceType(rawValue: Int(try reader.unsigned())) else {
                    throw DeviceDecodingError(message: "a device request with an unknown type")
                }
                request.type = type
            case .provider:
                provider = ProviderKind(rawValue: Int(try reader.unsigned()))
            case .userID: request.userID = try reader.string()
            case .tenantID: request.tenantID = try reader.string()
            case .cpuCores: request.spec.cpuCores = Int(try reader.unsigned())
            case .memoryMB: request.spec.memoryMB = Int(try reader.unsigned())
            case .storageMB: request.spec.storageMB = Int(try reader.unsigned())
            case .widthPixels: request.spec.widthPixels = Int(try reader.unsigned())
            case .heightPixels: request.spec.heightPixels = Int(try reader.unsigned())
            case .dpi: request.spec.dpi = Int(try reader.unsigned())
            case .androidVersion: request.spec.androidVersion = try reader.string()
            case .tag: request.tags.append(try reader.string())
            case .metadata:
                let key = try reader.string()
                request.metadata[key] = try reader.string()
            }
        }
        guard let deviceID, let provider else {
            throw DeviceDecodingError(message: "a device request without device or provider")
        }
        request.deviceID = deviceID
        request.provider = provider
        self = request
    }
}
