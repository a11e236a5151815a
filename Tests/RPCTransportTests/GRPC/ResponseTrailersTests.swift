import Testing

@testable import RPCTransport

/// What the peer doesn't read of a header block isn't sent: the status always is.
@Suite struct ResponseTrailersTests {
    private static let status = RPCError(
        .notFound, String(repeating: "\u{263A}", count: 300), details: Array(repeating: 1, count: 3000),
        metadata: Metadata([("x-short", "1"), ("x-long", String(repeating: "a", count: 1000))]))

    private static func names(_ limit: Int) -> [String] {
        let list = ResponseTrailers.list(
            status: Self.status, metadata: Metadata([("x-other", "2")]), limit: limit)
        #expect(limit < ResponseTrailers.constantBytes || list.listBytes <= max(limit, 44 + 240) - 240)
        var names: [String] = []
        list.forEach { name, _, _ in names.append(lossyString(name)) }
        return names
    }

    @Test func everythingFits() {
        let all = ["grpc-status", "grpc-message", "grpc-status-details-bin", "x-short", "x-long", "x-other"]
        #expect(Self.names(.max) == all)
        #expect(Self.names(8192) == all)
    }

    @Test func detailsAndMetadataGoFirst() {
        #expect(Self.names(4096) == ["grpc-status", "grpc-message", "x-short", "x-long", "x-other"])
        #expect(Self.names(2000) == ["grpc-status", "grpc-message", "x-short", "x-other"])
        #expect(Self.names(0) == ["grpc-status"])
    }

    @Test func messagesAreCutBetweenCharacters() {
        var list = ResponseTrailers.list(status: Self.status, metadata: Metadata(), limit: 400)
        var message = ""
        list.markReserved { name, value in
            if equal(name, "grpc-message") { message = StatusMessage.decode(value) }
            return false
        }
        #expect(!message.isEmpty)
        #expect(message.allSatisfy { $0 == "\u{263A}" })
    }

    @Test func trailersOfASuccess() {
        let list = ResponseTrailers.list(
            status: nil, metadata: Metadata([("x-long", String(repeating: "a", count: 1000))]), limit: 1000)
        #expect(list.fields.count == 1)
    }
}
