/// The encoding of `provider_options`, whose values are secrets: `NewSaga.secrets`, erased when the saga ends.
public enum ProviderOptions {
    private static let version: UInt8 = 1

    /// Empty if there are none; equal dictionaries give equal bytes.
    public static func encoded(_ options: [String: String]) -> [UInt8] {
        guard !options.isEmpty else { return [] }
        var writer = BinaryWriter()
        writer.byte(Self.version)
        for (key, value) in options.sorted(by: { $0.key < $1.key }) {
            writer.string(key)
            writer.string(value)
        }
        return writer.bytes
    }

    public static func decode(_ bytes: [UInt8]) throws(DeviceDecodingError) -> [String: String] {
        guard !bytes.isEmpty else { return [:] }
        var reader = BinaryReader(bytes)
        let version = try reader.byte()
        guard version == Self.version else {
            throw DeviceDecodingError(message: "provider options of version \(version), unknown here")
        }
        var options: [String: String] = [:]
        while !reader.isAtEnd {
            let key = try reader.string()
            options[key] = try reader.string()
        }
        return options
    }
}
