import NIOCore
import NIOEmbedded
import Testing

@testable import Fuzzing
@testable import RPCTransport

/// What time does to a connection, without any passing.
@Suite struct TimedConnectionTests {
    /// Between two messages a call that is late gets its trailers; inside one these would be taken for a part of it.
    @Test(arguments: [(path: "/f.F/Talk", isInsideAMessage: true), (path: "/f.F/Watch", isInsideAMessage: false)])
    func lateCallsEndWithoutCuttingAMessage(path: String, isInsideAMessage: Bool) async {
        await Self.withConnection { endpoint, connection in
            endpoint.append(ServedConnection.request(path, on: 1, Frame.field("grpc-timeout", "1S")))
            endpoint.read(.max, piece: .max)
            endpoint.runTasks()
            guard let call = connection.session?.streams.first as? ServerCall else {
                Issue.record("no call")
                return
            }
            #expect(call.outbound.isAtBoundary != isInsideAMessage)
            connection.loop.cancelTimer(call)
            call.timerFired(at: .now() + .seconds(1))
            endpoint.settle()
            #expect(endpoint.check.resets == (isInsideAMessage ? [1] : []))
            #expect(connection.session?.streams.isEmpty == true)
        }
    }

    /// The answer to its PING says that all calls on their way have come: the drain needs no more time than that.
    @Test func theAnswerToItsPingEndsADrain() async {
        await Self.withConnection { endpoint, connection in
            endpoint.read(.max, piece: .max)
            connection.beginDrain()
            endpoint.settle()
            #expect(!connection.isClosingDown)
            let answer = Array("drain\0\0\u{1}".utf8)
            endpoint.append(
                Frame(kind: Frame.Kind.ping, flags: Frame.Flag.acknowledgement, payload: answer).bytes)
            endpoint.read(.max, piece: .max)
            #expect(connection.isClosingDown)
        }
    }

    private static func withConnection(_ body: @escaping @Sendable (Endpoint, ServerConnection) -> Void) async {
        await onThread {
            SerialTasks.with { tasks in
                let channel = EmbeddedChannel()
                let eventLoop = HarnessEventLoop(channel.embeddedEventLoop)
                ServedConnection.run(tasks, channel, eventLoop, body)
                eventLoop.end()
            }
        }
    }
}
