import Foundation
import RPCTransport
import Testing

@testable import devicerpc

@Suite struct ClientConfigurationTests {
    /// A folder of one's own, with these files in it.
    private func withFiles<T>(_ files: [String: String], _ body: (String) async throws -> T) async throws -> T {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("cli-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: folder) }
        for (name, text) in files {
            let path = folder.appendingPathComponent(name)
            try FileManager.default.createDirectory(
                at: path.deletingLastPathComponent(), withIntermediateDirectories: true)
            try text.write(to: path, atomically: true, encoding: .utf8)
        }
        return try await body(folder.path)
    }

    private func load(
        flags: [String: String] = [:], environment: [String: String] = [:], file: String? = nil
    ) async throws -> ClientConfiguration {
        try await ClientConfiguration.load(flags: flags, environment: environment, filePath: file)
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

    @Test func defaultsStandForNothing() async throws {
        let configuration = try await self.load()
        #expect(configuration.server == ListenAddress(host: "127.0.0.1", port: 50051))
        #expect(configuration.token == nil)
        #expect(configuration.tls == nil)
    }

    @Test(arguments: [
        ("c.yaml", "server: phones.example:3\ntoken: from-file\ntls:\n  enabled: true\n  server-name: from-file\n"),
        (
            "c.json",
            #"{"server":"phones.example:3","token":"from-file","tls":{"enabled":true,"server-name":"from-file"}}"#
        ),
    ])
    func flagsOverEnvironmentOverFile(name: String, text: String) async throws {
        try await self.withFiles([name: text]) { folder in
            let file = "\(folder)/\(name)"
            let fromFile = try await self.load(file: file)
            #expect(fromFile.server.description == "phones.example:3")
            #expect(fromFile.token == "from-file")
            #expect(fromFile.tls == RPCClientTLS(serverName: "from-file"))

            let environment = [
                "DEVICERPC_SERVER": "[::1]:4", "DEVICERPC_TOKEN": "from-environment",
                "DEVICERPC_CLIENT_TLS_SERVER_NAME": "from-environment", "DEVICERPC_CLIENT_CONFIG": file,
            ]
            let fromEnvironment = try await self.load(environment: environment)
            #expect(fromEnvironment.server.description == "[::1]:4")
            #expect(fromEnvironment.token == "from-environment")
            #expect(fromEnvironment.tls == RPCClientTLS(serverName: "from-environment"))

            let flags = ["--server": "127.0.0.1:5", "--token": "from-flag", "--tls-server-name": "from-flag"]
            let fromFlags = try await self.load(flags: flags, environment: environment)
            #expect(fromFlags.server.description == "127.0.0.1:5")
            #expect(fromFlags.token == "from-flag")
            #expect(fromFlags.tls == RPCClientTLS(serverName: "from-flag"))
            let cleartext = try await self.load(flags: ["--tls": "false"], environment: environment)
            #expect(cleartext.tls == nil)
        }
    }

    @Test func theFileInTheHomeDirectoryCountsIfNoOtherIsNamed() async throws {
        let files = [".config/devicerpc.yaml": "server: home:1\n", "other.json": #"{"server":"other:2"}"#]
        try await self.withFiles(files) { folder in
            let other = "\(folder)/other.json"
            let home = try await self.load(environment: ["HOME": folder])
            #expect(home.server.host == "home")
            let byVariable = try await self.load(environment: ["HOME": folder, "DEVICERPC_CLIENT_CONFIG": other])
            #expect(byVariable.server.host == "other")
            let byFlag = try await self.load(environment: ["HOME": folder], file: other)
            #expect(byFlag.server.host == "other")
            let elsewhere = try await self.load(environment: ["XDG_CONFIG_HOME": "\(folder)/.config"])
            #expect(elsewhere.server.host == "home")
            let none = try await self.load(environment: ["HOME": "\(folder)/none"])
            #expect(none.server.host == "127.0.0.1")
        }
    }

    @Test func theTokenThatWinsMayBeInAFile() async throws {
        try await self.withFiles(["token": "  from-file\n", "c.yaml": "token: from-configuration\n"]) { folder in
            let tokenFile = "\(folder)/token"
            let fromFlag = try await self.load(flags: ["--token-file": tokenFile])
            #expect(fromFlag.token == "from-file")
            let overToken = try await self.load(
                flags: ["--token-file": tokenFile], environment: ["DEVICERPC_TOKEN": "from-environment"])
            #expect(overToken.token == "from-file")
            let environment = ["DEVICERPC_TOKEN_FILE": tokenFile]
            let overFile = try await self.load(flags: ["--token": "from-flag"], environment: environment)
            #expect(overFile.token == "from-flag")
            let overConfiguration = try await self.load(environment: environment, file: "\(folder)/c.yaml")
            #expect(overConfiguration.token == "from-file")
            let twice = await self.problems(environment: ["DEVICERPC_TOKEN": "x", "DEVICERPC_TOKEN_FILE": tokenFile])
            #expect(twice == ["DEVICERPC_TOKEN_FILE: goes with no token beside it (allowed: one of them)"])
        }
    }

    @Test func wrongValuesNameTheOptionAndWhatIsAllowed() async throws {
        #expect(
            await self.problems(flags: ["--server": "nowhere"]) == [
                "--server: is not host:port: \"nowhere\" (allowed: host:port, an IPv6 host in brackets; the port from "
                    + "1 to 65535)"
            ])
        #expect(
            await self.problems(flags: ["--server": "here:0"]) == [
                "--server: has no port to call (allowed: host:port, an IPv6 host in brackets; the port from 1 to 65535)"
            ])
        #expect(
            await self.problems(environment: ["DEVICERPC_CLIENT_TLS": "perhaps"]).first?
                .hasPrefix("DEVICERPC_CLIENT_TLS: is neither true nor false") == true)
        #expect(
            await self.problems(flags: ["--tls-cert": "/c.pem"])
                == ["--tls-cert: needs tls.key (--tls-key) beside it"])
        #expect(
            await self.problems(flags: ["--tls-ca": "/no/such.pem"]).first?.hasPrefix("--tls-ca: /no/such.pem") == true)
        #expect(
            await self.problems(flags: ["--token-file": "/no/such"])
                == ["--token-file: /no/such can't be read as text (allowed: a token's file)"])
        #expect(
            await self.problems(environment: ["DEVICERPC_CLIENT_TLS_KAY": "x"])
                == ["DEVICERPC_CLIENT_TLS_KAY: no such setting (did you mean DEVICERPC_CLIENT_TLS_KEY?)"])
    }

    @Test func tokensAreNeverPrinted() async throws {
        let secret = "s3cr3t and more"
        let problems = await self.problems(flags: ["--token": secret])
        #expect(problems == ["--token: holds no token (allowed: printable ASCII without spaces)"])
        try await self.withFiles(["token": secret]) { folder in
            let problems = await self.problems(flags: ["--token-file": "\(folder)/token"])
            #expect(problems == ["--token-file: holds no token (allowed: printable ASCII without spaces)"])
        }
    }

    /// One environment may hold the settings of a server and of its clients.
    @Test func settingsOfTheServerAreNoneOfOurs() async throws {
        let environment = ["DEVICERPC_LISTEN": "x", "DEVICERPC_TLS_CERT": "/server.pem", "DEVICERPC_CONFIG": "/x.yaml"]
        #expect(try await self.load(environment: environment).tls == nil)
        for name in ClientSettings.environmentNames {
            #expect(SettingsTable.server.otherEnvironmentNames.contains(name))
        }
    }

    @Test func aTokenInCleartextIsNoticedBeyondThisMachine() async throws {
        let far = ["--token": "x", "--server": "phones:1"]
        #expect(try await self.load(flags: far).sendsTokenInCleartext == true)
        let secured = far.merging(["--tls": "true"]) { $1 }
        #expect(try await self.load(flags: secured).sendsTokenInCleartext == false)
        #expect(try await self.load(flags: ["--token": "x"]).sendsTokenInCleartext == false)
    }
}
