import NIOCore
import NIOEmbedded
import Synchronization
import Testing

@testable import Fuzzing
@testable import RPCTransport

/// A connection that is lost takes along the calls that the server may have seen, and no others.
@Suite struct UnsentCallTests {
    private final class End: Sendable {
        let text = Mutex<String?>(nil)
    }

    /// While the socket is full a call's HEADERS wait. Lost then, it is made anew, for which there is no network here.
    @Test(arguments: [(isSent: true, failure: "the connection was lost"), (isSent: false, failure: "cannot connect")])
    func callsThatNeverLeftAreMadeAnew(isSent: Bool, failure: String) async {
        await onThread {
            SerialTasks.with { tasks in
                var configuration = RPCClientConfiguration(port: 1)
                configuration.resolver = nil
                let channel = EmbeddedChannel()
                let eventLoop = HarnessEventLoop(channel.embeddedEventLoop)
                let client = ClientChannel(configuration, loop: EventLoopContext(eventLoop: eventLoop))
                let connection = ClientConnection(channel: client)
                client.adopt(connection)
                let endpoint = Endpoint(
                    channel, eventLoop, connection, tasks, Gate(),
                    WireCheck(
                        isServer: false, streamWindow: configuration.http2.streamWindowBytes,
                        connectionWindow: configuration.http2.connectionWindowBytes))
                endpoint.append(Frame(kind: Frame.Kind.settings).bytes)
                endpoint.read(.max, piece: .max)
                endpoint.setWritable(isSent)

                let call = ClientCall(
                    ClientCall.Request(
                        path: "/f.F/Echo", message: OutboundMessage(bytes: ByteBuffer()), expectsOneResponse: true,
                        options: RPCCallOptions(), deadline: nil), streams: false, channel: client)
                call.begin()
                endpoint.settle()
                #expect(call.attempt?.areHeadersSent == isSent)
                let end = End()
                Task.immediate {
                    do {
                        _ = try await RPCClient.response(of: call)
                    } catch {
                        end.text.withLock { $0 = "\(error)" }
                    }
                }
                #expect(endpoint.finish(until: { end.text.withLock { $0 != nil } }))
                #expect(end.text.withLock { $0 }?.contains(failure) == true)
                eventLoop.end()
            }
        }
    }
}
