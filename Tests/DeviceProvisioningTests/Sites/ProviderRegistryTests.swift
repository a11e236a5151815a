import Logging
import SagaRuntime
import Testing

@testable import DeviceProvisioning

/// Which site a saga's calls go to.
@Suite struct ProviderRegistryTests {
    private static func redroid(_ name: String) throws -> ProviderSite {
        let configuration = RedroidConfiguration(
            installation: "test", engine: try DockerEndpoint(dockerHost: "/nowhere/\(name).sock"),
            ports: PortHost(name: name, adb: 5555...5556, webRTC: 8080...8081))
        return ProviderSite(
            name: name,
            provider: RedroidProvider(
                configuration: configuration, logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }))
    }

    @Test func aNamedSiteIsThatOneOrNone() async throws {
        let registry = ProviderRegistry(sites: [try Self.redroid("a"), try Self.redroid("b")], default: .redroid)
        #expect(registry.site(named: "b", kind: .redroid)?.name == "b")
        #expect(registry.site(named: "c", kind: .redroid) == nil)
        #expect(registry.site(named: "b", kind: .simulated) == nil)
        #expect(registry.served == ["a", "b", "provider:redroid"])
        await registry.shutdown()
    }

    private static let spec = DeviceSpec(
        cpuCores: 2, memoryMB: 2048, storageMB: 8192, widthPixels: 720, heightPixels: 1280, dpi: 320,
        androidVersion: "11")

    @Test func whatIsElsewhereDownOrFullComesLast() async throws {
        let sites = try ["a", "b", "c", "d", "e"].map { try Self.redroid($0) }
        let registry = ProviderRegistry(sites: sites, default: .redroid)
        let costs = [
            "a": ProviderRegistry.fullCost, "b": 3, "c": ProviderRegistry.downCost + 1, "d": 1,
            "e": ProviderRegistry.elsewhereCost,
        ]
        var first: Set<String> = []
        for _ in 0..<100 {
            let names = registry.candidates(
                .redroid, spec: Self.spec, options: [:], cost: { costs[$0.name] ?? 0 }
            ).map(\.name)
            #expect(names == ["d", "b", "e", "c", "a"])
            let equal = registry.candidates(.redroid, spec: Self.spec, options: [:], cost: { _ in 0 })
            first.insert(equal[0].name)
        }
        #expect(first == ["a", "b", "c", "d", "e"])
        await registry.shutdown()
    }

    /// Sagas of version 1: "not found" may be believed only where the site is certain.
    @Test func aSagaThatNamesNoneGoesWhereItsPortsAre() async throws {
        let registry = ProviderRegistry(sites: [try Self.redroid("a")], default: .redroid)
        #expect(registry.site(of: .redroid, portHost: "a")?.name == "a")
        // The only one that there is, under another name: its host was called otherwise once.
        #expect(registry.site(of: .redroid, portHost: "old")?.name == "a")
        registry.know([.redroid: ["a", "b"]])
        #expect(registry.site(of: .redroid, portHost: "a")?.name == "a")
        #expect(registry.site(of: .redroid, portHost: "b") == nil)
        #expect(registry.site(of: .redroid, portHost: "old") == nil)
        #expect(registry.missing(for: .redroid, portHost: "a") == nil)
        #expect(registry.missing(for: .redroid, portHost: "b") == "b")
        #expect(registry.missing(for: .redroid, portHost: "old") == nil)
        #expect(registry.missing(for: .simulated, portHost: nil) == "provider:simulated")
        // The engine of an older program, which registers no site: a roll has only begun.
        registry.know([.redroid: ["a"]])
        registry.know(portHosts: ["a", "b"])
        #expect(registry.site(of: .redroid, portHost: "a")?.name == "a")
        #expect(registry.site(of: .redroid, portHost: "b") == nil)
        #expect(registry.missing(for: .redroid, portHost: "b") == "b")
        await registry.shutdown()
    }

    @Test func theOutputOfAllocatePortsNamesTheSite() throws {
        let outputs = [DeviceStep.allocatePorts: #"{"site":"a","host":"a","adb":5555,"webrtc":8080}"#]
        #expect(SiteOutput.site(outputs) == "a")
        #expect(try PortPair(output: outputs[DeviceStep.allocatePorts]) == PortPair(host: "a", adb: 5555, webRTC: 8080))
        #expect(try PortPair(output: #"{"site":"a"}"#) == nil)
        #expect(SiteOutput.site([DeviceStep.allocatePorts: #"{"host":"a","adb":5555,"webrtc":8080}"#]) == nil)
        #expect(SiteOutput.site([DeviceStep.allocatePorts: #"{"site":"#]) == nil)
    }
}
