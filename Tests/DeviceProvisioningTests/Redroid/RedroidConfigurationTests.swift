import Testing

@testable import DeviceProvisioning

@Suite struct RedroidConfigurationTests {
    private func configuration(_ settings: [String: String]) throws(ProviderConfigurationError) -> RedroidConfiguration
    {
        try RedroidConfiguration(
            installation: "test", adbPorts: 5555...6554, webRTCPorts: 8080...9079, setting: { settings[$0] })
    }

    @Test func defaults() throws {
        let configuration = try self.configuration([:])
        #expect(configuration.engine.description == "unix:///var/run/docker.sock")
        #expect(configuration.bindAddress == "127.0.0.1")
        #expect(configuration.adbServerPort == 5037)
        #expect(configuration.startsADBServer)
        #expect(configuration.bootLimit == .seconds(60))
        #expect(configuration.images.count == 3)
        let version = try #require(AndroidVersion("13.0"))
        #expect(configuration.images[version] == "redroid/redroid:13.0.0-latest")
        #expect(configuration.ports.name == "localhost")
    }

    @Test func everyKeyIsRead() throws {
        let configuration = try self.configuration([
            "DOCKER_HOST": "tcp://10.0.0.5:2375", "REDROID_IMAGE": "11=a/b:c,13.0=d", "REDROID_GPU_MODE": "host",
            "ADB_HOST": "adb.example", "ADB_PORT": "5038", "DEVICERPC_REDROID_BIND_ADDRESS": "0.0.0.0",
            "DEVICERPC_REDROID_ADVERTISED_HOST": "phones.example", "DEVICERPC_REDROID_PORT_HOST": "host-a",
            "DEVICERPC_REDROID_BOOT_TIMEOUT": "90", "DEVICERPC_REDROID_FPS": "60",
            "DEVICERPC_REDROID_BOOT_ARGS": "androidboot.use_memfd=1 ro.secure=0",
            "DEVICERPC_REDROID_STORAGE_QUOTA": "true",
        ])
        #expect(configuration.engine.baseURL == "http://10.0.0.5:2375")
        #expect(configuration.images.mapValues { $0 } == [AndroidVersion("11")!: "a/b:c", AndroidVersion("13")!: "d"])
        #expect(configuration.gpuMode == "host")
        #expect(configuration.adbServerHost == "adb.example")
        #expect(!configuration.startsADBServer)
        #expect(configuration.advertisedHost == "phones.example")
        #expect(configuration.adbTargetHost == "10.0.0.5")
        #expect(configuration.ports.name == "host-a")
        #expect(configuration.bootLimit == .seconds(90))
        #expect(configuration.framesPerSecond == 60)
        #expect(configuration.extraBootArguments == ["androidboot.use_memfd=1", "ro.secure=0"])
        #expect(configuration.limitsStorage)
    }

    @Test(arguments: [
        ("redroid/redroid:13.0.0-latest", "13"), ("registry:5000/redroid:12.0.0_64only-latest", "12"),
        ("redroid:8.1.0-x", "8.1"),
    ])
    func oneImageStandsForTheVersionInItsTag(image: String, version: String) throws {
        let images = try self.configuration(["REDROID_IMAGE": image]).images
        #expect(images == [try #require(AndroidVersion(version)): image])
    }

    @Test(arguments: [
        ("DOCKER_HOST", "ssh://x"), ("DOCKER_HOST", "tcp://x"), ("DOCKER_HOST", "tcp://x:99999"),
        ("DOCKER_HOST", "tcp://a/b:1"), ("DOCKER_HOST", "https://x:2376"), ("DOCKER_HOST", "unix://rel"),
        ("REDROID_IMAGE", "redroid/redroid:latest"), ("REDROID_IMAGE", "redroid"), ("REDROID_IMAGE", "11="),
        ("REDROID_IMAGE", "11=a,11.0=b"), ("REDROID_IMAGE", "x=a"), ("REDROID_IMAGE", "11=a b"),
        ("REDROID_GPU_MODE", "fast"), ("ADB_PORT", "0"), ("ADB_PORT", "x"),
        ("DEVICERPC_REDROID_BOOT_TIMEOUT", "-1"), ("DEVICERPC_REDROID_FPS", "1000"),
        ("DEVICERPC_REDROID_BOOT_ARGS", "nonsense"), ("DEVICERPC_REDROID_STORAGE_QUOTA", "yes"),
        ("DEVICERPC_ADB_AUTOSTART", "1"),
    ])
    func wrongValuesNameTheirKey(key: String, value: String) {
        let error = #expect(throws: ProviderConfigurationError.self) { try self.configuration([key: value]) }
        #expect(error?.key == key)
    }

    @Test func adbServerElsewhereIsNotStartedFromHere() {
        let error = #expect(throws: ProviderConfigurationError.self) {
            try self.configuration(["ADB_HOST": "adb.example", "DEVICERPC_ADB_AUTOSTART": "true"])
        }
        #expect(error?.key == "DEVICERPC_ADB_AUTOSTART")
    }

    @Test func socketPathIsEncodedInTheURL() throws {
        let endpoint = try DockerEndpoint(dockerHost: "unix:///tmp/a b/docker.sock")
        #expect(endpoint.baseURL == "http+unix://%2Ftmp%2Fa%20b%2Fdocker.sock")
        #expect(try DockerEndpoint(dockerHost: "tcp://[::1]:2375").baseURL == "http://[::1]:2375")
    }
}

@Suite struct AndroidVersionTests {
    @Test(arguments: ["13", "13.0"]) func sameVersion(text: String) {
        #expect(AndroidVersion(text) == AndroidVersion("13"))
    }

    @Test(arguments: ["", "x", "13.", ".1", "13.0.0", "-1", "+1", "013", "1 3", "١٣", "0", "13.x"])
    func otherTextIsNone(text: String) {
        #expect(AndroidVersion(text) == nil)
    }

    @Test func minorVersionsDiffer() throws {
        #expect(AndroidVersion("12.1") != AndroidVersion("12"))
        #expect(try #require(AndroidVersion("9")) < #require(AndroidVersion("11")))
    }
}
