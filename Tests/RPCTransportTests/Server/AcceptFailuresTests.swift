import Glibc
import NIOCore
import NIOEmbedded
import Synchronization
import Testing

@testable import RPCTransport

/// What a listening socket does when accept(2) fails. On a real one it would be for want of descriptors, which the whole
/// process would not survive for long.
@Suite struct AcceptFailuresTests {
    /// Counts how often the socket is asked for the next connection.
    private final class Reads: ChannelOutboundHandler {
        typealias OutboundIn = Never

        var count = 0

        func read(context: ChannelHandlerContext) { self.count += 1 }
    }

    private final class Failures: Sendable { let count = Atomic<Int>(0) }

    private func listening() throws -> (channel: EmbeddedChannel, reads: Reads, failures: Failures) {
        let (reads, failures) = (Reads(), Failures())
        let channel = EmbeddedChannel(handler: reads)
        try AcceptFailures.add(to: channel) { failures.count.add(1, ordering: .relaxed) }
        return (channel, reads, failures)
    }

    @Test(arguments: [EMFILE, ENFILE, ENOBUFS, ENOMEM])
    func nothingIsAcceptedForAWhile(code: CInt) throws {
        let (channel, reads, failures) = try self.listening()
        for turn in 1...3 {
            channel.pipeline.fireErrorCaught(IOError(errnoCode: code, reason: "accept"))
            // A socket with a connection in its queue stays readable: it asks at once.
            for _ in 0..<10 { channel.pipeline.read() }
            #expect(reads.count == turn - 1)
            // The pause ends by the machine's clock.
            channel.embeddedEventLoop.advanceTime(to: .now() + AcceptFailures.pause)
            #expect(reads.count == turn)
            #expect(failures.count.load(ordering: .relaxed) == turn)
        }
        channel.pipeline.read()
        #expect(reads.count == 4)
        #expect(throws: Never.self) { try channel.throwIfErrorCaught() }
    }

    @Test func aClientThatWentAwayAgainHoldsNobodyUp() throws {
        let (channel, reads, failures) = try self.listening()
        channel.pipeline.fireErrorCaught(IOError(errnoCode: ECONNABORTED, reason: "accept"))
        channel.pipeline.read()
        #expect(reads.count == 1)
        #expect(failures.count.load(ordering: .relaxed) == 0)
    }
}
