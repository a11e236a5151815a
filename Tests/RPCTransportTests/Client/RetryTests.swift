import NIOCore
import Synchronization
import Testing

@testable import RPCTransport

/// Retries by policy (gRFC A6), against a server that fails as often as it is told to.
@Suite struct RetryTests {
    /// What a handler saw of each try: `grpc-previous-rpc-attempts`.
    private final class Log: Sendable {
        private let tries = Mutex<[String]>([])

        func note(_ metadata: Metadata) -> Int {
            self.tries.withLock { tries in
                tries.append(metadata.first("grpc-previous-rpc-attempts") ?? "-")
                return tries.count
            }
        }

        var seen: [String] { self.tries.withLock { $0 } }
    }

    private static func options(_ attempts: Int = 4, timeout: Duration = .seconds(30)) -> RPCCallOptions {
        RPCCallOptions(
            timeout: timeout,
            retryPolicy: RPCRetryPolicy(maximumAttempts: attempts, initialBackoff: .milliseconds(5)))
    }

    private static func unavailable(pushback: String? = nil) -> RPCError {
        var error = RPCError(.unavailable, "not now")
        if let pushback { error.metadata.append("grpc-retry-pushback-ms", pushback) }
        return error
    }

    private static func failing(_ times: Int, _ log: Log, pushback: String? = nil) -> RPCService {
        RPCService(
            name: "test.Retry",
            methods: [
                .unary("Get") { message, context in
                    if log.note(context.metadata) <= times { throw Self.unavailable(pushback: pushback) }
                    return RPCReply(message: message)
                }
            ])
    }

    @Test func unavailableIsTriedAgainUntilItWorks() async throws {
        let log = Log()
        try await withLoopback([Self.failing(2, log)]) { client, _, _ in
            var options = Self.options()
            options.metadata.append("grpc-previous-rpc-attempts", "7")  // ours wins
            options.metadata.append("x-mine", "1")
            let response = try await client.unary("/test.Retry/Get", ByteBuffer(text: "x"), options: options)
            #expect(response.message.text == "x")
        }
        #expect(log.seen == ["7", "1", "2"])
    }

    @Test func attemptsAreBounded() async throws {
        let log = Log()
        try await withLoopback([Self.failing(99, log)]) { client, _, _ in
            let error = await status {
                _ = try await client.unary("/test.Retry/Get", ByteBuffer(), options: Self.options(3))
            }
            #expect(error?.message == "not now")
        }
        #expect(log.seen == ["-", "1", "2"])
    }

    @Test(arguments: [("-1", 1), ("30", 2), ("x", 1)]) func pushback(text: String, tries: Int) async throws {
        let log = Log()
        try await withLoopback([Self.failing(1, log, pushback: text)]) { client, _, _ in
            let started = ContinuousClock.now
            let error = await status {
                _ = try await client.unary("/test.Retry/Get", ByteBuffer(), options: Self.options())
            }
            #expect((error == nil) == (tries > 1))
            if tries > 1 { #expect(ContinuousClock.now - started >= .milliseconds(30)) }
        }
        #expect(log.seen.count == tries)
    }

    /// A wait that would outlast the deadline is not begun: the caller learns what was wrong, and at once.
    @Test func theDeadlineBoundsTheWaits() async throws {
        let log = Log()
        try await withLoopback([Self.failing(1, log, pushback: "60000")]) { client, _, _ in
            let error = await status {
                let options = Self.options(timeout: .seconds(20))
                _ = try await client.unary("/test.Retry/Get", ByteBuffer(), options: options)
            }
            #expect(error?.code == .unavailable)
        }
    }

    @Test func tokensBoundTheRetriesOfAClient() async throws {
        let log = Log()
        try await withLoopback(
            [Self.failing(99, log)],
            configureClient: {
                $0.retryThrottling = RPCRetryThrottling(maximumTokens: 6, tokenRatio: 0.1)
                $0.retryPolicy = Self.options(5).retryPolicy
            }
        ) { client, _, _ in
            for _ in 0..<3 {
                let error = await status { _ = try await client.unary("/test.Retry/Get", ByteBuffer()) }
                #expect(error?.code == .unavailable)
            }
        }
        // Three tries use up half of the tokens; each call after that has one.
        #expect(log.seen.count == 5)
    }

    /// All that was written goes along with the next try, and what is written later too.
    @Test func streamedRequestsAreSentAgain() async throws {
        let log = Log()
        let hasFailed = Signal()
        let service = RPCService(
            name: "test.Retry",
            methods: [
                .bidirectional("Echo") { messages, context, writer in
                    var iterator = messages.makeAsyncIterator()
                    let first = try await iterator.next()
                    if log.note(context.metadata) == 1 {
                        hasFailed.fire()
                        throw Self.unavailable()
                    }
                    if let first { try await writer.write(first) }
                    while let message = try await iterator.next() { try await writer.write(message) }
                }
            ])
        try await withLoopback([service]) { client, _, _ in
            let call = try await client.bidirectional("/test.Retry/Echo", options: Self.options())
            try await call.requests.write(ByteBuffer(text: "a"))
            try await call.requests.write(ByteBuffer(text: "b"))
            await hasFailed.wait()
            try await call.requests.write(ByteBuffer(text: "c"))
            call.requests.finish()
            var seen: [String] = []
            for try await message in call.responses { seen.append(message.text) }
            #expect(seen == ["a", "b", "c"])
        }
        #expect(log.seen == ["-", "1"])
    }

    /// A request that is longer than what is kept has one try.
    @Test func longRequestsAreNotKept() async throws {
        let log = Log()
        let service = RPCService(
            name: "test.Retry",
            methods: [
                .clientStreaming("Take") { messages, context in
                    for try await _ in messages {}
                    _ = log.note(context.metadata)
                    throw Self.unavailable()
                }
            ])
        try await withLoopback([service], configureClient: { $0.retryBufferBytes = 1000 }) { client, _, _ in
            let call = try await client.clientStreaming("/test.Retry/Take", options: Self.options())
            for _ in 0..<3 { try await call.requests.write(ByteBuffer(repeating: 1, count: 500)) }
            let error = await status { _ = try await call.response() }
            #expect(error?.code == .unavailable)
        }
        #expect(log.seen.count == 1)
    }

    /// Once the response has begun it is the caller's.
    @Test func aResponseThatHasBegunIsNotRepeated() async throws {
        let log = Log()
        let service = RPCService(
            name: "test.Retry",
            methods: [
                .serverStreaming("List") { message, context, writer in
                    _ = log.note(context.metadata)
                    try await writer.write(message)
                    throw Self.unavailable()
                }
            ])
        try await withLoopback([service]) { client, _, _ in
            var count = 0
            let error = await status {
                let stream = try await client.serverStreaming(
                    "/test.Retry/List", ByteBuffer(text: "x"), options: Self.options())
                for try await _ in stream { count += 1 }
            }
            #expect(error?.code == .unavailable)
            #expect(count == 1)
        }
        #expect(log.seen.count == 1)
    }
}
