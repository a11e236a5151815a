import Foundation
import SagaRuntime
import Synchronization
import Testing

@testable import DeviceProvisioning

/// On a real Docker engine, with the stand-in phone in place of Android.
@Suite(.enabled(if: DockerEngine.isPossible, "needs root, dockerd, adb, gcc and python3"), .timeLimit(.minutes(5)))
struct RedroidProviderTests {
    @Test func deviceIsCreatedBootedAndDestroyed() async throws {
        try await RedroidFixture.run { fixture in
            let request = fixture.request(options: [
                "fps": "24", "net_proxy_host": "proxy.example", "net_proxy_port": "3128",
            ])
            let ports = try #require(request.ports)
            let device = try await fixture.provider.create(request)
            let name = "devicerpc-\(request.sagaID)-g1"
            #expect(device.attributes["container"] == name)
            #expect(device.isUsable)

            let container = try #require(try await fixture.inspect("/containers/\(name)/json"))
            #expect(container["Id"] as? String == device.externalID)
            let host = try #require(container["HostConfig"] as? [String: Any])
            #expect(host["Privileged"] as? Bool == true)
            #expect(host["Memory"] as? Int == 512 << 20)
            #expect(host["NanoCpus"] as? Int == 1_000_000_000)
            let config = try #require(container["Config"] as? [String: Any])
            let labels = try #require(config["Labels"] as? [String: String])
            #expect(labels["devicerpc.saga"] == request.sagaID.rawValue)
            #expect(labels["devicerpc.device"] == request.deviceID)
            #expect(labels["devicerpc.user"] == "user 1")
            #expect(labels["devicerpc.installation"] == fixture.installation)
            let volume = try #require(try await fixture.inspect("/volumes/\(name)-data"))
            #expect(volume["Labels"] as? [String: String] == labels)

            let connection = try await fixture.provider.start(device, request)
            #expect(connection.host == "127.0.0.1")
            #expect(connection.adbPort == ports.adb)
            #expect(connection.webRTCPort == ports.webRTC)
            let serial = fixture.provider.serial(adbPort: ports.adb)
            func property(_ name: String) async throws -> String {
                try await fixture.provider.adb.shell("getprop \(name)", on: serial, until: .now + .seconds(5))
                    .trimmingCharacters(in: .whitespacesAndNewlines)
            }
            #expect(try await property("sys.boot_completed") == "1")
            #expect(try await property("ro.boot.redroid_width") == "720")
            #expect(try await property("ro.boot.redroid_height") == "1280")
            #expect(try await property("ro.boot.redroid_dpi") == "320")
            #expect(try await property("ro.boot.redroid_fps") == "24")
            #expect(try await property("ro.boot.redroid_gpu_mode") == "auto")
            #expect(try await property("ro.boot.redroid_net_proxy_type") == "static")
            #expect(try await property("ro.boot.redroid_net_proxy_host") == "proxy.example")
            #expect(try await property("ro.boot.redroid_net_proxy_port") == "3128")
            #expect(try await property("standin.data_writable") == "1")

            #expect(try await fixture.provider.destroy(device, request) == .undone)
            #expect(try await fixture.provider.destroy(device, request) == .nothingFound)
            #expect(try await fixture.inspect("/containers/\(name)/json") == nil)
            #expect(try await fixture.inspect("/volumes/\(name)-data") == nil)
            #expect(try await fixture.provider.find(request).isEmpty)
            // The adb server has forgotten the device: its port may be another's next.
            await #expect(throws: ADBError.self) { try await property("sys.boot_completed") }
        }
    }

    @Test func everyCallCanBeRepeated() async throws {
        try await RedroidFixture.run { fixture in
            let request = fixture.request()
            let device = try await fixture.provider.create(request)
            #expect(try await fixture.provider.create(request) == device)
            let connection = try await fixture.provider.start(device, request)
            #expect(try await fixture.provider.start(device, request) == connection)
            #expect(try await fixture.provider.create(request) == device)
            #expect(try await fixture.provider.find(request) == [device])
            try await fixture.provider.stop(device, request)
            try await fixture.provider.stop(device, request)
            #expect(try await fixture.provider.find(request).map(\.isUsable) == [false])
            #expect(try await fixture.provider.start(device, request) == connection)
            #expect(try await fixture.provider.destroy(device, request) == .undone)

            #expect(try await stepError { try await fixture.provider.stop(device, request) }.errorClass == .notFound)
            let error = try await stepError { _ = try await fixture.provider.start(device, request) }
            #expect(error.errorClass == .notFound)
            #expect(error.reason == "BOOT_FAILED")
        }
    }

