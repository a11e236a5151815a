import NIOCore
import Testing

@testable import RPCTransport

@Suite struct ServerStreamMachineTests {
    private static func machine(many: Bool = false) -> ServerStreamMachine {
        ServerStreamMachine(takesManyRequests: many, messageLimit: 100)
    }

    private static func bytes(_ messages: Int) -> ByteBuffer {
        var buffer = ByteBuffer()
        for _ in 0..<messages { buffer.writeBytes([0, 0, 0, 0, 1, 42]) }
        return buffer
    }

    @Test func oneMessageStartsTheHandler() throws {
        var machine = Self.machine()
        try machine.receivedUnaryBytes(Self.bytes(1))
        guard case .start(let message) = try machine.receivedEnd() else {
            Issue.record("not started")
            return
        }
        #expect(message.bytes == ByteBuffer(bytes: [42]))
        guard case .ignore = try machine.receivedEnd() else {
            Issue.record("ended twice")
            return
        }
    }

    @Test func cardinalityAndTruncation() {
        #expect(throws: RPCError(.unimplemented, "the method takes one message, but none was sent")) {
            var machine = Self.machine()
            _ = try machine.receivedEnd()
        }
        #expect(throws: RPCError(.unimplemented, "the method takes one message, but more were sent")) {
            var machine = Self.machine()
            try machine.receivedUnaryBytes(Self.bytes(2))
        }
        for many in [false, true] {
            #expect(throws: RPCError(.internal, "the request ended in the middle of a message")) {
                var machine = Self.machine(many: many)
                var chunk = ByteBuffer(bytes: [0, 0, 0])
                if many { _ = try machine.nextMessage(from: &chunk) } else { try machine.receivedUnaryBytes(chunk) }
                _ = try machine.receivedEnd()
            }
        }
    }

    @Test func manyMessages() throws {
        var machine = Self.machine(many: true)
        var chunk = Self.bytes(3)
        var count = 0
        while try machine.nextMessage(from: &chunk) != nil { count += 1 }
        #expect(count == 3)
        guard case .endMessages = try machine.receivedEnd() else {
            Issue.record("the end was not seen")
            return
        }
    }

    @Test func responseOrder() {
        var machine = Self.machine()
        let sends = [machine.sendHeaders(), machine.sendHeaders()]
        #expect(sends == [true, false])
        guard case .trailers = machine.sendStatus() else { Issue.record("no trailers"); return }
        guard case .ignore = machine.sendStatus() else { Issue.record("two ends"); return }
        let late = [machine.sendHeaders(), machine.closed()]
        #expect(late == [false, false])

        var short = Self.machine()
        guard case .trailersOnly = short.sendStatus() else { Issue.record("not trailers-only"); return }
    }

    /// The peer hadn't seen the end yet: whatever it sends then is ignored, in every state of the request.
    @Test(arguments: [false, true], [0, 1, 2]) func lateFramesAreIgnored(many: Bool, messages: Int) throws {
        var machine = Self.machine(many: many)
        if messages > 0 {
            var chunk = Self.bytes(1)
            if many { _ = try machine.nextMessage(from: &chunk) } else { try machine.receivedUnaryBytes(chunk) }
        }
        if messages > 1 { _ = machine.closed() } else { _ = machine.sendStatus() }
        #expect(machine.isResponseEnded)
        var late = Self.bytes(5)
        let message = try machine.nextMessage(from: &late)
        #expect(message == nil)
        try machine.receivedUnaryBytes(Self.bytes(5))
        guard case .ignore = try machine.receivedEnd() else { Issue.record("started late"); return }
        guard case .ignore = machine.sendStatus() else { Issue.record("two ends"); return }
    }
}
