/// The server's numbers of the types that this module speaks (pg_type.dat; they never change).
enum PostgresType {
    static let bool: UInt32 = 16
    static let bytea: UInt32 = 17
    static let name: UInt32 = 19
    static let int8: UInt32 = 20
    static let int2: UInt32 = 21
    static let int4: UInt32 = 23
    static let text: UInt32 = 25
    static let oid: UInt32 = 26
    static let json: UInt32 = 114
    static let float4: UInt32 = 700
    static let float8: UInt32 = 701
    static let unknown: UInt32 = 705
    static let boolArray: UInt32 = 1000
    static let byteaArray: UInt32 = 1001
    static let int2Array: UInt32 = 1005
    static let int4Array: UInt32 = 1007
    static let textArray: UInt32 = 1009
    static let int8Array: UInt32 = 1016
    static let float8Array: UInt32 = 1022
    static let bpchar: UInt32 = 1042
    static let varchar: UInt32 = 1043
    static let timestamptz: UInt32 = 1184
    static let timestamptzArray: UInt32 = 1185
    static let uuid: UInt32 = 2950
    static let uuidArray: UInt32 = 2951
    static let void: UInt32 = 2278
    static let jsonb: UInt32 = 3802
    static let xid8: UInt32 = 5069

    /// Types assigned at initdb time and later (enums, domains' bases, …) start here: FirstNormalObjectId.
    static let firstUserDefined: UInt32 = 16384

    /// 2000-01-01T00:00:00Z in microseconds since the Unix epoch: where `timestamptz` counts from.
    static let epochMicroseconds: Int64 = 946_684_800_000_000
}

extension Timestamp {
    /// As `timestamptz` holds it; `Int64.max` and `Int64.min` are infinity and -infinity on both sides.
    var sinceDatabaseEpoch: Int64 {
        if self.microseconds == .max || self.microseconds == .min { return self.microseconds }
        return self.microseconds.subtractingReportingOverflow(PostgresType.epochMicroseconds).overflow
            ? .min : self.microseconds - PostgresType.epochMicroseconds
    }

    init(sinceDatabaseEpoch value: Int64) {
        if value == .max || value == .min {
            self.init(microseconds: value)
        } else {
            let (sum, overflow) = value.addingReportingOverflow(PostgresType.epochMicroseconds)
            self.init(microseconds: overflow ? .max : sum)
        }
    }

    /// Later than every other instant: `infinity`.
    public static let infinity = Timestamp(microseconds: .max)
}

/// 16 bytes of a UUID to and from its text.
enum UUIDText {
    /// Reads the canonical form (8-4-4-4-12 hexadecimal digits, either case); appends 16 bytes to `bytes`.
    ///
    /// - Returns: false, with nothing appended, if `text` is not of that form.
    static func append(_ text: String, to bytes: inout [UInt8]) -> Bool {
        let start = bytes.count
        var high: UInt8?
        var position = 0
        for character in text.utf8 {
            if position == 8 || position == 13 || position == 18 || position == 23 {
                guard character == UInt8(ascii: "-") else { break }
            } else {
                guard let digit = Self.value(of: character) else { break }
                if let first = high {
                    bytes.append(first << 4 | digit)
                    high = nil
                } else {
                    high = digit
                }
            }
            position += 1
        }
        if position == 36 && text.utf8.count == 36 { return true }
        bytes.removeSubrange(start...)
        return false
    }

    /// The canonical lower-case form of 16 bytes.
    static func text(_ bytes: UnsafeRawBufferPointer) -> String {
        String(unsafeUninitializedCapacity: 36) { buffer in
            var position = 0
            for (index, byte) in bytes.prefix(16).enumerated() {
                if index == 4 || index == 6 || index == 8 || index == 10 {
                    buffer[position] = UInt8(ascii: "-")
                    position += 1
                }
                buffer[position] = Self.digit(byte >> 4)
                buffer[position + 1] = Self.digit(byte & 15)
                position += 2
            }
            return position
        }
    }

    private static func digit(_ value: UInt8) -> UInt8 { value < 10 ? 48 + value : 87 + value }
    private static func value(of character: UInt8) -> UInt8? {
        switch character {
        case 48...57: character - 48
        case 97...102: character - 87
        case 65...70: character - 55
        default: nil
        }
    }
}
