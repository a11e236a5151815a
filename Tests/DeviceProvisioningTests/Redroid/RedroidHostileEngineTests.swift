import Foundation
import Logging
import SagaRuntime
import Synchronization
import Testing

@testable import DeviceProvisioning

/// Nothing that answers in the engine's or the adb server's place may crash us, and every answer has a class.
@Suite(.timeLimit(.minutes(1)))
struct RedroidHostileEngineTests {
    private func provider(
        dockerHost: String, adbPort: Int = 1, callLimit: Duration = .seconds(20),
        logger: Logger = Logger(label: "test")
    ) throws -> RedroidProvider {
        var configuration = RedroidConfiguration(
            installation: "test", engine: try DockerEndpoint(dockerHost: dockerHost),
            ports: PortHost(name: "localhost", adb: 5555...6554, webRTC: 8080...9079))
        configuration.callLimit = callLimit
        configuration.bootLimit = .seconds(1)
        configuration.adbServerPort = adbPort
        configuration.startsADBServer = false
        return RedroidProvider(configuration: configuration, logger: logger)
    }

    private func request(options: [String: String] = [:]) -> ProviderRequest {
        ProviderRequest(
            sagaID: .random(), generation: 1, idempotencyKey: "key", deviceID: "6f9619ff-8b86-4011-b42d-00c04fc964ff",
            userID: "u", name: "n",
            spec: DeviceSpec(
                cpuCores: 1, memoryMB: 512, storageMB: 1024, widthPixels: 720, heightPixels: 1280, dpi: 320,
                androidVersion: "11"),
            options: options, ports: PortPair(host: "localhost", adb: 1, webRTC: 2), attempt: 1,
            authorize: { () throws(StepError) in })
    }

    private func device() -> ProviderDevice {
        ProviderDevice(
            externalID: "x", host: "localhost", generation: 1,
            attributes: ["container": "devicerpc-saga_1730188800000_aaaaaaaaaa-g1"])
    }

    static let bodies = [
        "", "null", "[]", "{}", "[null]", "{\"Id\":5}", "[{\"Id\":\"x\",\"Labels\":\"y\"}]", "\u{0}\u{1}",
        "{\"Volumes\":{}}", "{\"message\":[1]}", String(repeating: "[", count: 100_000),
        "{\"State\":{\"ExitCode\":1e400}}", "{\"message\":\"a\\u0000b\"}",
    ]

    @Test(arguments: [200, 201, 204, 301, 304, 400, 401, 404, 409, 418, 429, 500, 503, 599])
    func everyAnswerHasAClass(status: Int) async throws {
        for body in Self.bodies {
            let server = try RawHTTPServer(
                status: status, body: status == 204 || status == 304 ? "" : body,
                headers: "Location: http://127.0.0.1:1/\r\n")
            // 409 is waited out until the limit.
            let limit = Duration.milliseconds(status == 409 ? 200 : 20_000)
            let provider = try self.provider(dockerHost: server.dockerHost, callLimit: limit)
            let request = self.request()
            _ = try? await provider.create(request)
            // The answers to an undo: "done" only where the engine said so.
            let undone = try? await provider.destroy(self.device(), request)
            switch status {
            case 200, 201, 204: #expect(undone == .undone)
            case 404: #expect(undone == .nothingFound)
            default: #expect(undone == nil)
            }
            _ = try? await provider.start(self.device(), request)
            _ = try? await provider.stop(self.device(), request)
            _ = try? await provider.find(request)
            _ = try? await provider.listOwned()
            await provider.shutdown()
        }
    }

    @Test func classesOfStatuses() async throws {
        let cases: [(Int, String, StepError.Class, String)] = [
            (400, "{\"message\":\"bad\"}", .refused, "PROVIDER_REFUSED"),
            (429, "{\"message\":\"slow\"}", .throttled(after: nil), "PROVIDER_UNAVAILABLE"),
            (503, "{\"message\":\"no\"}", .unavailable, "PROVIDER_UNAVAILABLE"),
        ]
        for (status, body, errorClass, reason) in cases {
            let text = "HTTP/1.1 \(status) X\r\nContent-Length: \(body.utf8.count)\r\nConnection: close\r\n\r\n\(body)"
            let server = try RawHTTPServer { line, _ in
                // Taking away what a refused create may have left finds nothing.
                line.hasPrefix("DELETE")
                    ? .bytes(Array("HTTP/1.1 404 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".utf8))
                    : .bytes(Array(text.utf8))
            }
            let provider = try self.provider(dockerHost: server.dockerHost)
            let error = try await stepError { _ = try await provider.create(self.request()) }
            #expect(error.errorClass == errorClass)
            #expect(error.reason == reason)
        }
    }

