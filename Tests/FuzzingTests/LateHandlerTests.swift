import Dispatch
import NIOEmbedded
import Testing

@testable import Fuzzing
@testable import RPCTransport

/// What the fuzzer waits for at the end of an input.
@Suite struct LateHandlerTests {
    /// Takes its time on another thread.
    private struct Held: RPCInterceptor {
        let mayGoOn: DispatchSemaphore

        func intercept(_ context: inout RPCContext) async throws { await awayFromEventLoop { self.mayGoOn.wait() } }
    }

    /// A handler begins, however late, once what comes ahead of it on another thread is over. The fuzzer asked whether
    /// handlers run, of which there was none yet, and then found one: "1 handlers never returned".
    @Test func aHandlerThatHasNotBegunIsWaitedFor() async {
        await onThread {
            SerialTasks.with { tasks in
                let channel = EmbeddedChannel()
                let eventLoop = HarnessEventLoop(channel.embeddedEventLoop)
                let gate = Gate()
                let held = Held(mayGoOn: DispatchSemaphore(value: 0))
                let shared = ServedConnection.shared(RPCServerConfiguration(), gate, interceptors: [held]) { _ in }
                let connection = ServerConnection(loop: EventLoopContext(eventLoop: eventLoop), shared: shared)
                let endpoint = Endpoint(
                    channel, eventLoop, connection, tasks, gate,
                    WireCheck(isServer: true, streamWindow: 65535, connectionWindow: 1 << 20))
                endpoint.append(
                    Frame.preface + Frame(kind: Frame.Kind.settings).bytes
                        + ServedConnection.request("/f.F/Echo", on: 1))
                endpoint.read(.max, piece: .max)
                #expect(connection.runningHandlers == 1)
                var asked = 0
                let isOver = endpoint.finish(until: {
                    asked += 1
                    if asked == 10 { held.mayGoOn.signal() }
                    return gate.running == 0
                })
                #expect(isOver)
                #expect(asked > 10)
                #expect(connection.runningHandlers == 0)
                if asked < 10 { held.mayGoOn.signal() }
                eventLoop.end()
            }
        }
    }
}
