public import SagaRuntime

/// The encoding of `provider_options`, whose values are secrets: `NewSaga.secrets`, erased when the saga ends.
public enum ProviderOptions {
    private static let version: UInt8 = 1

    /// Empty if there are none; equal dictionaries give equal bytes.
    public static func encoded(_ options: [String: String]) -> [UInt8] {
        guard !options.isEmpty else { return [] }
        var writer = ByteWriter()
        writer.byte(Self.version)
        for (key, value) in options.sorted(by: { $0.key < $1.key }) {
            writer.text(key)
            writer.text(value)
        }
        return writer.bytes
    }

    public static func decode(_ bytes: [UInt8]) throws(StoredDataError) -> [String: String] {
        guard !bytes.isEmpty else { return [:] }
        var reader = ByteReader(bytes)
        let version = try reader.byte()
        guard version == Self.version else {
            throw StoredDataError(message: "provider options of version \(version), unknown here")
        }
        var options: [String: String] = [:]
        while !reader.isAtEnd {
            let key = try reader.text()
            options[key] = try reader.text()
        }
        return options
    }
}