    /// What a gateway before the engine says of a container is not what the engine says of it.
    @Test(
        arguments: [
            (401, StepError.Class.unavailable), (403, .unavailable), (404, .unavailable), (409, .unavailable),
            (302, .unavailable), (307, .unavailable), (400, .unavailable), (405, .unavailable),
            (200, .unknownOutcome), (204, nil), (408, .unknownOutcome), (499, .unknownOutcome), (500, .unknownOutcome),
            (502, .unknownOutcome), (503, .unknownOutcome), (504, .unknownOutcome),
        ] as [(Int, StepError.Class?)])
    func aPageIsNotTheEnginesWord(status: Int, expected: StepError.Class?) async throws {
        for headers in ["", "Content-Type: text/plain\r\n"] {
            let page = status == 204 ? "" : headers.isEmpty ? " <html></html>" : "404 page not found"
            let server = try RawHTTPServer(status: status, body: page, headers: headers)
            let lines = LogLines()
            let provider = try self.provider(dockerHost: server.dockerHost, logger: lines.logger)
            for _ in 0..<2 {
                guard let expected else {
                    #expect(try await provider.destroy(self.device(), self.request()) == .undone)
                    continue
                }
                var error = try await stepError { _ = try await provider.destroy(self.device(), self.request()) }
                #expect(error.errorClass == expected)
                error = try await stepError { try await provider.stop(self.device(), self.request()) }
                #expect(error.errorClass == expected)
                error = try await stepError { _ = try await provider.create(self.request()) }
                #expect(error.errorClass == expected)
                error = try await stepError { _ = try await provider.find(self.request()) }
                #expect(error.errorClass == .unavailable)
            }
            #expect(lines.all.filter { $0.hasPrefix("error") }.count == (expected == .unavailable ? 1 : 0))
            await provider.shutdown()
        }
    }

    /// A create that the engine refuses has made nothing: nobody looks for remains, with the same engine, that has no more
    /// to say. What is missing is told in its own words.
    @Test(arguments: [
        (400, "invalid mount"), (403, "authorization denied by plugin"), (404, "network devices not found"),
        (404, "No such image: x"), (422, "no"),
    ])
    func aRefusedCreateIsDefinite(status: Int, message: String) async throws {
        let requests = Mutex(0)
        let server = try RawHTTPServer { _, _ in
            requests.withLock { $0 += 1 }
            let body = "{\"message\":\"\(message)\"}"
            return .bytes(
                Array(
                    "HTTP/1.1 \(status) X\r\nContent-Length: \(body.utf8.count)\r\nConnection: close\r\n\r\n\(body)"
                        .utf8))
        }
        let provider = try self.provider(dockerHost: server.dockerHost)
        let error = try await stepError { _ = try await provider.create(self.request()) }
        #expect(error.errorClass == .refused && error.reason == "PROVIDER_REFUSED")
        #expect(error.message.contains("has to pull it") == message.contains("image"))
        #expect(message.contains("image") || error.message.contains(message))
        #expect(requests.withLock { $0 } == 1)
        await provider.shutdown()
    }

    /// An engine that is slow: what waited for a connection was not sent, what waited for an answer was.
    @Test func whatWaitedForAConnectionIsNotUnknown() async throws {
        let arrived = Mutex(0)
        let server = try RawHTTPServer { _, _ in
            arrived.withLock { $0 += 1 }
            return .silence
        }
        let docker = DockerClient(endpoint: try DockerEndpoint(dockerHost: server.dockerHost), maximumConnections: 20)
        let send: @Sendable (Duration) async -> DockerFailure? = { limit in
            do throws(DockerFailure) {
                _ = try await docker.send(.post, "/containers/create", until: .now + limit)
                return nil
            } catch {
                return error
            }
        }
        let sent = (0..<20).map { _ in Task { await send(.seconds(50)) } }
        while arrived.withLock({ $0 }) < sent.count { try await Task.sleep(for: .milliseconds(5)) }
        for limit in [Duration.zero, .milliseconds(50), .milliseconds(300)] {
            guard case .notSent = await send(limit) else {
                Issue.record("it was sent, or is taken for sent")
                continue
            }
        }
        for task in sent {
            task.cancel()
            guard case .sent = await task.value else {
                Issue.record("it is taken for not sent")
                continue
            }
        }
        #expect(arrived.withLock { $0 } == sent.count)
        await docker.shutdown()
    }

    /// No word of the engine's against the request: to be asked again, and no reason to park a saga.
    @Test(arguments: ["", "null", "<html>", "{\"Volumes\":5}"])
    func listThatCanNotBeReadIsUnavailable(body: String) async throws {
        let server = try RawHTTPServer(status: 200, body: body)
        let provider = try self.provider(dockerHost: server.dockerHost)
        let error = try await stepError { _ = try await provider.find(self.request()) }
        #expect(error.errorClass == .unavailable)
        #expect(error.reason == "PROVIDER_UNAVAILABLE")
    }

    @Test func endlessBodyIsCutOff() async throws {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 4000000000\r\n\r\n"
        let server = try RawHTTPServer { _, _ in
            .bytes(Array(head.utf8) + [UInt8](repeating: UInt8(ascii: " "), count: 64 << 20))
        }
        let provider = try self.provider(dockerHost: server.dockerHost)
        let error = try await stepError { _ = try await provider.find(self.request()) }
        #expect(error.errorClass == .unavailable)
    }

