/// `grpc-message`: UTF-8, with everything but %x20-7E, and `%` itself, percent-encoded (PROTOCOL-HTTP2.md, Responses).
enum StatusMessage {
    private static let hex: [UInt8] = Array("0123456789ABCDEF".utf8)

    /// Encodes at most `limit` bytes of output, never half a character.
    static func encode(_ message: String, limit: Int = 4096) -> [UInt8] {
        var encoded: [UInt8] = []
        for character in message.unicodeScalars {
            let before = encoded.count
            for byte in UTF8.encode(character) ?? UTF8.encodedReplacementCharacter {
                if (0x20...0x7E).contains(byte), byte != UInt8(ascii: "%") {
                    encoded.append(byte)
                } else {
                    encoded.append(UInt8(ascii: "%"))
                    encoded.append(Self.hex[Int(byte >> 4)])
                    encoded.append(Self.hex[Int(byte & 0xF)])
                }
            }
            if encoded.count > limit {
                encoded.removeSubrange(before...)
                break
            }
        }
        return encoded
    }

    /// Decodes leniently: what is no percent-encoding stays as it is, invalid UTF-8 becomes U+FFFD.
    static func decode(_ encoded: UnsafeBufferPointer<UInt8>) -> String {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(encoded.count)
        var index = 0
        while index < encoded.count {
            if encoded[index] == UInt8(ascii: "%"), index + 2 < encoded.count,
                let high = Self.value(encoded[index + 1]), let low = Self.value(encoded[index + 2])
            {
                bytes.append(high << 4 | low)
                index += 3
            } else {
                bytes.append(encoded[index])
                index += 1
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    private static func value(_ digit: UInt8) -> UInt8? {
        switch digit {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): digit - UInt8(ascii: "0")
        case UInt8(ascii: "A")...UInt8(ascii: "F"): digit - UInt8(ascii: "A") + 10
        case UInt8(ascii: "a")...UInt8(ascii: "f"): digit - UInt8(ascii: "a") + 10
        default: nil
        }
    }
}
