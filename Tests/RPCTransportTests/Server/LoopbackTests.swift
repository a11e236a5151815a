import NIOCore
import Synchronization
import Testing

@testable import RPCTransport

/// Calls of all four kinds, our client against our server.
@Suite struct LoopbackTests {
    static let echo = RPCService(
        name: "test.Echo",
        methods: [
            .unary("Get") { message, context in
                var reply = RPCReply(message: message)
                for entry in context.metadata.entries where entry.name.hasPrefix("x-") {
                    switch entry.value {
                    case .text(let text): reply.initialMetadata.append(entry.name, text)
                    case .binary(let bytes): reply.trailingMetadata.append(entry.name, binary: bytes)
                    }
                }
                return reply
            },
            .unary("Later") { message, _ in
                try await Task.sleep(for: .milliseconds(20))
                return RPCReply(message: message)
            },
            .unary("Fail") { message, _ in
                throw RPCError(.failedPrecondition, message.text, details: [1, 2, 255])
            },
            .unaryAtOnce("FailAtOnce") { message, _ in
                throw RPCError(.failedPrecondition, message.text, details: [1, 2, 255])
            },
            .unary("Break") { _, _ in
                struct Secret: Error {}
                throw Secret()
            },
            .unary("GiveUp") { _, _ in throw CancellationError() },
            // No status is that: it would promise a message.
            .unary("Fine") { _, _ in throw RPCError(.ok, "fine") },
            .serverStreaming("Count") { message, _, writer in
                for number in 0..<(Int(message.text) ?? 0) { try await writer.write(ByteBuffer(text: "\(number)")) }
            },
            .clientStreaming("Join") { messages, _ in
                var text = ""
                for try await message in messages { text += message.text }
                return RPCReply(message: ByteBuffer(text: text))
            },
            .bidirectional("Chat") { messages, _, writer in
                for try await message in messages { try await writer.write(message) }
                writer.setTrailingMetadata(Metadata([("x-end", "yes")]))
            },
        ])

    @Test func unary() async throws {
        try await withLoopback([Self.echo]) { client, _, _ in
            let response = try await client.unary("/test.Echo/Get", ByteBuffer(text: "hello"))
            #expect(response.message.text == "hello")
            let later = try await client.unary("/test.Echo/Later", ByteBuffer(text: "later"))
            #expect(later.message.text == "later")
            let empty = try await client.unary("/test.Echo/Get", ByteBuffer())
            #expect(empty.message.readableBytes == 0)
        }
    }

    @Test func manyAtOnce() async throws {
        try await withLoopback([Self.echo]) { client, _, _ in
            try await withThrowingTaskGroup(of: Void.self) { group in
                for number in 0..<500 {
                    group.addTask {
                        let path = number % 2 == 0 ? "/test.Echo/Get" : "/test.Echo/Later"
                        let response = try await client.unary(path, ByteBuffer(text: "\(number)"))
                        #expect(response.message.text == "\(number)")
                    }
                }
                try await group.waitForAll()
            }
        }
    }

    @Test func metadata() async throws {
        try await withLoopback([Self.echo]) { client, _, _ in
            var metadata = Metadata()
            metadata.append("x-text", "a value")
            metadata.append("X-Data-Bin", binary: [0xAB, 0xAB, 0xAB])
            metadata.append("x-data-bin", binary: [1, 2, 3, 4])
            let response = try await client.unary(
                "/test.Echo/Get", ByteBuffer(), options: RPCCallOptions(metadata: metadata))
            #expect(response.initialMetadata.all("x-text") == ["a value"])
            #expect(response.trailingMetadata.allBinary("x-data-bin") == [[0xAB, 0xAB, 0xAB], [1, 2, 3, 4]])
        }
    }

