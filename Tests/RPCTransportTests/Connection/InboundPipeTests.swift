import NIOCore
import Testing

@testable import RPCTransport

@Suite struct InboundPipeTests {
    private final class Holder: Sendable {}

    /// What gives back credit holds the call, which holds the pipe: none of it may be kept once the pipe has ended.
    @Test func anEndedPipeKeepsNothing() async throws {
        let late = InboundPipe(limit: 100, side: "client")
        late.finish(.failure(RPCError(.cancelled, "")), discarding: true)
        weak var first: Holder?
        first = Self.attach(to: late)
        #expect(first == nil)

        let broken = InboundPipe(limit: 100, side: "client")
        weak var second: Holder?
        second = Self.attach(to: broken)
        #expect(second != nil)
        broken.append(
            MessageAssembler.Message(bytes: ByteBuffer(bytes: [0x41, 0x41]), compression: .gzip, credit: 7))
        await #expect(throws: RPCError.self) { _ = try await broken.next() }
        #expect(second == nil)
    }

    private static func attach(to pipe: InboundPipe) -> Holder {
        let holder = Holder()
        pipe.attach { _, _ in withExtendedLifetime(holder) {} }
        return holder
    }
}
