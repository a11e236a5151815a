import Logging
import SagaRuntime
import Testing

@testable import DeviceProvisioning

@Suite struct RedroidContainerTests {
    private let configuration: RedroidConfiguration

    init() throws {
        self.configuration = try RedroidConfiguration(
            installation: "test", adbPorts: 5555...6554, webRTCPorts: 8080...9079, setting: { _ in nil })
    }

    private func request(
        options: [String: String] = [:], change: (inout DeviceSpec) -> Void = { _ in }
    ) -> ProviderRequest {
        var spec = DeviceSpec(
            cpuCores: 2, memoryMB: 4096, storageMB: 10240, widthPixels: 1080, heightPixels: 1920, dpi: 480,
            androidVersion: "12.0")
        change(&spec)
        return ProviderRequest(
            sagaID: .random(), generation: 3, idempotencyKey: "key", deviceID: "device", userID: "用户\u{0}", name: "n",
            spec: spec, options: options, ports: PortPair(host: "localhost", adb: 5555, webRTC: 8080), attempt: 1,
            authorize: { () throws(StepError) in })
    }

    private func violations(_ options: [String: String], androidVersion: String = "11") -> [String] {
        let provider = RedroidProvider(configuration: self.configuration, logger: Logger(label: "test"))
        var spec = self.request().spec
        spec.androidVersion = androidVersion
        return provider.violations(spec: spec, options: options).map(\.field)
    }

    @Test func bootArgumentsFollowTheRequest() throws {
        let body = try RedroidContainer.body(for: self.request(), configuration: self.configuration)
        #expect(body.Image == "redroid/redroid:12.0.0-latest")
        #expect(
            body.Cmd == [
                "androidboot.redroid_width=1080", "androidboot.redroid_height=1920", "androidboot.redroid_dpi=480",
                "androidboot.redroid_fps=30", "androidboot.redroid_gpu_mode=auto",
            ])
        #expect(body.HostConfig.Privileged && body.HostConfig.UsernsMode == "host")
        #expect(body.HostConfig.Memory == 4096 << 20)
        #expect(body.HostConfig.MemorySwap == body.HostConfig.Memory)
        #expect(body.HostConfig.NanoCpus == 2_000_000_000)
        #expect(body.HostConfig.PortBindings["5555/tcp"] == [.init(HostIp: "127.0.0.1", HostPort: "5555")])
        #expect(body.HostConfig.PortBindings["8080/tcp"] == [.init(HostIp: "127.0.0.1", HostPort: "8080")])
        #expect(body.HostConfig.Mounts.map(\.Target) == ["/data"])
        #expect(body.Labels["devicerpc.user"] == "用户")
        #expect(body.Labels["devicerpc.generation"] == "3")
    }

    @Test func storageQuotaIsAVolumeOption() throws {
        var configuration = self.configuration
        configuration.limitsStorage = true
        let body = try RedroidContainer.body(for: self.request(), configuration: configuration)
        #expect(body.HostConfig.Mounts.first?.VolumeOptions.DriverConfig.Options == ["size": "10240m"])
    }

    @Test func absurdNumbersDoNotTrap() throws {
        let request = self.request { spec in
            spec.memoryMB = .max
            spec.cpuCores = .max
        }
        _ = try RedroidContainer.body(for: request, configuration: self.configuration)
    }

    @Test func proxyBecomesBootArguments() throws {
        let options = [
            "net_proxy_type": "pac", "net_proxy_pac": "http://proxy.example/a.pac?x=1",
            "net_proxy_exclude_list": "*.example,10.0.0.0/8", "fps": "60", "gpu_mode": "guest",
        ]
        let body = try RedroidContainer.body(for: self.request(options: options), configuration: self.configuration)
        #expect(
            body.Cmd.dropFirst(3) == [
                "androidboot.redroid_fps=60", "androidboot.redroid_gpu_mode=guest",
                "androidboot.redroid_net_proxy_type=pac",
                "androidboot.redroid_net_proxy_exclude_list=*.example,10.0.0.0/8",
                "androidboot.redroid_net_proxy_pac=http://proxy.example/a.pac?x=1",
            ])
    }

    @Test func allViolationsAreNamedAtOnce() {
        let fields = self.violations(
            ["image": "x", "fps": "0", "gpu_mode": "x", "net_proxy_port": "0", "net_proxy_type": "static"],
            androidVersion: "10")
        #expect(
            Set(fields) == [
                "spec.android_version", "provider_options.image", "provider_options.fps", "provider_options.gpu_mode",
                "provider_options.net_proxy_port", "provider_options.net_proxy_host",
            ])
        #expect(self.violations(["net_proxy_host": "a", "net_proxy_port": "1"]).isEmpty)
    }

    @Test(arguments: ["a b", "a\u{0}", "a=b", "ä", "", "a\"b", "a\nandroidboot.x=1"])
    func valuesThatCouldBreakOutAreRefused(host: String) {
        #expect(self.violations(["net_proxy_host": host]) == ["provider_options.net_proxy_host"])
    }

    @Test func namesAreInDockersCharset() throws {
        let sagaID = SagaID.random()
        let names = RedroidNames(sagaID: sagaID, generation: 12)
        #expect(names.container == "devicerpc-\(sagaID)-g12")
        #expect(names.volume == "devicerpc-\(sagaID)-g12-data")
        let stored = ProviderDevice(
            externalID: "x", host: "h", generation: 12, attributes: ["container": names.container])
        #expect(RedroidNames(of: stored) == names)
    }
}
