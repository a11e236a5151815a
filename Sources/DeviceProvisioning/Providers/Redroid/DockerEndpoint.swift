/// Where a Docker engine listens.
public struct DockerEndpoint: Sendable, Hashable, CustomStringConvertible {
    enum Address: Sendable, Hashable {
        case unixSocket(path: String)
        case tcp(host: String, port: Int)
    }

    let address: Address

    /// What Docker's own tools use without DOCKER_HOST.
    public static let defaultHost = "unix:///var/run/docker.sock"

    /// Reads DOCKER_HOST: `unix:///path`, `tcp://host:port`, `http://host:port`, or a bare absolute path (as today's
    /// deployments write it).
    public init(dockerHost text: String) throws(ProviderConfigurationError) {
        if text.hasPrefix("/") {
            self.address = .unixSocket(path: text)
        } else if text.hasPrefix("unix:///") {
            self.address = .unixSocket(path: String(text.dropFirst("unix://".count)))
        } else if let scheme = ["tcp://", "http://"].first(where: { text.hasPrefix($0) }),
            let (host, port) = Self.hostAndPort(text.dropFirst(scheme.count))
        {
            self.address = .tcp(host: host, port: port)
        } else {
            throw ProviderConfigurationError(
                key: "DOCKER_HOST",
                problem: "must be unix:///path, tcp://host:port or http://host:port (TLS and ssh are not supported: "
                    + "put a tunnel in front)")
        }
        if case .unixSocket(let path) = self.address, path.utf8.count > 107 || path.utf8.contains(0) {
            throw ProviderConfigurationError(
                key: "DOCKER_HOST", problem: "the socket's path must have at most 107 bytes")
        }
    }

    private static func hostAndPort(_ text: Substring) -> (String, Int)? {
        var rest = text
        if rest.hasSuffix("/") { rest.removeLast() }
        guard let colon = rest.lastIndex(of: ":"), let port = Int(rest[rest.index(after: colon)...]),
            (1...65535).contains(port)
        else { return nil }
        var host = rest[..<colon]
        if host.hasPrefix("["), host.hasSuffix("]") {
            host = host.dropFirst().dropLast()
            guard host.utf8.allSatisfy({ Self.isHexDigit($0) || $0 == UInt8(ascii: ":") || $0 == UInt8(ascii: ".") })
            else { return nil }
        } else {
            guard host.utf8.allSatisfy(Self.isHostName) else { return nil }
        }
        return host.isEmpty ? nil : (String(host), port)
    }

    private static func isHexDigit(_ byte: UInt8) -> Bool {
        (48...57).contains(byte) || (65...70).contains(byte) || (97...102).contains(byte)
    }

    private static func isHostName(_ byte: UInt8) -> Bool {
        (48...57).contains(byte) || (65...90).contains(byte) || (97...122).contains(byte)
            || "-._".utf8.contains(byte)
    }

    /// The engine's host; `nil` for a socket of this machine.
    public var host: String? {
        switch self.address {
        case .unixSocket: nil
        case .tcp(let host, _): host
        }
    }

    /// What request paths are appended to.
    var baseURL: String {
        switch self.address {
        case .unixSocket(let path): "http+unix://" + PercentEncoding.encoded(path)
        case .tcp(let host, let port): host.contains(":") ? "http://[\(host)]:\(port)" : "http://\(host):\(port)"
        }
    }

    public var description: String {
        switch self.address {
        case .unixSocket(let path): "unix://\(path)"
        case .tcp(let host, let port): "tcp://\(host):\(port)"
        }
    }
}

/// RFC 3986, section 2: everything but unreserved characters as `%XX`.
enum PercentEncoding {
    static func encoded(_ text: String) -> String {
        let digits = Array("0123456789ABCDEF".utf8)
        var bytes: [UInt8] = []
        for byte in text.utf8 {
            if (48...57).contains(byte) || (65...90).contains(byte) || (97...122).contains(byte)
                || "-._~".utf8.contains(byte)
            {
                bytes.append(byte)
            } else {
                bytes.append(contentsOf: [UInt8(ascii: "%"), digits[Int(byte >> 4)], digits[Int(byte & 15)]])
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}
