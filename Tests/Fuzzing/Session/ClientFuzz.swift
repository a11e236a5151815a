import NIOCore
import NIOEmbedded

@testable import RPCTransport

/// A client's connection to a server that answers anything.
enum ClientFuzz {
    static func run(
        _ source: ByteSource, _ tasks: SerialTasks, _ channel: EmbeddedChannel, _ eventLoop: HarnessEventLoop,
        _ made: (HTTP2Connection) -> Void
    ) -> [String] {
        var source = source
        let gate = Gate()
        var configuration = RPCClientConfiguration(port: 1)
        let choice = source.byte()
        configuration.maximumMessageBytes = choice & 1 == 0 ? 50_000 : 64
        configuration.streamOutboundBytes = choice & 2 == 0 ? 65536 : 1024
        let loop = EventLoopContext(eventLoop: eventLoop)
        configuration.resolver = nil
        let client = ClientChannel(configuration, loop: loop)
        let connection = ClientConnection(channel: client)
        client.adopt(connection)
        made(connection)
        let check = WireCheck(
            isServer: false, streamWindow: configuration.http2.streamWindowBytes,
            connectionWindow: configuration.http2.connectionWindowBytes)
        let endpoint = Endpoint(channel, eventLoop, connection, tasks, gate, check)
        var peer = PeerFrames(firstStream: 2)
        let opening = source.byte()
        let endsInOrder = opening & 16 == 0
        if opening & 15 != 0 { endpoint.append(Frame(kind: Frame.Kind.settings).bytes) }
        var calls: [ClientCall] = []
        var noted: Set<Int32> = []
        func noteStreams() {
            for call in calls {
                if let id = call.attempt?.id, id > 0, noted.insert(id).inserted { peer.noteStream(UInt32(id)) }
            }
        }
        while !source.isEmpty, channel.isActive {
            switch source.byte() % 16 {
            case 0, 1, 2:
                calls.append(Self.begin(source.byte(), client, gate))
                endpoint.settle()
                noteStreams()
            case 3, 4, 5: endpoint.append(peer.response(&source))
            case 6, 7: endpoint.append(peer.other(&source))
            case 8, 9:
                endpoint.read(.max, piece: .max)
                noteStreams()
            case 10: endpoint.read(Int(source.byte()) * 16, piece: 1 + Int(source.byte()))
            case 11:
                gate.release(Int(source.byte()), failing: nil)
                endpoint.settle()
            case 12:
                tasks.runDue()
                endpoint.settle()
            case 13: endpoint.setWritable(source.byte() & 1 == 0)
            case 14:
                loop.cancelTimer(connection)
                connection.timerFired(at: .now() + .milliseconds(Int64(source.byte()) * 250))
                endpoint.settle()
            default:
                let choice = Int(source.byte())
                guard !calls.isEmpty else { continue }
                let call = calls[(choice >> 2) % calls.count]
                if choice & 3 == 0 {
                    connection.shutDown()
                } else if choice & 3 == 1, call.timerIndex >= 0 {
                    loop.cancelTimer(call)
                    call.timerFired(at: .now() + .hours(2))
                } else {
                    call.cancel()
                }
                endpoint.settle()
            }
        }
        // Half of the inputs lose the connection as it is then.
        if endsInOrder {
            endpoint.setWritable(true)
            endpoint.read(.max, piece: .max)
        }
        var broken: [String] = []
        if !endpoint.finish(until: { gate.running == 0 }) {
            broken.append("tasks go on after the connection's end")
        }
        if gate.running != 0 { broken.append("\(gate.running) callers still wait") }
        if connection.session != nil { broken.append("the session outlives the connection") }
        endpoint.check.ended()
        return broken + endpoint.check.broken
    }

    /// A call of one of the four kinds, and a task that makes it.
    private static func begin(
        _ choice: UInt8, _ client: ClientChannel, _ gate: Gate
    ) -> ClientCall {
        let streams = choice & 1 != 0
        let expectsOne = choice & 2 == 0
        let isStubborn = choice & 4 != 0
        let isSlow = choice & 8 != 0
        let size = Int(choice >> 4) * 1000
        let message = OutboundMessage(bytes: ByteBuffer(repeating: 0x63, count: size))
        let request = ClientCall.Request(
            path: "/f.F/Echo", message: streams ? nil : message, expectsOneResponse: expectsOne,
            options: RPCCallOptions(), deadline: choice & 16 == 0 ? nil : .now() + .hours(1))
        let call = ClientCall(request, streams: streams, channel: client)
        call.begin()
        Task.immediate {
            await gate.count {
                if let pipe = call.outboundPipe {
                    for _ in 0..<4 { try? await pipe.write(message) }
                    if isSlow { try? await gate.wait(stubborn: isStubborn) }
                    pipe.end()
                }
                _ = await call.headers()
                if expectsOne {
                    _ = try? await RPCClient.response(of: call)
                } else {
                    while (try? await call.inboundPipe.next()) != nil {
                        if isSlow { try? await gate.wait(stubborn: isStubborn) }
                    }
                }
            }
        }
        return call
    }
}
