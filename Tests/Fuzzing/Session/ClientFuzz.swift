import NIOCore
import NIOEmbedded

@testable import RPCTransport

/// A client's connections, one after the other, to a server that answers anything.
enum ClientFuzz {
    /// Connections that the client has asked for, and that are not made yet.
    private final class Wishes {
        var connections: [ClientConnection] = []
        /// How many it may still have.
        var left = 3
    }

    static func run(
        _ source: ByteSource, _ tasks: SerialTasks, _ channel: EmbeddedChannel, _ eventLoop: HarnessEventLoop,
        _ made: (HTTP2Connection) -> Void
    ) -> [String] {
        var source = source
        let gate = Gate()
        let loop = EventLoopContext(eventLoop: eventLoop)
        let configuration = Self.configuration(source.byte())
        let opening = source.byte()
        let client = ClientChannel(configuration, loop: loop)
        let wishes = Wishes()
        client.connector = {
            guard wishes.left > 0 else { return nil }
            wishes.left -= 1
            let connection = ClientConnection(channel: $0)
            wishes.connections.append(connection)
            return connection
        }
        var links: [ClientLink] = []
        func connect(_ connection: ClientConnection, _ channel: EmbeddedChannel) {
            made(connection)
            let check = WireCheck(
                isServer: false, streamWindow: configuration.http2.streamWindowBytes,
                connectionWindow: configuration.http2.connectionWindowBytes)
            let endpoint = Endpoint(channel, eventLoop, connection, tasks, gate, check)
            if opening & 15 != 0 { endpoint.append(Frame(kind: Frame.Kind.settings).bytes) }
            links.append(ClientLink(connection, endpoint))
        }
        func makeConnections() {
            let connections = wishes.connections
            wishes.connections = []
            for connection in connections { connect(connection, eventLoop.makeChannel()) }
        }
        let first = ClientConnection(channel: client)
        client.adopt(first)
        connect(first, channel)

        var link = links[0]
        var broken: [String] = []
        var calls: [ClientCall] = []
        while !source.isEmpty {
            if !link.isActive, let other = links.first(where: \.isActive) { link = other }
            if !link.isActive {
                // A call has it make another one, at once or when it may.
                calls.append(Self.begin(source.byte(), &source, client, gate))
                loop.cancelTimer(client)
                client.timerFired(at: .now() + .minutes(3))
                makeConnections()
                guard let new = links.last, new.isActive else { break }
                link = new
            }
            let endpoint = link.endpoint
            switch source.byte() % 16 {
            case 0, 1, 2:
                calls.append(Self.begin(source.byte(), &source, client, gate))
                endpoint.settle()
            case 3, 4, 5: endpoint.append(link.peer.response(&source))
            case 6, 7: endpoint.append(link.peer.other(&source))
            case 8, 9: endpoint.read(.max, piece: .max)
            case 10: endpoint.read(Int(source.byte()) * 16, piece: 1 + Int(source.byte()))
            case 11:
                gate.release(Int(source.byte()), failing: nil)
                endpoint.settle()
            case 12:
                tasks.runDue()
                endpoint.settle()
            case 13:
                let choice = source.byte()
                if choice >= 0xC0 {
                    link = links[Int(choice) % links.count]
                } else {
                    endpoint.setWritable(choice & 1 == 0)
                }
            case 14:
                let choice = source.byte()
                if choice >= 0xF0 {
                    loop.cancelTimer(client)
                    client.timerFired(at: .now() + .minutes(3))
                } else {
                    loop.cancelTimer(link.connection)
                    link.connection.timerFired(at: .now() + .milliseconds(Int64(choice) * 250))
                }
                endpoint.settle()
            default:
                let choice = Int(source.byte())
                if choice >= 0xF0 {
                    if choice & 1 == 0 { endpoint.fail() } else { _ = client.close() }
                } else if !calls.isEmpty {
                    Self.end(calls[(choice >> 2) % calls.count], choice, link.connection, loop)
                }
                endpoint.settle()
            }
            makeConnections()
            for link in links {
                link.noteStreams(of: calls)
                link.endpoint.checkSession(&broken)
            }
        }
        // Half of the inputs lose their connections as these are then.
        if opening & 16 == 0 {
            for link in links {
                link.endpoint.setWritable(true)
                link.endpoint.read(.max, piece: .max)
            }
        }
        wishes.left = 0
        makeConnections()
        for link in links where link.isActive { link.endpoint.channel.close(promise: nil) }
        for link in links {
            let isOver = link.endpoint.finish(until: {
                // What waits for another connection, or for another try, has waited long enough.
                _ = client.close()
                for call in calls where call.timerIndex >= 0 {
                    loop.cancelTimer(call)
                    call.timerFired(at: .now() + .minutes(1))
                }
                return gate.running == 0
            })
            if !isOver { broken.append("tasks go on after the connection's end") }
            if link.connection.session != nil { broken.append("the session outlives the connection") }
            link.endpoint.check.ended()
            broken += link.endpoint.check.broken
        }
        if gate.running != 0 { broken.append("\(gate.running) callers still wait") }
        return broken
    }