    /// Ten creates of one saga at once, as when a fenced process and its successor both work: one container.
    @Test func concurrentCreatesMakeOneContainer() async throws {
        try await RedroidFixture.run { fixture in
            let request = fixture.request()
            let ids = try await withThrowingTaskGroup(of: String.self) { group in
                for _ in 1...10 { group.addTask { try await fixture.provider.create(request).externalID } }
                return try await group.reduce(into: Set<String>()) { $0.insert($1) }
            }
            #expect(ids.count == 1)
            let devices = try await fixture.provider.find(request)
            #expect(devices.map(\.externalID) == Array(ids))
            #expect(try await fixture.provider.destroy(try #require(devices.first), request) == .undone)
        }
    }

    @Test func portOfAnotherContainerIsAConflict() async throws {
        try await RedroidFixture.run { fixture in
            let first = fixture.request()
            let device = try await fixture.provider.create(first)
            let second = fixture.request(ports: first.ports)
            let error = try await stepError { _ = try await fixture.provider.create(second) }
            #expect(error.errorClass == .conflict(redoing: "ALLOCATE_PORTS"))
            #expect(error.reason == "PORT_TAKEN")
            #expect(try await fixture.provider.find(second).isEmpty)

            // Under the same key, with the ports of the next grant.
            var third = second
            third.ports = fixture.request().ports
            let other = try await fixture.provider.create(third)
            #expect(try await fixture.provider.destroy(other, third) == .undone)
            #expect(try await fixture.provider.destroy(device, first) == .undone)
        }
    }

    @Test func portOfAStrangerIsAConflict() async throws {
        try await RedroidFixture.run { fixture in
            let stranger = try BlockingSocket.listening()
            let host = fixture.configuration.ports.name
            let pairs = [
                PortPair(host: host, adb: stranger.port, webRTC: FreePort.take()),
                PortPair(host: host, adb: FreePort.take(), webRTC: stranger.port),
            ]
            for ports in pairs {
                let request = fixture.request(ports: ports)
                let error = try await stepError { _ = try await fixture.provider.create(request) }
                #expect(error.errorClass == .conflict(redoing: "ALLOCATE_PORTS"))
                #expect(try await fixture.provider.listOwned().isEmpty)
            }
            withExtendedLifetime(stranger) {}
        }
    }

    /// A container that an earlier attempt left under this key, with ports that the saga no longer holds.
    @Test func containerWithOtherPortsMakesWay() async throws {
        try await RedroidFixture.run { fixture in
            let first = fixture.request()
            let old = try await fixture.provider.create(first)
            var second = first
            second.ports = fixture.request().ports
            let new = try await fixture.provider.create(second)
            #expect(new.externalID != old.externalID)
            #expect(try await fixture.provider.find(second) == [new])
            #expect(try await fixture.provider.destroy(new, second) == .undone)
        }
    }

    @Test func findSeesAllGenerationsAndRemnants() async throws {
        try await RedroidFixture.run { fixture in
            let first = fixture.request()
            var second = fixture.request(sagaID: first.sagaID, generation: 2)
            second.ports = fixture.request().ports
            let one = try await fixture.provider.create(first)
            let two = try await fixture.provider.create(second)
            let other = fixture.request()
            let third = try await fixture.provider.create(other)
            #expect(try await fixture.provider.find(first) == [one, two])
            #expect(
                Set(try await fixture.provider.listOwned().map(\.device.externalID))
                    == [one.externalID, two.externalID, third.externalID])

            // Somebody removes a container by hand; its volume stays.
            let name = try #require(one.attributes["container"])
            #expect(try await fixture.engineCall(.delete, "/containers/\(name)", query: [("force", "1")]) == 204)
            let found = try await fixture.provider.find(first)
            #expect(found.map(\.generation) == [1, 2])
            #expect(found.map(\.isUsable) == [false, true])
            for device in found { #expect(try await fixture.provider.destroy(device, first) == .undone) }
            #expect(try await fixture.provider.destroy(third, other) == .undone)
        }
    }

    @Test func otherInstallationsAreNotOurs() async throws {
        try await RedroidFixture.run { fixture in
            let other = try RedroidFixture(engine: fixture.engine)
            let request = other.request()
            let device = try await other.provider.create(request)
            #expect(try await fixture.provider.listOwned().isEmpty)
            #expect(try await fixture.provider.find(request).isEmpty)
            // The same saga id from another installation: theirs has the name, and stays untouched.
            let error = try await stepError { _ = try await fixture.provider.create(request) }
            #expect(error.reason == "PROVIDER_REFUSED")
            #expect(try await other.provider.find(request) == [device])
            #expect(try await other.provider.destroy(device, request) == .undone)
            await other.provider.shutdown()
        }
    }

