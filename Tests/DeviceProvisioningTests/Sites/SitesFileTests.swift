import SagaRuntime
import Testing

@testable import DeviceProvisioning

@Suite struct SitesFileTests {
    private static func read(_ text: String) -> (sites: [SiteConfiguration], problems: [String]) {
        let (file, problems) = SitesFile.read(text, installation: "test")
        return (file.sites, problems.map(\.description))
    }

    @Test func readsWhatEachProviderNeeds() throws {
        let (sites, problems) = Self.read(
            """
            sites:
              - name: rack-1
                provider: redroid
                docker-host: tcp://10.0.0.11:2375
                image: {"11": redroid/redroid:11.0.0-latest}
                adb-ports: 6000-6009
                webrtc-ports: 7000-7009
                concurrency: 8
                calls-per-second: 2.5
                devices: 100
                memory-mb: 250000
              - {name: drill, provider: simulated, latency: 50ms, boot: 2s, hosts: 2, options: fail=create:refused}
            """)
        #expect(problems.isEmpty)
        #expect(sites.map(\.name) == ["rack-1", "drill"])
        #expect(
            sites[0].limits == SiteLimits(concurrency: 8, callsPerSecond: 2.5, devices: 100, memoryMB: 250_000))
        guard case .redroid(let redroid) = sites[0].content, case .simulated(let simulated) = sites[1].content else {
            Issue.record("providers are mixed up")
            return
        }
        #expect(redroid.engine.description == "tcp://10.0.0.11:2375")
        #expect(redroid.ports == PortHost(name: "rack-1", adb: 6000...6009, webRTC: 7000...7009))
        #expect(redroid.images.count == 1 && redroid.installation == "test")
        #expect(simulated.behaviour.latency == .milliseconds(50) && simulated.behaviour.boot == .seconds(2))
        #expect(simulated.hosts.map(\.name) == ["drill-1", "drill-2"])
        #expect(sites[1].limits == SiteLimits())
    }

    @Test func jsonIsReadToo() {
        let (sites, problems) = Self.read(#"{"sites": [{"name": "a", "provider": "simulated", "concurrency": 3}]}"#)
        #expect(problems.isEmpty)
        #expect(sites.map(\.limits.concurrency) == [3])
    }

    @Test(arguments: [
        ("", "must be a mapping with the key sites"),
        ("sites: []", "line 1: sites: must be a list with one site at least"),
        ("sites:\n  - x", "line 2: a site must be a mapping"),
        ("sites:\n  - {name: a}", "line 2: provider: missing (allowed: simulated, redroid)"),
        (
            "sites:\n  - {name: a b, provider: simulated}",
            "line 2: name: must be 1 to 60 characters of a-z, 0-9, - and ."
        ),
        (
            "sites:\n  - {name: a, provider: simulated}\n  - {name: a, provider: simulated}",
            "line 3: name: a is the site at line 2"
        ),
        (
            "sites:\n  - {name: a, provider: simulated, latency: long}",
            "line 2: latency: must be a duration like 250ms, 30s or 10m, at most 1h"
        ),
        (
            "sites:\n  - {name: a, provider: simulated, devices: 0}",
            "line 2: devices: must be a whole number from 1 to 10000000"
        ),
        (
            "sites:\n  - {name: a, provider: simulated, hosts: [1]}",
            "line 2: hosts: must be a whole number from 1 to 10000"
        ),
        (
            "sites:\n  - {name: a, provider: redroid, docker-host: 'tcp://h:1'}\n  - name: b\n    provider: redroid\n    docker-host: tcp://h:1",
            "line 5: docker-host: tcp://h:1 is the engine of the site at line 2"
        ),
        (
            "sites:\n  - {name: a, provider: redroid, adb-ports: 9-5}",
            "line 2: adb-ports: must be FIRST-LAST, within 1-65535"
        ),
        ("sites:\n  - {name: a, provider: redroid, image: nothing}", "line 2: image: must be version=image pairs"),
        ("sites:\n  - {name: a, provider: redroid, image: nothing", "line 3: is no YAML"),
        ("sites:\n  - {name: a, name: b}", "line 2: a mapping with a key twice: name"),
    ])
    func everyProblemHasItsLine(text: String, problem: String) {
        let (sites, problems) = Self.read(text)
        #expect(problems.contains { $0.hasPrefix(problem) }, "\(problems)")
        #expect(sites.count <= 1)
    }
}
