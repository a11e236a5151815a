import AsyncHTTPClient
import Glibc
import NIOCore
import NIOHTTP1
import SagaRuntime
import Synchronization
import Testing

@testable import DeviceProvisioning

/// Whether a byte left: against raw servers, with a body and without one.
@Suite struct OutboundHTTPTests {
    enum Said: Equatable {
        case answered(Int), notSent, unauthorized, sent
    }

    private static func client(connections: Int = 8) -> OutboundHTTP {
        var configuration = HTTPClient.Configuration()
        configuration.timeout.connect = .milliseconds(500)
        configuration.connectionPool.concurrentHTTP1ConnectionsPerHostSoftLimit = connections
        return OutboundHTTP(configuration)
    }

    private static func send(
        _ client: OutboundHTTP, _ url: String, body: [UInt8]? = nil, timeout: Duration = .seconds(20),
        authorize: @escaping @Sendable () throws(StepError) -> Void = { () throws(StepError) in }
    ) async -> Said {
        var request = HTTPClientRequest(url: url)
        request.method = .POST
        if let body { request.body = .bytes(body) }
        do throws(OutboundHTTP.Failure) {
            let response = try await client.execute(request, timeout: timeout, authorize: authorize)
            _ = try? await response.body.collect(upTo: 1 << 20)
            return .answered(Int(response.status.code))
        } catch {
            switch error {
            case .notSent: return .notSent
            case .unauthorized: return .unauthorized
            case .sent: return .sent
            }
        }
    }

    private static let bodies: [[UInt8]?] = [nil, Array("{}".utf8), Array(repeating: 65, count: 8 << 20)]

    private static let ok = Array("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".utf8)

    /// What the peer does once a request has begun to arrive. None of it tells how much of it was acted upon.
    enum Ending: CaseIterable {
        case closesUnread, closesInTheMidst, resetsUnread, resetsInTheMidst, closesAfterHalfAHead
    }

    @Test(arguments: Ending.allCases)
    func aRequestThatBeganToLeaveIsSent(_ ending: Ending) async throws {
        for body in Self.bodies {
            let peer = try RawPeer { socket, _ in
                socket.waitForBytes()
                switch ending {
                case .closesUnread: break
                case .closesInTheMidst: _ = socket.read()
                case .resetsUnread: socket.willReset()
                case .resetsInTheMidst:
                    _ = socket.read()
                    socket.willReset()
                case .closesAfterHalfAHead: socket.write(Array("HTTP/1.1 200 O".utf8))
                }
            }
            let client = Self.client()
            #expect(await Self.send(client, peer.url, body: body) == .sent)
            await client.shutdown()
        }
    }

    @Test func whereThereIsNoConnectionNothingWasSent() async throws {
        let unused = try BlockingSocket.listening()
        let refused = unused.port
        unused.shutDown()
        // Speaks another protocol than TLS; says nothing; ends the handshake.
        let talker = try RawPeer { socket, _ in
            socket.waitForBytes()
            socket.write(Array("HTTP/1.1 400 Bad Request\r\n\r\n".utf8))
            _ = socket.readToEnd()
        }
        let mute = try RawPeer { socket, _ in _ = socket.readToEnd() }
        let closer = try RawPeer { socket, _ in socket.waitForBytes() }
        let urls = [
            "http://127.0.0.1:\(refused)/", "https://127.0.0.1:\(refused)/", "http://no-such-host.invalid/",
            "https://127.0.0.1:\(talker.port)/", "https://127.0.0.1:\(mute.port)/", "https://127.0.0.1:\(closer.port)/",
            "http+unix://%2Fno%2Fsuch%2Fsocket/", "nonsense://x/", "",
        ]
        for url in urls {
            for body in Self.bodies {
                let client = Self.client()
                #expect(await Self.send(client, url, body: body) == .notSent, "\(url)")
                await client.shutdown()
            }
        }
    }

