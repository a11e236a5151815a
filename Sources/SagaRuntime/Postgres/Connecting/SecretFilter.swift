import CLibpq
import Glibc

/// Takes out of messages of libpq and the server what of them is a secret of the connection string.
///
/// libpq quotes what it can't read, and a password with a / or an @ that isn't encoded is such a thing.
struct SecretFilter: Sendable {
    /// The longest first, so that no rest of one stays.
    private let secrets: [String]

    /// A secret as short as this can't be taken out without telling by the holes what it is.
    private static let shortest = 3
    private static let withheld = "libpq's message is not shown: it repeats a part of the connection string"

    init(conninfo: String) {
        var secrets: Set<String> = []
        var message: UnsafeMutablePointer<CChar>?
        if let options = PQconninfoParse(conninfo, &message) {
            Self.collect(options, &secrets)
            PQconninfoFree(options)
        }
        PQfreemem(message)
        if let options = PQconndefaults() {
            Self.collect(options, &secrets)
            PQconninfoFree(options)
        }
        Self.collect(raw: conninfo, &secrets)
        secrets.formUnion(secrets.compactMap(Self.decoded))
        secrets.remove("")
        self.secrets = secrets.sorted { ($1.utf8.count, $0) < ($0.utf8.count, $1) }
    }

    func filtered(_ text: String) -> String {
        var text = text
        for secret in self.secrets where text.contains(secret) {
            if secret.utf8.count < Self.shortest { return Self.withheld }
            text = text.replacing(secret, with: "***")
        }
        return text
    }

    func filtered(_ error: PostgresError) -> PostgresError {
        var error = error
        error.message = self.filtered(error.message)
        error.detail = error.detail.map { self.filtered($0) }
        return error
    }

    // MARK: What is secret

    /// Passwords (libpq marks them with `*`), where one is kept, and what `options` assigns.
    private static func collect(_ options: UnsafeMutablePointer<PQconninfoOption>, _ secrets: inout Set<String>) {
        var option = options
        while let keyword = option.pointee.keyword {
            defer { option += 1 }
            guard let pointer = option.pointee.val, pointer.pointee != 0 else { continue }
            let value = String(cString: pointer)
            let isPassword = option.pointee.dispchar.map { $0.pointee == CChar(UInt8(ascii: "*")) } ?? false
            switch String(cString: keyword) {
            case "passfile": secrets.insert(value)
            case "options": Self.collect(options: value, &secrets)
            default: if isPassword { secrets.insert(value) }
            }
        }
    }

    private static func collect(options: String, _ secrets: inout Set<String>) {
        for word in options.split(separator: " ") {
            guard let equals = word.firstIndex(of: "=") else { continue }
            let value = word[word.index(after: equals)...]
            // Numbers and on or off are no secrets, and too common to be missed.
            if value.utf8.count > Self.shortest, value.contains(where: { !$0.isNumber }) {
                secrets.insert(String(value))
            }
        }
    }

    /// What was meant as a password, and what libpq may have taken for something else: the pieces between the marks.
    private static func collect(raw conninfo: String, _ secrets: inout Set<String>) {
        func add(_ password: Substring) {
            secrets.insert(String(password))
            for piece in password.split(whereSeparator: { "@/:?#&=,%[]' \\".contains($0) })
            where piece.utf8.count >= Self.shortest {
                secrets.insert(String(piece))
            }
        }
        if ConnectionString.isURI(conninfo) {
            let rest = conninfo.drop { $0 != "/" }.dropFirst(2)
            if let at = rest.lastIndex(of: "@"), let colon = rest[..<at].firstIndex(of: ":") {
                // An @ of the query (user=name@server) would make a password of the host: only where a / or ? precedes it.
                let credentials = rest[rest.index(after: colon)..<at]
                let isQuery = credentials.contains("?") && rest.firstIndex(of: "@") == at
                if !isQuery { add(credentials) }
            }
            for keyword in ["password", "sslpassword", "passfile"] {
                for part in rest.split(separator: "?").dropFirst().joined(separator: "?").split(separator: "&")
                where part.hasPrefix("\(keyword)=") {
                    add(part.dropFirst(keyword.utf8.count + 1))
                }
            }
        } else {
            // A quote may be missing: from the keyword to the next one that is followed by an equals sign.
            for keyword in ["password", "sslpassword", "passfile"] {
                let words = conninfo.split(separator: " ")
                guard let start = words.firstIndex(where: { $0.hasPrefix("\(keyword)=") }) else { continue }
                add(words[start].dropFirst(keyword.utf8.count + 1))
                for word in words[(start + 1)...].prefix(while: { !$0.contains("=") })
                where word.utf8.count >= Self.shortest {
                    add(word)
                }
            }
        }
    }

    private static func decoded(_ text: String) -> String? {
        guard text.utf8.contains(UInt8(ascii: "%")) else { return nil }
        var bytes: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let byte = rest.popFirst() {
            if byte == UInt8(ascii: "%"), rest.count >= 2,
                let code = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16)
            {
                bytes.append(code)
                rest = rest.dropFirst(2)
            } else {
                bytes.append(byte)
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}