    @Test func deviceThatNeverBootsFails() async throws {
        try await RedroidFixture.run(change: { $0.bootLimit = .seconds(2) }) { fixture in
            let request = fixture.request(androidVersion: "12.0")
            let device = try await fixture.provider.create(request)
            let start = ContinuousClock.now
            let error = try await stepError { _ = try await fixture.provider.start(device, request) }
            #expect(error.errorClass == .refused)
            #expect(error.reason == "BOOT_FAILED")
            #expect(ContinuousClock.now - start < .seconds(6))
            #expect(try await fixture.provider.destroy(device, request) == .undone)
        }
    }

    @Test func containerThatStopsFailsAtOnce() async throws {
        try await RedroidFixture.run { fixture in
            let request = fixture.request(androidVersion: "13")
            let device = try await fixture.provider.create(request)
            let start = ContinuousClock.now
            let error = try await stepError { _ = try await fixture.provider.start(device, request) }
            #expect(error.errorClass == .refused)
            #expect(error.reason == "BOOT_FAILED")
            #expect(ContinuousClock.now - start < .seconds(10))
            #expect(try await fixture.provider.destroy(device, request) == .undone)
        }
    }

    @Test func slowBootIsWaitedFor() async throws {
        try await RedroidFixture.run { fixture in
            let request = fixture.request(androidVersion: "14")
            let device = try await fixture.provider.create(request)
            _ = try await fixture.provider.start(device, request)
            #expect(try await fixture.provider.destroy(device, request) == .undone)
        }
    }

    /// The adb server believes itself connected to the device that had the port before.
    @Test func portOfAnEarlierDeviceIsUsedAgain() async throws {
        try await RedroidFixture.run { fixture in
            let first = fixture.request()
            let device = try await fixture.provider.create(first)
            _ = try await fixture.provider.start(device, first)
            let name = try #require(device.attributes["container"])
            try await fixture.engineCall(.delete, "/containers/\(name)", query: [("force", "1"), ("v", "1")])
            try await fixture.engineCall(.delete, "/volumes/\(name)-data")
            let second = fixture.request(ports: first.ports)
            let next = try await fixture.provider.create(second)
            _ = try await fixture.provider.start(next, second)
            #expect(try await fixture.provider.destroy(next, second) == .undone)
        }
    }

    @Test func whatTheEngineRefusesLeavesNothing() async throws {
        try await RedroidFixture.run { fixture in
            let tooLarge = fixture.request(cpuCores: 4096)
            var error = try await stepError { _ = try await fixture.provider.create(tooLarge) }
            #expect(error.errorClass == .refused)
            #expect(error.reason == "PROVIDER_REFUSED")
            let noImage = fixture.request(androidVersion: "9")
            error = try await stepError { _ = try await fixture.provider.create(noImage) }
            #expect(error.errorClass == .refused)
            #expect(error.message.contains("standin:absent"))
            let unknown = fixture.request(androidVersion: "99")
            error = try await stepError { _ = try await fixture.provider.create(unknown) }
            #expect(error.errorClass == .refused)
            error = try await stepError {
                _ = try await fixture.provider.create(fixture.request(options: ["image": "evil"]))
            }
            #expect(error.errorClass == .refused)
            #expect(!error.message.contains("evil"))
        }
    }

    @Test func lostReplyToCreateIsUnknownAndAdopted() async throws {
        try await RedroidFixture.run { fixture in
            let proxy = try RawHTTPServer(before: fixture.engine.dockerHost) { $0.contains("/containers/create") }
            let lossy = try fixture.sibling(dockerHost: proxy.dockerHost)
            let request = fixture.request()
            let error = try await stepError { _ = try await lossy.create(request) }
            #expect(error.errorClass == .unknownOutcome)
            // Made, but not started: nothing to adopt by looking, only by repeating.
            #expect(try await fixture.provider.find(request).map(\.isUsable) == [false])
            let device = try await fixture.provider.create(request)
            #expect(try await fixture.provider.find(request) == [device])
            #expect(try await fixture.provider.destroy(device, request) == .undone)
            await lossy.shutdown()
        }
    }

