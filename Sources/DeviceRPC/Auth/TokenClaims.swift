import FoundationEssentials

/// What a token says, of which only the names that count are read.
struct TokenClaims: Decodable {
    static let issuer = "cloudphone-platform"
    static let userAudience = "cloudphone-users"
    static let serviceAudience = "internal-services"
    /// By how much clocks may differ, in seconds.
    static let leeway = 5.0

    var issuer: String?
    var audiences: [String]
    var subject: String?
    var expires: Double?
    var notBefore: Double?
    var tenantID: String?
    var roles: [String]
    var isSuperAdmin: Bool
    var permissions: [String]
    var service: String?

    private enum CodingKeys: String, CodingKey {
        case issuer = "iss"
        case audience = "aud"
        case subject = "sub"
        case expires = "exp"
        case notBefore = "nbf"
        case tenantID = "tenantId"
        case roles, isSuperAdmin, permissions, service
    }

    init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        self.issuer = try values.decodeIfPresent(String.self, forKey: .issuer)
        if let one = try? values.decodeIfPresent(String.self, forKey: .audience) {
            self.audiences = [one]
        } else {
            self.audiences = try values.decodeIfPresent([String].self, forKey: .audience) ?? []
        }
        self.subject = try values.decodeIfPresent(String.self, forKey: .subject)
        self.expires = try values.decodeIfPresent(Double.self, forKey: .expires)
        self.notBefore = try values.decodeIfPresent(Double.self, forKey: .notBefore)
        self.tenantID = try values.decodeIfPresent(String.self, forKey: .tenantID)
        self.roles = try values.decodeIfPresent([String].self, forKey: .roles) ?? []
        self.isSuperAdmin = try values.decodeIfPresent(Bool.self, forKey: .isSuperAdmin) ?? false
        self.permissions = try values.decodeIfPresent([String].self, forKey: .permissions) ?? []
        self.service = try values.decodeIfPresent(String.self, forKey: .service)
    }

    /// Who the token says calls.
    ///
    /// - Parameter now: seconds since 1970.
    func caller(_ map: PermissionMap, now: Double) throws(TokenError) -> Caller {
        guard let expires = self.expires else { throw TokenError("the token has no exp") }
        guard now < expires + Self.leeway else { throw .expired }
        if let notBefore = self.notBefore, now < notBefore - Self.leeway { throw .notYet }
        guard self.issuer == Self.issuer else { throw .issuer }
        switch (self.audiences.contains(Self.userAudience), self.audiences.contains(Self.serviceAudience)) {
        case (true, false): return try self.user(map)
        case (false, true): return try self.service(map)
        // For both it would be whatever its sender wants it to be.
        case (false, false), (true, true): throw .audience
        }
    }

    private func user(_ map: PermissionMap) throws(TokenError) -> Caller {
        guard let subject = self.subject, Self.isName(subject) else { throw TokenError("the token has no usable sub") }
        let tenantID = self.tenantID ?? ""
        guard tenantID.isEmpty || Self.isName(tenantID) else { throw TokenError("the token has no usable tenantId") }
        let grants = self.roles.compactMap { map.roles[$0] }
        return Caller(
            .user(subject), tenantID: tenantID,
            permissions: self.isSuperAdmin ? .all : grants.reduce(self.claimed) { $0.union($1.permissions) },
            administersTenant: grants.contains { $0.administersTenant })
    }

    private func service(_ map: PermissionMap) throws(TokenError) -> Caller {
        guard let service = self.service, Self.isName(service) else {
            throw TokenError("the token has no usable claim service")
        }
        return Caller(
            .service(service), permissions: self.claimed.union(map.services[service]?.permissions ?? []))
    }

    /// Names that belong to other services are left out.
    private var claimed: Permissions {
        self.permissions.reduce(into: []) { $0.formUnion(Permissions(name: $1) ?? []) }
    }

    /// What can own things: as long as the contract's `user_id`, and nothing that the database can't hold.
    private static func isName(_ text: String) -> Bool {
        (1...256).contains(text.unicodeScalars.count) && !text.utf8.contains(0)
    }
}
