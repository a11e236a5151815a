import NIOEmbedded

@testable import RPCTransport

/// One side of a connection, server's or client's, fed an input; whatever it does, each connection is let go in the end.
enum SessionFuzz {
    private struct Weak {
        weak var connection: HTTP2Connection?
    }

    static func run(_ source: ByteSource) -> [String] {
        var source = source
        let attack = source.byte() & 1 == 0 ? ServerFuzz.run : ClientFuzz.run
        return SerialTasks.with { tasks in
            var connections: [Weak] = []
            let channel = EmbeddedChannel()
            let eventLoop = HarnessEventLoop(channel.embeddedEventLoop)
            var broken = attack(source, tasks, channel, eventLoop) { connections.append(Weak(connection: $0)) }
            // A handler on another thread may still come back to find that nobody waits for it.
            let isGone = Endpoint.eventually {
                eventLoop.run()
                tasks.runDue()
                return connections.allSatisfy { $0.connection == nil }
            }
            // With a timer of a connection that is still there, time would never end.
            if isGone { eventLoop.end() } else { broken.append("somebody still holds a connection") }
            return broken
        }
    }
}
