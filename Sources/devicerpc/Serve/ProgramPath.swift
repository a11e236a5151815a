import FoundationEssentials
import Glibc

/// How this program is called.
enum ProgramPath {
    /// `devicerpc` if that is what a shell would find, else the full path.
    static func toType() -> String {
        var buffer = [CChar](repeating: 0, count: 4096)
        let count = readlink("/proc/self/exe", &buffer, buffer.count)
        guard count > 0 else { return CommandLine.arguments.first ?? "devicerpc" }
        let path = String(decoding: buffer.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        for directory in (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":") {
            guard let found = realpath("\(directory)/devicerpc", nil) else { continue }
            defer { free(found) }
            return String(cString: found) == path ? "devicerpc" : Self.quoted(path)
        }
        return Self.quoted(path)
    }

    private static func quoted(_ path: String) -> String {
        let isPlain = path.utf8.allSatisfy { byte in
            (48...57).contains(byte) || (65...90).contains(byte) || (97...122).contains(byte)
                || "/._-+".utf8.contains(byte)
        }
        return isPlain ? path : "'" + String(path.flatMap { $0 == "'" ? "'\\''" : "\($0)" }) + "'"
    }
}