    @Test func statusWithDetails() async throws {
        try await withLoopback([Self.echo]) { client, _, _ in
            let text = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n%"
            for method in ["Fail", "FailAtOnce"] {
                let error = await status { _ = try await client.unary("/test.Echo/\(method)", ByteBuffer(text: text)) }
                #expect(error?.code == .failedPrecondition)
                #expect(error?.message == text)
                #expect(error?.details == [1, 2, 255])
            }
            let broken = await status { _ = try await client.unary("/test.Echo/Break", ByteBuffer()) }
            #expect(broken?.code == .unknown)
            #expect(broken?.message.contains("Secret") == false)
            for (method, code) in [("GiveUp", RPCCode.cancelled), ("Fine", .unknown)] {
                let error = await status { _ = try await client.unary("/test.Echo/\(method)", ByteBuffer()) }
                #expect(error?.code == code)
            }
        }
    }

    @Test func unimplemented() async throws {
        try await withLoopback([Self.echo]) { client, _, _ in
            let method = await status { _ = try await client.unary("/test.Echo/Nope", ByteBuffer()) }
            #expect(method?.code == .unimplemented)
            #expect(method?.message == "unknown method Nope for service test.Echo")
            let service = await status { _ = try await client.unary("/test.Nope/Get", ByteBuffer()) }
            #expect(service?.code == .unimplemented)
            #expect(service?.message == "unknown service test.Nope")
        }
    }

    @Test func serverStreaming() async throws {
        try await withLoopback([Self.echo]) { client, _, _ in
            let responses = try await client.serverStreaming("/test.Echo/Count", ByteBuffer(text: "1000"))
            var numbers: [String] = []
            for try await message in responses { numbers.append(message.text) }
            #expect(numbers == (0..<1000).map { "\($0)" })
            #expect(responses.trailingMetadata != nil)
            let none = try await client.serverStreaming("/test.Echo/Count", ByteBuffer(text: "0"))
            for try await _ in none { Issue.record("no message was expected") }
        }
    }

    @Test func clientStreaming() async throws {
        try await withLoopback([Self.echo]) { client, _, _ in
            let call = try await client.clientStreaming("/test.Echo/Join")
            for text in ["a", "b", "", "c"] { try await call.requests.write(ByteBuffer(text: text)) }
            #expect(try await call.response().message.text == "abc")
            let empty = try await client.clientStreaming("/test.Echo/Join")
            #expect(try await empty.response().message.text == "")
        }
    }

    @Test func bidirectional() async throws {
        try await withLoopback([Self.echo]) { client, _, _ in
            let call = try await client.bidirectional("/test.Echo/Chat")
            var responses = call.responses.makeAsyncIterator()
            for text in ["ping", "pong", ""] {
                try await call.requests.write(ByteBuffer(text: text))
                #expect(try await responses.next()?.text == text)
            }
            call.requests.finish()
            #expect(try await responses.next() == nil)
            #expect(call.responses.trailingMetadata?.first("x-end") == "yes")
        }
    }

    /// Larger than the windows of stream and connection, both ways; the limit itself passes, one byte more doesn't.
    @Test func bigMessages() async throws {
        let limit = 4 * 1024 * 1024
        try await withLoopback([Self.echo]) { client, _, _ in
            for size in [65531, 271_828, 1 << 20, limit] {
                var message = ByteBuffer(repeating: UInt8(truncatingIfNeeded: size), count: size - 1)
                message.writeInteger(UInt8(7))
                let response = try await client.unary("/test.Echo/Get", message)
                #expect(response.message == message)
            }
            let error = await status {
                _ = try await client.unary("/test.Echo/Get", ByteBuffer(repeating: 1, count: limit + 1))
            }
            #expect(error?.code == .resourceExhausted)
            let after = try await client.unary("/test.Echo/Get", ByteBuffer(text: "still fine"))
            #expect(after.message.text == "still fine")
        }
    }