    @Test func silenceIsUnknownForAnEffectAndUnavailableForAQuestion() async throws {
        let server = try RawHTTPServer { _, _ in .silence }
        let provider = try self.provider(dockerHost: server.dockerHost, callLimit: .seconds(1))
        let start = ContinuousClock.now
        var error = try await stepError { _ = try await provider.create(self.request()) }
        #expect(error.errorClass == .unknownOutcome)
        error = try await stepError { _ = try await provider.destroy(self.device(), self.request()) }
        #expect(error.errorClass == .unknownOutcome)
        error = try await stepError { _ = try await provider.find(self.request()) }
        #expect(error.errorClass == .unavailable)
        #expect(ContinuousClock.now - start < .seconds(9))
    }

    /// An answer that never ends its body must not outlive the call's limit either.
    @Test func bodyThatNeverEndsIsBoundedInTime() async throws {
        let server = try RawHTTPServer { _, request in
            .bytes(Array("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[\r\n".utf8))
        }
        let provider = try self.provider(dockerHost: server.dockerHost, callLimit: .seconds(1))
        _ = try await stepError { _ = try await provider.find(self.request()) }
    }

    @Test(arguments: ["tcp://127.0.0.1:1", "unix:///tmp/no-such-engine.sock", "/tmp/no-such-engine.sock"])
    func absentEngineIsUnavailable(dockerHost: String) async throws {
        let provider = try self.provider(dockerHost: dockerHost)
        var error = try await stepError { _ = try await provider.create(self.request()) }
        #expect(error.errorClass == .unavailable)
        #expect(error.reason == "PROVIDER_UNAVAILABLE")
        error = try await stepError { _ = try await provider.destroy(self.device(), self.request()) }
        #expect(error.errorClass == .unavailable)
        error = try await stepError { _ = try await provider.listOwned() }
        #expect(error.errorClass == .unavailable)
    }

    @Test func optionValuesDoNotComeBackInMessages() async throws {
        let secret = "proxy-secret.example"
        let server = try RawHTTPServer { line, _ in
            let body = line.hasPrefix("DELETE") ? "" : "{\"message\":\"cannot use \(secret)!\"}"
            let status = line.hasPrefix("DELETE") ? 404 : 400
            return .bytes(
                Array(
                    "HTTP/1.1 \(status) X\r\nContent-Length: \(body.utf8.count)\r\nConnection: close\r\n\r\n\(body)"
                        .utf8))
        }
        let provider = try self.provider(dockerHost: server.dockerHost)
        let request = self.request(options: ["net_proxy_host": secret])
        let error = try await stepError { _ = try await provider.create(request) }
        #expect(error.message.contains("cannot use"))
        #expect(!error.message.contains(secret))
    }

    /// A row could have been tampered with: its names end up in paths.
    @Test(arguments: ["../../etc", "devicerpc-a/../b", "devicerpc-\u{0}", "", "other", "devicerpc-ä"])
    func storedNamesAreChecked(name: String) async throws {
        let provider = try self.provider(dockerHost: "tcp://127.0.0.1:1")
        var device = self.device()
        device.attributes["container"] = name
        let error = try await stepError { _ = try await provider.destroy(device, self.request()) }
        #expect(error.errorClass == .undecidable)
    }

    @Test(arguments: ["../../etc", "a/../b", "", "..", "a?b", "ä"])
    func storedIDsAreChecked(id: String) async throws {
        let provider = try self.provider(dockerHost: "tcp://127.0.0.1:1")
        var device = self.device()
        device.externalID = id
        let error = try await stepError { try await provider.discard(device, self.request()) }
        #expect(error.errorClass == .undecidable)
    }

    @Test(arguments: [
        "", "OKAY", "FAIL", "FAILzzzz", "FAIL-001", "OKAYffff", "OKAY0004", "OKAY0004zzzz", "HTTP/1.1 400\r\n\r\n",
        "OKAY" + String(repeating: "a", count: 200_000),
    ])
    func everyADBAnswerIsSurvived(answer: String) async throws {
        let listener = try BlockingSocket.listening()
        Thread.detachNewThread {
            while let peer = listener.accepted() {
                _ = peer.read()
                peer.write(Array(answer.utf8))
            }
        }
        defer { listener.shutDown() }
        let adb = ADBClient(host: "127.0.0.1", port: listener.port)
        let deadline = ContinuousClock.now + .seconds(2)
        await #expect(throws: ADBError.self) { try await adb.connect(to: "127.0.0.1:5555", until: deadline) }
        await #expect(throws: ADBError.self) { try await adb.version(until: deadline) }
        _ = try? await adb.shell("x", on: "y", until: deadline)
        try? await adb.disconnect("y", until: deadline)
    }
}