    private static func configuration(_ choice: UInt8) -> RPCClientConfiguration {
        var configuration = RPCClientConfiguration(port: 1)
        configuration.resolver = nil
        configuration.maximumMessageBytes = choice & 1 == 0 ? 50_000 : 64
        configuration.streamOutboundBytes = choice & 2 == 0 ? 65536 : 1024
        if choice & 4 != 0 {
            configuration.retryPolicy = RPCRetryPolicy(
                initialBackoff: .zero, codes: [.unavailable, .notFound, .internal, .unknown])
        }
        if choice & 8 != 0 {
            configuration.minimumKeepaliveInterval = .zero
            configuration.keepaliveInterval = .zero
            configuration.keepaliveWithoutCalls = choice & 1 == 0
        }
        if choice & 16 != 0 { configuration.maximumWaitingCalls = 2 }
        if choice & 32 != 0 {
            configuration.streamWindowBytes = 65535
            configuration.connectionWindowBytes = 65535
        }
        if choice & 64 != 0 {
            configuration.retryThrottling = RPCRetryThrottling(maximumTokens: 4)
            configuration.retryBufferBytes = 1000
        }
        if choice & 128 != 0 { configuration.maximumHeaderListBytes = 512 }
        return configuration
    }

    /// The connection is closed, or the call cancelled, or what it waits for comes.
    private static func end(
        _ call: ClientCall, _ choice: Int, _ connection: ClientConnection, _ loop: EventLoopContext
    ) {
        switch choice & 3 {
        case 0: connection.shutDown()
        case 1 where call.timerIndex >= 0:
            loop.cancelTimer(call)
            // Past its deadline, or time for another try.
            call.timerFired(at: .now() + (choice & 128 == 0 ? .hours(2) : .minutes(1)))
        default: call.cancel()
        }
    }

    /// A call of one of the four kinds, and a task that makes it.
    private static func begin(
        _ choice: UInt8, _ source: inout ByteSource, _ client: ClientChannel, _ gate: Gate
    ) -> ClientCall {
        let streams = choice & 1 != 0
        let expectsOne = choice & 2 == 0
        let isStubborn = choice & 4 != 0
        let isSlow = choice & 8 != 0
        let size = Int(choice >> 4) * 1000
        let more = size == 15000 ? source.byte() : 0
        var options = RPCCallOptions()
        options.compression = [nil, nil, .gzip, .deflate][Int(more & 3)]
        options.waitsForReady = more & 4 != 0
        if more & 8 != 0 { options.metadata.append("grpc-previous-rpc-attempts", "7") }
        let takesFew = more & 16 != 0
        let bytes = ByteBuffer(repeating: 0x63, count: size)
        let encoder = MessageEncoder(options.compression)
        let request = ClientCall.Request(
            path: "/f.F/Echo", message: streams ? nil : encoder.encode(bytes, .automatic),
            expectsOneResponse: expectsOne,
            options: options, deadline: choice & 16 == 0 ? nil : .now() + (more & 32 == 0 ? .hours(1) : .zero))
        let call = ClientCall(request, streams: streams, channel: client)
        call.begin()
        Task.immediate {
            await gate.count {
                if streams {
                    let writer = RPCRequestWriter(call: call, encoder: encoder)
                    for _ in 0..<4 { try? await writer.write(bytes) }
                    if isSlow { try? await gate.wait(stubborn: isStubborn) }
                    writer.finish()
                }
                guard !expectsOne else {
                    _ = await call.headers()
                    _ = try? await RPCClient.response(of: call)
                    return
                }
                // Letting go of it cancels the call.
                let responses = RPCResponseStream(call: call)
                _ = await responses.initialMetadata
                var count = 0
                do {
                    for try await _ in responses {
                        if isSlow { try? await gate.wait(stubborn: isStubborn) }
                        count += 1
                        if takesFew, count == 2 { break }
                    }
                } catch {}
            }
        }
        return call
    }
}
