/// What roles, services and certificates may do, as the configuration says.
///
/// Entries are joined by `;` or line ends, `#` begins a comment that goes to the end of the line:
///
///     role:user = device.create, device.read, device.delete
///     role:admin = device.read, device.delete, saga.read, tenant.admin
///     service:billing-service = device.read
///     san:spiffe://cluster/ns/shop/sa/orders = device.create, device.read
public struct PermissionMap: Sendable, Equatable {
    /// What one role, service or certificate may do.
    public struct Grant: Sendable, Equatable {
        public var permissions: Permissions = []
        /// Only roles have it: sees what belongs to the tenant, and not only what belongs to the user.
        public var administersTenant = false
    }

    /// What is wrong with an entry.
    public struct Problem: Error, Sendable, Equatable, CustomStringConvertible {
        public var entry: String
        public var text: String
        public var description: String { "\(self.entry): \(self.text)" }
    }

    static let tenantAdministrator = "tenant.admin"

    public private(set) var roles: [String: Grant] = [:]
    public private(set) var services: [String: Grant] = [:]
    /// By subject alternative name, of type URI or DNS.
    public private(set) var certificates: [String: Grant] = [:]

    public init() {}

    public init(_ text: String) throws(Problem) {
        for line in text.split(whereSeparator: \.isNewline) {
            let entries = (line.split(separator: "#", maxSplits: 1, omittingEmptySubsequences: false).first ?? "")
            for entry in entries.split(separator: ";") where !entry.allSatisfy(\.isWhitespace) {
                try self.add(entry)
            }
        }
    }

    public var isEmpty: Bool { self.roles.isEmpty && self.services.isEmpty && self.certificates.isEmpty }

    private mutating func add(_ entry: Substring) throws(Problem) {
        // The last one: a URI may have others.
        guard let equals = entry.lastIndex(of: "=") else {
            throw Problem(entry: Self.trimmed(entry), text: "has no =; an entry is role:NAME=PERMISSION,…")
        }
        let subject = Self.trimmed(entry[..<equals])
        guard let colon = subject.firstIndex(of: ":"), subject.index(after: colon) != subject.endIndex else {
            throw Problem(entry: subject, text: "must be role:NAME, service:NAME or san:NAME")
        }
        let (kind, name) = (subject[..<colon], String(subject[subject.index(after: colon)...]))
        var grant = Grant()
        for permission in entry[entry.index(after: equals)...].split(whereSeparator: { $0 == "," || $0.isWhitespace }) {
            if let known = Permissions(name: permission) {
                grant.permissions.formUnion(known)
            } else if kind == "role", permission == Self.tenantAdministrator || permission == "tenant:admin" {
                grant.administersTenant = true
            } else {
                let allowed = Permissions.allNames + (kind == "role" ? [Self.tenantAdministrator] : [])
                throw Problem(
                    entry: subject,
                    text: "\(permission) is no permission (allowed: \(allowed.joined(separator: ", ")))")
            }
        }
        let isNew =
            switch kind {
            case "role": self.roles.updateValue(grant, forKey: name) == nil
            case "service": self.services.updateValue(grant, forKey: name) == nil
            case "san": self.certificates.updateValue(grant, forKey: name) == nil
            default: throw Problem(entry: subject, text: "must be role:NAME, service:NAME or san:NAME")
            }
        if !isNew { throw Problem(entry: subject, text: "is there twice") }
    }

    private static func trimmed(_ text: Substring) -> String {
        var text = text
        while text.first?.isWhitespace == true { text.removeFirst() }
        while text.last?.isWhitespace == true { text.removeLast() }
        return String(text)
    }
}