    @Test func bigStream() async throws {
        let service = RPCService(
            name: "test.Big",
            methods: [
                .serverStreaming("Down") { _, _, writer in
                    let message = ByteBuffer(repeating: 5, count: 200_000)
                    for _ in 0..<100 { try await writer.write(message) }
                },
                .clientStreaming("Up") { messages, _ in
                    var total = 0
                    for try await message in messages { total += message.readableBytes }
                    return RPCReply(message: ByteBuffer(text: "\(total)"))
                },
            ])
        try await withLoopback([service]) { client, _, _ in
            var total = 0
            for try await message in try await client.serverStreaming("/test.Big/Down", ByteBuffer()) {
                total += message.readableBytes
            }
            #expect(total == 20_000_000)
            let call = try await client.clientStreaming("/test.Big/Up")
            for _ in 0..<100 { try await call.requests.write(ByteBuffer(repeating: 1, count: 123_457)) }
            #expect(try await call.response().message.text == "12345700")
        }
    }

    /// A reader that doesn't read holds its writer up, and nobody else.
    @Test func slowReaderHoldsUpItsWriterOnly() async throws {
        let written = Atomic<Int>(0)
        let service = RPCService(
            name: "test.Slow",
            methods: [
                .serverStreaming("Down") { _, _, writer in
                    for _ in 0..<1000 {
                        try await writer.write(ByteBuffer(repeating: 0, count: 10_000))
                        written.add(1, ordering: .relaxed)
                    }
                }
            ])
        try await withLoopback([service, Self.echo]) { client, _, _ in
            let responses = try await client.serverStreaming("/test.Slow/Down", ByteBuffer())
            try await Task.sleep(for: .milliseconds(300))
            // The client's stream window, the server's buffer, and a message or two.
            #expect(written.load(ordering: .relaxed) < 50)
            _ = try await client.unary("/test.Echo/Get", ByteBuffer())
            var count = 0
            for try await _ in responses { count += 1 }
            #expect(count == 1000)
        }
    }

    @Test func deadline() async throws {
        let cancelled = Signal()
        let service = RPCService(
            name: "test.Sleep",
            methods: [
                .unary("Unary") { _, context in
                    #expect(context.remainingTime.map { $0 < .milliseconds(500) } == true)
                    do { try await Task.sleep(for: .seconds(60)) } catch { cancelled.fire() }
                    return RPCReply(message: ByteBuffer())
                },
                .serverStreaming("Stream") { _, _, writer in
                    try await writer.write(ByteBuffer(text: "one"))
                    do { try await Task.sleep(for: .seconds(60)) } catch { cancelled.fire() }
                },
            ])
        try await withLoopback([service, Self.echo]) { client, _, _ in
            // So that the time isn't spent on connecting.
            _ = try await client.unary("/test.Echo/Get", ByteBuffer())
            let options = RPCCallOptions(timeout: .milliseconds(500))
            let error = await status {
                _ = try await client.unary("/test.Sleep/Unary", ByteBuffer(), options: options)
            }
            #expect(error?.code == .deadlineExceeded)
            await cancelled.wait()
            var count = 0
            let late = await status {
                let stream = try await client.serverStreaming("/test.Sleep/Stream", ByteBuffer(), options: options)
                for try await _ in stream {
                    count += 1
                }
            }
            #expect(late?.code == .deadlineExceeded)
            #expect(count == 1)
            await cancelled.wait()
        }
    }

    @Test func cancellationReachesTheHandler() async throws {
        let started = Signal()
        let cancelled = Signal()
        let service = RPCService(
            name: "test.Sleep",
            methods: [
                .unary("Unary") { _, _ in
                    started.fire()
                    do { try await Task.sleep(for: .seconds(60)) } catch { cancelled.fire() }
                    return RPCReply(message: ByteBuffer())
                },
                .serverStreaming("Stream") { _, _, writer in
                    do {
                        while true {
                            try await writer.write(ByteBuffer(text: "tick"))
                            try await Task.sleep(for: .milliseconds(1))
                        }
                    } catch { cancelled.fire() }
                },
            ])
        try await withLoopback([service]) { client, _, _ in
            let task = Task { try await client.unary("/test.Sleep/Unary", ByteBuffer()) }
            await started.wait()
            task.cancel()
            let error = await status { _ = try await task.value }
            #expect(error?.code == .cancelled)
            await cancelled.wait()

            // Letting go of the responses cancels as well.
            for try await _ in try await client.serverStreaming("/test.Sleep/Stream", ByteBuffer()) { break }
            await cancelled.wait()

            // And so does the loss of the connection.
            let last = Task { try await client.unary("/test.Sleep/Unary", ByteBuffer()) }
            await started.wait()
            await client.close()
            let lost = await status { _ = try await last.value }
            #expect(lost?.code == .unavailable)
            await cancelled.wait()
        }
    }

