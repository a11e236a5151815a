import NIOCore

extension InvalidRequest {
    /// A token that holds no position of the list.
    static let badPageToken = InvalidRequest([
        GoogleRPC.FieldViolation(
            field: "page_token", explanation: "must be the next_page_token of the same list with the same filters")
    ])
}

/// Which page of a list is asked for.
public struct PageRequest: Sendable, Equatable {
    /// Records at most, 1 to 1000.
    public var size: Int
    /// The key of the last record of the page before; `nil`: the first page.
    public var cursor: String?

    /// Identifies the filters, so that a token is refused beside others.
    private var filterHash: UInt64

    /// - Parameter filters: the request without page size and token.
    init(size: UInt32, token: String, filters: some ProtobufMessage, _ checker: inout FieldChecker) {
        self.size = checker.pageSize(size)
        // FNV-1a: a check against mistakes, not against malice; every page is filtered by permission anew.
        self.filterHash = filters.encoded().readableBytesView.reduce(0xcbf2_9ce4_8422_2325) {
            ($0 ^ UInt64($1)) &* 0x100_0000_01b3
        }
        guard !token.isEmpty else { return }
        self.cursor = Self.decode(token, self.filterHash)
        if self.cursor == nil {
            checker.violated("page_token", "must be the next_page_token of the same list with the same filters")
        }
    }

    /// The token of the page after the record with the key `cursor`.
    public func token(after cursor: String) -> String {
        var buffer = ByteBuffer()
        buffer.writeInteger(Self.version)
        buffer.writeInteger(self.filterHash)
        buffer.writeString(cursor)
        let text = Base64Text.encode(Array(buffer.readableBytesView))
        return String(text.map { $0 == "+" ? "-" : $0 == "/" ? "_" : $0 }.prefix { $0 != "=" })
    }

    private static let version: UInt8 = 1

    private static func decode(_ token: String, _ filterHash: UInt64) -> String? {
        guard token.utf8.count <= 1024, let bytes = Base64Text.decode(token) else { return nil }
        var buffer = ByteBuffer(bytes: bytes)
        guard buffer.readInteger(as: UInt8.self) == Self.version, buffer.readInteger(as: UInt64.self) == filterHash,
            let cursor = try? buffer.readUTF8ValidatedString(length: buffer.readableBytes), !cursor.utf8.contains(0)
        else { return nil }
        return cursor
    }
}
