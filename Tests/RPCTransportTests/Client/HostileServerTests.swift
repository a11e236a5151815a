import NIOCore
import Synchronization
import Testing

@testable import RPCTransport

/// What the client makes of servers that go away, refuse, lie and flood.
@Suite struct HostileServerTests {
    private static let path = "/test.Raw/Get"

    private static func call(_ client: RPCClient, _ options: RPCCallOptions = RPCCallOptions()) async throws {
        var options = options
        if options.timeout == nil { options.timeout = .seconds(30) }
        _ = try await client.unary(Self.path, ByteBuffer(), options: options)
    }

    private static let retried = RPCCallOptions(
        retryPolicy: RPCRetryPolicy(maximumAttempts: 3, initialBackoff: .milliseconds(10)))

    // MARK: GOAWAY

    /// Streams above the last one of a GOAWAY were not looked at: they are sent again, and nobody notices.
    @Test func callsAboveTheLastStreamAreSentAgain() async throws {
        let second = Counter()
        try await withRawServer { connection, number in
            try await connection.handshake()
            guard number == 1 else {
                second.increment()
                while true { try await connection.answer(try await connection.nextRequest()) }
            }
            let first = try await connection.nextRequest()
            _ = try await connection.nextRequest()
            _ = try await connection.nextRequest()
            try await connection.goAway(last: first)
            try await connection.answer(first)
            try await connection.waitForEnd()
        } _: { client in
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<3 { group.addTask { try await Self.call(client) } }
                try await group.waitForAll()
            }
        }
        #expect(second.count == 1)
    }

    /// The graceful shutdown of two GOAWAYs: new calls go to a new connection while the old one finishes its own.
    @Test func doubleGoAway() async throws {
        let isAnswered = Signal()
        try await withRawServer { connection, number in
            try await connection.handshake()
            guard number == 1 else {
                try await connection.answer(try await connection.nextRequest())
                isAnswered.fire()
                return try await connection.waitForEnd()
            }
            let stream = try await connection.nextRequest()
            try await connection.goAway(last: 0x7FFF_FFFF)
            await isAnswered.wait()
            try await connection.goAway(last: stream)
            try await connection.answer(stream)
            try await connection.waitForEnd()
        } _: { client in
            let stream = try await client.serverStreaming(Self.path, ByteBuffer())
            #expect(await soon { await client.look { $0.retired.count == 1 } })
            try await Self.call(client)
            var count = 0
            for try await _ in stream { count += 1 }
            #expect(count == 1)
        }
    }

    @Test func callsUnderWayOnAConnectionThatDiesFailOnceAndAreRetriedIfTheyMay() async throws {
        try await withRawServer { connection, number in
            try await connection.handshake()
            let stream = try await connection.nextRequest()
            if number % 2 == 1 { return try await connection.goAway(last: stream, code: 2, "out of order") }
            try await connection.answer(stream)
            try await connection.waitForEnd()
        } _: { client in
            let error = await status { try await Self.call(client) }
            #expect(error?.code == .unavailable)
            #expect(error?.message == "the connection was lost: GOAWAY, code 2 out of order")
            try await Self.call(client)
        }
        try await withRawServer { connection, number in
            try await connection.handshake()
            let stream = try await connection.nextRequest()
            if number == 1 { return }
            try await connection.answer(stream)
            try await connection.waitForEnd()
        } _: { client in
            try await Self.call(client, Self.retried)
        }
    }

    // MARK: RST_STREAM

    @Test func refusedStreamsAreSentAgainOnce() async throws {
        let requests = Counter()
        try await withRawServer { connection, _ in
            try await connection.handshake()
            while true {
                let stream = try await connection.nextRequest()
                requests.increment()
                if requests.count == 2 {
                    try await connection.answer(stream)
                } else {
                    try await connection.reset(stream, 7)
                }
            }
        } _: { client in
            try await Self.call(client)
            #expect(requests.count == 2)
            let error = await status { try await Self.call(client) }
            #expect(error?.code == .unavailable)
            #expect(requests.count == 4)
        }
    }

    /// PROTOCOL-HTTP2.md, "Errors".
    @Test(
        arguments: [
            (0, RPCCode.internal), (1, .internal), (2, .internal), (3, .internal), (4, .internal), (6, .internal),
            (8, .cancelled), (9, .internal), (10, .internal), (11, .resourceExhausted), (12, .permissionDenied),
            (13, .internal), (99, .internal),
        ] as [(UInt32, RPCCode)])
    func resetsMeanAStatus(code: UInt32, status expected: RPCCode) async throws {
        try await withRawServer { connection, _ in
            try await connection.handshake()
            let stream = try await connection.nextRequest()
            try await connection.headers(stream, RawConnection.responseHeaders)
            try await connection.reset(stream, code)
            try await connection.waitForEnd()
        } _: { client in
            let error = await status { try await Self.call(client) }
            #expect(error?.code == expected)
        }
    }

    static let ends: [Answer] = [
        Answer(testDescription: "hangs up", code: .unavailable) { _, _ in },
        Answer(testDescription: "hangs up in a header block", code: .unavailable) { connection, stream in
            try await connection.send(1, 0, stream, RawConnection.block(RawConnection.responseHeaders))
        },
        Answer(testDescription: "GOAWAY that counts it", code: .unavailable) { connection, stream in
            try await connection.goAway(last: stream)
        },
        Answer(testDescription: "GOAWAY with an error", code: .unavailable) { connection, stream in
            try await connection.goAway(last: 0x7FFF_FFFF, code: 2)
        },
        Answer(testDescription: "refused after the headers", code: .unavailable) { connection, stream in
            try await connection.headers(stream, RawConnection.responseHeaders)
            try await connection.reset(stream, 7)
        },
        Answer(testDescription: "GOAWAY that doesn't count it, after the headers", code: .unavailable) {
            connection, stream in
            try await connection.headers(stream, RawConnection.responseHeaders)
            try await connection.goAway(last: 0)
        },
        Answer(testDescription: "UNAVAILABLE", code: .unavailable) { connection, stream in
            try await connection.headers(stream, RawConnection.responseHeaders + [("grpc-status", "14")], end: true)
        },
        Answer(testDescription: "told to try again", code: .unavailable) { connection, stream in
            let fields = [("grpc-status", "14"), ("grpc-retry-pushback-ms", "0")]
            try await connection.headers(stream, RawConnection.responseHeaders + fields, end: true)
        },
        Answer(testDescription: "breaks the rules", code: .unavailable) { connection, stream in
            try await connection.data(stream, [0])
            try await connection.waitForEnd()
        },
    ]

    /// Without a policy a call that the server may have begun reaches it once.
    @Test(arguments: ends) func whatMayHaveBegunIsNotSentAgain(end: Answer) async throws {
        let requests = Counter()
        try await withRawServer { connection, _ in
            try await connection.handshake()
            let stream = try await connection.nextRequest()
            requests.increment()
            if requests.count == 1 { return try await end.say(&connection, stream) }
            try await connection.answer(stream)
            try await connection.waitForEnd()
        } _: { client in
            let error = await status { try await Self.call(client) }
            #expect(error?.code == end.code, "\(String(describing: error))")
            #expect(requests.count == 1)
            // A call that is sent before the client has seen the end of the connection is lost with it.
            #expect(await soon { await client.look { $0.connection == nil } })
            try await Self.call(client, RPCCallOptions(waitsForReady: true))
            #expect(requests.count == 2)
        }
    }

    // MARK: Answers

    struct Answer: Sendable, CustomTestStringConvertible {
        let testDescription: String
        let code: RPCCode
        let say: @Sendable (inout RawConnection, UInt32) async throws -> Void
    }

    private static func http(_ status: String, _ code: RPCCode) -> Answer {
        Answer(testDescription: "HTTP \(status)", code: code) { connection, stream in
            try await connection.headers(stream, [(":status", status), ("content-type", "text/html")])
            try await connection.data(stream, Array("<h1>no</h1>".utf8), end: true)
        }
    }

    private static func afterHeaders(
        _ description: String, _ code: RPCCode,
        _ say: @escaping @Sendable (inout RawConnection, UInt32) async throws -> Void
    ) -> Answer {
        Answer(testDescription: description, code: code) { connection, stream in
            try await connection.headers(stream, RawConnection.responseHeaders)
            try await say(&connection, stream)
        }
    }

    static let answers: [Answer] = [
        http("400", .internal), http("401", .unauthenticated), http("403", .permissionDenied),
        http("404", .unimplemented), http("429", .unavailable), http("502", .unavailable), http("503", .unavailable),
        http("504", .unavailable), http("500", .unknown), http("302", .unknown), http("200", .unknown),
        Answer(testDescription: "trailers only", code: .notFound) { connection, stream in
            try await connection.headers(stream, RawConnection.responseHeaders + [("grpc-status", "5")], end: true)
        },
        Answer(testDescription: "trailers only that say OK", code: .unimplemented) { connection, stream in
            try await connection.headers(stream, RawConnection.responseHeaders + [("grpc-status", "0")], end: true)
        },
        Answer(testDescription: "data before headers", code: .unavailable) { connection, stream in
            try await connection.data(stream, [0, 0, 0, 0, 0])
        },
        Answer(testDescription: "headers over the limit", code: .resourceExhausted) { connection, stream in
            let many = Array(repeating: ("x-n", "y"), count: 600)
            try await connection.headers(stream, RawConnection.responseHeaders + many)
        },
        afterHeaders("no grpc-status", .unknown) { connection, stream in
            try await connection.headers(stream, [("x", "y")], end: true)
        },
        afterHeaders("a grpc-status that is no number", .unknown) { connection, stream in
            try await connection.headers(stream, [("grpc-status", "fine")], end: true)
        },
        afterHeaders("two of grpc-status", .unknown) { connection, stream in
            try await connection.data(stream, [0, 0, 0, 0, 0])
            try await connection.headers(stream, [("grpc-status", "13"), ("grpc-status", "0")], end: true)
        },
        afterHeaders("a grpc-status with a sign", .unknown) { connection, stream in
            try await connection.data(stream, [0, 0, 0, 0, 0])
            try await connection.headers(stream, [("grpc-status", "+0")], end: true)
        },
        afterHeaders("a grpc-status out of range", .unknown) { connection, stream in
            try await connection.headers(stream, [("grpc-status", "17"), ("grpc-message", "%zz%")], end: true)
        },
        afterHeaders("a grpc-status beyond all numbers", .unknown) { connection, stream in
            try await connection.headers(stream, [("grpc-status", String(repeating: "9", count: 40))], end: true)
        },
        Answer(testDescription: "gRPC-Web", code: .unknown) { connection, stream in
            try await connection.headers(stream, [(":status", "200"), ("content-type", "application/grpc-web+proto")])
            try await connection.data(stream, [0, 0, 0, 0, 0])
            try await connection.headers(stream, [("grpc-status", "0")], end: true)
        },
        Answer(testDescription: "informational responses only", code: .internal) { connection, stream in
            for _ in 0..<33 { try await connection.headers(stream, [(":status", "103")]) }
        },
        Answer(testDescription: "an HPACK bomb", code: .resourceExhausted) { connection, stream in
            // One field of 3,970 bytes into the table, and then 12,000 times a byte that stands for it.
            var block = RawConnection.block([(":status", "200")])
            block.writeBytes([0x40, 1, UInt8(ascii: "x"), 0x7F, 0x80, 0x1E])
            block.writeRepeatingByte(UInt8(ascii: "y"), count: 127 + 3840)
            block.writeRepeatingByte(0xBE, count: 12000)
            try await connection.send(1, 4, stream, block)
        },
        afterHeaders("no trailers", .internal) { connection, stream in
            try await connection.data(stream, [0, 0, 0, 0, 0], end: true)
        },
        afterHeaders("a message that stops half-way", .internal) { connection, stream in
            try await connection.data(stream, [0, 0, 0, 0, 9, 1, 2])
            try await connection.headers(stream, [("grpc-status", "0")], end: true)
        },
        afterHeaders("a prefix that stops half-way", .internal) { connection, stream in
            try await connection.data(stream, [0, 0])
            try await connection.headers(stream, [("grpc-status", "0")], end: true)
        },
        afterHeaders("an unknown flag", .internal) { connection, stream in
            try await connection.data(stream, [7, 0, 0, 0, 0])
        },
        afterHeaders("compressed without grpc-encoding", .internal) { connection, stream in
            try await connection.data(stream, [1, 0, 0, 0, 0])
        },
        afterHeaders("a message of 4 GiB", .resourceExhausted) { connection, stream in
            try await connection.data(stream, [0, 0xFF, 0xFF, 0xFF, 0xFF])
        },
        afterHeaders("two messages", .unimplemented) { connection, stream in
            try await connection.data(stream, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        },
        afterHeaders("headers in the middle", .internal) { connection, stream in
            try await connection.headers(stream, [("x", "y")])
        },
    ]

    @Test(arguments: answers) func badAnswers(answer: Answer) async throws {
        try await withRawServer { connection, _ in
            try await connection.handshake()
            let stream = try await connection.nextRequest()
            try await answer.say(&connection, stream)
            // The connection is none the worse for it.
            try await connection.answer(try await connection.nextRequest())
            try await connection.waitForEnd()
        } _: { client in
            let error = await status { try await Self.call(client) }
            #expect(error?.code == answer.code, "\(String(describing: error))")
            if answer.testDescription != "data before headers" { try await Self.call(client) }
        }
    }

    /// RFC 9110, section 15.2: any number of them may come ahead of the answer, and say nothing about it.
    @Test func informationalResponsesAreNotTheAnswer() async throws {
        try await withRawServer { connection, _ in
            try await connection.handshake()
            let stream = try await connection.nextRequest()
            try await connection.headers(stream, [(":status", "100")])
            try await connection.headers(stream, [(":status", "103"), ("x-early", "1"), ("grpc-status", "13")])
            try await connection.answer(stream)
            try await connection.waitForEnd()
        } _: { client in
            let options = RPCCallOptions(timeout: .seconds(30))
            let response = try await client.unary(Self.path, ByteBuffer(), options: options)
            #expect(response.initialMetadata.isEmpty)
        }
    }

    // MARK: Floods

    /// An answer may come behind a few of them.
    @Test func informationalResponsesAreSkipped() async throws {
        try await withRawServer { connection, _ in
            try await connection.handshake()
            let stream = try await connection.nextRequest()
            for status in ["100", "103", "103"] { try await connection.headers(stream, [(":status", status)]) }
            try await connection.answer(stream)
            try await connection.waitForEnd()
        } _: { client in
            try await Self.call(client)
        }
    }

    private static func repeated(_ frame: ByteBuffer, _ count: Int) -> ByteBuffer {
        var all = ByteBuffer()
        for _ in 0..<count { all.writeImmutableBuffer(frame) }
        return all
    }

    static let floods: [Answer] = [
        Answer(testDescription: "PING", code: .unavailable) { connection, _ in
            let ping = RawConnection.frame(6, 0, 0, ByteBuffer(integer: UInt64(1)))
            try await connection.outbound.write(Self.repeated(ping, 20_000))
        },
        Answer(testDescription: "SETTINGS", code: .unavailable) { connection, _ in
            try await connection.outbound.write(
                Self.repeated(RawConnection.frame(4, 0, 0, ByteBuffer()), 20_000))
        },
        Answer(testDescription: "unknown frames", code: .unavailable) { connection, _ in
            try await connection.outbound.write(Self.repeated(RawConnection.frame(77, 0, 0, ByteBuffer()), 20_000))
        },
        Answer(testDescription: "empty DATA", code: .unavailable) { connection, stream in
            try await connection.headers(stream, RawConnection.responseHeaders)
            try await connection.outbound.write(
                Self.repeated(RawConnection.frame(0, 0, stream, ByteBuffer()), 20_000))
        },
        Answer(testDescription: "CONTINUATION", code: .unavailable) { connection, stream in
            try await connection.send(1, 0, stream, RawConnection.block(RawConnection.responseHeaders))
            let more = RawConnection.frame(9, 0, stream, RawConnection.block([("x", "y")]))
            try await connection.outbound.write(Self.repeated(more, 200_000))
        },
    ]

    /// The connection is dropped, and the next call finds another.
    @Test(arguments: floods) func floodsEndTheConnection(flood: Answer) async throws {
        try await withRawServer { connection, number in
            try await connection.handshake()
            let stream = try await connection.nextRequest()
            if number == 1 { try await flood.say(&connection, stream) } else { try await connection.answer(stream) }
            try await connection.waitForEnd()
        } _: { client in
            let error = await status { try await Self.call(client) }
            #expect(error?.code == flood.code || error?.code == .resourceExhausted, "\(String(describing: error))")
            try await Self.call(client, RPCCallOptions(waitsForReady: true))
        }
    }

    /// Nobody waits for a server that broke the rules to hang up, too: it has a second for that.
    @Test(arguments: [false, true]) func callsEndBeforeTheirConnection(isFlood: Bool) async throws {
        try await withRawServer {
            // Retired for the second time it would be left alone for a while.
            $0.initialBackoff = .milliseconds(1)
        } script: { connection, _ in
            try await connection.handshake()
            let stream = try await connection.nextRequest()
            if isFlood {
                try await connection.outbound.write(Self.repeated(RawConnection.frame(4, 0, 0, ByteBuffer()), 20_000))
            } else {
                try await connection.send(8, 0, stream, ByteBuffer(integer: UInt32(0)))  // WINDOW_UPDATE by nothing
            }
            try await Task.sleep(for: .seconds(60))
        } _: { client in
            var isSeen = false
            // On a crowded machine the second may be over when somebody looks.
            for _ in 0..<10 where !isSeen {
                let error = await status { try await Self.call(client, RPCCallOptions(waitsForReady: true)) }
                isSeen = await client.look { !$0.retired.isEmpty } ?? false
                let reason = isFlood ? "the server asks too much (too_many_" : "the server broke the rules of HTTP/2"
                #expect(error?.code == .unavailable)
                #expect(error?.message.hasPrefix("the connection was lost: \(reason)") == true)
            }
            #expect(isSeen)
        }
    }

    /// GOAWAY, and then the last answer: nothing is left to do with it.
    @Test func aRetiredConnectionEndsWithItsCalls() async throws {
        let ends = Signal()
        try await withRawServer { connection, _ in
            try await connection.handshake()
            let streams = [try await connection.nextRequest(), try await connection.nextRequest()]
            try await connection.goAway(last: 0x7FFF_FFFF)
            for stream in streams { try await connection.answer(stream) }
            try await connection.waitForEnd()
            ends.fire()
        } _: { client in
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<2 { group.addTask { try await Self.call(client) } }
                try await group.waitForAll()
            }
            await ends.wait()
        }
    }

    /// A reader that takes nothing has no more than a window's worth waiting for it.
    @Test func aServerThatIgnoresTheWindowLosesTheStream() async throws {
        try await withRawServer { connection, _ in
            try await connection.handshake()
            let stream = try await connection.nextRequest()
            try await connection.headers(stream, RawConnection.responseHeaders)
            let message = ByteBuffer(bytes: [0, 0, 0, 0x3F, 0xFB] + Array(repeating: 1, count: 0x3FFB))
            try await connection.outbound.write(Self.repeated(RawConnection.frame(0, 0, stream, message), 200))
            try await connection.waitForEnd()
        } _: { client in
            let stream = try await client.serverStreaming(
                Self.path, ByteBuffer(), options: RPCCallOptions(timeout: .seconds(30)))
            _ = await stream.initialMetadata
            #expect(await soon { await client.look { $0.connection?.session?.streams.isEmpty ?? true } })
            var count = 0
            let error = await status { for try await _ in stream { count += 1 } }
            #expect(error?.code == .internal)
            #expect(count <= 17)  // 256 KiB, and one that was incomplete
        }
    }

    // MARK: Connecting

    @Test func aServerWithoutSettingsIsNoServer() async throws {
        try await withRawServer {
            $0.connectTimeout = .milliseconds(300)
        } script: { connection, _ in
            try await connection.waitForEnd()
        } _: { client in
            let error = await status { try await Self.call(client) }
            #expect(error?.code == .unavailable)
            #expect(error?.message.contains("SETTINGS") == true, "\(String(describing: error))")
        }
    }

    @Test func aServerThatSpeaksHTTP1IsNoServer() async throws {
        try await withRawServer { connection, _ in
            try await connection.outbound.write(ByteBuffer(string: "HTTP/1.1 400 Bad Request\r\n\r\n"))
            try await connection.waitForEnd()
        } _: { client in
            let error = await status { try await Self.call(client) }
            #expect(error?.code == .unavailable)
        }
    }

    /// A server that takes connections and hangs up is not asked again and again.
    @Test func connectionsWithoutUseAreMadeRarely() async throws {
        let connections = Counter()
        try await withRawServer {
            $0.initialBackoff = .seconds(20)
        } script: { connection, _ in
            connections.increment()
            try await connection.handshake()
            _ = try await connection.nextRequest()
        } _: { client in
            for _ in 0..<50 {
                let error = await status { try await Self.call(client) }
                #expect(error?.code == .unavailable)
            }
        }
        #expect(connections.count == 2)
    }

    /// Of a name's addresses the first refuses, the second says nothing, the third is the server.
    @Test func allAddressesAreTried() async throws {
        try await withRawServer { connection, _ in
            try await connection.waitForEnd()
        } _: { silent in
            let silentPort = silent.channel.configuration.port
            try await withRawServer {
                let ports = [1, silentPort, $0.port]
                $0.host = "phones.example"
                $0.resolver = { _, _ in try ports.map { try SocketAddress(ipAddress: "127.0.0.1", port: $0) } }
            } script: { connection, _ in
                try await connection.handshake()
                try await connection.answer(try await connection.nextRequest())
                try await connection.waitForEnd()
            } _: { client in
                try await Self.call(client)
            }
        }
    }

    @Test func idleConnectionsAreClosed() async throws {
        let ends = Signal()
        try await withRawServer {
            $0.idleTimeout = .milliseconds(50)
        } script: { connection, _ in
            try await connection.handshake()
            try await connection.answer(try await connection.nextRequest())
            _ = try await connection.next(RawConnection.FrameType.goAway)
            ends.fire()
        } _: { client in
            for _ in 0..<2 {
                try await Self.call(client)
                await ends.wait()
            }
        }
    }

    // MARK: Stream limits

    @Test func callsWaitForAStream() async throws {
        let open = Atomic<Int>(0)
        let isFull = Signal()
        let goOn = Signal()
        try await withRawServer {
            $0.maximumWaitingCalls = 2
        } script: { connection, _ in
            try await connection.handshake([(3, 1)])
            var isFirst = true
            while true {
                let stream = try await connection.nextRequest()
                #expect(open.add(1, ordering: .relaxed).newValue == 1)
                if isFirst {
                    isFull.fire()
                    await goOn.wait()
                }
                isFirst = false
                open.subtract(1, ordering: .relaxed)
                try await connection.answer(stream)
            }
        } _: { client in
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { try await Self.call(client) }
                await isFull.wait()
                // Two may wait; the deadline of one of them passes meanwhile.
                group.addTask { try await Self.call(client) }
                #expect(await soon { await client.look { $0.waiting.count } == 1 })
                let late = await status { try await Self.call(client, RPCCallOptions(timeout: .milliseconds(50))) }
                #expect(late?.code == .deadlineExceeded)
                group.addTask { try await Self.call(client) }
                #expect(await soon { await client.look { $0.waiting.count } == 2 })
                let tooMany = await status { try await Self.call(client) }
                #expect(tooMany?.code == .resourceExhausted)
                goOn.fire()
                try await group.waitForAll()
            }
        }
    }

    // MARK: Keepalive

    @Test func aServerThatFallsSilentIsGivenUp() async throws {
        try await withRawServer {
            $0.minimumKeepaliveInterval = .zero
            $0.keepaliveInterval = .milliseconds(50)
            $0.keepaliveTimeout = .milliseconds(200)
        } script: { connection, _ in
            try await connection.handshake()
            _ = try await connection.nextRequest()
            _ = try await connection.next(RawConnection.FrameType.ping)
            try await connection.waitForEnd()
        } _: { client in
            let error = await status { try await Self.call(client) }
            #expect(error?.code == .unavailable)
            #expect(error?.message == "the connection was lost: no answer to a PING")
        }
    }

    /// However often it is said, on one connection or on many.
    @Test func theIntervalIsBounded() async throws {
        try await withRawServer {
            $0.keepaliveInterval = .seconds(11)
        } script: { connection, number in
            try await connection.handshake()
            let stream = try await connection.nextRequest()
            for _ in 0..<100 { try await connection.goAway(last: stream, code: 11, "too_many_pings") }
            try await connection.answer(stream)
            try await connection.waitForEnd()
        } _: { client in
            try await Self.call(client)
            #expect(await client.look { $0.keepaliveInterval } == .seconds(22))
            for _ in 0..<200 { _ = await client.look { $0.keepaliveWasTooShort() } }
            #expect(await client.look { $0.keepaliveInterval } == .seconds(7200))
        }
    }

    @Test func tooManyPingsDoublesTheInterval() async throws {
        try await withRawServer {
            $0.keepaliveInterval = .seconds(11)
        } script: { connection, number in
            try await connection.handshake()
            let stream = try await connection.nextRequest()
            if number == 1 { try await connection.goAway(last: 0, code: 11, "too_many_pings") }
            try await connection.answer(stream)
            try await connection.waitForEnd()
        } _: { client in
            try await Self.call(client, RPCCallOptions(waitsForReady: true))
            #expect(await client.look { $0.keepaliveInterval } == .seconds(22))
        }
    }
}
