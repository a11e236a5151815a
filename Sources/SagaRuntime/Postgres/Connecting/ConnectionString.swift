import CLibpq
import Glibc

/// A connection string, taken apart by libpq, together with what the environment (`PGHOST`, `PGSSLMODE`, …) adds to it.
struct ConnectionString: Sendable {
    /// One server that the string names. Without any value: libpq's default, the socket of this machine.
    struct Host: Sendable, Equatable {
        /// A name, an address or the directory of a socket.
        var name: String?
        /// The address that the name stands for.
        var address: String?
        var port: String?

        /// Whether somebody has to look the name up.
        var needsLookUp: Bool {
            guard self.address == nil, let name = self.name, let first = name.utf8.first else { return false }
            // A directory, or a socket's abstract name.
            if first == UInt8(ascii: "/") || first == UInt8(ascii: "@") { return false }
            var scratch = in6_addr()
            return inet_pton(AF_INET, name, &scratch) != 1 && inet_pton(AF_INET6, name, &scratch) != 1
        }
    }

    struct Problem: Error {
        var text: String
    }

    /// In the order in which they are to be tried; at least one.
    let hosts: [Host]
    /// Everything that the string says but for the hosts, decoded.
    let options: [(keyword: String, value: String)]

    /// - Throws: what is wrong, in words that repeat nothing of the string.
    init(_ text: String) throws(Problem) {
        let isURI = Self.isURI(text)
        guard isURI || text.utf8.contains(UInt8(ascii: "=")) else {
            throw Problem(
                text: "must be a URI (postgresql://user@host/database) or a conninfo string (host=… dbname=…)")
        }
        if text.utf8.contains(0) { throw Problem(text: "must not contain NUL") }
        guard let given = Self.parse(text) else {
            throw Problem(text: "is not a valid \(isURI ? "URI" : "conninfo string") for PostgreSQL")
        }
        if isURI, Self.hasStrayAt(text) {
            throw Problem(
                text: "has an @ where libpq expects none: in a user's name or a password, @ is written %40, / is %2F, "
                    + ": is %3A and % is %25")
        }
        let environment = Self.environment()
        try Self.check(given, environment)
        func value(_ keyword: String) -> String? {
            // What a service file says comes before the environment, and only libpq reads that file.
            given[keyword] ?? (given["service"] == nil ? environment[keyword]?.value : nil)
        }
        self.hosts = try Self.hosts(names: value("host"), addresses: value("hostaddr"), ports: value("port"))
        self.options = given.filter { !["host", "hostaddr", "port"].contains($0.key) }
            .map { (keyword: $0.key, value: $0.value) }
    }

    /// - Throws: `connectFailed`, a misconfiguration.
    static func of(_ configuration: PostgresConfiguration) throws(PostgresError) -> ConnectionString {
        do throws(Problem) {
            return try ConnectionString(configuration.conninfo)
        } catch {
            var failure = PostgresError(.connectFailed, "the connection string \(error.text)")
            failure.isMisconfiguration = true
            throw failure
        }
    }

    static func isURI(_ text: String) -> Bool { text.hasPrefix("postgresql://") || text.hasPrefix("postgres://") }

    // MARK: Parts

    /// The keywords that have a value; nil if libpq can't read the string. Its message quotes the string, and is dropped.
    private static func parse(_ text: String) -> [String: String]? {
        var message: UnsafeMutablePointer<CChar>?
        // NULL on failure; then `message` is set and freed by us with PQfreemem.
        guard let options = PQconninfoParse(text, &message) else {
            PQfreemem(message)
            return nil
        }
        defer { PQconninfoFree(options) }
        return Self.values(options).mapValues(\.value)
    }

    /// What the environment says, with the variables' names.
    private static func environment() -> [String: (value: String, variable: String)] {
        // NULL only without memory.
        guard let options = PQconndefaults() else { return [:] }
        defer { PQconninfoFree(options) }
        return Self.values(options, isChanged: true)
    }

