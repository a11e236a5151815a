import Foundation
import Logging
import NIOCore
import SagaRuntime
import Synchronization
import Testing

@testable import DeviceProvisioning

/// A provider with an installation of its own on some engine, and requests for it.
struct RedroidFixture {
    let installation = "test-\(UUID().uuidString.prefix(8))"
    let engine: DockerEngine
    var configuration: RedroidConfiguration
    var provider: RedroidProvider

    init(
        engine: DockerEngine, dockerHost: String? = nil, change: (inout RedroidConfiguration) -> Void = { _ in }
    ) throws {
        self.engine = engine
        let settings = [
            "DOCKER_HOST": dockerHost ?? engine.dockerHost,
            "ADB_PORT": String(engine.adbPort),
            "REDROID_IMAGE":
                "11=standin:11.0.0,12=standin:12.0.0,13=standin:13.0.0,14=standin:14.0.0,9=standin:absent",
            "DEVICERPC_ADB_AUTOSTART": "false",
            "DEVICERPC_REDROID_BOOT_TIMEOUT": "20",
        ]
        self.configuration = try RedroidConfiguration(
            installation: self.installation, adbPorts: 5555...6554, webRTCPorts: 8080...9079,
            setting: { settings[$0] })
        change(&self.configuration)
        self.provider = RedroidProvider(configuration: self.configuration, logger: Logger(label: "test"))
    }

    /// Runs a test with a fixture on the shared engine, and checks at its end that nothing is left.
    static func run(
        engine: DockerEngine? = nil, change: (inout RedroidConfiguration) -> Void = { _ in },
        _ test: (RedroidFixture) async throws -> Void
    ) async throws {
        let shared = engine == nil ? try await DockerEngine.shared : nil
        guard let engine = engine ?? shared else { return }
        let fixture = try RedroidFixture(engine: engine, change: change)
        do {
            try await test(fixture)
            #expect(try await fixture.provider.listOwned().isEmpty, "something was left behind")
        } catch {
            await fixture.removeAll()
            throw error
        }
        await fixture.removeAll()
        await fixture.provider.shutdown()
    }

    func removeAll() async {
        for owned in (try? await self.provider.listOwned()) ?? [] {
            _ = try? await self.provider.destroy(owned.device, self.request())
        }
    }

    /// A second provider of the same installation, by another way to the engine.
    func sibling(dockerHost: String) throws -> RedroidProvider {
        var configuration = self.configuration
        configuration.engine = try DockerEndpoint(dockerHost: dockerHost)
        return RedroidProvider(configuration: configuration, logger: Logger(label: "test"))
    }

    func request(
        sagaID: SagaID = .random(), generation: Int = 1, androidVersion: String = "11", cpuCores: Int = 1,
        options: [String: String] = [:], ports: PortPair? = nil,
        authorize: @escaping @Sendable () throws(StepError) -> Void = { () throws(StepError) in }
    ) -> ProviderRequest {
        let host = self.configuration.ports.name
        return ProviderRequest(
            sagaID: sagaID, generation: generation, idempotencyKey: "\(sagaID):CREATE_PROVIDER_DEVICE:\(generation)",
            deviceID: "6f9619ff-8b86-4011-b42d-00c04fc964ff", userID: "user 1", name: "My Cloud Phone 云",
            spec: DeviceSpec(
                cpuCores: cpuCores, memoryMB: 512, storageMB: 1024, widthPixels: 720, heightPixels: 1280, dpi: 320,
                androidVersion: androidVersion),
            options: options,
            ports: ports ?? PortPair(host: host, adb: FreePort.take(), webRTC: FreePort.take()), attempt: 1,
            authorize: authorize)
    }

    /// What the engine says of a container or volume; `nil` if there is none.
    func inspect(_ path: String) async throws -> [String: Any]? {
        let client = DockerClient(endpoint: try DockerEndpoint(dockerHost: self.engine.dockerHost))
        let response = try await client.send(.get, path, until: .now + .seconds(10))
        if response.status == 404 { return nil }
        return try JSONSerialization.jsonObject(with: Data(response.body.readableBytesView)) as? [String: Any]
    }

    /// Calls the engine by itself, past the provider.
    @discardableResult
    func engineCall(
        _ method: DockerMethod, _ path: String, query: [(String, String)] = [], body: String? = nil
    ) async throws -> Int {
        let client = DockerClient(endpoint: try DockerEndpoint(dockerHost: self.engine.dockerHost))
        let bytes = body.map { Array($0.utf8) }
        return try await client.send(method, path, query: query, body: bytes, until: .now + .seconds(10)).status
    }
}

extension SagaID {
    static func random() -> SagaID {
        var generator = SystemRandomNumberGenerator()
        return SagaID(milliseconds: 1_730_188_800_000, using: &generator)
    }
}

/// Ports that nobody listens on; each is given out once. Below those that the kernel gives to outgoing connections
/// (32768 and up), and from another place in each process.
enum FreePort {
    private static let next = Mutex(10000 + Int(getpid()) * 97 % 20000)

    static func take() -> Int {
        while true {
            let port = Self.next.withLock { next in
                next = next < 32000 ? next + 1 : 10000
                return next
            }
            if (try? BlockingSocket.listening(port: port)) != nil { return port }
        }
    }
}

/// Expects a `StepError` and returns it.
func stepError(_ body: () async throws -> Void) async throws -> StepError {
    do {
        try await body()
    } catch let error as StepError {
        return error
    }
    Issue.record("no error was thrown")
    return StepError(.invalid, reason: "NONE", message: "")
}