    @Test func drain() async throws {
        let started = Signal()
        let release = Signal()
        let service = RPCService(
            name: "test.Drain",
            methods: [
                .unary("Slow") { message, _ in
                    started.fire()
                    await release.wait()
                    return RPCReply(message: message)
                },
                .serverStreaming("Watch", endsAtDrain: true) { _, _, writer in
                    try await writer.write(ByteBuffer(text: "first"))
                    try await Task.sleep(for: .seconds(60))
                },
            ])
        try await withLoopback([service]) { client, server, _ in
            let slow = Task { try await client.unary("/test.Drain/Slow", ByteBuffer(text: "kept")) }
            await started.wait()
            var watch = try await client.serverStreaming("/test.Drain/Watch", ByteBuffer()).makeAsyncIterator()
            #expect(try await watch.next()?.text == "first")
            server.beginGracefulShutdown()
            server.beginGracefulShutdown()
            let end = await status { _ = try await watch.next() }
            #expect(end?.code == .unavailable)
            #expect(end?.message == "the server is draining")
            release.fire()
            #expect(try await slow.value.message.text == "kept")
            try await server.run()
            let refused = await status { _ = try await client.unary("/test.Drain/Slow", ByteBuffer()) }
            #expect(refused?.code == .unavailable)
        }
    }

    @Test func connectionRefused() async throws {
        var port = 0
        try await withLoopback([Self.echo]) { _, _, bound in port = bound }
        let client = RPCClient(RPCClientConfiguration(port: port))
        for _ in 0..<2 {
            let error = await status { _ = try await client.unary("/test.Echo/Get", ByteBuffer()) }
            #expect(error?.code == .unavailable)
        }
        let waiting = await status {
            let options = RPCCallOptions(timeout: .milliseconds(300), waitsForReady: true)
            _ = try await client.unary("/test.Echo/Get", ByteBuffer(), options: options)
        }
        #expect(waiting?.code == .deadlineExceeded)
        await client.close()
    }

    @Test func clientFindsTheServerAgain() async throws {
        let (first, port) = try await serverToComeBack([Self.echo])
        first.beginGracefulShutdown()
        try await first.run()
        var configuration = RPCClientConfiguration(port: port)
        configuration.initialBackoff = .milliseconds(50)
        let client = RPCClient(configuration)
        let waiting = Task {
            let options = RPCCallOptions(timeout: .seconds(10), waitsForReady: true)
            return try await client.unary("/test.Echo/Get", ByteBuffer(text: "patience"), options: options)
        }
        try await Task.sleep(for: .milliseconds(100))
        try await withLoopback([Self.echo], configure: { $0.port = port }) { _, _, _ in
            let response = try await waiting.value
            #expect(response.message.text == "patience")
        }
        await client.close()
    }

    /// gRFC A90.
    @Test func healthList() async throws {
        let health = HealthService(["": .serving, "a.B": .notServing])
        try await withLoopback([health.service]) { client, _, _ in
            let response = try await client.unary("/grpc.health.v1.Health/List", ByteBuffer())
            let expected: [UInt8] = [10, 4, 18, 2, 8, 1, 10, 9, 10, 3, 97, 46, 66, 18, 2, 8, 2]
            #expect(Array(response.message.readableBytesView) == expected)
            for number in 0..<99 { health.setStatus("service\(number)", .serving) }
            let error = await status { _ = try await client.unary("/grpc.health.v1.Health/List", ByteBuffer()) }
            #expect(error?.code == .resourceExhausted)
        }
    }