    /// - Parameter isChanged: only what differs from libpq's own default.
    private static func values(
        _ options: UnsafeMutablePointer<PQconninfoOption>, isChanged: Bool = false
    ) -> [String: (value: String, variable: String)] {
        var result: [String: (value: String, variable: String)] = [:]
        var option = options
        while let keyword = option.pointee.keyword {
            // An empty value is none to libpq.
            let isDefault = option.pointee.val.map { value in
                option.pointee.compiled.map { strcmp($0, value) == 0 } ?? false
            }
            if let value = option.pointee.val, value.pointee != 0, !(isChanged && isDefault == true) {
                let variable = option.pointee.envvar.map { String(cString: $0) } ?? ""
                result[String(cString: keyword)] = (String(cString: value), variable)
            }
            option += 1
        }
        return result
    }

    /// libpq splits a URI at its first @ that no / precedes. One more before the query is a password's, and what libpq
    /// takes for host, port or database then is a part of the password.
    private static func hasStrayAt(_ text: String) -> Bool {
        let authority = text.drop { $0 != "/" }.dropFirst(2).prefix { $0 != "?" }
        let ats = authority.indices.filter { authority[$0] == "@" }
        guard let first = ats.first else { return false }
        return ats.count > 1 || authority[..<first].contains("/")
    }

    // MARK: Checks

    /// Values that are known to libpq; of `target_session_attrs` those that lead to a server that can be written to.
    private static let allowed: [(keyword: String, values: [String])] = [
        ("sslmode", ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]),
        ("gssencmode", ["disable", "prefer", "require"]),
        ("channel_binding", ["disable", "prefer", "require"]),
        ("target_session_attrs", ["any", "read-write", "primary"]),
    ]
    private static let integers = [
        "connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count",
        "tcp_user_timeout",
    ]

    private static func check(
        _ given: [String: String], _ environment: [String: (value: String, variable: String)]
    ) throws(Problem) {
        for (keyword, values) in Self.allowed {
            if let value = given[keyword] {
                guard values.contains(value) else {
                    throw Problem(text: "\(keyword) must be one of \(values.joined(separator: ", "))")
                }
            } else if let (value, variable) = environment[keyword], !values.contains(value) {
                throw Problem(
                    text: "\(keyword), which \(variable) in the environment sets, must be one of "
                        + values.joined(separator: ", "))
            }
        }
        for keyword in Self.integers {
            if let value = given[keyword], Int(value) == nil {
                throw Problem(text: "\(keyword) must be a whole number")
            }
        }
    }

    private static func hosts(names: String?, addresses: String?, ports: String?) throws(Problem) -> [Host] {
        func list(_ text: String?) -> [String?] {
            guard let text else { return [] }
            return text.split(separator: ",", omittingEmptySubsequences: false).map { $0.isEmpty ? nil : String($0) }
        }
        let (names, addresses, ports) = (list(names), list(addresses), list(ports))
        let count = max(names.count, addresses.count, 1)
        guard names.isEmpty || addresses.isEmpty || names.count == addresses.count else {
            throw Problem(text: "names \(names.count) hosts and \(addresses.count) addresses (hostaddr) of theirs")
        }
        guard ports.count <= 1 || ports.count == count else {
            throw Problem(text: "names \(count) hosts and \(ports.count) ports; one port is for all")
        }
        for case let port? in ports {
            guard let number = Int(port), (1...65535).contains(number) else {
                throw Problem(
                    text: "has a port that is no number from 1 to 65535 (in a password, / is written %2F, : is %3A)")
            }
        }
        return (0..<count).map { index in
            Host(
                name: names.isEmpty ? nil : names[index], address: addresses.isEmpty ? nil : addresses[index],
                port: ports.count == 1 ? ports[0] : ports.isEmpty ? nil : ports[index])
        }
    }

    // MARK: Time

    /// The string's own `connect_timeout`, as libpq understands it: whole seconds, at least two; 0 and less is none.
    var connectTimeout: Duration? {
        guard let text = self.options.last(where: { $0.keyword == "connect_timeout" })?.value, let seconds = Int(text),
            seconds > 0
        else { return nil }
        return .seconds(max(2, min(seconds, 3600)))
    }
}