    @Test func lostReplyToItsStartIsUnknownAndFound() async throws {
        try await RedroidFixture.run { fixture in
            let proxy = try RawHTTPServer(before: fixture.engine.dockerHost) { $0.contains("/start") }
            let lossy = try fixture.sibling(dockerHost: proxy.dockerHost)
            let request = fixture.request()
            let error = try await stepError { _ = try await lossy.create(request) }
            #expect(error.errorClass == .unknownOutcome)
            let found = try await fixture.provider.find(request)
            #expect(found.map(\.isUsable) == [true])
            #expect(try await fixture.provider.create(request) == found.first)
            _ = try await fixture.provider.start(try #require(found.first), request)
            #expect(try await fixture.provider.destroy(try #require(found.first), request) == .undone)
            await lossy.shutdown()
        }
    }

    @Test func aContainerThatSomebodyRenamedIsDestroyedToo() async throws {
        try await RedroidFixture.run { fixture in
            let request = fixture.request()
            let device = try await fixture.provider.create(request)
            let rename = "/containers/\(device.externalID)/rename"
            #expect(try await fixture.engineCall(.post, rename, query: [("name", "kept-\(request.sagaID)")]) == 204)
            #expect(try await fixture.provider.destroy(device, request) == .undone)
            #expect(try await fixture.inspect("/containers/\(device.externalID)/json") == nil)
            #expect(try await fixture.inspect("/volumes/devicerpc-\(request.sagaID)-g1-data") == nil)
        }
    }

    @Test func lostReplyToDestroyIsUnknownAndRepeated() async throws {
        try await RedroidFixture.run { fixture in
            let proxy = try RawHTTPServer(before: fixture.engine.dockerHost) { $0.hasPrefix("DELETE /containers") }
            let lossy = try fixture.sibling(dockerHost: proxy.dockerHost)
            let request = fixture.request()
            let device = try await fixture.provider.create(request)
            let error = try await stepError { _ = try await lossy.destroy(device, request) }
            #expect(error.errorClass == .unknownOutcome)
            #expect(try await fixture.provider.destroy(device, request) == .undone)  // the volume was left
            #expect(try await fixture.provider.destroy(device, request) == .nothingFound)
            await lossy.shutdown()
        }
    }

    /// A process is held up before its start; another takes the saga over, removes what it found and makes the device
    /// anew under the same name. Neither the late start nor the late cleaning up may touch that one.
    @Test func latePredecessorSparesTheSuccessorsContainer() async throws {
        try await RedroidFixture.run { fixture in
            let isHeld = Mutex(false)
            let mayGoOn = Mutex(false)
            let proxy = try RawHTTPServer(
                before: fixture.engine.dockerHost,
                holdUp: { line in
                    guard line.contains("/start") else { return }
                    isHeld.withLock { $0 = true }
                    while !mayGoOn.withLock({ $0 }) { Thread.sleep(forTimeInterval: 0.01) }
                },
                loses: { _ in false })
            let slow = try fixture.sibling(dockerHost: proxy.dockerHost)
            let request = fixture.request()
            let late = Task { try await stepError { _ = try await slow.create(request) } }
            while !isHeld.withLock({ $0 }) { try await Task.sleep(for: .milliseconds(10)) }
            let old = try #require(try await fixture.provider.find(request).first)
            try await fixture.provider.discard(old, request)
            let new = try await fixture.provider.create(request)
            mayGoOn.withLock { $0 = true }
            #expect(try await late.value.errorClass == .unknownOutcome)
            #expect(try await fixture.provider.find(request) == [new])

            let step = CreateProviderDeviceStep(providers: ProviderRegistry([fixture.provider], default: .redroid))
            let context = StepContext(
                sagaID: request.sagaID, step: DeviceStep.createProviderDevice, attempt: 1, generation: 1,
                request: FlushFixture.view(.redroid).request,
                outputs: [DeviceStep.createProviderDevice: new.output], secrets: ProviderOptions.encoded([:]),
                isInDoubt: false, deadline: Timestamp(milliseconds: 2_000_000_000_000),
                authorize: { () throws(StepError) in })
            try await step.discard(context, output: old.output)
            try await step.discard(context, output: nil)
            #expect(try await fixture.provider.find(request) == [new])
            let name = try #require(new.attributes["container"])
            #expect(try await fixture.inspect("/volumes/\(name)-data") != nil)
            #expect(try await fixture.provider.destroy(new, request) == .undone)
            await slow.shutdown()
        }
    }

    /// A port that is taken and an engine that dies while the container is taken away again: not definite any more.
    @Test func cleanUpThatFailsLeavesTheOutcomeUnknown() async throws {
        try await RedroidFixture.run { fixture in
            let stranger = try BlockingSocket.listening()
            let proxy = try RawHTTPServer(before: fixture.engine.dockerHost) { $0.hasPrefix("DELETE") }
            let lossy = try fixture.sibling(dockerHost: proxy.dockerHost)
            let ports = PortPair(host: "localhost", adb: stranger.port, webRTC: FreePort.take())
            let error = try await stepError { _ = try await lossy.create(fixture.request(ports: ports)) }
            #expect(error.errorClass == .unknownOutcome)
            await fixture.removeAll()
            await lossy.shutdown()
            withExtendedLifetime(stranger) {}
        }
    }

    @Test func leaseIsAskedBeforeEveryRequest() async throws {
        try await RedroidFixture.run { fixture in
            // Trust is lost before the nth request.
            for allowed in 0...1 {
                let count = Mutex(0)
                let sagaID = SagaID.random()
                let request = fixture.request(sagaID: sagaID) { () throws(StepError) in
                    let number = count.withLock { count in
                        count += 1
                        return count
                    }
                    if number > allowed { throw StepError(.leaseLost, reason: "LEASE_LOST", message: "test") }
                }
                let error = try await stepError { _ = try await fixture.provider.create(request) }
                let left = try await fixture.provider.find(fixture.request(sagaID: sagaID))
                if allowed == 0 {
                    #expect(error.errorClass == .leaseLost)
                    #expect(left.isEmpty)
                } else {
                    #expect(error.errorClass == .unknownOutcome)
                    #expect(left.map(\.isUsable) == [false])
                }
            }
            await fixture.removeAll()
        }
    }

    @Test func cancelledBootEndsSoon() async throws {
        try await RedroidFixture.run { fixture in
            let request = fixture.request(androidVersion: "12")
            let device = try await fixture.provider.create(request)
            let booting = Task { try await stepError { _ = try await fixture.provider.start(device, request) } }
            try await Task.sleep(for: .milliseconds(500))
            let start = ContinuousClock.now
            booting.cancel()
            #expect(try await booting.value.errorClass == .unknownOutcome)
            #expect(ContinuousClock.now - start < .seconds(3))
            #expect(try await fixture.provider.destroy(device, request) == .undone)
        }
    }

    @Test func stoppedEngineIsUnavailable() async throws {
        let engine = try await DockerEngine.start()
        defer { engine.close() }
        try await RedroidFixture.run(engine: engine) { fixture in
            let request = fixture.request()
            let device = try await fixture.provider.create(request)
            _ = try await fixture.provider.start(device, request)
            try await engine.command("kill")
            for _ in 1...2 {  // also where a connection was kept from before
                let error = try await stepError { _ = try await fixture.provider.find(request) }
                #expect(error.errorClass == .unavailable)
                #expect(error.reason == "PROVIDER_UNAVAILABLE")
            }
            let error = try await stepError { _ = try await fixture.provider.create(fixture.request()) }
            #expect(error.errorClass == .unavailable)
            try await engine.command("start")
            #expect(try await fixture.provider.find(request).map(\.externalID) == [device.externalID])
            _ = try await fixture.provider.start(device, request)
            #expect(try await fixture.provider.destroy(device, request) == .undone)
        }
    }

    @Test func adbServerIsStartedWhereNoneListens() async throws {
        let port = FreePort.take()
        try await RedroidFixture.run(change: {
            $0.adbServerPort = port
            $0.startsADBServer = true
        }) { fixture in
            let request = fixture.request()
            let device = try await fixture.provider.create(request)
            _ = try await fixture.provider.start(device, request)
            #expect(try await fixture.provider.destroy(device, request) == .undone)
            #expect(try await fixture.provider.adb.version(until: .now + .seconds(5)) > 0)
            try await fixture.provider.adb.killServer(until: .now + .seconds(5))
            let home = ProcessInfo.processInfo.environment["HOME"] ?? "/root"
            try? FileManager.default.removeItem(atPath: "\(home)/.android/adb.\(port)")
        }
    }

    @Test func absentADBServerIsUnavailable() async throws {
        let port = FreePort.take()
        try await RedroidFixture.run(change: { $0.adbServerPort = port }) { fixture in
            let request = fixture.request()
            let device = try await fixture.provider.create(request)
            let error = try await stepError { _ = try await fixture.provider.start(device, request) }
            #expect(error.errorClass == .unavailable)
            #expect(try await fixture.provider.destroy(device, request) == .undone)
        }
    }
}
