/// Base64 as `-bin` metadata has it: standard alphabet, padding accepted and never emitted (PROTOCOL-HTTP2.md).
enum Base64 {
    private static let alphabet: [UInt8] = Array(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)

    private static let values: [UInt8] = {
        var values = [UInt8](repeating: 0xFF, count: 256)
        for (value, character) in Self.alphabet.enumerated() { values[Int(character)] = UInt8(value) }
        return values
    }()

    static func encode(_ bytes: some Collection<UInt8>) -> [UInt8] {
        var text: [UInt8] = []
        text.reserveCapacity((bytes.count * 4 + 2) / 3)
        var bits: UInt32 = 0
        var bitCount = 0
        for byte in bytes {
            bits = bits << 8 | UInt32(byte)
            bitCount += 8
            while bitCount >= 6 {
                bitCount -= 6
                text.append(Self.alphabet[Int(bits >> UInt32(bitCount) & 0x3F)])
            }
        }
        if bitCount > 0 { text.append(Self.alphabet[Int(bits << UInt32(6 - bitCount) & 0x3F)]) }
        return text
    }

    /// Whether `decode` would find bytes in each part of a list between commas, spaces around the parts aside.
    static func isValidList(_ text: UnsafeBufferPointer<UInt8>) -> Bool {
        var characters = 0
        var padding = 0
        var hasEnded = false
        for index in 0...text.count {
            guard index < text.count, text[index] != UInt8(ascii: ",") else {
                guard Self.isWhole(characters, padding) else { return false }
                (characters, padding, hasEnded) = (0, 0, false)
                continue
            }
            switch text[index] {
            case UInt8(ascii: " "): hasEnded = characters + padding > 0
            case UInt8(ascii: "="):
                if hasEnded { return false }
                padding += 1
            case let character:
                if hasEnded || padding > 0 || Self.values[Int(character)] == 0xFF { return false }
                characters += 1
            }
        }
        return true
    }

    /// A lone character holds no byte; padding, if there is any, fills up to a multiple of four.
    private static func isWhole(_ characters: Int, _ padding: Int) -> Bool {
        characters % 4 != 1 && (padding == 0 || (padding <= 2 && (characters + padding) % 4 == 0))
    }

    /// The bytes, or nil if the text is no base64.
    static func decode(_ text: some Collection<UInt8>) -> [UInt8]? {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(text.count * 3 / 4)
        var bits: UInt32 = 0
        var bitCount = 0
        var characters = 0
        var padding = 0
        for character in text {
            if character == UInt8(ascii: "=") {
                padding += 1
                continue
            }
            let value = Self.values[Int(character)]
            guard value != 0xFF, padding == 0 else { return nil }
            characters += 1
            bits = bits << 6 | UInt32(value)
            bitCount += 6
            if bitCount >= 8 {
                bitCount -= 8
                bytes.append(UInt8(truncatingIfNeeded: bits >> UInt32(bitCount)))
            }
        }
        return Self.isWhole(characters, padding) ? bytes : nil
    }
}
