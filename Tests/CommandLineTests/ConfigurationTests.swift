import DeviceProvisioning
import Foundation
import Logging
import RPCTransport
import Testing

@testable import devicerpc

@Suite struct ConfigurationTests {
    private func load(
        flags: [String: String] = [:], environment: [String: String] = [:], file: String? = nil, isRoot: Bool = false
    ) async throws -> ServerConfiguration {
        try await ServerConfiguration.load(
            flags: flags, environment: environment, filePath: file, homeDirectory: "/home/me", isRoot: isRoot)
    }

    private func problems(
        flags: [String: String] = [:], environment: [String: String] = [:], file: String? = nil
    ) async -> [String] {
        do {
            _ = try await self.load(flags: flags, environment: environment, file: file)
            return []
        } catch let error as ConfigurationError {
            return error.problems
        } catch {
            return ["\(error)"]
        }
    }

    private func withFile<T>(
        _ name: String, _ text: String, _ body: (String) async throws -> T
    ) async throws -> T {
        let directory = FileManager.default.temporaryDirectory.appendingPathComponent("cli-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: directory) }
        let path = directory.appendingPathComponent(name).path
        try text.write(toFile: path, atomically: true, encoding: .utf8)
        return try await body(path)
    }

    @Test func defaultsStandForNothing() async throws {
        let configuration = try await self.load()
        #expect(configuration.listeners.rpc == ListenAddress(host: "127.0.0.1", port: 50051))
        #expect(configuration.listeners.operators == ListenAddress(host: "127.0.0.1", port: 9464))
        #expect(configuration.database.url == nil)
        #expect(configuration.provisioning.defaultProvider == "simulated")
        #expect(configuration.provisioning.adbPorts == 5555...6554)
        #expect(configuration.provisioning.webRTCPorts == 8080...9079)
        #expect(configuration.userService == nil)
        #expect(configuration.dataDirectory == "/home/me/.local/share/devicerpc")
        #expect(try await self.load(isRoot: true).dataDirectory == "/var/lib/devicerpc")
    }

    @Test(arguments: [
        ("c.yaml", "listen: 127.0.0.1:3\nops:\n  listen: \"127.0.0.1:4\"\nmax-sagas: 77\nlog:\n  level: debug\n"),
        ("c.json", #"{"listen":"127.0.0.1:3","ops":{"listen":"127.0.0.1:4"},"max-sagas":77,"log":{"level":"debug"}}"#),
    ])
    func flagsOverEnvironmentOverFileOverDefaults(name: String, text: String) async throws {
        try await self.withFile(name, text) { path in
            let file = try await self.load(file: path)
            #expect(file.listeners.rpc.port == 3)
            #expect(file.listeners.operators.port == 4)
            #expect(file.engine.maximumSagas == 77)
            #expect(file.log.level == .debug)
            let environment = ["DEVICERPC_LISTEN": "127.0.0.1:2", "DEVICERPC_OPS_LISTEN": "127.0.0.1:5"]
            let both = try await self.load(flags: ["--listen": "127.0.0.1:1"], environment: environment, file: path)
            #expect(both.listeners.rpc.port == 1)
            #expect(both.listeners.operators.port == 5)
            #expect(both.engine.maximumSagas == 77)
        }
    }

    @Test func everyWrongValueIsNamedAtOnce() async {
        let problems = await self.problems(
            flags: ["--max-sagas": "none"],
            environment: [
                "DEVICERPC_LISTEN": "nowhere", "ADB_PORT_START": "70000", "DEVICERPC_LOG_LEVEL": "loud",
                "DEVICERPC_LISTNE": "x", "USER_SERVICE_URL": "ftp://x",
            ])
        #expect(problems.count == 6)
        #expect(
            problems.contains { $0.hasPrefix("--max-sagas: is not a whole number: \"none\" (allowed: 1 to 1000000)") })
        #expect(problems.contains { $0.hasPrefix("DEVICERPC_LISTEN: is not host:port: \"nowhere\" (allowed:") })
        #expect(problems.contains { $0.hasPrefix("ADB_PORT_START: is out of range") })
        #expect(problems.contains { $0.contains("allowed: trace, debug, info, notice, warning, error, critical") })
        #expect(problems.contains("DEVICERPC_LISTNE: no such setting (did you mean DEVICERPC_LISTEN?)"))
    }

    @Test(arguments: [
        ("c.yaml", "lisen: 127.0.0.1:3\n"), ("c.json", #"{"lisen":"127.0.0.1:3"}"#),
    ])
    func unknownKeysInAFileAreErrors(name: String, text: String) async throws {
        try await self.withFile(name, text) { path in
            let problems = await self.problems(file: path)
            #expect(problems == ["lisen in \(path): no such setting (did you mean listen?)"])
        }
    }

    @Test func aFileThatIsMissingOrBrokenStopsTheStart() async throws {
        #expect(await self.problems(file: "/nowhere/at/all.yaml").count == 1)
        #expect(await self.problems(file: "/etc/hostname").first?.contains("neither .json nor") == true)
        try await self.withFile("c.json", "{") { path in
            #expect(await self.problems(file: path).count == 1)
        }
    }

    @Test func secretsAreNotPrinted() async {
        let problems = await self.problems(environment: ["USER_SERVICE_URL": "http://u", "JWT_SECRET": "tooshort-hush"])
        #expect(problems.count == 1)
        #expect(problems.first?.hasPrefix("JWT_SECRET: has fewer than 32 bytes") == true)
        #expect(!problems.joined().contains("hush"))
    }

    @Test func theUserServiceNeedsASecret() async {
        let problems = await self.problems(environment: ["USER_SERVICE_URL": "http://u"])
        #expect(problems == ["JWT_SECRET: missing (at least 32 bytes; required with USER_SERVICE_URL)"])
    }

    @Test func aDatabaseOfOnesOwnNeedsARealProvider() async throws {
        let environment = ["DATABASE_URL": "postgresql:///x"]
        #expect(await self.problems(environment: environment).first?.hasPrefix("DEVICERPC_PROVIDER: required") == true)
        let simulated = environment.merging(["DEVICERPC_SIMULATED": "true"]) { $1 }
        #expect(try await self.load(environment: simulated).provisioning.defaultProvider == "simulated")
        let redroid = environment.merging(["DEVICERPC_PROVIDER": "redroid"]) { $1 }
        let configuration = try await self.load(environment: redroid)
        #expect(configuration.provisioning.defaultProvider == "redroid")
        #expect(!configuration.provisioning.isSimulatedEnabled)
    }

    @Test func listeningBeyondThisMachineNeedsAWord() async throws {
        let flags = ["--listen": "0.0.0.0:50051"]
        #expect(await self.problems(flags: flags).first?.contains("--insecure-listen") == true)
        _ = try await self.load(flags: flags.merging(["--insecure-listen": "true"]) { $1 })
    }

    @Test func theFilesOfTLSGoTogether() async throws {
        let tls = ["DEVICERPC_TLS_CERT": "/c", "DEVICERPC_TLS_KEY": "/k", "DEVICERPC_TLS_CLIENT_CA": "/ca"]
        let configuration = try await self.load(environment: tls)
        #expect(configuration.listeners.tls?.certificateFile == "/c")
        #expect(configuration.listeners.tls?.keyFile == "/k")
        #expect(configuration.listeners.tls?.clientAuthorityFile == "/ca")
        #expect(configuration.listeners.tls?.clientCertificate == .required)
        #expect(
            await self.problems(environment: ["DEVICERPC_TLS_CERT": "/c"])
                == ["DEVICERPC_TLS_KEY: missing (a path; required with DEVICERPC_TLS_CERT)"])
        let orphans = await self.problems(environment: tls.filter { $0.key != "DEVICERPC_TLS_CERT" })
        #expect(orphans.map { $0.prefix { $0 != ":" } } == ["DEVICERPC_TLS_KEY", "DEVICERPC_TLS_CLIENT_CA"])
    }

    @Test func listeningBeyondThisMachineNeedsTLSAndKnownCallers() async throws {
        let encrypted = [
            "DEVICERPC_LISTEN": "0.0.0.0:1", "DEVICERPC_TLS_CERT": "/c", "DEVICERPC_TLS_KEY": "/k",
        ]
        #expect(await self.problems(environment: encrypted).first?.contains("--insecure-listen") == true)
        let mutual = encrypted.merging(["DEVICERPC_TLS_CLIENT_CA": "/ca"]) { $1 }
        _ = try await self.load(environment: mutual)
        let open = mutual.merging(["DEVICERPC_TLS_CLIENT_CERT": "optional"]) { $1 }
        #expect(await self.problems(environment: open).first?.contains("--insecure-listen") == true)
    }

    @Test func portRangesAreCheckedTogether() async {
        let backwards = await self.problems(environment: ["ADB_PORT_START": "6000", "ADB_PORT_END": "5999"])
        #expect(backwards.first?.hasPrefix("ADB_PORT_END: 5999 lies before ADB_PORT_START 6000") == true)
        let uneven = await self.problems(environment: ["ADB_PORT_END": "5600"])
        #expect(uneven.first?.hasPrefix("WEBRTC_PORT_END: 1000 WebRTC ports for 46 adb ports") == true)
    }

    @Test func flagsTakeValuesEitherWay() throws {
        let flags = try CommandLineFlags.parse([
            "--listen", "a:1", "--ops-listen=b:2", "--insecure-listen", "--max-sagas", "3",
        ])
        #expect(
            flags == ["--listen": "a:1", "--ops-listen": "b:2", "--insecure-listen": "true", "--max-sagas": "3"])
        #expect(throws: ConfigurationError.self) { try CommandLineFlags.parse(["--listn", "a:1"]) }
        #expect(throws: ConfigurationError.self) { try CommandLineFlags.parse(["--jwt-secret", "x"]) }
        #expect(throws: ConfigurationError.self) { try CommandLineFlags.parse(["--listen"]) }
        #expect(throws: ConfigurationError.self) { try CommandLineFlags.parse(["stray"]) }
    }

