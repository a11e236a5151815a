/// Why libpq got no connection, read from its message: it has no function that tells the SQLSTATE of a refusal.
///
/// With PQERRORS_VERBOSE the server's words are `FATAL:  3D000: database "x" does not exist`, and a line LOCATION.
struct ConnectFailure {
    var sqlstate: String?
    var words: String

    init(libpqMessage message: String) {
        var lines = message.split(separator: "\n").map(String.init).filter { !$0.hasPrefix("LOCATION:  ") }
        var sqlstate: String?
        for (index, line) in lines.enumerated() {
            guard let found = Self.sqlstate(in: line) else { continue }
            if sqlstate == nil { sqlstate = found.sqlstate }
            lines[index] = found.rest
        }
        self.sqlstate = sqlstate
        self.words = lines.map { $0.trimmingASCIIWhitespace() }.filter { !$0.isEmpty }.joined(separator: " ")
        if self.words.isEmpty { self.words = "unknown error" }
    }

    /// Finds `:  XXXXX: `, whatever language the word before it is in.
    private static func sqlstate(in line: String) -> (sqlstate: String, rest: String)? {
        let bytes = Array(line.utf8)
        let length = 10
        guard bytes.count >= length else { return nil }
        for start in 0...(bytes.count - length) {
            let window = bytes[start..<(start + length)]
            let code = window.dropFirst(3).prefix(5)
            guard window.starts(with: ":  ".utf8), window.suffix(2).elementsEqual(": ".utf8),
                code.allSatisfy({ (48...57).contains($0) || (65...90).contains($0) })
            else { continue }
            return (
                String(decoding: code, as: UTF8.self),
                String(decoding: bytes[..<(start + 3)] + bytes[(start + length)...], as: UTF8.self)
            )
        }
        return nil
    }

    /// Nobody but an operator can mend it: the string is wrong, or the server doesn't know us.
    var isMisconfiguration: Bool {
        if let sqlstate = self.sqlstate {
            // 28000, 28P01: who we are; 3D000: no such database; 22 and 42: what `options` sets, or the right to connect.
            return ["28", "3D", "22", "42"].contains(sqlstate.prefix(2))
        }
        return Self.localCauses.contains { self.words.contains($0) }
    }

    /// libpq's own words for what it refuses by itself. It translates them only for programs that call setlocale.
    private static let localCauses = [
        "invalid sslmode value", "invalid gssencmode value", "invalid channel_binding value",
        "invalid target_session_attrs value", "invalid integer value", "invalid port number",
        "protocol version value", "could not match", "definition of service", "service file",
        "does not support SSL, but SSL was required", "GSSAPI encryption required",
        "root certificate file", "certificate verify failed", "server certificate for", "could not read certificate",
        "certificate file", "private key file", "could not load private key", "no password supplied",
        "channel binding required", "authentication method", "SCRAM",
    ]
}
