import Foundation
import Synchronization
import Testing

@testable import DeviceProvisioning

/// A private Docker engine with the stand-in phone's images, and an adb server; see `Tests/EndToEnd/dockerd.py`. The
/// script takes everything down when this process ends, however it ends.
final class DockerEngine: Sendable {
    let dockerHost: String
    let adbPort: Int
    private let process: Mutex<Script>

    private struct Script: @unchecked Sendable {  // only ever touched under the lock
        let process: Process
        let input: FileHandle
        let output: FileHandle
    }

    struct StartFailed: Error {}

    /// The one that tests share; they tell their devices apart by their installation.
    static var shared: DockerEngine {
        get async throws { try await Self.starting.value }
    }
    private static let starting = Task { try await DockerEngine.start() }

    static func start() async throws -> DockerEngine {
        try await Self.blocking { try DockerEngine() }
    }

    /// Whether this machine can run one at all.
    static let isPossible: Bool =
        geteuid() == 0 && ["dockerd", "adb", "gcc", "python3"].allSatisfy { DockerEngine.isInPath($0) }

    private init() throws {
        let script = URL(filePath: #filePath).deletingLastPathComponent()
            .appending(path: "../../EndToEnd/dockerd.py").standardized
        let process = Process()
        process.executableURL = URL(filePath: "/usr/bin/env")
        process.arguments = ["python3", script.path, "run", "--adb"]
        let input = Pipe()
        let output = Pipe()
        process.standardInput = input
        process.standardOutput = output
        try process.run()
        let handles = Script(
            process: process, input: input.fileHandleForWriting, output: output.fileHandleForReading)
        self.dockerHost = Self.readLine(handles.output)
        guard self.dockerHost.hasPrefix("unix://"), let port = Int(Self.readLine(handles.output)) else {
            throw StartFailed()
        }
        self.adbPort = port
        self.process = Mutex(handles)
    }

    /// `stop`, `kill` or `start`; returns when it is done.
    func command(_ word: String) async throws {
        try await Self.blocking { try self.send(word) }
    }

    private func send(_ word: String) throws {
        try self.process.withLock { script in
            try script.input.write(contentsOf: Data("\(word)\n".utf8))
            #expect(Self.readLine(script.output) == "ok")
        }
    }

    /// Takes the engine down and waits for its end.
    func close() {
        self.process.withLock { script in
            try? script.input.close()
            script.process.waitUntilExit()
        }
    }

    /// Blocking calls have threads of their own: there are few for tasks, and the code under test needs those.
    private static func blocking<Value: Sendable>(
        _ body: @escaping @Sendable () throws -> Value
    ) async throws -> Value {
        try await withCheckedThrowingContinuation { continuation in
            Thread.detachNewThread { continuation.resume(with: Result(catching: body)) }
        }
    }

    private static func readLine(_ handle: FileHandle) -> String {
        var bytes: [UInt8] = []
        while let byte = try? handle.read(upToCount: 1)?.first, byte != UInt8(ascii: "\n") { bytes.append(byte) }
        return String(decoding: bytes, as: UTF8.self)
    }

    private static func isInPath(_ program: String) -> Bool {
        let path = ProcessInfo.processInfo.environment["PATH"] ?? ""
        return path.split(separator: ":").contains { access("\($0)/\(program)", X_OK) == 0 }
    }
}
