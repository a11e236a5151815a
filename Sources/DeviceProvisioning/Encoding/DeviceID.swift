import Glibc

/// Identities of devices: UUIDs, in lower-case text wherever they are shown.
public enum DeviceID {
    /// Mints an id that begins with the time (RFC 9562, version 7), so that rows made together lie together in the
    /// indexes. Nothing depends on the clock being right.
    public static func mint() -> String {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        var generator = SystemRandomNumberGenerator()
        return Self.mint(
            milliseconds: Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000, using: &generator)
    }

    static func mint(milliseconds: Int64, using generator: inout some RandomNumberGenerator) -> String {
        var high = UInt64(truncatingIfNeeded: milliseconds) << 16
        let random = generator.next()
        high |= 0x7000 | (random >> 52)
        let low = (generator.next() & 0x3FFF_FFFF_FFFF_FFFF) | 0x8000_0000_0000_0000
        return Self.text(high: high, low: low)
    }

    /// Whether `text` is a UUID in the canonical form (36 characters, either case).
    public static func isValid(_ text: String) -> Bool { Self.bytes(text) != nil }

    /// The canonical lower-case form; `nil` if `text` is not a UUID.
    public static func canonical(_ text: String) -> String? { Self.bytes(text).map { Self.text($0) } }

    /// The 16 bytes; `nil` if `text` is not a UUID.
    static func bytes(_ text: String) -> [UInt8]? {
        var text = text
        return text.withUTF8 { utf8 -> [UInt8]? in
            guard utf8.count == 36 else { return nil }
            var bytes: [UInt8] = []
            bytes.reserveCapacity(16)
            var index = 0
            while index < 36 {
                if index == 8 || index == 13 || index == 18 || index == 23 {
                    guard utf8[index] == UInt8(ascii: "-") else { return nil }
                    index += 1
                }
                guard let high = Self.digit(utf8[index]), let low = Self.digit(utf8[index + 1]) else { return nil }
                bytes.append(high << 4 | low)
                index += 2
            }
            return bytes
        }
    }

    /// The text of exactly 16 bytes.
    static func text(_ bytes: some Collection<UInt8>) -> String {
        var high: UInt64 = 0
        var low: UInt64 = 0
        for (index, byte) in bytes.prefix(16).enumerated() {
            if index < 8 { high = high << 8 | UInt64(byte) } else { low = low << 8 | UInt64(byte) }
        }
        return Self.text(high: high, low: low)
    }

    private static func text(high: UInt64, low: UInt64) -> String {
        String(unsafeUninitializedCapacity: 36) { buffer in
            var position = 0
            for index in 0..<16 {
                if index == 4 || index == 6 || index == 8 || index == 10 {
                    buffer[position] = UInt8(ascii: "-")
                    position += 1
                }
                let half = index < 8 ? high : low
                let byte = UInt8(truncatingIfNeeded: half >> UInt64(8 * (7 - index % 8)))
                buffer[position] = Self.hexadecimal[Int(byte >> 4)]
                buffer[position + 1] = Self.hexadecimal[Int(byte & 15)]
                position += 2
            }
            return 36
        }
    }

    private static func digit(_ byte: UInt8) -> UInt8? {
        switch byte {
        case 0x30...0x39: byte - 0x30
        case 0x41...0x46: byte - 0x41 + 10
        case 0x61...0x66: byte - 0x61 + 10
        default: nil
        }
    }

    private static let hexadecimal = Array("0123456789abcdef".utf8)
}
