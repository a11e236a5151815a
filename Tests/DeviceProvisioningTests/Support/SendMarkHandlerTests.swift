import NIOCore
import NIOEmbedded
import NIOHTTP1
import SagaRuntime
import Testing

@testable import DeviceProvisioning

/// AsyncHTTPClient flushes after each part of a request.
@Suite struct SendMarkHandlerTests {
    private let marks = SendMarks()

    /// How many bytes of a request's body, beside its head, have left after each part.
    private func left(_ parts: [HTTPClientRequestPart]) throws -> [Int] {
        let channel = EmbeddedChannel()
        defer { _ = try? channel.finish(acceptAlreadyClosed: true) }
        try channel.pipeline.syncOperations.addHandler(SendMarkHandler(self.marks))
        var heads = 0
        var bytes = 0
        return try parts.map { part in
            channel.writeAndFlush(part, promise: nil)
            while let sent = try channel.readOutbound(as: HTTPClientRequestPart.self) {
                switch sent {
                case .head: heads += 1
                case .body(let body): bytes += body.readableBytes
                case .end: break
                }
            }
            return heads == 0 ? -1 : bytes
        }
    }

    private func head() -> HTTPClientRequestPart {
        let (name, _) = self.marks.issue { () throws(StepError) in }
        return .head(
            HTTPRequestHead(version: .http1_1, method: .POST, uri: "/", headers: [SendMarks.header: String(name)]))
    }

    private static func body(_ bytes: Int) -> HTTPClientRequestPart {
        .body(.byteBuffer(ByteBuffer(repeating: 0, count: bytes)))
    }

    @Test func aSmallRequestLeavesAtOnce() throws {
        #expect(try self.left([self.head(), Self.body(100), .end(nil)]) == [-1, -1, 100])
        #expect(try self.left([self.head(), .end(nil)]) == [-1, 0])
    }

    @Test func aLargeOneLeavesInParts() throws {
        let parts = [self.head(), Self.body(16_000), Self.body(16_000), Self.body(100), .end(nil)]
        #expect(try self.left(parts) == [-1, -1, 32_000, 32_000, 32_100])
    }

    @Test func soDoesTheNextOneOfTheConnection() throws {
        let parts = [self.head(), Self.body(10), .end(nil), self.head(), Self.body(5), .end(nil)]
        #expect(try self.left(parts) == [-1, -1, 10, 10, 10, 15])
    }
}
