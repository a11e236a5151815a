import NIOCore
import NIOPosix
import Synchronization
import Testing

@testable import RPCTransport

/// What happens around calls: connections, drain, interceptors, where handlers run.
@Suite struct ConnectionTests {
    private static let echo = RPCService(
        name: "test.Echo",
        methods: [
            .unary("Get") { message, _ in RPCReply(message: message) },
            .unary("Later") { message, _ in
                try await Task.sleep(for: .milliseconds(2))
                return RPCReply(message: message)
            },
        ])

    /// A bare TCP connection that says this much and then nothing; gives what the server said until it hung up.
    private static func converse(port: Int, _ bytes: ByteBuffer) async throws -> ByteBuffer {
        let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .connect(host: "127.0.0.1", port: port) { channel in
                channel.eventLoop.makeCompletedFuture {
                    try NIOAsyncChannel<ByteBuffer, ByteBuffer>(wrappingChannelSynchronously: channel)
                }
            }
        return try await channel.executeThenClose { inbound, outbound in
            if bytes.readableBytes > 0 { try await outbound.write(bytes) }
            var answer = ByteBuffer()
            for try await part in inbound { answer.writeImmutableBuffer(part) }
            return answer
        }
    }

    @Test func handlersBeginOnTheEventLoop() async throws {
        let seen = Mutex<[Bool]>([])
        let service = RPCService(
            name: "test.Where",
            methods: [
                .unary("Get") { message, _ in
                    seen.withLock { $0.append(MultiThreadedEventLoopGroup.currentEventLoop != nil) }
                    await suspend()
                    seen.withLock { $0.append(MultiThreadedEventLoopGroup.currentEventLoop != nil) }
                    return RPCReply(message: message)
                }
            ])
        try await withLoopback([service]) { client, _, _ in
            _ = try await client.unary("/test.Where/Get", ByteBuffer())
        }
        #expect(seen.withLock { $0 } == [true, false])
    }

    /// A method's own limit and the server's: the lesser of the two.
    @Test(arguments: [(method: 50, server: 100), (method: 100, server: 50)])
    func lesserMessageLimitHolds(method: Int, server: Int) async throws {
        let service = RPCService(
            name: "test.Limited",
            methods: [.unary("Get", maximumMessageBytes: method) { message, _ in RPCReply(message: message) }])
        try await withLoopback([service], configure: { $0.maximumMessageBytes = server }) { client, _, _ in
            _ = try await client.unary("/test.Limited/Get", ByteBuffer(repeating: 0, count: 50))
            let error = await status {
                _ = try await client.unary("/test.Limited/Get", ByteBuffer(repeating: 0, count: 51))
            }
            #expect(error?.code == .resourceExhausted)
        }
    }

    /// Connections of one event loop read into the same memory: what handlers keep of it stays as it came.
    @Test func messagesOutlastTheBufferThatTheyWereReadInto() async throws {
        let sizes = [0, 10, 3000, 20_000, 70_000, 200_000, 1_000_000]
        let service = RPCService(
            name: "test.Keep",
            methods: [
                .clientStreaming("All") { messages, _ in
                    var kept: [ByteBuffer] = []
                    for try await message in messages { kept.append(message) }
                    var reply = ByteBuffer()
                    for message in kept {
                        let bytes = message.readableBytesView
                        // In one go: byte by byte takes eleven seconds here, in which no other test gets on.
                        let isWhole = message == ByteBuffer(repeating: bytes.first ?? 0, count: bytes.count)
                        reply.writeString("\(bytes.count) \(bytes.first ?? 0) \(isWhole);")
                    }
                    return RPCReply(message: reply)
                }
            ])
        try await withLoopback([service]) { _, _, port in
            try await withThrowingTaskGroup(of: Void.self) { group in
                for byte in 1...6 as ClosedRange<UInt8> {
                    group.addTask {
                        let client = RPCClient(RPCClientConfiguration(port: port))
                        let call = try await client.clientStreaming("/test.Keep/All")
                        for size in sizes + sizes.reversed() {
                            try await call.requests.write(ByteBuffer(repeating: byte, count: size))
                        }
                        call.requests.finish()
                        let reply = try await call.response().message.text
                        await client.close()
                        let expected = (sizes + sizes.reversed()).map { "\($0) \($0 == 0 ? 0 : byte) true;" }
                        #expect(reply == expected.joined())
                    }
                }
                try await group.waitForAll()
            }
        }
    }