    /// States that came and went while a watcher could not look are not told.
    @Test func supersededHealthIsNotTold() async throws {
        let health = HealthService()
        let flipping = RPCService(
            name: "test.Flip",
            methods: [
                // On the event loop, as the watcher, who gets on only once this has returned.
                .unaryAtOnce("Flip") { message, _ in
                    for number in 0..<1001 { health.setStatus("", number % 2 == 0 ? .notServing : .serving) }
                    return RPCReply(message: message)
                }
            ])
        try await withLoopback([health.service, flipping]) { client, server, _ in
            var watch = try await client.serverStreaming("/grpc.health.v1.Health/Watch", ByteBuffer())
                .makeAsyncIterator()
            #expect(try await watch.next() == ByteBuffer(bytes: [8, 1]))
            _ = try await client.unary("/test.Flip/Flip", ByteBuffer())
            #expect(try await watch.next() == ByteBuffer(bytes: [8, 2]))
            server.beginGracefulShutdown()
            #expect(await status { _ = try await watch.next() }?.code == .unavailable)
        }
    }

    /// The server's own maximum counts where the client sets no deadline, or a later one.
    @Test func maximumUnaryTimeout() async throws {
        let service = RPCService(
            name: "test.Slow",
            methods: [
                .unary("Get") { message, context in
                    #expect(context.remainingTime ?? .seconds(100) < .seconds(1))
                    try await Task.sleep(for: .seconds(30))
                    return RPCReply(message: message)
                }
            ])
        try await withLoopback(
            [service], configure: { $0.maximumUnaryTimeout = .milliseconds(100) }
        ) { client, _, _ in
            for timeout in [nil, .seconds(20)] as [Duration?] {
                let options = RPCCallOptions(timeout: timeout)
                let error = await status {
                    _ = try await client.unary("/test.Slow/Get", ByteBuffer(), options: options)
                }
                #expect(error?.code == .deadlineExceeded)
            }
        }
    }

    @Test func health() async throws {
        let health = HealthService(["": .serving, "a.B": .notServing])
        try await withLoopback([health.service]) { client, server, _ in
            func check(_ service: String) async throws -> [UInt8] {
                var request = ProtoWriter()
                request.string(1, service)
                let response = try await client.unary("/grpc.health.v1.Health/Check", ByteBuffer(bytes: request.bytes))
                return Array(response.message.readableBytesView)
            }
            #expect(try await check("") == [8, 1])
            #expect(try await check("a.B") == [8, 2])
            #expect(await status { _ = try await check("nobody") }?.code == .notFound)
            let bad = await status {
                _ = try await client.unary("/grpc.health.v1.Health/Check", ByteBuffer(bytes: [10, 200]))
            }
            #expect(bad?.code == .internal)

            var request = ProtoWriter()
            request.string(1, "late.Service")
            var watch = try await client.serverStreaming(
                "/grpc.health.v1.Health/Watch", ByteBuffer(bytes: request.bytes)
            ).makeAsyncIterator()
            #expect(try await watch.next() == ByteBuffer(bytes: [8, 3]))
            health.setStatus("late.Service", .serving)
            #expect(try await watch.next() == ByteBuffer(bytes: [8, 1]))
            health.setStatus("late.Service", .serving)
            server.beginGracefulShutdown()
            #expect(try await watch.next() == ByteBuffer(bytes: [8, 2]))
            #expect(await status { _ = try await watch.next() }?.code == .unavailable)
            health.setStatus("late.Service", .serving)
            #expect(health.status("late.Service") == .notServing)
        }
    }
}

extension Metadata {
    init(_ entries: [(String, String)]) {
        self.init()
        for (name, value) in entries { self.append(name, value) }
    }
}
