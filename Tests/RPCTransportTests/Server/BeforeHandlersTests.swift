import Glibc
import NIOCore
import NIOPosix
import Testing

@testable import RPCTransport

/// Where what comes before a handler runs, for handlers that stay on their event loop: finding out who calls and
/// inflating what was sent cost what the client makes of them, and must not hold up the other calls.
@Suite struct BeforeHandlersTests {
    private static let path = "/test.Where/Stay"
    private static let largestBytes = 64 << 20

    /// Answers with where it has run, and where its interceptor has.
    private static let service = RPCService(
        name: "test.Where",
        methods: [
            .serverStreaming("Stay", staysOnEventLoop: true) { message, context, writer in
                let begun = context.identity as? Witness.Account
                let time = threadTime() - (begun?.loopTime ?? .zero)
                let places = [begun?.isOnLoopAtFirst == true, begun?.isOnLoopLater == true, isOnEventLoop]
                var answer = ByteBuffer()
                for place in places { answer.writeInteger(place ? 1 : 0, as: UInt8.self) }
                answer.writeInteger(UInt64(clamping: time.nanoseconds))
                answer.writeInteger(message.readableBytes)
                try await writer.write(answer)
            }
        ])

    private struct Answer {
        var interceptorBegins: Bool
        var interceptorGoesOn: Bool
        var handler: Bool
        /// Processor time of the event loop since the call's interceptor began.
        var loopTime: Duration
        var requestBytes: Int

        init?(_ bytes: ByteBuffer) {
            var bytes = bytes
            guard let places = bytes.readBytes(length: 3), let time = bytes.readInteger(as: UInt64.self),
                let count = bytes.readInteger(as: Int.self)
            else { return nil }
            (self.interceptorBegins, self.interceptorGoesOn) = (places[0] == 1, places[1] == 1)
            self.handler = places[2] == 1
            self.loopTime = .nanoseconds(Int64(clamping: time))
            self.requestBytes = count
        }
    }

    /// Waits, as one does that has a token's signature checked.
    private struct Witness: RPCInterceptor {
        struct Account: Sendable {
            var isOnLoopAtFirst: Bool
            var loopTime: Duration
            var isOnLoopLater = true
        }

        func intercept(_ context: inout RPCContext) async throws {
            var account = Account(isOnLoopAtFirst: isOnEventLoop, loopTime: threadTime())
            try await Task.sleep(for: .milliseconds(10))
            account.isOnLoopLater = isOnEventLoop
            context.identity = account
        }
    }

    private func call(
        _ client: RPCClient, _ message: ByteBuffer, _ compression: RPCCompression?
    ) async throws -> Answer {
        let options = RPCCallOptions(compression: compression)
        var answers: [ByteBuffer] = []
        for try await answer in try await client.serverStreaming(Self.path, message, options: options) {
            answers.append(answer)
        }
        return try #require(answers.count == 1 ? Answer(answers[0]) : nil)
    }

    @Test func interceptorsThatWaitLeaveTheEventLoop() async throws {
        try await withLoopback([Self.service], interceptors: [Witness()]) { client, _, _ in
            for compression in [nil, RPCCompression.gzip] {
                let answer = try await self.call(client, ByteBuffer(text: "x"), compression)
                #expect(answer.interceptorBegins, "what is known already is found at once, right there")
                #expect(!answer.interceptorGoesOn, "\(String(describing: compression))")
                #expect(answer.handler)
            }
        }
    }

    @Test func largeRequestsAreInflatedElsewhere() async throws {
        let large = ByteBuffer(repeating: 7, count: Self.largestBytes)
        let deflated = try #require(Deflater.deflate(large, .gzip))
        let began = threadTime()
        _ = try Inflater.inflate(deflated, .gzip, limit: Self.largestBytes)
        let cost = threadTime() - began

        try await withLoopback(
            [Self.service], interceptors: [Witness()], configure: { $0.maximumMessageBytes = Self.largestBytes }
        ) { client, _, _ in
            let answer = try await self.call(client, large, .gzip)
            #expect(answer.requestBytes == Self.largestBytes && answer.handler)
            #expect(answer.loopTime < cost / 2, "inflating takes \(cost)")
        }
    }
}

private var isOnEventLoop: Bool { MultiThreadedEventLoopGroup.currentEventLoop != nil }

/// Processor time of the thread that asks.
private func threadTime() -> Duration {
    var time = timespec()
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    return .seconds(time.tv_sec) + .nanoseconds(time.tv_nsec)
}

extension Duration {
    fileprivate var nanoseconds: Int64 {
        self.components.seconds * 1_000_000_000 + self.components.attoseconds / 1_000_000_000
    }
}