    /// One connection, taken by a request without an answer: the others wait until they are given up, by time or by
    /// their task, and never leave.
    @Test func whatWaitedForAConnectionWasNotSent() async throws {
        for body in Self.bodies {
            let free = Mutex(false)
            let peer = try RawPeer { socket, record in
                record(socket.read())
                while !free.withLock({ $0 }) { usleep(5000) }
                socket.write(Self.ok)
                record(socket.readToEnd())
            }
            let client = Self.client(connections: 1)
            async let first = Self.send(client, peer.url, body: [65])
            while peer.seen.withLock({ $0.isEmpty }) { try await Task.sleep(for: .milliseconds(5)) }
            #expect(await Self.send(client, peer.url, body: body, timeout: .milliseconds(200)) == .notSent)
            let cancelled = Task { await Self.send(client, peer.url, body: body) }
            try await Task.sleep(for: .milliseconds(50))
            cancelled.cancel()
            #expect(await cancelled.value == .notSent)
            free.withLock { $0 = true }
            #expect(await first == .answered(200))
            await client.shutdown()
            #expect(peer.text.split(separator: "POST /x").count == 1, "nothing but the first request arrived")
        }
    }

    @Test func aCancelledRequestThatLeftIsSent() async throws {
        for body in Self.bodies {
            let peer = try RawPeer { socket, record in
                record(socket.read())
                _ = socket.readToEnd()
            }
            let client = Self.client()
            let task = Task { await Self.send(client, peer.url, body: body) }
            while peer.seen.withLock({ $0.isEmpty }) { try await Task.sleep(for: .milliseconds(5)) }
            task.cancel()
            #expect(await task.value == .sent)
            await client.shutdown()
        }
    }

    /// Asked when the request leaves, not when it begins to wait. What may not leave spoils nothing for others.
    @Test func permissionIsAskedWhenTheRequestLeaves() async throws {
        for body in Self.bodies {
            let isAllowed = Mutex(true)
            let authorize: @Sendable () throws(StepError) -> Void = { () throws(StepError) in
                guard isAllowed.withLock({ $0 }) else { throw StepError(.leaseLost, reason: "LEASE_LOST", message: "") }
            }
            let free = Mutex(false)
            let peer = try RawPeer { socket, record in
                while case let bytes = socket.read(), !bytes.isEmpty {
                    record(bytes)
                    while !free.withLock({ $0 }) { usleep(5000) }
                    socket.write(Self.ok)
                }
            }
            let client = Self.client(connections: 1)
            async let first = Self.send(client, peer.url, body: [65])
            while peer.seen.withLock({ $0.isEmpty }) { try await Task.sleep(for: .milliseconds(5)) }
            async let second = Self.send(client, peer.url, body: body, authorize: authorize)
            try await Task.sleep(for: .milliseconds(50))
            isAllowed.withLock { $0 = false }
            free.withLock { $0 = true }
            #expect(await first == .answered(200))
            #expect(await second == .unauthorized)
            #expect(await Self.send(client, peer.url, body: [65]) == .answered(200))
            await client.shutdown()
            #expect(peer.text.split(separator: "POST /x").count == 2)
        }
    }

    @Test func theMarkStaysHere() async throws {
        let peer = try RawPeer { socket, record in
            record(socket.read())
            socket.write(Self.ok)
        }
        let client = Self.client()
        #expect(await Self.send(client, peer.url) == .answered(200))
        #expect(peer.text.hasPrefix("POST /x HTTP/1.1\r\n") && !peer.text.contains("mark"))
        await client.shutdown()
    }

    @Test func whoGivesUpAndWhoSendsAgree() {
        let allowed: @Sendable () throws(StepError) -> Void = { () throws(StepError) in }
        let held = SendMark(allowed)
        #expect(held.giveUp() == .held)
        #expect(!held.mayLeave(), "given up unsent, never sent")
        let left = SendMark(allowed)
        #expect(left.mayLeave())
        #expect(!left.mayLeave(), "nor twice")
        #expect(left.giveUp() == .left)
        let lost = StepError(.leaseLost, reason: "LEASE_LOST", message: "")
        let refused = SendMark { () throws(StepError) in throw lost }
        #expect(!refused.mayLeave())
        #expect(refused.giveUp() == .refused(lost))
    }
}