    @Test(arguments: [true, false]) func handlersThatStayOnTheEventLoop(stays: Bool) async throws {
        let service = RPCService(
            name: "test.Where",
            methods: [
                .serverStreaming("Stay", staysOnEventLoop: stays) { _, _, writer in
                    for _ in 0..<20 {
                        await suspend()
                        let isOnLoop = MultiThreadedEventLoopGroup.currentEventLoop != nil
                        try await writer.write(ByteBuffer(text: "\(isOnLoop)"))
                    }
                }
            ])
        try await withLoopback([service]) { client, _, _ in
            var answers: [String] = []
            for try await message in try await client.serverStreaming("/test.Where/Stay", ByteBuffer()) {
                answers.append(message.text)
            }
            #expect(answers == Array(repeating: "\(stays)", count: 20))
        }
    }

    /// One of them takes the event loops down; the other asked loops that were gone, and waited for ever.
    @Test(.timeLimit(.minutes(1))) func twoThatRunAServerBothReturn() async throws {
        for _ in 0..<5 {
            let server = RPCServer(configuration: RPCServerConfiguration(port: 0), services: [Self.echo])
            try await server.start()
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<2 { group.addTask { try await server.run() } }
                server.beginGracefulShutdown()
                try await group.waitForAll()
            }
        }
    }

    /// A handler that nothing can stop goes on when its event loop is gone, and comes to its end.
    @Test func handlersOutlastTheirEventLoop() async throws {
        let waiting = Mutex<CheckedContinuation<Void, Never>?>(nil)
        let isOver = Mutex(false)
        let service = RPCService(
            name: "test.Where",
            methods: [
                .serverStreaming("Stay", staysOnEventLoop: true) { _, _, _ in
                    await withCheckedContinuation { continuation in waiting.withLock { $0 = continuation } }
                    await Task.yield()
                    isOver.withLock { $0 = true }
                }
            ])
        try await withLoopback([service], configure: { $0.drainTimeout = .milliseconds(100) }) { client, _, _ in
            let call = Task {
                for try await _ in try await client.serverStreaming("/test.Where/Stay", ByteBuffer()) {}
            }
            #expect(await eventually { waiting.withLock { $0 != nil } })
            call.cancel()
            _ = try? await call.value
        }
        waiting.withLock { $0 }?.resume()
        #expect(await eventually { isOver.withLock { $0 } })
    }

    /// Calls go on while the server drains; each ends well or finds that there is no server any more.
    @Test(arguments: 1...3) func drainUnderLoadFailsNoCall(round: Int) async throws {
        try await withLoopback([Self.echo]) { client, server, _ in
            let succeeded = Counter()
            let failures = await withTaskGroup(of: RPCError?.self) { group in
                for number in 0..<100 {
                    group.addTask {
                        let path = number % 2 == 0 ? "/test.Echo/Get" : "/test.Echo/Later"
                        return await status {
                            while true {
                                _ = try await client.unary(path, ByteBuffer(text: "x"))
                                succeeded.increment()
                            }
                        }
                    }
                }
                #expect(await eventually { succeeded.count > 500 })
                server.beginGracefulShutdown()
                return await group.reduce(into: []) { $0.append($1) }
            }
            for failure in failures {
                #expect(failure?.code == .unavailable)
                #expect(failure?.message.hasPrefix("cannot connect") == true, "\(String(describing: failure))")
            }
        }
    }

    /// Ten servers, one after the other on one port, each drained at full load. How fast calls are doesn't matter; those that
    /// come to nothing end the test at its limit.
    @Test(.timeLimit(.minutes(5))) func tenDrainsUnderLoadFailNoCall() async throws {
        let (first, port) = try await serverToComeBack([Self.echo])
        let client = RPCClient(RPCClientConfiguration(port: port))
        let succeeded = Counter()
        let isOver = Counter()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<50 {
                group.addTask {
                    let path = number % 2 == 0 ? "/test.Echo/Get" : "/test.Echo/Later"
                    let options = RPCCallOptions(waitsForReady: true)
                    while isOver.count == 0 {
                        _ = try await client.unary(path, ByteBuffer(text: "x"), options: options)
                        succeeded.increment()
                    }
                }
            }
            var server = first
            for _ in 0..<10 {
                let before = succeeded.count
                while succeeded.count <= before + 300 { try await Task.sleep(for: .milliseconds(10)) }
                server.beginGracefulShutdown()
                try await server.run()
                server = try await comeBack(to: port, [Self.echo])
            }
            isOver.increment()
            try await group.waitForAll()
            await client.close()
            server.beginGracefulShutdown()
            try await server.run()
        }
    }

    /// - Parameter atOnce: the interceptor needs no task for a handler that needs none.
    @Test(arguments: [true, false], [true, false])
    func interceptorsAndObserver(isImmediate: Bool, atOnce: Bool) async throws {
        final class Gate: RPCInterceptor {
            let atOnce: Bool
            let tasks = Atomic(0)

            init(atOnce: Bool) { self.atOnce = atOnce }

            func intercept(_ context: inout RPCContext) async throws {
                self.tasks.add(1, ordering: .relaxed)
                try self.check(&context)
            }

            func interceptAtOnce(_ context: inout RPCContext) throws -> Bool {
                if self.atOnce { try self.check(&context) }
                return self.atOnce
            }

            private func check(_ context: inout RPCContext) throws {
                guard let name = context.metadata.first("x-name") else { throw RPCError(.unauthenticated, "who?") }
                context.identity = name
            }
        }
        final class Recorder: RPCObserver {
            let ended = Mutex<[String]>([])
            func callStarted(method: String) {}
            func callEnded(method: String, code: RPCCode, duration: Duration) {
                self.ended.withLock { $0.append("\(method) \(code)") }
            }
        }
        let answer: RPCMethod.ImmediateHandler = { _, context in
            RPCReply(message: ByteBuffer(text: context.identity as? String ?? ""))
        }
        let service = RPCService(
            name: "test.Who",
            methods: [
                isImmediate ? .unaryAtOnce("Get", handler: answer) : .unary("Get", handler: { try answer($0, $1) })
            ])
        let recorder = Recorder()
        let gate = Gate(atOnce: atOnce)
        let server = RPCServer(
            configuration: RPCServerConfiguration(port: 0), services: [service], interceptors: [gate],
            observer: recorder)
        let client = RPCClient(RPCClientConfiguration(port: try await server.start().port ?? 0))
        let named = RPCCallOptions(metadata: Metadata([("x-name", "ada")]))
        #expect(try await client.unary("/test.Who/Get", ByteBuffer(), options: named).message.text == "ada")
        #expect(await status { _ = try await client.unary("/test.Who/Get", ByteBuffer()) }?.code == .unauthenticated)
        #expect(gate.tasks.load(ordering: .relaxed) == (isImmediate && atOnce ? 0 : 2))
        _ = await status { _ = try await client.unary("/made.Up/Path", ByteBuffer()) }
        await client.close()
        server.beginGracefulShutdown()
        try await server.run()
        #expect(recorder.ended.withLock { $0 } == ["/test.Who/Get OK", "/test.Who/Get UNAUTHENTICATED"])
    }

    /// The keepalive, which would close them too, has no part in it.
    @Test(.timeLimit(.minutes(5))) func silentConnectionsAreClosed() async throws {
        try await withLoopback(
            [Self.echo],
            configure: {
                $0.handshakeTimeout = .milliseconds(700)
                $0.keepaliveInterval = .seconds(3600)
            }
        ) { client, _, port in
            let nothing = try await Self.converse(port: port, ByteBuffer())
            // Our own SETTINGS were all that was said.
            #expect(nothing.readableBytes < 200)
            let wrong = try await Self.converse(port: port, ByteBuffer(string: "GET / HTTP/1.1\r\n\r\n"))
            #expect(wrong.readableBytes < 200)
            // On a crowded machine a client may be too slow for this server as well: it comes again.
            let options = RPCCallOptions(waitsForReady: true, retryPolicy: RPCRetryPolicy(maximumAttempts: 100))
            _ = try await client.unary("/test.Echo/Get", ByteBuffer(), options: options)
        }
    }

    /// A client that answers PINGs stays; one that has died does not.
    @Test func keepalive() async throws {
        try await withLoopback(
            [Self.echo],
            configure: {
                $0.keepaliveInterval = .milliseconds(100)
                $0.keepaliveTimeout = .milliseconds(1500)
                $0.minimumPingInterval = .milliseconds(1)
            },
            configureClient: {
                $0.keepaliveInterval = .milliseconds(20)
                $0.minimumKeepaliveInterval = .zero
            }
        ) { client, _, port in
            _ = try await client.unary("/test.Echo/Get", ByteBuffer())
            var preface = ByteBuffer(string: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            preface.writeBytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
            let said = try await Self.converse(port: port, preface)
            #expect(said.readableBytes > 0)
            _ = try await client.unary("/test.Echo/Get", ByteBuffer())
        }
    }

    private static func large(_ started: Counter) -> RPCService {
        RPCService(
            name: "test.Large",
            methods: [
                .unary("Get") { _, _ in
                    started.increment()
                    return RPCReply(message: ByteBuffer(repeating: 7, count: 50_000))
                }
            ])
    }

    /// A client that asks for more than it reads waits with its next calls, and gets them all in the end.
    @Test func callsWaitForTheirReader() async throws {
        let started = Counter()
        try await withLoopback(
            [Self.large(started)], configure: { $0.limits.maximumUnreadBytes = 65_536 },
            configureClient: { $0.streamWindowBytes = 5000 }
        ) { client, _, _ in
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<40 {
                    group.addTask {
                        let reply = try await client.unary("/test.Large/Get", ByteBuffer())
                        #expect(reply.message.readableBytes == 50_000)
                    }
                }
                try await group.waitForAll()
            }
        }
        #expect(started.count == 40)
    }

    /// While nothing is read, no further handler begins.
    @Test func nothingBeginsForWhoDoesNotRead() async throws {
        final class Arrivals: RPCObserver {
            let count = Counter()
            func callStarted(method: String) { self.count.increment() }
            func callEnded(method: String, code: RPCCode, duration: Duration) {}
        }
        let started = Counter()
        let arrivals = Arrivals()
        var configuration = RPCServerConfiguration(port: 0)
        configuration.limits.maximumUnreadBytes = 65_536
        configuration.drainTimeout = .milliseconds(100)
        let server = RPCServer(configuration: configuration, services: [Self.large(started)], observer: arrivals)
        var blind = RPCClientConfiguration(port: try await server.start().port ?? 0)
        blind.streamWindowBytes = 0
        let client = RPCClient(blind)
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<40 {
                group.addTask {
                    _ = await status {
                        let options = RPCCallOptions(timeout: .seconds(60))
                        _ = try await client.unary("/test.Large/Get", ByteBuffer(), options: options)
                    }
                }
            }
            #expect(await eventually { arrivals.count.count == 40 && started.count >= 2 })
            #expect(started.count == 2)
            group.cancelAll()
        }
        await client.close()
        server.beginGracefulShutdown()
        try await server.run()
    }

    /// Requests that are together far larger than what is kept of them: all of them come through, one after the other.
    @Test func largeRequestsInParallelGetOn() async throws {
        try await withLoopback(
            [Self.echo],
            configure: {
                $0.limits.maximumBufferedRequestBytes = 65_536
                $0.limits.requestTimeout = .seconds(10)
            }
        ) { client, _, _ in
            try await withThrowingTaskGroup(of: Void.self) { group in
                for number in 0..<40 {
                    group.addTask {
                        let message = ByteBuffer(repeating: UInt8(number), count: 300_000)
                        let reply = try await client.unary("/test.Echo/Get", message)
                        #expect(reply.message == message)
                    }
                }
                try await group.waitForAll()
            }
        }
    }

    /// Messages that wait for their handlers count for what all connections may have the server keep, until their handlers
    /// take them: it may be far more then.
    @Test(arguments: [true, false]) func waitingMessagesCountUntilTheyAreTaken(areTaken: Bool) async throws {
        let service = RPCService(
            name: "test.Keep",
            methods: [
                .clientStreaming("None") { messages, _ in
                    if areTaken {
                        for try await _ in messages {}
                    } else {
                        try await Task.sleep(for: .seconds(60))
                    }
                    return RPCReply(message: ByteBuffer())
                }
            ])
        try await withLoopback([service], configure: { $0.limits.maximumKeptBytes = 1 << 20 }) { client, _, _ in
            let error = await status {
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for _ in 0..<(areTaken ? 4 : 60) {
                        group.addTask {
                            let options = RPCCallOptions(timeout: .seconds(30))
                            let call = try await client.clientStreaming("/test.Keep/None", options: options)
                            for _ in 0..<(areTaken ? 60 : 1) {
                                // Of a size that goes to the window's credit in one part, and of one that doesn't.
                                try await call.requests.write(ByteBuffer(repeating: 1, count: 10_000))
                                try await call.requests.write(ByteBuffer(repeating: 2, count: 30_000))
                            }
                            call.requests.finish()
                            _ = try await call.response()
                        }
                    }
                    try await group.waitForAll()
                }
            }
            #expect(error?.code == (areTaken ? nil : .unavailable))
        }
    }

    @Test func tooManyConnections() async throws {
        try await withLoopback([Self.echo], configure: { $0.maximumConnections = 1 }) { client, _, port in
            _ = try await client.unary("/test.Echo/Get", ByteBuffer())
            let answer = try? await Self.converse(port: port, ByteBuffer())
            #expect(answer?.readableBytes ?? 0 == 0)
            _ = try await client.unary("/test.Echo/Get", ByteBuffer())
        }
    }

    /// Handlers of cancelled calls count until they return: a client cannot have more running than allowed.
    @Test func runningHandlersAreBounded() async throws {
        let running = Atomic<Int>(0)
        let most = Atomic<Int>(0)
        let release = Signal()
        let service = RPCService(
            name: "test.Stubborn",
            methods: [
                .unary("Get") { message, _ in
                    let now = running.add(1, ordering: .relaxed).newValue
                    most.max(now, ordering: .relaxed)
                    // Deaf to cancellation.
                    await withCheckedContinuation { continuation in
                        Task {
                            await release.wait()
                            release.fire()
                            continuation.resume()
                        }
                    }
                    running.subtract(1, ordering: .relaxed)
                    return RPCReply(message: message)
                }
            ])
        try await withLoopback([service], configure: { $0.maximumRunningHandlers = 5 }) { client, _, _ in
            for _ in 0..<20 {
                _ = await status {
                    _ = try await client.unary(
                        "/test.Stubborn/Get", ByteBuffer(), options: RPCCallOptions(timeout: .milliseconds(20)))
                }
            }
            #expect(most.load(ordering: .relaxed) == 5)
            release.fire()
            #expect(await eventually { running.load(ordering: .relaxed) == 0 })
        }
    }
}
