import NIOCore
import NIOEmbedded
import Testing

@testable import RPCTransport

/// However much a client asked for and takes, a connection writes a bounded part of it before others have their turn.
@Suite struct WriteTurnTests {
    private static let answerBytes = 4 << 20

    private final class Answering: HTTP2Connection, @unchecked Sendable {
        override func handle(_ event: consuming HTTP2Event, in buffer: ByteBuffer) {
            guard case .headers(let stream, _, _, _) = event else { return }
            stream.outbound.append(OutboundMessage(bytes: ByteBuffer(repeating: 7, count: WriteTurnTests.answerBytes)))
            stream.end = .trailers(nil)
            self.session?.respond(stream, .responseGRPC)
            self.setNeedsFlush()
        }
    }

    /// A connection that has written a first turn of its answer.
    private static func answering(_ channel: EmbeddedChannel) throws {
        let context = EventLoopContext(eventLoop: channel.embeddedEventLoop)
        try channel.pipeline.syncOperations.addHandler(
            Answering(loop: context, role: .server, configuration: HTTP2Configuration()))
        try channel.connect(to: SocketAddress(ipAddress: "127.0.0.1", port: 1)).wait()
        var configuration = HTTP2Configuration()
        configuration.streamWindowBytes = 16 << 20
        configuration.connectionWindowBytes = 16 << 20
        let client = HTTP2Session(role: .client, configuration: configuration) { HTTP2Stream(id: $0) }
        var head = HeaderList()
        head.append(":path", "/a/b")
        head.append(":authority", "x")
        let stream = HTTP2Stream()
        stream.end = .endStream
        try client.request(stream, .request, head)
        try client.drain(limit: 1 << 20)
        try channel.writeInbound(client.output)
    }

    @Test func largeAnswersAreWrittenInTurns() throws {
        let channel = EmbeddedChannel()
        try Self.answering(channel)
        var turns: [Int] = []
        repeat {
            var count = 0
            while let written = try channel.readOutbound(as: ByteBuffer.self) { count += written.readableBytes }
            turns.append(count)
            channel.embeddedEventLoop.advanceTime(by: .microseconds(50))
        } while turns.last != 0
        #expect(turns.reduce(0, +) > Self.answerBytes)
        #expect(turns.allSatisfy { $0 < 3 << 19 }, "a turn has at most 1.5 MiB: \(turns)")
        // One message of 1 MiB needs no second turn.
        #expect(turns[0] > 5 << 18)
        _ = try channel.finish(acceptAlreadyClosed: true)
    }

    /// The next turn held a connection that was lost before it.
    @Test func aConnectionThatIsLostBetweenTurnsIsLetGo() throws {
        let channel = EmbeddedChannel()
        try Self.answering(channel)
        weak let connection = try channel.pipeline.syncOperations.handler(type: Answering.self)
        #expect(connection != nil)
        channel.close(promise: nil)
        channel.embeddedEventLoop.run()
        #expect(connection == nil)
        channel.embeddedEventLoop.advanceTime(by: .seconds(1))
    }
}