    @Test(arguments: [
        ("127.0.0.1:1", "127.0.0.1", 1), ("[::1]:65535", "::1", 65535), ("localhost:0", "localhost", 0),
    ])
    func addressesAreRead(text: String, host: String, port: Int) {
        #expect(ListenAddress(text) == ListenAddress(host: host, port: port))
        #expect(ListenAddress(text)?.description == text)
        #expect(ListenAddress(text)?.isLoopback == true)
    }

    @Test(arguments: ["127.example:1", "127.0.0.1.example:1", "127.:1", "0.0.0.0:1", "[::]:1", "localhost.example:1"])
    func namesThatLookLikeLoopbackAreNot(text: String) { #expect(ListenAddress(text)?.isLoopback == false) }

    @Test(arguments: ["", ":1", "host", "host:", "host:65536", "::1:5", "host:-1", "a b:1"])
    func wrongAddressesAreNot(text: String) { #expect(ListenAddress(text) == nil) }

    @Test(arguments: [
        ("250ms", Duration.milliseconds(250)), ("1.5s", .milliseconds(1500)), ("10m", .seconds(600)),
        ("24h", .seconds(86400)), ("30d", .seconds(30 * 86400)), ("0s", .zero), ("0", .zero),
    ])
    func durationsAreRead(text: String, duration: Duration) { #expect(DurationText.parse(text) == duration) }

    @Test(arguments: ["", "5", "s", "-1s", "1w", "1.2.3s", "1e3s"])
    func wrongDurationsAreNot(text: String) { #expect(DurationText.parse(text) == nil) }

    @Test func theTableNamesEachSettingOnce() {
        #expect(SettingsTable.server.byFlag.count == Settings.all.filter(\.hasFlag).count)
        #expect(SettingsTable.server.byEnvironmentName.count == Settings.all.count)
        #expect(Settings.all.filter { $0.isSecret && $0.hasFlag }.map(\.environmentName) == ["DATABASE_URL"])
    }

    @Test func theReferenceHoldsEverySetting() {
        let (markdown, help) = (ConfigurationReference.markdown(), ConfigurationReference.help())
        for setting in Settings.all {
            #expect(markdown.contains("`\(setting.environmentName)`"))
            #expect(help.contains(setting.environmentName))
        }
    }

    @Test func theDocumentIsTheReference() throws {
        let repository = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let document = try String(contentsOf: repository.appending(path: "docs/configuration.md"), encoding: .utf8)
        #expect(
            document == ConfigurationReference.markdown(),
            "run: devicerpc configuration-reference > docs/configuration.md")
    }

    @Test func theTableHasEverySettingOfTheRedroidProvider() {
        #expect(
            Settings.redroid.map(\.description.environmentName).sorted() == RedroidConfiguration.keys.sorted())
    }

    @Test func migratingNeedsNothingButTheDatabase() async throws {
        let configuration = try await ServerConfiguration.load(
            flags: [:], environment: ["DATABASE_URL": "postgresql:///x"], filePath: nil, homeDirectory: "/",
            isRoot: false,
            for: .migrating)
        #expect(configuration.database.url == "postgresql:///x")
        #expect(configuration.lockDirectory == nil)
    }
}
